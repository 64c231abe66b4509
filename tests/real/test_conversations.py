"""The response workload's data: conversations of exactly so many tokens, cut from a teacher's answers; and who depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from matrix.cell import Cell
from matrix.errors import DataError, UsageError
from matrix.identity import workload_id
from matrix.job import Folders, Job, ResponseIdentity, WorkloadSpec
from matrix.label import Answer, Message, Question
from matrix.profile import Response
from matrix.workloads import conversations, training
from matrix.workloads.conversations import IGNORED, ResponseExample
from matrix.workloads.launch import Launch
from matrix.workloads.prepare import Preparation
from tests.making import prepared
from tests.real.responding import SHAPE, rows
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks


def test_every_row_has_exactly_its_tokens() -> None:
    """No padding; the prompt's labels are ignored, the answer's are its ids and end the turn; whole batches."""
    tokenizer, said = rows()
    assert len(said) % SHAPE.batch == 0
    for example in said:
        row = conversations.encode(tokenizer, example)
        assert (len(row.ids), row.prompt) == (SHAPE.length, SHAPE.length - SHAPE.answer)
        assert row.labels == [IGNORED] * row.prompt + row.ids[row.prompt :]
        assert tokenizer.pad_token_id not in row.ids
        assert row.ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(row.ids).endswith(f"<|assistant|>{example.answer}<|end|>")


def test_the_tokenizer_is_a_function_of_its_texts() -> None:
    """Trained twice, to the byte; every text reads back, also one that it never saw."""
    examples = conversations.load_answers("embedded")
    first, second = (conversations.train_tokenizer(examples, 1_800) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    assert (first.pad_token_id, first.eos_token_id) == (conversations.PAD, conversations.END)
    assert len(first) <= 1_800
    for text in (examples[0].answer, "漫画 ☕ çé\n\ttabs"):
        assert first.decode(first.encode(text)) == text


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    """256 bytes and five special tokens are the least."""
    with pytest.raises(DataError, match="a vocabulary of 100 cannot read every text"):
        conversations.train_tokenizer(conversations.load_answers("embedded"), 100)


def test_an_answer_without_room_is_refused() -> None:
    """The chat template takes four tokens of its own."""
    tokenizer, _ = rows()
    with pytest.raises(DataError, match="13 tokens with an answer of 12 hold no text; the chat template alone takes 4"):
        conversations.cut(tokenizer, conversations.load_answers("embedded"), SHAPE.model_copy(update={"length": 13}))


def _line(prompt: str, answer: str, reason: str = "stop") -> str:
    question = Question(
        model="teacher", messages=(Message(role="system", content="Be kind."), Message(role="user", content=prompt))
    )
    told = Answer(
        key=question.key,
        question=question,
        answer=answer,
        model="teacher",
        finish_reason=reason,
        prompt_tokens=9,
        completion_tokens=5,
        cost=None,
        when="2026-11-22T12:00:00+00:00",
        attempts=1,
    )
    return told.model_dump_json() + "\n"


def test_a_file_of_answers_is_what_the_student_learns_from(tmp_path: Path) -> None:
    """Messages are joined to one prompt; an answer that was cut off does not teach; other answers, another digest."""
    path = tmp_path / "answers.jsonl"
    path.write_text(_line("Where is naruto?", "On the second shelf.") + _line("And nana?", "On", "length"))
    found = conversations.load_answers(str(path))
    assert found == [ResponseExample(prompt="Be kind.\nWhere is naruto?", answer="On the second shelf.")]
    other = [found[0].model_copy(update={"answer": "Sold out."})]
    assert conversations.answers_digest(found) != conversations.answers_digest(other)
    tokenizer = conversations.train_tokenizer(found, 1_800)
    said = conversations.cut(tokenizer, found, SHAPE)  # one example is repeated until it fills its row
    assert {len(conversations.encode(tokenizer, one).ids) for one in said} == {SHAPE.length}


def test_a_bad_file_of_answers_says_which_line(tmp_path: Path) -> None:
    """Absent, and with a line that `matrix label` never wrote."""
    path = tmp_path / "answers.jsonl"
    with pytest.raises(DataError, match=r"answers.jsonl cannot be read; give the file that `matrix label` wrote"):
        conversations.load_answers(str(path))
    path.write_text(_line("Where is naruto?", "There.") + '{"prompt": "p", "answer": "a"}\n')
    with pytest.raises(DataError, match=r"answers.jsonl:2 is not valid; .*prompt: unknown key"):
        conversations.load_answers(str(path))


def _job(folder: Path, *variants: str, answers: str = "embedded", shape: Response = SHAPE) -> Job:
    cells = tuple(
        Cell(suite="training_step", workload="response", variant=name, batch=shape.batch, length=shape.length)
        for name in variants
    )
    return Job(
        target="cpu",
        device="cpu",
        profile=PROFILE.model_copy(update={"response": shape}),
        spec=WorkloadSpec(answers=answers),
        suite_sha256="s" * 64,
        cells=cells,
        folders=Folders(cache=str(folder / "cache"), out=str(folder)),
        threads=1,
        launch=1,
    )


def _prepared(job: Job) -> ResponseIdentity | None:
    return Preparation(job, lambda _: None)._response()


def test_conversations_are_prepared_where_a_cell_needs_them(tmp_path: Path) -> None:
    """None without a response cell; kept under a key of answers and sizes; vocabularies must be one."""
    assert _prepared(_job(tmp_path)) is None
    assert not (tmp_path / "cache").exists()
    first, again = (_prepared(_job(tmp_path, "raw_sft")) for _ in range(2))
    assert first == again
    assert first
    path = tmp_path / "answers.jsonl"
    path.write_text(_line("Where is naruto?", "On the second shelf."))
    other = _prepared(_job(tmp_path, "raw_sft", answers=str(path)))
    assert other
    assert (other.source, other.examples) == ("answers.jsonl", 1)
    assert {first.sha256, first.tokenizer_sha256, first.conversations}.isdisjoint(
        {other.sha256, other.tokenizer_sha256, other.conversations}
    )
    apart = SHAPE.model_copy(update={"teacher": SHAPE.teacher.model_copy(update={"vocabulary": 9})})
    with pytest.raises(UsageError, match="gives the response student 1800 tokens and its teacher 9"):
        _prepared(_job(tmp_path, "raw_sft", shape=apart))


def test_a_launch_builds_each_stacks_work(tmp_path: Path) -> None:
    """From what prepare left; a teacher that no step needs takes no memory; every stack's step has its FLOPs."""
    job = _job(tmp_path, "raw_sft", "raw_token_kd", "trl_distillation")
    job = job.model_copy(update={"prepared": prepared().model_copy(update={"response": _prepared(job)})})
    steps = {}
    for cell in job.cells:
        with training.prepared(cell, Launch(job)) as run:
            assert run.work.teacher.device.type == ("meta" if cell.variant == "raw_sft" else "cpu")
            training.agree(cell.variant, run.stack, run.work)
            run.step()
            assert run.moved()
            assert bool(run.facts(1)["step_flop"])
            assert ("backward_share" in run.facts(1)) == run.stack.has_phases
            steps[cell.variant] = run.stack.step_flop(int(cell.length or 0))
    assert steps["raw_sft"] < steps["raw_token_kd"] < steps["trl_distillation"]


