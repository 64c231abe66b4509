"""The response student learns, becomes GGUF, answers in llama.cpp as in PyTorch, and refuses what would be something else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import psutil
import pytest
from pydantic import ValidationError
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from matrix import ordering
from matrix.cell import LANGUAGE, Cell
from matrix.errors import DataError, EvidenceError
from matrix.findings import findings_of
from matrix.profile import Language, LlamaShape
from matrix.run import failures, run
from matrix.store import load
from matrix.workloads import conversations
from matrix.workloads.concurrent import UnderLoad
from matrix.workloads.conversations import ResponseExample
from matrix.workloads.language import MODEL, PLAIN, REFERENCE, TYPES, Student, gguf, served, server, study
from matrix.workloads.language.generation import Generation, prompts
from matrix.workloads.language.student import HELD_OUT, halves, held_out, make
from tests.real.conftest import Finished
from tests.real.orphans import ended
from tests.real.tiny import Silent, request, targets

pytestmark = pytest.mark.frameworks
NEEDS_LLAMA = pytest.mark.llama

TINY = Language(
    student=LlamaShape(layers=2, dim=256, heads=4, hidden=256, vocabulary=2_000),
    context=256,
    prompt=64,
    shared=48,
    answer=8,
    epochs=8,
    lr=3e-3,
)
"""Learns enough in seconds that a coarser type can lose something."""


@pytest.fixture(scope="module")
def answered() -> list[ResponseExample]:
    """A teacher's answers."""
    return conversations.load_answers(conversations.EMBEDDED)[:160]


