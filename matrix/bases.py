"""Makes a local stand-in for python:3.11-slim-bookworm where no registry can be reached: from a Debian mirror, in seconds.

Packages are extracted and never configured, so no program of the other architecture runs and arm64 needs no emulator; what
Debian's maintainer scripts would have done is done here. On machines of one architecture the same package versions give the
same layer and the same image, byte for byte. It refuses to be more than a base for Python: it has no apt and no perl, its
Python is Debian's own in /usr (pip and venv work), and, as in the image that it stands for, the standard library has no
byte code.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from matrix import engine
from matrix.errors import HostError, UsageError

Architecture = Literal["amd64", "arm64"]
Say = Callable[[str], None]

TAGS: Final[Mapping[Architecture, str]] = {
    "amd64": "distill-matrix/base:amd64",
    "arm64": "distill-matrix/base:arm64",
}
"""Where `make` puts its images by default: one tag for each, for an engine without the containerd store cannot join them."""

TITLE: Final = "local stand-in for python:3.11-slim-bookworm"
FALLBACK: Final = "http://deb.debian.org"
PACKAGES: Final = (
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "findutils",
    "grep",
    "libc-bin",
    "libstdc++6",  # wheels with C++ in them (torch, onnxruntime) bring their own OpenMP, but not this
    "python3",
    "python3-pip",
    "python3-venv",
    "sed",
)

_MACHINES: Final[Mapping[str, Architecture]] = {"x86_64": "amd64", "aarch64": "arm64"}
_MERGED: Final[Mapping[Architecture, str]] = {"amd64": "bin sbin lib lib64", "arm64": "bin sbin lib"}
_ENVIRONMENT: Final = ("PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8")
_LOCAL: Final = (
    "etc/apt",  # names the mirror
    "etc/fstab",
    "etc/hostname",
    "etc/resolv.conf",
    "var/lib/apt",
    "dev/*",
    "run/*",
    "tmp/*",
    "var/cache/*",
    "var/log/*",
)
"""What mmdebstrap, apt and this machine left: none of it may be recorded in the image."""

_UNUSED: Final = (
    "usr/lib/python3.11/EXTERNALLY-MANAGED",  # the image has one user of Python: pip may install beside Debian's packages
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/menu",
    "usr/share/perl5",
    "usr/share/pixmaps",
    "usr/share/polkit-1",
)
_FOLDERS: Final[Mapping[str, int]] = {
    "home": 0o755,
    "media": 0o755,
    "mnt": 0o755,
    "opt": 0o755,
    "run": 0o755,
    "run/lock": 0o1777,
    "srv": 0o755,
    "tmp": 0o1777,
    "usr/local": 0o755,
    "usr/local/bin": 0o755,
    "usr/local/lib": 0o755,
    "usr/local/sbin": 0o755,
    "var/tmp": 0o1777,
}
_LINKS: Final[Mapping[str, str]] = {
    "usr/bin/awk": "mawk",
    "usr/bin/python": "python3",
    "usr/bin/sh": "dash",
    "usr/bin/which": "which.debianutils",
    "var/lock": "/run/lock",
    "var/run": "/run",
}
_COPIES: Final[Mapping[str, str]] = {
    "etc/group": "usr/share/base-passwd/group.master",
    "etc/nsswitch.conf": "usr/share/libc-bin/nsswitch.conf",
    "etc/passwd": "usr/share/base-passwd/passwd.master",
}
_STATUS: Final = "var/lib/dpkg/status"
_AR_DATE: Final = slice(24, 36)  # of the first member, after the archive's 8 bytes and the member's 16 of name
_COMMENTS: Final = re.compile(r"^#.*\n?", re.MULTILINE)
_FIELD: Final = re.compile(r"^([\w-]+):[ \t]*(.*(?:\n[ \t].*)*)", re.MULTILINE)
_LINE: Final = re.compile(r"^deb\s+(?:\[[^]]*]\s+)?(\S+)\s+\S+[ \t]+(.+)$", re.MULTILINE)


class Mirror(NamedTuple):
    """Where Debian's packages and their security updates come from, two URLs."""

    archive: str = f"{FALLBACK}/debian"
    security: str = f"{FALLBACK}/debian-security"

    def sources(self) -> str:
        """Bookworm, its updates and its security updates, as apt reads them."""
        lines = (f"{self.archive} bookworm", f"{self.archive} bookworm-updates", f"{self.security} bookworm-security")
        return "".join(f"deb {line} main\n" for line in lines)


