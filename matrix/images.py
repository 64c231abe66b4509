"""Builds a target's image with `docker buildx bake`, labels it with what it was built from, and says whether it is current.

docker-py cannot drive BuildKit, so the build is a subprocess; all that is known of an image afterwards is asked from the
engine by the SDK.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

from matrix import definitions, engine
from matrix.canonical import tree_digest
from matrix.errors import HostError, IncompleteError, UsageError
from matrix.job import Image, Layer
from matrix.strict import parse_json

BAKE: Final = "images/docker-bake.hcl"
STAND_IN: Final = "cuda-stand-in"
"""The cuda image with the CPU's packages, which CI builds: no target runs it."""
INPUTS: Final = "distill-matrix.inputs.sha256"
SOURCE: Final = "distill-matrix.source.sha256"
SUITES: Final = "distill-matrix.suites.sha256"
LOCK: Final = "distill-matrix.lock.sha256"
REVISION: Final = "org.opencontainers.image.revision"

_IGNORED: Final = "images/Dockerfile.dockerignore"
_SHARED: Final = ("images/Dockerfile", "images/prune.sh", "images/strip.py", "images/warm.py", BAKE)
_TAIL_LINES: Final = 25
_LAYERS: Final = re.compile(r"(RUN|COPY|ADD|WORKDIR) ")
"""Instructions that make a layer, an empty one too."""
Say = Callable[[str], None]


def reference(name: str) -> str:
    """The tag of the image `name`."""
    return f"distill-matrix/{name}"


def _root() -> Path:
    """The checkout that images are built from.

    Raises:
        HostError: this package was installed without one.
    """
    root = definitions.PACKAGE.parent
    if not (root / BAKE).is_file():
        raise HostError("images are built from a checkout", remedy="run this in a clone of distill-matrix")
    return root


def _lock(root: Path, name: str) -> Path:
    if name == STAND_IN:
        name = "cpu-openvino"
    if name.startswith("lambda-"):
        return root / "images" / "lambda" / f"requirements-{name.removeprefix('lambda-')}.txt"
    return root / "images" / name / "requirements.txt"


def _code(root: Path) -> Iterator[Path]:
    """What the images' last layer holds: all that is not the host's side by the build's own list."""
    lines = (root / _IGNORED).read_text(encoding="utf-8").splitlines()
    left_out = {root / line for line in lines if line.startswith("matrix/")}
    for path in [*(root / "matrix").rglob("*"), *(root / "suites").glob("*")]:
        if path.suffix in {".py", ".toml", ".ini"} and left_out.isdisjoint([path, *path.parents]):
            yield path


def _digests(name: str) -> dict[str, str]:
    """Digests of what the image `name` is built from: its lock, all inputs of its dependencies, and its source.

    Raises:
        UsageError: there is no such image.
    """
    root = _root()
    lock = _lock(root, name)
    if not lock.is_file():
        raise UsageError(f"no image is called {name!r}", remedy=f"{lock.relative_to(root)} does not exist")
    if name.startswith("lambda-"):
        here = (path for path in (root / "images" / "lambda").iterdir() if path.suffix in {".py", ".sh", ""})
        inputs = [lock, root / BAKE, *here]
        source = tree_digest([path for path in inputs if path.suffix == ".py"], root)
    else:
        inputs = [lock, *(root / shared for shared in _SHARED)]
        source = tree_digest(_code(root), root)
    return {LOCK: tree_digest([lock], root), INPUTS: tree_digest(inputs, root), SOURCE: source}


def labels(name: str) -> dict[str, str]:
    """What the image `name` would be labelled with if it were built now: its digests, the commit and the suites.

    Raises:
        UsageError: there is no such image.
    """
    digests, found = _digests(name), definitions.source()
    revision = (found.commit or "unknown") + (" with uncommitted changes" if found.dirty else "")
    return {REVISION: revision, SUITES: found.suite_sha256, **digests}


