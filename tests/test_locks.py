"""Do the locks answer what pyproject.toml asks for, and is every way of not doing so found?"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from shutil import copyfile

import pytest

from matrix import locks
from matrix.errors import DataError, HostError, UsageError

ROOT = Path(__file__).parent.parent
CPU, CUDA, MPS, AMD64, ARM64 = (lock.path for lock in locks.LOCKS)
REQUIREMENTS = "images/lambda/requirements.in"
NO_PIN = "has a line that is no exact version with its sha256"
Change = Callable[[str, str, str], None]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that the locks are about, in a folder of their own."""
    for name in ("pyproject.toml", REQUIREMENTS, *(lock.path for lock in locks.LOCKS)):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copyfile(ROOT / name, target)
    return tmp_path


@pytest.fixture
def change(copy: Path) -> Change:
    """Replace the first match of a pattern in a file of the copy; a pattern that is not there tests nothing."""

    def changed(name: str, pattern: str, new: str) -> None:
        text, times = re.subn(pattern, new, (copy / name).read_text(encoding="utf-8"), count=1, flags=re.MULTILINE)
        assert times == 1
        (copy / name).write_text(text, encoding="utf-8")

    return changed


def test_the_locks_of_this_repository_are_today_s() -> None:
    """Whoever changes a requirement makes the locks anew in the same commit."""
    assert locks.drift(ROOT) == []


def test_the_processors_torch_is_pytorch_s_own_and_the_gpu_s_the_registry_s() -> None:
    """The registry's torch would bring gigabytes of CUDA into the processors' image."""
    cpu, cuda = ((ROOT / name).read_text(encoding="utf-8") for name in (CPU, CUDA))
    assert re.search(r"^torch==[\d.]+\+cpu ", cpu, re.MULTILINE)
    assert "\nnvidia-" not in cpu
    assert re.search(r"^torch==[\d.]+ ", cuda, re.MULTILINE)
    assert "\nnvidia-cudnn-" in cuda