def make(architecture: Architecture, tag: str, *, mirror: str | None, say: Say) -> str:
    """Make the base image of `architecture` and give it to the engine as `tag`.

    Args:
        architecture: of the programs in the image, whatever this machine's own is.
        tag: its name in the engine; an older image of that name loses it.
        mirror: the URL that holds `debian` and `debian-security`; None takes those of this machine's apt sources.
        say: is told each step that ends, with its seconds.

    Returns:
        The image's id, which is the digest of its configuration.

    Raises:
        UsageError: `mirror` is no URL.
        HostError: mmdebstrap or root's rights are missing, the mirror does not serve bookworm, or no engine answers.
    """
    where = given_mirror(mirror) if mirror else own_mirror(_read_sources())
    require_tools()
    client, start = engine.connect(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distill-matrix-base-") as scratch:
        root, layer = Path(scratch) / "root", Path(scratch) / "layer.tar"
        _extract(root, architecture, where)
        debs = sorted((root / "var/cache/apt/archives").glob("*.deb"))
        say(f"base {architecture}: {len(debs)} packages extracted ({time.monotonic() - start:.1f} s)")
        date, known = newest(debs), "".join(installed(_run("dpkg-deb", "--field", str(deb))) for deb in debs)
        finish(root, known)
        _index_libraries(root, architecture)
        pack(root, layer, date)
        config = configuration(architecture, sha256(layer), date)
        image = wrap(Path(scratch) / "image.tar", layer, config, tag)
        try:
            with image.open("rb") as data:
                client.images.load(data)
            number = str(client.images.get(tag).id)
        except engine.GONE as error:
            raise HostError(f"the engine did not take the image {tag}", remedy=str(error)) from error
        megabytes = layer.stat().st_size / 1e6
    say(f"base {architecture}: {tag} is {number[:19]}, {megabytes:.0f} MB ({time.monotonic() - start:.1f} s)")
    return number


def given_mirror(url: str) -> Mirror:
    """The mirror below `url`.

    Raises:
        UsageError: it is no URL that apt can fetch from.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise UsageError(
            f"{url!r} is no URL of a Debian mirror",
            remedy=f"give one that holds debian and debian-security: {FALLBACK}",
        )
    root = url.rstrip("/")
    return Mirror(f"{root}/debian", f"{root}/debian-security")


def own_mirror(sources: Mapping[str, str]) -> Mirror:
    """The mirror that apt's own files name (by file name: its text), Debian's public one where they name none.

    Only `main` of an address that ends in /debian or /debian-security counts: other vendors' repositories, which carry
    bookworm as a suite too, hold none of these packages.
    """
    found: dict[str, str] = {}
    for name, text in sorted(sources.items()):
        entries = _paragraphs(text) if name.endswith(".sources") else _lines(text)
        for uri, components in entries:
            address = uri.rstrip("/")
            if "main" in components and urlsplit(address).scheme in {"http", "https"}:
                found.setdefault(address.rpartition("/")[2], address)
    default = Mirror()
    return Mirror(found.get("debian", default.archive), found.get("debian-security", default.security))


def _lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Address and components of each entry in apt's one-line style."""
    for uri, components in _LINE.findall(text):
        yield uri, components.partition("#")[0].split()


def _paragraphs(text: str) -> Iterator[tuple[str, list[str]]]:
    """Address and components of each enabled entry in apt's deb822 style."""
    for paragraph in re.split(r"\n\s*\n", _COMMENTS.sub("", text)):
        fields = {name.lower(): value.split() for name, value in _FIELD.findall(paragraph)}
        if "deb" in fields.get("types", []) and fields.get("enabled") not in (["no"], ["false"], ["0"]):
            for uri in fields.get("uris", []):
                yield uri, fields.get("components", [])


def _read_sources(apt: Path = Path("/etc/apt")) -> dict[str, str]:
    """What this machine's apt reads, by file name; empty where there is no apt."""
    files = (apt / "sources.list", *apt.glob("sources.list.d/*.list"), *apt.glob("sources.list.d/*.sources"))
    return {file.name: file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()}


def _path() -> str:
    """PATH with the administrator's folders, which a `su` without a dash leaves out."""
    return f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def require_tools() -> None:
    """Refuse a machine that cannot extract Debian's packages.

    Raises:
        HostError: a tool or root's rights are missing.
    """
    for tool in ("mmdebstrap", "dpkg-deb"):
        if shutil.which(tool, path=_path()) is None:
            raise HostError(
                f"making a base image needs {tool}, which is not here",
                remedy="apt-get install mmdebstrap, on Debian or a descendant; elsewhere pull python:3.11-slim-bookworm",
            )
    if os.geteuid() != 0:
        raise HostError(
            "making a base image needs root's rights: the files in it belong to root",
            remedy="run this command as root, in a container for instance",
        )


def _run(*command: str, given: str = "") -> str:
    """The output of a command that speaks English and makes files that all may read.

    Raises:
        HostError: it failed; with its last lines.
    """
    program = shutil.which(command[0], path=_path()) or command[0]
    surroundings = os.environ | {"LC_ALL": "C.UTF-8", "PATH": _path()}
    done = subprocess.run(  # noqa: S603 - fixed commands
        [program, *command[1:]], input=given, capture_output=True, text=True, check=False, env=surroundings, umask=0o022
    )
    if done.returncode:
        last = "\n".join(done.stderr.strip().splitlines()[-5:])
        raise HostError(f"{command[0]} failed", remedy=f"see what it said, and whether the mirror answers:\n{last}")
    return done.stdout


def _extract(root: Path, architecture: Architecture, mirror: Mirror) -> None:
    """Download, verify and unpack the packages; the archives stay in apt's cache, for their dates and descriptions.

    Bookworm expects /bin to be a link into /usr, which no package brings: extracted first, links survive. Nothing is mounted,
    for nothing runs inside; what deletes the tree later cannot stray into /proc or /dev.
    """
    merged = f'for d in {_MERGED[architecture]}; do mkdir -p "$1/usr/$d" && ln -s "usr/$d" "$1/$d"; done'
    _run(
        "mmdebstrap",
        "--mode=root",
        "--variant=extract",
        f"--architectures={architecture}",
        f"--include={','.join(PACKAGES)}",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Acquire::Retries "3"',
        f"--setup-hook={merged}",
        "--skip=chroot/mount,cleanup",
        "bookworm",
        str(root),
        "-",
        given=mirror.sources(),
    )


def _index_libraries(root: Path, architecture: Architecture) -> None:
    """Write the loader's cache by the image's own ldconfig: this machine's would put its own version into the file.

    A foreign one cannot run here, and this machine's ignores foreign libraries. The image then has no cache: its loader
    finds Debian's folders by itself, and only `ctypes.util.find_library` misses it, until the image runs `ldconfig`.
    """
    if _MACHINES.get(platform.machine()) == architecture:
        _run(str(root / "usr/sbin/ldconfig"), "-X", "-r", str(root))
        shutil.rmtree(root / "var/cache/ldconfig")  # inode numbers: no two runs agree on them


def newest(debs: Iterable[Path]) -> int:
    """The date of the newest package, in seconds of Unix: SOURCE_DATE_EPOCH of all that is made from these versions.

    Debian builds a package at its last changelog entry's date and stamps the archive's members with it, so it follows from
    the versions alone, not from the day of this run.
    """
    return max(int(deb.read_bytes()[_AR_DATE]) for deb in debs)


def installed(control: str) -> str:
    """A package's paragraph in dpkg's status file, from which an SBOM lists it."""
    name, rest = control.rstrip("\n").split("\n", 1)
    return f"{name}\nStatus: install ok installed\n{rest}\n\n"


def finish(root: Path, status: str) -> None:
    """Turn extracted packages into a system: what maintainer scripts would have done, and nothing of this machine."""
    _prune(root)
    (root / _STATUS).write_text(status, encoding="utf-8")
    (root / _STATUS).chmod(0o644)
    for name, mode in _FOLDERS.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(mode)
    for name, source in _COPIES.items():
        shutil.copyfile(root / source, root / name)
        (root / name).chmod(0o644)
    for name, target in _LINKS.items():
        link = root / name
        if link.is_dir() and not link.is_symlink():
            link.rmdir()  # base-files brings /var/run as a folder, and makes it a link only when it is configured
        if not link.is_symlink():
            link.symlink_to(target)
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.write_bytes(b"".join(c.read_bytes() for c in sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))))
    bundle.chmod(0o644)


