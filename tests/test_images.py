"""What an image is built from, whether it is current, and what a build's progress says: without an engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix import definitions, engine, images
from matrix.errors import HostError, UsageError

COLD = """#12 [deps 2/2] RUN --mount=type=cache,target=/root/.cache/pip sh install
#12 3.1 Successfully installed torch
#12 DONE 41.0s
#13 [source 2/3] COPY matrix /opt/matrix/matrix
#13 CACHED"""
WARM = COLD.replace("#12 3.1 Successfully installed torch\n#12 DONE 41.0s", "#12 CACHED")


@pytest.mark.parametrize(("told", "cold"), [(COLD, True), (WARM, False), ("#1 [internal] load\n#1 DONE 0.0s", False)])
def test_a_build_is_cold_when_it_installed_packages(told: str, cold: bool) -> None:
    """A cached copy of the source does not make it warm, nor a fresh one cold."""
    progress = images._Progress()
    for line in told.splitlines():
        progress.line(line)
    assert progress.cold is cold


@pytest.mark.parametrize("name", ["cpu-openvino", "cuda", "cuda-stand-in", "lambda-amd64", "lambda-arm64"])
def test_every_image_has_a_lock_and_labels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commit, lock, suites, inputs and source: each a digest, the first the commit."""
    source = definitions.Source(version="1", commit="c" * 40, dirty=(), suite_sha256="s" * 64)
    monkeypatch.setattr(definitions, "source", lambda: source)
    labels = images.labels(name)
    assert labels[images.REVISION] == "c" * 40
    assert {len(labels[key]) for key in (images.LOCK, images.INPUTS, images.SOURCE, images.SUITES)} == {64}


def test_an_unknown_image_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typo is a usage error."""
    with pytest.raises(UsageError, match="no image is called 'cpu-openvin'"):
        images.labels("cpu-openvin")


def test_an_image_holds_what_runs_in_it_and_not_the_hosts_side() -> None:
    """The plug-in and the workloads, no judgement and no command line: those may change and leave the image current."""
    root = definitions.PACKAGE.parent
    held = {path.relative_to(root).as_posix() for path in images._code(root)}
    assert {"matrix/plugin.py", "matrix/supervised.py", "matrix/workloads/prepare.py", "suites/pytest.ini"} <= held
    assert not held & {"matrix/cli.py", "matrix/trust.py", "matrix/report/page.py", "matrix/executors/docker.py"}


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (None, "not built"),
        ({images.INPUTS: "old", images.SOURCE: "now"}, "of this dependencies"),
        ({images.INPUTS: "now", images.SOURCE: "old"}, "of this source"),
        ({}, "of this dependencies and source"),
    ],
)
def test_an_image_of_something_else_is_refused(
    held: dict[str, str] | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never built, another lock, another commit: each is told, and what to do."""
    monkeypatch.setattr(engine, "image_id", lambda _: "sha256:1" if held is not None else None)
    monkeypatch.setattr(images, "_held_labels", lambda _: held)
    monkeypatch.setattr(images, "_digests", lambda _: {images.INPUTS: "now", images.SOURCE: "now"})
    assert says in (images.stale("cpu-openvino") or "")
    with pytest.raises(HostError, match="matrix build cpu-openvino"):
        images.current("cpu-openvino")


def test_the_build_is_told_what_pip_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of wheels and a certificate authority; what the user set for the build comes first."""
    for name in ("TORCH_WHEELS", "CA_FILE", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CERT", "/certificates")
    told = images._variables()
    assert (told["TORCH_WHEELS"], told["CA_FILE"]) == (str(tmp_path), "/certificates")
    monkeypatch.setenv("TORCH_WHEELS", "")
    assert images._variables()["TORCH_WHEELS"] == ""


def test_layers_without_a_step_are_the_bases() -> None:
    """An imported base says nothing of how it was made."""
    assert images._aligned(["COPY a", "COPY b"], 3) == ["base", "COPY a", "COPY b"]
    assert images._short("RUN /bin/sh -c pip install --mount=type=cache,target=/x torch # buildkit") == (
        "RUN /bin/sh -c pip install torch"
    )