def stale(name: str) -> str | None:
    """Why the engine's image `name` cannot be used as it is; None when it was built from what lies here."""
    if engine.image_id(reference(name)) is None:
        return f"needs its image {name} (not built: `matrix build`)"
    held, wanted = _held_labels(name), _digests(name)
    changed = [what for what, key in (("dependencies", INPUTS), ("source", SOURCE)) if held.get(key) != wanted[key]]
    return f"needs its image {name} of this {' and '.join(changed)} (`matrix build` takes seconds)" if changed else None


def _held_labels(name: str) -> Mapping[str, str]:
    return engine.connect().images.get(reference(name)).labels or {}


def _variables() -> dict[str, str]:
    """The environment of the build: what pip is told here, the build is told too."""
    found = dict(os.environ)
    if authority := os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE"):
        found.setdefault("CA_FILE", authority)
    links = os.environ.get("PIP_FIND_LINKS", "")
    if links and Path(links).is_dir():
        found.setdefault("TORCH_WHEELS", links)
    return found


def _buildx(*arguments: str) -> list[str]:
    client = shutil.which("docker")
    if client is None:
        raise HostError("no docker command is here", remedy="install the Docker client with its buildx plug-in")
    return [client, "buildx", *arguments]


def _defined(name: str) -> Mapping[str, Any]:
    """The bake file's target of an image, with its variables filled in."""
    command = _buildx("bake", "--file", BAKE, "--print", name)
    done = subprocess.run(command, cwd=_root(), env=_variables(), capture_output=True, text=True, check=False)  # noqa: S603 - fixed command
    if done.returncode:
        raise HostError("buildx cannot read the bake file", remedy=done.stderr.strip()[-500:])
    found: Mapping[str, Any] = json.loads(done.stdout)["target"][name]
    return found


@dataclass
class _Progress:
    """Reads BuildKit's plain progress: which steps ran, and which came from its cache."""

    installs: set[str] = field(default_factory=set)
    cached: set[str] = field(default_factory=set)
    tail: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.tail = [*self.tail[-_TAIL_LINES:], text]
        step, _, rest = text.partition(" ")
        if re.match(r"\[.*\] RUN .*type=cache", rest):
            self.installs.add(step)
        if rest == "CACHED":
            self.cached.add(step)

    @property
    def cold(self) -> bool:
        """Whether dependencies were installed."""
        return bool(self.installs - self.cached)


