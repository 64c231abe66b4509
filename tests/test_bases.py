"""Base images: whose mirror is asked, what a finished tree holds, and that the same packages give the same bytes."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from matrix import bases
from matrix.bases import Mirror
from matrix.errors import HostError, UsageError

PUBLIC = Mirror("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
DATE = 1_700_000_000
DEB822 = """\
# the machine's own mirror
Types: deb deb-src
URIs: https://debian.example/debian/
Suites: bookworm bookworm-updates
# a comment between two fields
Components: main
  contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://debian.example/debian-security
Suites: bookworm-security
Components: main
"""
ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://debian.example/debian bookworm main contrib # ours
deb http://debian.example/debian-security/ bookworm-security main
"""


def test_both_styles_of_apt_name_the_mirror() -> None:
    """A trailing slash, options, comments, folded fields and source entries change nothing."""
    deb822 = bases.own_mirror({"debian.sources": DEB822})
    assert deb822 == Mirror("https://debian.example/debian", "https://debian.example/debian-security")
    one_line = bases.own_mirror({"sources.list": ONE_LINE})
    assert one_line == Mirror("http://debian.example/debian", "http://debian.example/debian-security")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sources.list", "deb http://archive.ubuntu.example/ubuntu noble main\n"),
        ("docker.list", "deb http://docker.example/linux/debian bookworm stable\n"),
        ("vendor.list", "deb http://vendor.example/debian/12/prod bookworm main\n"),
        ("cdrom.list", "deb cdrom:[Debian 12]/debian bookworm main\n"),
        (
            "off.sources",
            "Types: deb\nURIs: http://off.example/debian\nSuites: bookworm\nComponents: main\nEnabled: no\n",
        ),
        ("source.sources", "Types: deb-src\nURIs: http://s.example/debian\nSuites: bookworm\nComponents: main\n"),
    ],
)
def test_other_repositories_are_no_mirror(name: str, text: str) -> None:
    """Another vendor's repository, a disc, and an entry that is off or has only sources leave Debian's public mirror."""
    assert bases.own_mirror({name: text}) == PUBLIC
    assert bases.own_mirror({}) == PUBLIC


def test_a_mirror_without_security_updates_takes_them_from_debian() -> None:
    """An old base would be worse than a second address."""
    found = bases.own_mirror({"sources.list": "deb http://lan.example/debian bookworm main\n"})
    assert found == Mirror("http://lan.example/debian", PUBLIC.security)


def test_sources_ask_for_bookworm_with_its_updates() -> None:
    """Three lines, the third of the security mirror."""
    assert bases.given_mirror("http://m.example/x/").sources() == (
        "deb http://m.example/x/debian bookworm main\n"
        "deb http://m.example/x/debian bookworm-updates main\n"
        "deb http://m.example/x/debian-security bookworm-security main\n"
    )


def test_a_mirror_that_is_no_url_is_refused() -> None:
    """The remedy shows what one looks like."""
    with pytest.raises(UsageError) as caught:
        bases.given_mirror("m.example/debian")
    assert str(caught.value) == (
        "'m.example/debian' is no URL of a Debian mirror; "
        "give one that holds debian and debian-security: http://deb.debian.org"
    )