def test_the_function_s_locks_leave_out_what_it_never_imports() -> None:
    """And hold the rest of what its four packages need, for they are installed without resolving."""
    for name in (AMD64, ARM64):
        pinned = re.findall(r"^([\w-]+)==", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        needed = ["awslambdaric", "numpy", "onnxruntime", "simplejson", "snapshot-restore-py", "tokenizers"]
        assert pinned == needed


@pytest.mark.parametrize(
    ("name", "pattern", "new", "sentence"),
    [
        (CPU, r"^# inputs: .", "# inputs: x", "was made from other requirements than today's of pyproject.toml"),
        (CPU, r"^numpy==[\d.]+", "numpy==1.26.4", "pins numpy 1.26.4 where pyproject.toml asks for numpy<3,>=2"),
        (CPU, r"^numpy==[\d.]+", "numpy==2..x", "pins numpy 2..x where pyproject.toml asks for numpy"),
        (CPU, r"^(torch==[\d.]+)\+cpu", r"\1", "pins torch 2"),
        (CUDA, r"^(torch==[\d.]+)", r"\1+cpu", "pins torch 2"),
        (MPS, r"^pydantic==", "pydantics==", "does not pin pydantic, which pyproject.toml asks for"),
        (AMD64, r"^tokenizers==", "tokenizer==", f"does not pin tokenizers, which {REQUIREMENTS} asks for"),
        (CPU, r"^idna==", "idna>=", f"{NO_PIN} (idna>="),
        (CPU, r"^(idna==[\d.]+).*\n(.*\\\n)*.*\n", r"\1\n", f"{NO_PIN} (idna=="),
        (CPU, r"^(idna==\S+.*\n.*sha256:)", r"\1x", f"{NO_PIN} (idna=="),
        (CPU, r"^idna==", "idna @ https://x/idna-", f"{NO_PIN} (idna @ https://x/"),
        (CPU, r"^idna==", "./wheels/idna==", f"{NO_PIN} (./wheels/idna"),
        (CPU, r"^idna==", "--find-links wheels\nidna==", f"{NO_PIN} (--find-links wheels)"),
    ],
)
def test_a_changed_lock_is_found(copy: Path, change: Change, name: str, pattern: str, new: str, sentence: str) -> None:
    """The one sentence names the file, what is wrong in it, and the command that puts it right."""
    change(name, pattern, new)
    (found,) = locks.drift(copy)
    assert found.startswith(f"{name} {sentence}")
    assert found.endswith("; run `matrix images lock`")


@pytest.mark.parametrize(
    ("name", "pattern", "new", "stale"),
    [
        ("pyproject.toml", r'"(psutil>=.*)"', r'"\1,!=0"', [CPU, CUDA, MPS]),
        ("pyproject.toml", r'"(nncf==.*)"', r'"\1,!=0"', [CPU, CUDA]),
        ("pyproject.toml", r'^cuda = \["distill-matrix\[cpu\]"', 'cuda = ["Distill_Matrix[cpu]", "six"', [CUDA, CUDA]),
        ("pyproject.toml", r'"(click>=.*)"', r'"\1,!=0"', []),
        (REQUIREMENTS, r"^(numpy==.*)", r"\1  # pinned", []),
        (REQUIREMENTS, r"^(numpy==.*)", r"\1,!=0", [AMD64, ARM64]),
    ],
)
def test_a_changed_requirement_makes_its_locks_stale(
    copy: Path, change: Change, name: str, pattern: str, new: str, stale: list[str]
) -> None:
    """Those that it goes into, whatever their pins still satisfy, and no other: no image installs the host's extra."""
    change(name, pattern, new)
    assert [sentence.split()[0] for sentence in locks.drift(copy)] == stale


@pytest.mark.parametrize(("system", "without"), [("linux", [CPU, CUDA]), ("darwin", [MPS])])
def test_a_requirement_of_one_system_is_asked_of_its_locks(
    copy: Path, change: Change, system: str, without: list[str]
) -> None:
    """Its marker holds on the image's machine or not, whatever machine reads the lock."""
    change("pyproject.toml", r"^dependencies = \[", f"dependencies = [\"six; sys_platform == '{system}'\",")
    assert [sentence.split()[0] for sentence in locks.drift(copy) if "does not pin six" in sentence] == without


def test_a_missing_lock_is_found(copy: Path) -> None:
    """An image without a lock cannot be built."""
    (copy / MPS).unlink()
    assert locks.drift(copy) == [f"{MPS} is missing; run `matrix images lock`"]


@pytest.mark.parametrize(
    ("pattern", "new", "refusal"),
    [
        (r'"numpy>=.*"', '"numpy two"', "pyproject.toml asks for what is no requirement"),
        (r"distill-matrix\[cpu\]", "distill-matrix[cuda]", "pyproject.toml has no extra cuda that ends"),
        (r"distill-matrix\[cpu\]", "distill-matrix[gpu]", "pyproject.toml has no extra gpu that ends"),
    ],
)
def test_requirements_that_cannot_be_read_are_refused(
    copy: Path, change: Change, pattern: str, new: str, refusal: str
) -> None:
    """That is no drift: making the locks anew would not put it right."""
    change("pyproject.toml", pattern, new)
    with pytest.raises(DataError, match=re.escape(refusal)):
        locks.drift(copy)


def test_no_project_is_refused(tmp_path: Path) -> None:
    """In a folder that is no checkout there is nothing to compare with."""
    with pytest.raises(DataError, match=r"pyproject\.toml cannot be read; run this in a checkout"):
        locks.drift(tmp_path)


def test_without_uv_nothing_is_made(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal names the tool and how to get it."""
    monkeypatch.setattr(locks.shutil, "which", lambda *_, **__: None)
    with pytest.raises(HostError, match="not installed here; pip install uv"):
        locks.relock(copy, say=pytest.fail)


def test_a_folder_of_wheels_that_is_not_there_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before uv is started: it would ask the registry and find the CUDA build."""
    monkeypatch.setattr(locks.shutil, "which", lambda *_, **__: "uv")
    monkeypatch.setenv("TORCH_WHEELS", str(copy / "nowhere"))
    with pytest.raises(UsageError, match="nowhere is no folder"):
        locks.relock(copy, say=pytest.fail)


def test_uv_is_asked_once_a_lock_and_all_are_written_together(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the former pins without their hashes; its answers come under heads that `drift` accepts."""
    before: list[str] = []

    def uv(command: list[str], **_: object) -> locks.subprocess.CompletedProcess[str]:
        answer = Path(command[command.index("--output-file") + 1])
        before.append(answer.read_text(encoding="utf-8"))
        answer.write_text((ROOT / locks.LOCKS[len(before) - 1].path).read_text(encoding="utf-8"), encoding="utf-8")
        return locks.subprocess.CompletedProcess(command, returncode=0)

    monkeypatch.setattr(locks.shutil, "which", lambda *_, **__: "uv")
    monkeypatch.setattr(locks.subprocess, "run", uv)
    (copy / MPS).unlink()
    said: list[str] = []
    locks.relock(copy, say=said.append)
    assert locks.drift(copy) == []
    assert [line.split(":")[0] for line in said] == [CPU, CUDA, MPS, AMD64, ARM64]
    assert re.search(r"^torch==[\d.]+\+cpu$", before[0], re.MULTILINE)
    assert before[2] == ""
    assert "sha256" not in "".join(before)


def test_when_uv_finds_no_answer_every_lock_stays(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of them renewed would be images that were resolved on different days."""
    answers = iter([0, 0, 0, 0, 1])

    def uv(command: list[str], **_: object) -> locks.subprocess.CompletedProcess[str]:
        return locks.subprocess.CompletedProcess(command, returncode=next(answers), stderr="No solution found\n")

    monkeypatch.setattr(locks.shutil, "which", lambda *_, **__: "uv")
    monkeypatch.setattr(locks.subprocess, "run", uv)
    with pytest.raises(DataError, match=f"uv cannot make {ARM64}; it says why: No solution found$"):
        locks.relock(copy, say=pytest.fail)
    assert locks.drift(copy) == []
