"""The command line: what it answers, by sentence and by exit code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
from click.testing import CliRunner

from matrix import definitions, engine, host
from matrix.__main__ import main
from matrix.bundle import Evidence
from matrix.cli import cli
from matrix.commands import measure
from matrix.errors import ExitCode, UsageError
from matrix.run import Request
from matrix.target import Expectation
from tests.making import INT8, ORT, TORCH, evidence, logits, profiles, sealed

DROP = """
name = "one gate"
[evidence]
profiles = ["quick"]
gate_days = 7
display_days = 30
min_launches = 5
[deployment]
cpu-openvino = "avx512_vnni"
[signatures]
bundle = { "*" = { roles = ["development"] } }
revocation = { roles = ["release"] }
waiver = { roles = ["release"] }
signoff = { roles = ["release"] }
[margins]
accuracy = 0.002
flip_rate = 0.005
export_delta = 0.006
ratio = 1.10
ratio_contradiction = 1.25
min_examples = 1500
min_pairs = 5
trained_accuracy = 0.005
first_losses = 1e-3
min_seeds = 5
tensor_factor = 2.0
tensor_factor_small = 3.0
tensor_small = 1000
tensor_contradiction = 3.0
min_batches = 3
min_shapes = 2
[[gate]]
id = "drop"
why = "it may cost 0.6 points"
targets = ["cpu-openvino"]
suite = "export_accuracy"
variants = ["onnx_int8"]
metric = "accuracy_delta"
at_least = -0.006
"""


class Answer(NamedTuple):
    """What a command said."""

    code: int
    out: str
    err: str


@pytest.fixture
def matrix(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """The command as a shell would call it, on a Linux host without a GPU."""
    monkeypatch.setattr(host, "gpus", lambda: ())
    monkeypatch.setattr(host.platform, "system", lambda: "Linux")
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(host, "cpu_flags", lambda: frozenset({"avx2", "hypervisor"}))
    monkeypatch.setattr(engine, "lacking", lambda *_, **__: "needs a Docker engine (no Docker engine answers)")

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["matrix", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Answer(int(ended.value.code or 0), said.out, said.err)

    return call


def exported(lost: int, **changes: object) -> Evidence:
    """Fresh, clean evidence of an INT8 export that loses `lost` of 2,000 examples."""
    fields = {"created": datetime.now(UTC), "suites": definitions.suite_digests()} | changes
    outputs = {TORCH: logits([0] * 2000), INT8: logits([1] * lost + [0] * (2000 - lost))}
    return evidence(outputs=outputs, labels=np.zeros(2000, dtype=np.int64), **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "lacks"),
    [
        ("mps", "needs Darwin on arm64 (this host is Linux on x86_64)"),
        ("cuda", "cuda-a100 needs a GPU called 'NVIDIA A100*' (this host has none)"),
        ("lambda-x86", "needs a Docker engine (no Docker engine answers)"),
    ],
)
@pytest.mark.parametrize("command", ["doctor", "run"])
def test_a_target_that_this_host_cannot_run_ends_with_one_sentence(
    matrix: Callable[..., Answer], command: str, target: str, lacks: str
) -> None:
    """What is missing, what to do, and an exit code of its own; never a traceback, never success."""
    answer = matrix(command, target)
    assert answer.code == ExitCode.CANNOT_RUN
    assert answer.err.startswith(f"matrix: this host cannot run {target}: ")
    assert lacks in answer.err
    assert answer.err.count("\n") == 1
    assert answer.out == ""


def test_cuda_is_the_target_whose_gpu_is_here(matrix: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch) -> None:
    """One command for all NVIDIA hosts."""
    monkeypatch.setattr(host, "gpus", lambda: (host.Gpu("GPU-1", "NVIDIA H200"),))
    told = "this host can run cuda-h200 natively, without an image (needs a Docker engine (no Docker engine answers))\n"
    assert matrix("doctor", "cuda") == Answer(0, told, "")


@pytest.mark.parametrize(("options", "seed"), [((), 20_261_122), (("--seed", 7), 7), (("--seed", 0), 0)])
def test_a_seed_on_the_command_line_replaces_the_profiles(
    matrix: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], seed: int
) -> None:
    """Nothing else of the profile changes; 0 is a seed too."""
    asked: list[Request] = []

    def run(request: Request, *_: object) -> None:
        asked.append(request)
        raise UsageError("asked", remedy="look")

    monkeypatch.setattr(measure, "run", run)
    assert matrix("run", "cpu", *options).code == ExitCode.USAGE
    (one,) = asked
    assert one.profile == profiles().of("quick").seeded(seed)
    assert one.profile.recipe == profiles().of("quick").recipe.model_copy(update={"seed": seed})


@pytest.mark.parametrize("seed", ["-1", str(2**32), "five"])
def test_what_no_generator_takes_as_a_seed_is_a_usage_error(matrix: Callable[..., Answer], seed: str) -> None:
    """Before anything is trained."""
    answer = matrix("run", "cpu", "--seed", seed)
    assert answer.code == ExitCode.USAGE
    assert "--seed" in answer.err


def test_doctor_lists_every_target(matrix: Callable[..., Answer]) -> None:
    """A row a target, each with what is missing."""
    answer = matrix("doctor")
    assert answer.code == 0
    for name in (
        "cuda-a100",
        "cuda-a10g",
        "cuda-h200",
        "cpu-openvino",
        "lambda-x86",
        "aws-lambda-x86",
        "lambda-arm",
        "mps",
    ):
        assert name in answer.out


@pytest.mark.parametrize("typo", ["cpuu", "lambda-x68"])
def test_an_unknown_target_is_a_usage_error_that_names_the_known_ones(matrix: Callable[..., Answer], typo: str) -> None:
    """Exit code 2, as click's own."""
    answer = matrix("plan", typo)
    assert answer.code == ExitCode.USAGE
    assert "cpu-openvino" in answer.err


