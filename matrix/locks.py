"""The locks of the images: what each installs, to the version and the hash.

`relock` has `uv pip compile` make them; there is no resolver here. `drift` says offline whether a lock still answers what
pyproject.toml asks for: the digest of the questions stands in the lock's head.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from matrix.canonical import digest
from matrix.errors import DataError, HostError, UsageError

REMEDY = "run `matrix images lock`"
PYTHON = "3.11"
_LAMBDA = "images/lambda/requirements.in"
_UNIMPORTED = {
    "huggingface-hub": "tokenizers 0.22.2 downloads with it in from_pretrained; the function reads a file",
    "flatbuffers": "onnxruntime 1.31.1 imports it in its quantization and tools, and a session in neither",
    "packaging": "likewise, in its backend, tools and transformers",
    "protobuf": "likewise, in one of its transformers; a session parses its model in C++",
}
"""What the Lambda function's packages require and the function never imports: each is start-up time and attack surface."""
_SOURCE_ONLY = "textbrewer"
"""The one package without a wheel: pure Python, built when an image is (images/Dockerfile)."""


class Lock(NamedTuple):
    """One lock: what it answers, and for which machine."""

    path: str
    asks: str
    """Whose requirements: an extra of pyproject.toml, to which its base is added, or a requirements file."""
    platform: str
    """As uv names it: Debian 12 is manylinux_2_36."""
    cpu_torch: bool = False
    """PyTorch's own CPU build; the registry's build for Linux is CUDA's."""
    macos: str = ""
    """The oldest macOS it is for: onnxruntime 1.31.1 has no wheel for an older one than 14."""
    unimported: Mapping[str, str] = {}

    @property
    def source(self) -> str:
        """The file to change when a requirement is wrong."""
        return self.asks if self.asks.endswith(".in") else "pyproject.toml"

    def needs(self, requirement: Requirement) -> bool:
        """Whether a requirement's marker holds on this lock's machine: not on the one that reads it."""
        linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": self.platform.split("-")[0]}
        darwin = {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"}
        here = {"os_name": "posix", "python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
        marker = requirement.marker
        return marker is None or marker.evaluate(here | (darwin if self.macos else linux))


LOCKS = (
    Lock("images/cpu-openvino/requirements.txt", "cpu", "x86_64-manylinux_2_36", cpu_torch=True),
    Lock("images/cuda/requirements.txt", "cuda", "x86_64-manylinux_2_36"),
    Lock("images/mps/requirements.txt", "mps", "aarch64-apple-darwin", macos="14.0"),
    Lock("images/lambda/requirements-amd64.txt", _LAMBDA, "x86_64-manylinux_2_36", unimported=_UNIMPORTED),
    Lock("images/lambda/requirements-arm64.txt", _LAMBDA, "aarch64-manylinux_2_36", unimported=_UNIMPORTED),
)
_PIN = re.compile(r"(?P<name>[\w.-]+)==(?P<version>[\w.!+]+)(?P<hashes>(?:\s+--hash=sha256:[0-9a-f]{64})+)", re.ASCII)


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{name} cannot be read", remedy=f"run this in a checkout of distill-matrix ({error})"
        ) from None


def _parsed(lines: Iterable[str], source: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in lines]
    except InvalidRequirement as error:
        raise DataError(f"{source} asks for what is no requirement", remedy=f"correct it: {error}") from None


def _expanded(name: str, extras: Mapping[str, list[str]], seen: tuple[str, ...], source: str) -> Iterator[Requirement]:
    """The requirements of the extra `name`, with those of the extras that it takes over (`distill-matrix[cpu]`)."""
    if name not in extras or name in seen:
        raise DataError(f"{source} has no extra {name} that ends", remedy="correct [project.optional-dependencies]")
    for requirement in _parsed(extras[name], source):
        if canonicalize_name(requirement.name) != "distill-matrix":
            yield requirement
            continue
        for other in sorted(requirement.extras):
            yield from _expanded(other, extras, (*seen, name), source)


def _asked(root: Path, lock: Lock) -> list[Requirement]:
    """The direct requirements of a lock, self-references resolved."""
    text = _read(root, lock.source)
    if lock.asks == lock.source:
        lines = (line.split(" #")[0].strip() for line in text.splitlines())
        return _parsed((line for line in lines if line and not line.startswith("#")), lock.source)
    project = tomllib.loads(text)["project"]
    extra = _expanded(lock.asks, project["optional-dependencies"], (), lock.source)
    return [_built(requirement, lock) for requirement in (*_parsed(project["dependencies"], lock.source), *extra)]


def _built(requirement: Requirement, lock: Lock) -> Requirement:
    """`torch==2.13.0` as the build that this lock's machine needs: a local version is how PyTorch names its CPU build."""
    cpu = lock.cpu_torch and requirement.name == "torch"
    return _parsed([f"{requirement}+cpu"], lock.source)[0] if cpu else requirement


def _inputs(asked: Iterable[Requirement], lock: Lock) -> str:
    """The digest of everything that decides what uv is asked; what it answers also depends on the day."""
    questions = sorted(str(requirement) for requirement in asked)
    return digest([questions, PYTHON, lock.platform, lock.macos, sorted(lock.unimported)])


def _statements(text: str) -> list[str]:
    """The lock's lines that are no comment, each continued line as one."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in "\n".join(lines).replace("\\\n", " ").splitlines() if line.strip()]


def _pins(text: str) -> dict[str, str]:
    found = (_PIN.fullmatch(line) for line in _statements(text))
    return {canonicalize_name(pin["name"]): pin["version"] for pin in found if pin}


def drift(root: Path) -> list[str]:
    """What is wrong with the locks under `root`, a sentence each with its remedy; offline, and the same every day.

    Raises:
        DataError: pyproject.toml or the Lambda function's requirements cannot be read.
    """
    return [f"{lock.path} {what}; {REMEDY}" for lock in LOCKS for what in _wrong(root, lock)]


def _wrong(root: Path, lock: Lock) -> Iterator[str]:
    asked = _asked(root, lock)
    if not (root / lock.path).is_file():
        yield "is missing"
        return
    text = _read(root, lock.path)
    if f"# inputs: {_inputs(asked, lock)}" not in text.splitlines():
        yield f"was made from other requirements than today's of {lock.source}"
    for line in _statements(text):
        if not _PIN.fullmatch(line):
            yield f"has a line that is no exact version with its sha256 ({line[:80]})"
    pins = _pins(text)
    for requirement in filter(lock.needs, asked):
        pinned = pins.get(canonicalize_name(requirement.name))
        if pinned is None:
            yield f"does not pin {requirement.name}, which {lock.source} asks for"
        elif not _answers(pinned, requirement):
            yield f"pins {requirement.name} {pinned} where {lock.source} asks for {requirement}"


def _answers(pinned: str, requirement: Requirement) -> bool:
    """Whether a version satisfies a requirement; another's build (`+cpu`) counts only where it is asked for, unlike with pip."""
    try:
        version = Version(pinned)
    except InvalidVersion:
        return False
    ours = version.local is None or "+" in str(requirement.specifier)
    return ours and requirement.specifier.contains(version, prereleases=True)


def relock(root: Path, *, say: Callable[[str], None]) -> None:
    """Make every lock anew with uv, from the registry that uv is configured for.

    A pin that still fits stays, so that a changed requirement moves only what it must: to renew all of a lock, delete it
    first. Nothing is written unless all of them can be made.

    Raises:
        DataError: a requirement cannot be read, or nothing satisfies all of them.
        HostError: there is no uv here.
        UsageError: TORCH_WHEELS names no folder.
    """
    made = [(root / lock.path, _made(root, lock)) for lock in LOCKS]
    for target, text in made:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        say(f"{target.relative_to(root)}: {len(_pins(text))} packages")


def _made(root: Path, lock: Lock) -> str:
    asked = _asked(root, lock)
    path = root / lock.path
    before = _pins(_read(root, lock.path)) if path.is_file() else {}
    head = f"# Made by `matrix images lock` from {lock.source}; change that, and run it again.\n# inputs: {_inputs(asked, lock)}\n"
    return head + _compiled(lock, asked, before)


def _compiled(lock: Lock, asked: Iterable[Requirement], before: Mapping[str, str]) -> str:
    """What uv answers. It sees the former pins without their hashes: those it would repeat instead of asking the registry."""
    with TemporaryDirectory() as folder:
        answer, excluded = Path(folder, "requirements.txt"), Path(folder, "excluded.txt")
        answer.write_text("".join(f"{name}=={version}\n" for name, version in before.items()), encoding="utf-8")
        excluded.write_text("\n".join(lock.unimported), encoding="utf-8")
        command = [_uv(), *_options(lock), "--excludes", str(excluded), "--output-file", str(answer), "-"]
        environment = os.environ | ({"MACOSX_DEPLOYMENT_TARGET": lock.macos} if lock.macos else {})
        done = subprocess.run(  # noqa: S603 - uv, with options of ours
            command, input="\n".join(map(str, asked)), env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DataError(f"uv cannot make {lock.path}", remedy=f"it says why: {done.stderr.strip()}")
        return answer.read_text(encoding="utf-8")


def _options(lock: Lock) -> Iterator[str]:
    """Of uv. Without `--no-config` a setting of the caller's could decide; wheels only (but for one): no build decides either."""
    yield from ("pip", "compile", "--quiet", "--no-config", "--python", sys.executable, "--python-version", PYTHON)
    yield from ("--python-platform", lock.platform, "--only-binary", ":all:", "--generate-hashes")
    yield from ("--no-binary", _SOURCE_ONLY)
    yield from ("--no-header", "--no-emit-index-url", "--no-emit-find-links")
    if not lock.cpu_torch:
        return
    wheels = os.environ.get("TORCH_WHEELS", "")
    if not wheels:
        # uv's name for https://download.pytorch.org/whl/cpu, asked for PyTorch's own packages alone
        yield from ("--torch-backend", "cpu")
    elif Path(wheels).is_dir():
        yield from ("--find-links", str(Path(wheels).resolve()))
    else:
        raise UsageError(f"TORCH_WHEELS={wheels} is no folder", remedy="name the one that holds PyTorch's CPU wheel")


def _uv() -> str:
    beside = shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv := beside or shutil.which("uv"):
        return uv
    raise HostError("the locks are made by uv, which is not installed here", remedy="pip install uv")