def test_a_missing_tool_is_refused_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is downloaded."""
    monkeypatch.setattr(shutil, "which", lambda tool, **_: None if tool == "mmdebstrap" else f"/usr/bin/{tool}")
    with pytest.raises(HostError) as caught:
        bases.require_tools()
    assert str(caught.value) == (
        "making a base image needs mmdebstrap, which is not here; "
        "apt-get install mmdebstrap, on Debian or a descendant; elsewhere pull python:3.11-slim-bookworm"
    )


def test_a_user_who_is_not_root_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files would belong to that user, inside the image too."""
    monkeypatch.setattr(shutil, "which", lambda tool, **_: f"/usr/bin/{tool}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(HostError, match=r"needs root's rights: .*; run this command as root"):
        bases.require_tools()


def test_a_tool_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What mmdebstrap said last is the only trace of a mirror that does not answer."""
    said = "\n".join(f"line {number}" for number in range(9)) + "\nE: mmdebstrap failed to run\n"
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], 25, "", said))
    with pytest.raises(HostError) as caught:
        bases._run("mmdebstrap")
    assert str(caught.value) == (
        "mmdebstrap failed; see what it said, and whether the mirror answers:\n"
        "line 5\nline 6\nline 7\nline 8\nE: mmdebstrap failed to run"
    )


def test_the_date_is_the_newest_packages(tmp_path: Path) -> None:
    """Debian stamps it into the archive's first member; this machine's clock and the files' own times have no say."""
    for number, date in enumerate((DATE, DATE + 60, DATE - 60)):
        header = f"!<arch>\n{'debian-binary':<16}{date:<12}{0:<6}{0:<6}{100644:<8}{4:<10}`\n2.0\n"
        (tmp_path / f"{number}.deb").write_bytes(header.encode())
    assert bases.newest(tmp_path.iterdir()) == DATE + 60


def test_a_package_is_listed_as_installed() -> None:
    """Name first, as dpkg writes it, and an empty line after."""
    assert bases.installed("Package: sed\nVersion: 4.9-1\n") == (
        "Package: sed\nStatus: install ok installed\nVersion: 4.9-1\n\n"
    )


def _write(root: Path, name: str, text: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What mmdebstrap leaves: packages' files, its own, and this machine's."""
    root = tmp_path / "root"
    texts = {
        "etc/apt/sources.list": "deb http://secret.example/debian bookworm main\n",
        "etc/resolv.conf": "nameserver 192.0.2.1\n",
        "etc/debian_version": "12\n",
        "tmp/left": "",
        "usr/bin/dash": "",
        "usr/bin/mawk": "",
        "usr/lib/python3.11/EXTERNALLY-MANAGED": "",
        "usr/lib/python3.11/os.py": "",
        "usr/share/base-passwd/group.master": "root:*:0:\n",
        "usr/share/base-passwd/passwd.master": "root:*:0:0:root:/root:/bin/bash\n",
        "usr/share/ca-certificates/mozilla/B.crt": "-B-\n",
        "usr/share/ca-certificates/mozilla/A.crt": "-A-\n",
        "usr/share/doc/sed/changelog.gz": "",
        "usr/share/doc/sed/copyright": "GPL\n",
        "usr/share/doc/sed/examples/copyright": "an example's\n",
        "usr/share/libc-bin/nsswitch.conf": "passwd: files\n",
        "usr/share/man/man1/sed.1.gz": "",
        "var/cache/apt/archives/sed.deb": "",
        "var/lib/apt/lists/secret.example_InRelease": "",
        "var/lib/dpkg/lock": "",
        "var/lib/dpkg/status": "Package: mmdebstrap's own\n",
    }
    for name, text in texts.items():
        _write(root, name, text)
    for folder in ("etc/ssl/certs", "var/lib/dpkg/info", "var/lock", "var/run"):
        (root / folder).mkdir(parents=True)
    (root / "usr/bin/sh").symlink_to("dash")
    (root / "usr/share/doc/libsed").symlink_to("sed")
    bases.finish(root, "Package: sed\nStatus: install ok installed\n\n")
    return root


def test_a_finished_tree_has_accounts_certificates_and_links(tree: Path) -> None:
    """What the maintainer scripts of base-passwd, base-files, ca-certificates and mawk would have done."""
    assert (tree / "etc/passwd").read_text() == "root:*:0:0:root:/root:/bin/bash\n"
    assert (tree / "etc/group").read_text() == "root:*:0:\n"
    assert (tree / "etc/nsswitch.conf").read_text() == "passwd: files\n"
    assert (tree / "etc/ssl/certs/ca-certificates.crt").read_text() == "-A-\n-B-\n"
    links = ("usr/bin/sh", "usr/bin/awk", "usr/bin/python", "var/run", "var/lock")
    assert [str((tree / link).readlink()) for link in links] == ["dash", "mawk", "python3", "/run", "/run/lock"]
    modes = {name: stat.S_IMODE((tree / name).stat().st_mode) for name in ("tmp", "var/tmp", "opt", "etc/passwd")}
    assert modes == {"tmp": 0o1777, "var/tmp": 0o1777, "opt": 0o755, "etc/passwd": 0o644}


def test_a_finished_tree_tells_nothing_of_this_machine(tree: Path) -> None:
    """Neither the mirror nor the name server is in it; licences, the list of packages and dpkg's folders are."""
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file() and not path.is_symlink()}
    assert files == {
        "etc/debian_version",
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/dash",
        "usr/bin/mawk",
        "usr/lib/python3.11/os.py",
        "usr/share/base-passwd/group.master",
        "usr/share/base-passwd/passwd.master",
        "usr/share/ca-certificates/mozilla/A.crt",
        "usr/share/ca-certificates/mozilla/B.crt",
        "usr/share/doc/sed/copyright",
        "usr/share/doc/sed/examples/copyright",
        "usr/share/libc-bin/nsswitch.conf",
        "var/lib/dpkg/status",
    }
    assert (tree / "var/lib/dpkg/status").read_text() == "Package: sed\nStatus: install ok installed\n\n"
    assert (tree / "var/lib/dpkg/info").is_dir()


def test_the_same_tree_gives_the_same_layer(tree: Path, tmp_path: Path) -> None:
    """Whenever its files were written; names are sorted and carry no user's name."""
    bases.pack(tree, tmp_path / "one.tar", DATE)
    for path in tree.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    bases.pack(tree, tmp_path / "two.tar", DATE)
    assert bases.sha256(tmp_path / "one.tar") == bases.sha256(tmp_path / "two.tar")
    with tarfile.open(tmp_path / "one.tar") as layer:
        entries = layer.getmembers()
    names = [entry.name.split("/") for entry in entries]
    assert names == sorted(names)
    assert {(entry.mtime, entry.uname, entry.gname) for entry in entries} == {(DATE, "", "")}


def test_an_image_says_its_platform_and_its_date(tmp_path: Path) -> None:
    """The archive for `docker load` holds one layer, named by its digest in a configuration without this run's date."""
    (tmp_path / "layer.tar").write_bytes(b"layer")
    config = bases.configuration("arm64", bases.sha256(tmp_path / "layer.tar"), DATE)
    image = bases.wrap(tmp_path / "image.tar", tmp_path / "layer.tar", config, bases.TAGS["arm64"])
    with tarfile.open(image) as archive:
        files = {entry.name: (archive.extractfile(entry) or io.BytesIO()).read() for entry in archive.getmembers()}
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["RepoTags"] == ["distill-matrix/base:arm64"]
    assert [files[name] for name in manifest["Layers"]] == [b"layer"]
    said = json.loads(files[manifest["Config"]])
    assert (said["os"], said["architecture"], said["created"]) == ("linux", "arm64", "2023-11-14T22:13:20Z")
    assert said["rootfs"]["diff_ids"] == [f"sha256:{bases.sha256(tmp_path / 'layer.tar')}"]
    assert said["config"] == {
        "Env": ["PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
        "Cmd": ["python3"],
        "Labels": {
            "org.opencontainers.image.created": "2023-11-14T22:13:20Z",
            "org.opencontainers.image.title": "local stand-in for python:3.11-slim-bookworm",
        },
    }