def test_an_identity_follows_the_answers_and_not_the_intent_data() -> None:
    """Another answers file or tokenizer, another identity; other utterances, the same. An intent cell: the other way round."""
    told = ResponseIdentity(
        source="embedded", examples=1, sha256="a" * 64, tokenizer_sha256="t" * 64, conversations="k"
    )
    whole = prepared().model_copy(update={"response": told})

    def identity(suite: str, workload: str, name: str, **changes: object) -> str:
        cell = Cell.model_validate({"suite": suite, "workload": workload, "variant": name, "batch": 4, "length": 40})
        return workload_id(cell, PROFILE, whole.model_copy(update=changes), suite_sha256="s", dtype="float32")

    data = whole.data.model_copy(update={"train": whole.data.train.model_copy(update={"sha256": "x" * 64})})
    response, intent = ("training_step", "response", "raw_sft"), ("training_step", "intent", "raw_torch")
    for field in ("sha256", "tokenizer_sha256"):
        other = {"response": told.model_copy(update={field: "b" * 64})}
        assert identity(*response, **other) != identity(*response)
        assert identity(*intent, **other) == identity(*intent)
    assert identity(*response, data=data, tokenizer_sha256="y" * 64) == identity(*response)
    assert identity(*intent, data=data) != identity(*intent)