def test_the_plan_is_the_same_in_text_and_json(matrix: Callable[..., Answer]) -> None:
    """Every cell of every target, planned or with its reason."""
    plans = json.loads(matrix("plan", "--json").out)
    text = matrix("plan").out
    assert len(plans) == 8
    for plan in plans:
        head = f"{plan['target']} at profile quick: {len(plan['planned'])} planned, {len(plan['excluded'])} excluded\n"
        assert head in text
        assert all(excluded["reason"] for excluded in plan["excluded"])


@pytest.mark.parametrize(("lost", "code"), [(0, ExitCode.PASS), (40, ExitCode.FAIL), (10, ExitCode.UNDECIDED)])
def test_the_gate_answers_by_its_exit_code(
    matrix: Callable[..., Answer], tmp_path: Path, lost: int, code: ExitCode
) -> None:
    """Pass, fail, undecided; verdict and JUnit say the same."""
    sealed(tmp_path, exported(lost))
    (tmp_path / "one.toml").write_text(DROP, encoding="utf-8")
    answer = matrix("gate", "--store", tmp_path, "--policy", tmp_path / "one.toml")
    assert answer.code == code
    verdict = json.loads((tmp_path / "latest" / "verdict.json").read_text(encoding="utf-8"))
    assert verdict["answer"] == code.name.lower()
    junit = (tmp_path / "latest" / "junit.xml").read_text(encoding="utf-8")
    assert ("<failure" in junit) == (code == ExitCode.FAIL)
    assert ("<error" in junit) == (code == ExitCode.UNDECIDED)