def _prune(root: Path) -> None:
    """Take out what this machine left and what no process reads; licences stay, and dpkg's own folders."""
    doomed = [path for pattern in (*_LOCAL, *_UNUSED) for path in root.glob(pattern)]
    doomed += [path for path in (root / "var/lib/dpkg").rglob("*") if not path.is_dir()]
    doomed += [path for path in root.glob("usr/share/doc/*/**/*") if path.name != "copyright" and not path.is_dir()]
    for path in doomed:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def pack(root: Path, layer: Path, date: int) -> None:
    """Write the tree as a layer: sorted, owners by number, every entry of the same date."""

    def dated(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uname, entry.gname = date, "", ""
        return entry

    with tarfile.open(layer, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(root.iterdir()):
            archive.add(path, path.name, filter=dated)


def sha256(file: Path) -> str:
    """A file's digest, in hexadecimal."""
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def configuration(architecture: Architecture, layer_sha256: str, date: int) -> bytes:
    """The image's configuration: its digest is the image's id, so it states nothing that changes from run to run."""
    created = datetime.fromtimestamp(date, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = {
        "architecture": architecture,
        "os": "linux",
        "created": created,
        "config": {
            "Env": _ENVIRONMENT,
            "Cmd": ["python3"],
            "Labels": {"org.opencontainers.image.created": created, "org.opencontainers.image.title": TITLE},
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{layer_sha256}"]},
        "history": [{"created": created, "created_by": "matrix images base: Debian packages, extracted"}],
    }
    return json.dumps(said, sort_keys=True).encode()


def wrap(image: Path, layer: Path, config: bytes, tag: str) -> Path:
    """Write the archive that `docker load` reads, and return it.

    Not `docker import`: it stamps its own date, and docker-py 7.2 cannot give it a platform.
    """
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    files = image.with_name("files")
    files.mkdir()
    (files / name).write_bytes(config)
    (files / "manifest.json").write_text(
        json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["layer.tar"]}]), encoding="utf-8"
    )
    with tarfile.open(image, "w") as archive:
        for file in (*files.iterdir(), layer):
            archive.add(file, file.name)
    return image