@pytest.fixture(scope="module")
def checkpoint(answered: list[ResponseExample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained student's folder."""
    place = tmp_path_factory.mktemp("language") / "student"
    place.mkdir()
    make(place, conversations.train_tokenizer(answered, TINY.student.vocabulary), answered, TINY, lambda _: None)
    return place


@pytest.fixture(scope="module")
def made(checkpoint: Path) -> Student:
    """The student and all of its files."""
    student = Student(checkpoint, checkpoint.parent)
    for name in (PLAIN, *TYPES):
        (student.files / name).mkdir()
    plain = student.files / PLAIN / MODEL
    gguf.write(checkpoint, plain)
    for name in TYPES:
        gguf.quantise(plain, student.files / name / MODEL, name)
    return student


def test_no_question_is_in_both_halves(answered: list[ResponseExample]) -> None:
    """A question that is asked twice is on one side with both answers; one question leaves nothing to judge."""
    asked = [*answered, ResponseExample(prompt=answered[1].prompt, answer="another answer")]
    learnt, held = halves(asked)
    assert not {one.prompt for one in learnt} & {one.prompt for one in held}
    assert len(learnt) + len(held) == len(asked)
    assert [one.answer for one in held if one.prompt == answered[1].prompt] == [answered[1].answer, "another answer"]
    with pytest.raises(DataError, match="leave none to judge"):
        halves(answered[:1])


def test_the_student_learns_what_it_is_judged_on(checkpoint: Path) -> None:
    """On answers that it never saw it is far better than chance, whose perplexity is the number of tokens."""
    theirs, held = study.checkpoint(checkpoint), held_out(checkpoint)
    rows, conversation = study.token_by_token(theirs, theirs, held)
    assert len(rows) == sum(len(ids) - prompt for ids, prompt in zip(held.ids, held.prompts, strict=True))
    assert list(np.unique(conversation)) == list(range(len(held.ids)))
    assert np.exp(-rows[:, 0].mean()) < TINY.student.vocabulary / 8
    assert (rows[:, 2].max(), rows[:, 3].min()) == (0.0, 1.0)  # beside itself


def test_a_tokenizer_of_more_tokens_than_rows_is_refused(answered: list[ResponseExample], tmp_path: Path) -> None:
    """Before anything is trained or written."""
    tokenizer = conversations.train_tokenizer(answered, 2_000)
    short = TINY.model_copy(update={"student": TINY.student.model_copy(update={"vocabulary": 300})})
    with pytest.raises(DataError, match="300 rows for"):
        make(tmp_path, tokenizer, answered, short, lambda _: None)
    assert not list(tmp_path.iterdir())


def test_a_profile_whose_rows_k_quants_cannot_pack_is_refused() -> None:
    """llama.cpp would take another type for such a tensor, and say so on standard error only."""
    with pytest.raises(ValidationError, match="no multiple of 256"):
        Language(student=LlamaShape())
    with pytest.raises(ValidationError, match="fit the context"):
        Language(prompt=600)


@NEEDS_LLAMA
def test_the_fp32_file_answers_as_the_checkpoint(made: Student) -> None:
    """Within rounding, and its tokens are the tokenizer's: texts of every kind read as the same ids."""
    plain = made.files / PLAIN / MODEL
    study.prove(made.checkpoint, plain, context=TINY.context)
    llama, tokenizer = (
        served.load(plain, threads=1, context=TINY.context),
        AutoTokenizer.from_pretrained(made.checkpoint),
    )
    for text in ("Where is my order? I've waited 33 days!", "  two  spaces\nand a line", "Grüße, 漫画 ☂"):
        assert llama.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text)


@NEEDS_LLAMA
@pytest.mark.parametrize("broken", ["rows", "norm"])
def test_a_wrong_conversion_is_not_trusted(
    made: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Rows of query and key that are not ggml's, or a tensor under another's name: the fp32 file is refused before all others."""
    if broken == "rows":
        monkeypatch.setattr(gguf, "paired", lambda weight, _: weight)
    else:
        swapped = {"self_attn.q_proj": "attn_output", "self_attn.o_proj": "attn_q"}
        monkeypatch.setattr(gguf, "_LAYER", {**gguf._LAYER, **swapped})
    gguf.write(made.checkpoint, tmp_path / MODEL)
    with pytest.raises(DataError, match="answers otherwise than the checkpoint"):
        study.prove(made.checkpoint, tmp_path / MODEL, context=TINY.context)


@NEEDS_LLAMA
def test_coarser_types_are_smaller_and_lose_more(made: Student) -> None:
    """By the divergence from the checkpoint, type by type; f16 loses next to nothing."""
    theirs, held = study.checkpoint(made.checkpoint), held_out(made.checkpoint)
    lost, sizes = [], []
    for name in TYPES:
        ours = study.answering(name, made, threads=1, context=TINY.context)
        lost.append(study.token_by_token(ours, theirs, held)[0][:, 2].mean())
        sizes.append(made.file(name).stat().st_size)
    assert lost == sorted(lost)
    assert sizes == sorted(sizes, reverse=True)
    assert 0 < lost[0] < 1e-5 < lost[-1]


def torn(data: bytes) -> bytes:
    """The first half of a file."""
    return data[: len(data) // 2]


def damaged(data: bytes) -> bytes:
    """A file whose header was overwritten."""
    return b"GGUX" + data[4:]


@NEEDS_LLAMA
@pytest.mark.parametrize("spoil", [torn, damaged, lambda _: b"", lambda _: b"PK\x03\x04 an archive"])
def test_a_torn_or_foreign_file_is_refused_in_words(
    made: Student, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    """Neither loaded nor quantised; nothing is left behind."""
    place = tmp_path / "spoilt.gguf"
    place.write_bytes(spoil((made.files / PLAIN / MODEL).read_bytes()))
    with pytest.raises(DataError, match=r"llama\.cpp cannot read spoilt\.gguf"):
        served.load(place, threads=1, context=TINY.context)
    with pytest.raises(DataError, match=r"llama\.cpp cannot make gguf_q8_0 of spoilt\.gguf"):
        gguf.quantise(place, tmp_path / MODEL, "gguf_q8_0")
    assert [path.name for path in tmp_path.iterdir()] == ["spoilt.gguf"]


def test_a_file_that_was_not_made_names_what_is_missing(checkpoint: Path, tmp_path: Path) -> None:
    """A cell on a host without llama.cpp fails with the remedy."""
    with pytest.raises(EvidenceError, match="no gguf_q8_0 was made") as refused:
        Student(checkpoint, tmp_path).file("gguf_q8_0")
    assert "distill-matrix[llama]" in str(refused.value)


@NEEDS_LLAMA
def test_what_is_no_llama_is_not_written(tmp_path: Path, checkpoint: Path) -> None:
    """An encoder, and a Llama whose rows are no multiple of 256."""
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(LlamaConfig(vocab_size=TINY.student.vocabulary, **shape)).save_pretrained(tmp_path / "narrow")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path / "narrow")
    with pytest.raises(DataError, match="rows of 64 weights, no multiple of 256"):
        gguf.write(tmp_path / "narrow", tmp_path / MODEL)
    assert not (tmp_path / MODEL).exists()
    with pytest.raises(DataError, match="GGUF has no name for bert"):
        gguf.name_of("bert.encoder.layer.0.attention.self.query.weight")


@pytest.fixture
def generation(made: Student, mode: Literal["prefill", "prefix", "decode"]) -> Generation:
    """A kind of call."""
    length = TINY.answer if mode == "decode" else TINY.prompt
    cell = Cell(suite="generation", workload="response", variant="gguf_q8_0", mode=mode, batch=1, length=length)
    return Generation(cell, made, TINY, 1)


@NEEDS_LLAMA
@pytest.mark.parametrize(
    ("mode", "evaluates"),
    [
        ("prefill", [TINY.prompt] * 2),
        ("prefix", [TINY.prompt - TINY.shared] * 2),
        ("decode", [1] * 2 * TINY.answer),
    ],
)
def test_a_call_computes_what_its_mode_says(
    generation: Generation, evaluates: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a prompt from nothing; behind a kept prefix the rest; and as many tokens as are written, one by one."""
    generation.agree()
    evaluated: list[int] = []
    whole = generation.llama.eval

    def counted(tokens: list[int]) -> None:
        evaluated.append(len(tokens))
        whole(tokens)

    monkeypatch.setattr(generation.llama, "eval", counted)
    arrivals = generation.arrivals()
    for _ in range(2):
        (prompt,), _ = next(arrivals)
        generation.call(prompt)
    assert evaluated == evaluates


def test_prompts_part_behind_their_shared_prefix(checkpoint: Path) -> None:
    """At once: a cache that matched one token more would do less work than it says."""
    first, second = prompts(Student(checkpoint, checkpoint), TINY)
    assert len(first) == len(second) == TINY.prompt
    assert first[: TINY.shared] == second[: TINY.shared]
    assert first[TINY.shared] != second[TINY.shared]


@NEEDS_LLAMA
def test_the_server_streams_what_it_streams_alone(made: Student) -> None:
    """Four clients at one server: nobody's answer is cut off by another's request, and each is the one that it gave before."""
    with server.service("gguf_q8_0", made, TINY, 1) as whole:
        service = whole._replace(requests=whole.requests[:4])
        cell = Cell(suite="concurrent_load", workload="response", variant="gguf_q8_0", mode="latency", clients=4)
        load = UnderLoad(service, cell, count=12, seed=1)
        answered = load.run()
    assert len(load.right(answered)) == len(answered) == 12
    assert all(0 < one.answer.first_s <= one.ended - one.begun for one in answered)
    assert all(1 <= one.answer.pieces <= TINY.answer for one in answered)


SERVES = """
import sys, time
from pathlib import Path
from matrix.workloads.language import server
with server.running(Path(sys.argv[1]), threads=1, context=64) as url:
    print(url, flush=True)
    time.sleep(600)
"""


@NEEDS_LLAMA
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux's kernel ends a process with its parent")
def test_a_killed_launch_leaves_no_server(made: Student) -> None:
    """It would take a core from whatever is measured next."""
    command = [sys.executable, "-c", SERVES, str(made.file("gguf_q8_0"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launch:
        assert launch.stdout
        assert launch.stdout.readline().startswith("http://127.0.0.1:")
        (serving,) = psutil.Process(launch.pid).children()
        launch.kill()
    assert ended(serving, within_s=30)


@NEEDS_LLAMA
def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    """The end of what it said, in the error."""
    (tmp_path / "spoilt.gguf").write_bytes(b"no model")
    with (
        pytest.raises(EvidenceError, match="did not answer") as refused,
        server.running(tmp_path / "spoilt.gguf", threads=1, context=64),
    ):
        pass
    assert "spoilt.gguf" in str(refused.value)


@NEEDS_LLAMA
def test_a_run_judges_and_times_every_file(finished: Finished) -> None:
    """Nothing is lost; the ordering is derived from the bundle, and every file has its rates."""
    asked = request(
        finished.root, launches=2, suites=LANGUAGE, language=TINY, runtimes=("ort_int8",), clients=(2,), loads=(60,)
    )
    evidence = load(run(asked, targets(), Silent()))
    assert failures(evidence.bundle.launches) == 0
    found = {(one.cell.variant, one.cell.mode, one.metric): one.value for one in findings_of(evidence)}
    assert {name for name, _, metric in found if metric == "perplexity"} == {REFERENCE, *TYPES}
    assert {name for name, _, metric in found if metric == "token_kl"} == set(TYPES)
    assert len(ordering.steps(evidence)) == 3
    for name in TYPES:
        assert (found[name, "prefix", "first_token_s"] or 1.0) < (found[name, "prefill", "first_token_s"] or 0.0)
        assert (found[name, "decode", "decode_per_s"] or 0.0) > 0
        assert (found[name, "prefill", "artifact_bytes"]) == found[name, None, "artifact_bytes"]
        if name in {"gguf_f16", "gguf_q4_k_m"}:
            assert found[name, "latency", "error_share"] == 0.0
            assert 0 < (found[name, "latency", "first_token_s"] or 0.0) <= (found[name, "latency", "p50_s"] or 0.0)
    for mode in ("latency", "throughput"):
        assert found["ort_int8", mode, "error_share"] == 0.0
        assert (found["ort_int8", mode, "p50_s"] or 1.0) <= (found["ort_int8", mode, "p99_s"] or 0.0)
    assert HELD_OUT in {path.name for path in (finished.root / "cache" / "language").rglob("*")}