def test_without_evidence_the_gate_fails(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """A benchmark that is missing is no pass."""
    assert matrix("gate", "--store", tmp_path).code == ExitCode.FAIL


def test_an_empty_policy_is_refused(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """A policy without a gate would pass everything."""
    (tmp_path / "none.toml").write_text(DROP[: DROP.index("[[gate]]")], encoding="utf-8")
    answer = matrix("gate", "--store", tmp_path, "--policy", tmp_path / "none.toml")
    assert answer.code in {ExitCode.FAIL, ExitCode.USAGE}
    assert "gate" in answer.err


def test_changed_evidence_is_found_by_verify_and_by_the_gate(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """One byte: exit code 4 from both, and the file's name."""
    place = sealed(tmp_path, exported(0))
    assert matrix("verify", place).code == ExitCode.PASS
    changed = next(place.glob("outputs/*.npy"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x7f")
    answer = matrix("verify", place)
    assert answer.code == ExitCode.INVALID_EVIDENCE
    assert changed.name in answer.out
    assert matrix("gate", "--store", tmp_path).code == ExitCode.INVALID_EVIDENCE


def test_a_folder_without_evidence_does_not_verify(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """It says what could be there."""
    answer = matrix("verify", tmp_path)
    assert answer.code == ExitCode.USAGE
    assert "neither a bundle, nor a store, nor a sign-off" in answer.err


def test_the_report_is_written_in_three_forms(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """Page, Markdown, JSON; the verdict is printed and does not change the exit code."""
    sealed(tmp_path, exported(0))
    answer = matrix("report", "--store", tmp_path)
    assert answer.code == 0
    assert re.match(
        r"mangaassist-production: student [0-9a-f]{12}: FAIL \(\d+ fail, 2 undecided of 23 requirements\)", answer.out
    )
    assert {path.name for path in (tmp_path / "latest").iterdir()} == {"index.html", "latest.md", "report.json"}


@pytest.mark.parametrize(
    ("expect", "told"),
    [
        ({"machine": "arm64"}, "needs Linux on arm64 (this host is Linux on x86_64)"),
        ({"cpu_flags": ("avx2", "amx_int8")}, "this CPU lacks amx_int8"),
        ({"bare_metal": True}, "needs a bare-metal machine (this host is virtual)"),
    ],
)
@pytest.mark.usefixtures("matrix")
def test_a_mismatch_names_what_is_asked_and_what_is_here(expect: dict[str, object], told: str) -> None:
    """Both values, in one clause."""
    (found,) = host.mismatches(Expectation(**({"system": "Linux", "machine": "x86_64"} | expect)))  # type: ignore[arg-type]
    assert told in found


@pytest.mark.parametrize(
    ("visible", "names"),
    [(None, ["NVIDIA T4", "NVIDIA A100"]), ("1", ["NVIDIA A100"]), ("GPU-a", ["NVIDIA T4"]), ("", []), ("-1", [])],
)
def test_only_gpus_that_this_process_may_use_count(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, names: list[str]
) -> None:
    """CUDA_VISIBLE_DEVICES hides the others: their column is not this run's."""
    monkeypatch.setattr(host, "_output", lambda *_: "GPU-a, NVIDIA T4\nGPU-b, NVIDIA A100\n")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = host.gpus.__wrapped__()
    assert [gpu.name for gpu in found] == names


@pytest.mark.usefixtures("matrix")
def test_a_host_that_meets_the_expectation_has_no_mismatch() -> None:
    """Nothing to say."""
    assert host.mismatches(Expectation(system="Linux", machine="x86_64", cpu_flags=("avx2",))) == []


def test_the_variant_of_a_serving_cell_stands_in_the_plan(matrix: Callable[..., Answer]) -> None:
    """The identifier of a cell, as every other command prints it."""
    assert f"  + {ORT.id}\n" in matrix("plan", "cpu").out


def test_a_place_that_cannot_be_written_is_a_sentence(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """A file where a folder should be: no traceback."""
    (tmp_path / "file").write_text("", encoding="utf-8")
    answer = matrix("report", "--store", tmp_path, "--out", tmp_path / "file" / "latest")
    assert answer.code == ExitCode.USAGE
    assert answer.err.endswith("check the path, its permissions and the disk\n")


def test_verify_says_what_was_revoked_and_by_whom(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """The bundle still is what was signed; that it was withdrawn stands beside it."""
    place = sealed(tmp_path, exported(0), "nightly-cpu")
    matrix("keys", "new", "--role", "release")
    assert (
        matrix("revoke", place.name, "--why", "the fan stood still", "--store", tmp_path, "--role", "release").code == 0
    )
    answer = matrix("verify", place)
    assert answer.code == ExitCode.PASS
    assert re.search(r"; revoked by release \(key \w{12}\): the fan stood still\n$", answer.out)


def test_only_whom_the_policy_hears_may_sign(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """A development key withdraws nothing, waives nothing and signs nothing off: told before anything is written."""
    place = sealed(tmp_path, exported(0))
    for command in (
        ("revoke", place.name, "--why", "x"),
        ("waive", "w", "--gate", "*", "--days", 1, "--why", "x"),
        ("signoff", "--release", "v1"),
    ):
        answer = matrix(*command, "--store", tmp_path)
        assert answer.code == ExitCode.USAGE
        assert "the policy lets release " in answer.err
    assert not any((tmp_path / name).exists() for name in ("revocations", "waivers", "signoffs"))


def test_a_release_is_signed_off_once_and_checked_later(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """From a pass by the accepted role; derived anew offline; a changed bundle, and it holds no more."""
    place = sealed(tmp_path, exported(0))
    (tmp_path / "one.toml").write_text(DROP, encoding="utf-8")
    matrix("keys", "new", "--role", "release")
    asked = ("--policy", tmp_path / "one.toml", "--store", tmp_path, "--role", "release")
    assert matrix("signoff", "--release", "v1", *asked).code == ExitCode.PASS
    assert "was signed off already" in matrix("signoff", "--release", "v1", *asked).err
    record = tmp_path / "signoffs" / "v1.intoto.json"
    assert matrix("verify", record).out.startswith("ok  v1.intoto.json: v1 may ship: one gate passed on ")
    changed = next(place.glob("outputs/*.npy"))
    changed.write_bytes(changed.read_bytes()[:-1] + b"\x7f")
    answer = matrix("verify", record)
    assert answer.code == ExitCode.INVALID_EVIDENCE
    assert changed.name in answer.out


def test_a_failing_verdict_is_not_signed_off(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """The gate's own exit code, and no record."""
    sealed(tmp_path, exported(40))
    (tmp_path / "one.toml").write_text(DROP, encoding="utf-8")
    matrix("keys", "new", "--role", "release")
    answer = matrix(
        "signoff", "--release", "v1", "--policy", tmp_path / "one.toml", "--store", tmp_path, "--role", "release"
    )
    assert (answer.code, "not signed off: " in answer.err) == (ExitCode.FAIL, True)
    assert not (tmp_path / "signoffs").exists()


def test_the_verdict_is_signed_and_the_same_on_the_same_day(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """Byte for byte, its signature too; and the step's summary is written where CI asks for one."""
    sealed(tmp_path, exported(0))
    said = []
    for _ in range(2):
        matrix("gate", "--store", tmp_path, "--at", "2026-11-23T12:00:00+00:00")
        said.append([(tmp_path / "latest" / name).read_bytes() for name in ("verdict.json", "verdict.intoto.json")])
    assert said[0] == said[1]


def test_policy_check_names_each_problem(matrix: Callable[..., Answer], tmp_path: Path) -> None:
    """The package's own can be certified; p99 from a profile of 100 rounds cannot."""
    assert matrix("policy", "check").out.startswith("ok  mangaassist-production ")
    latency = 'suite = "inference_latency"\nvariants = ["ort_int8"]\nmetric = "p99_s"\nat_most = 0.1\n'
    gate = f'[[gate]]\nid = "tail"\nwhy = "x"\ntargets = ["cpu-*"]\n{latency}'
    (tmp_path / "tail.toml").write_text(DROP[: DROP.index("[[gate]]")] + gate, encoding="utf-8")
    answer = matrix("policy", "check", tmp_path / "tail.toml")
    assert answer.code == ExitCode.USAGE
    assert "p99_s has no bound below 299 samples" in answer.out


def _commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, one in command.commands.items():
            yield from _commands(one, (*path, name))


@pytest.mark.parametrize("command", list(_commands(cli)), ids=" ".join)
def test_help_says_something_and_shows_no_mark_of_clicks(command: tuple[str, ...]) -> None:
    r"""In a raw docstring click's `\b` is two characters, and every example runs into one paragraph."""
    shown = CliRunner().invoke(cli, [*command, "--help"]).output
    assert len(shown.splitlines()) > 4
    assert "\\b" not in shown