def build(name: str, say: Say, *, fresh: bool = False) -> Image:
    """Build the image `name` and keep its record; `fresh` uses nothing that the builder has cached.

    Raises:
        HostError: there is no engine, no buildx, or no checkout.
        IncompleteError: the build failed; with the end of what it said.
    """
    engine.connect()
    wanted, defined = labels(name), _defined(name)
    command = _buildx("bake", "--file", BAKE, "--progress", "plain", name)
    command += [f"--set={name}.labels.{key}={value}" for key, value in wanted.items()]
    command += ["--no-cache"] if fresh else []
    seen, begun = _Progress(), time.monotonic()
    with subprocess.Popen(  # noqa: S603 - fixed command
        command, cwd=_root(), env=_variables(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            seen.line(line.rstrip())
            say(line.rstrip())
    seconds = time.monotonic() - begun
    if process.returncode:
        away = any("failed to resolve source metadata" in line for line in seen.tail)
        hint = "the base image cannot be pulled here: see `matrix images base` and BASE_IMAGE\n" if away else ""
        raise IncompleteError(f"the image {name} was not built", remedy=hint + "\n".join(seen.tail))
    engine.connect().images.prune(filters={"dangling": True, "label": INPUTS})  # what this build took the name from
    before = record(name)
    image = _described(name, defined, before)
    spent: dict[str, float | None] = {"cold_build_s" if seen.cold else "warm_build_s": seconds}
    if before and before.inputs_sha256 == image.inputs_sha256:
        spent = {"cold_build_s": before.cold_build_s, "warm_build_s": before.warm_build_s} | spent
    image = image.model_copy(update=spent)
    _keep(image)
    return image


def _record(name: str) -> Path:
    return definitions.cache() / "images" / f"{name}.json"


def _keep(image: Image) -> None:
    path = _record(image.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(image.model_dump_json(indent=1) + "\n", encoding="utf-8")
    beside.replace(path)


def record(name: str) -> Image | None:
    """The record of this user's newest build of `name`; None without one."""
    path = _record(name)
    return parse_json(Image, path.read_bytes(), str(path)) if path.exists() else None


def current(name: str) -> Image:
    """The record of the image that the engine holds under this name.

    Raises:
        HostError: it has none, or one that was not built from what lies here, or was not recorded.
    """
    if reason := stale(name):
        raise HostError(f"the image {name} cannot be used: {reason}", remedy=f"matrix build {name}")
    found = record(name)
    if found is None or found.id != engine.image_id(reference(name)):
        found = _described(name, _defined(name), found)
        _keep(found)
    return found


def _described(name: str, defined: Mapping[str, Any], before: Image | None) -> Image:
    """What the engine says of an image; layers that are known from `before` are not compressed again."""
    client = engine.connect()
    image = client.images.get(reference(name))
    base = defined["args"]["BASE_IMAGE"]
    made_by = [
        step["CreatedBy"] for step in reversed(image.history()) if step["Size"] or _LAYERS.match(step["CreatedBy"])
    ]
    digests = [one.removeprefix("sha256:") for one in image.attrs["RootFS"]["Layers"]]
    sizes = {layer.sha256: (layer.bytes, layer.compressed_bytes) for layer in before.layers} if before else {}
    if not sizes.keys() >= set(
        digests
    ):  # else a rebuild of nothing new would read a gigabyte to learn what is recorded
        sizes |= dict(_sizes(image, sizes.keys()))
    labelled = image.labels
    return Image(
        name=name,
        id=image.id,
        platform=f"{image.attrs['Os']}/{image.attrs['Architecture']}",
        revision=labelled[REVISION],
        inputs_sha256=labelled[INPUTS],
        source_sha256=labelled[SOURCE],
        base=base,
        base_created=client.images.get(base).attrs["Created"] if engine.image_id(base) else None,
        layers=tuple(
            Layer(made_by=_short(step), sha256=one, bytes=sizes[one][0], compressed_bytes=sizes[one][1])
            for step, one in zip(_aligned(made_by, len(digests)), digests, strict=True)
        ),
    )


def _aligned(steps: list[str], count: int) -> list[str]:
    """Steps for `count` layers: a base that was imported has a layer without a step that says so."""
    return [*["base"] * (count - len(steps)), *steps[-count:]]


def _short(step: str) -> str:
    words = re.sub(r"--mount=\S+|# buildkit|\|\d+ (\S+=\S+ )*", "", step.removeprefix("/bin/sh -c "))
    return " ".join(words.split())[:100] or "base"


def _sizes(image: Any, known: Collection[str]) -> Iterator[tuple[str, tuple[int, int]]]:  # noqa: ANN401 - the SDK's image
    """Bytes of each layer that is not `known`, plain and gzipped (level 6, as a push does): one pass over the saved image."""
    chunks = engine.Chunks(image.save(chunk_size=1 << 20))
    with tarfile.open(fileobj=BufferedReader(chunks), mode="r|") as archive:
        for entry in archive:
            name = entry.name.removeprefix("blobs/sha256/")
            stream = archive.extractfile(entry) if entry.isfile() else None
            if stream is None or "/" in name or name in known:
                continue
            packer, packed = zlib.compressobj(6, wbits=31), 0
            while block := stream.read(1 << 20):
                packed += len(packer.compress(block))
            yield name, (entry.size, packed + len(packer.flush()))
