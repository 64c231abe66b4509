"""Questions, answers, and the file that holds them: what is kept, what is mended, what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from matrix.answered import AnswerFile, writing
from matrix.commands import label as command
from matrix.endpoint import Prices
from matrix.errors import DataError, UsageError
from matrix.label import Answer, Message, Question
from matrix.labelling import Budget, distinct
from matrix.prompts import read_prompts
from matrix.workloads.taught import read_answers


def question(text: str = "Why?", **changes: object) -> Question:
    """A question of one message."""
    return Question(model="m", messages=(Message(role="user", content=text),), **changes)


def answer(text: str = "Because.", *, to: Question | None = None, **changes: object) -> Answer:
    """A whole answer."""
    asked = to or question()
    fields = {
        "key": asked.key,
        "question": asked,
        "answer": text,
        "model": "m-1",
        "finish_reason": "stop",
        "prompt_tokens": 3,
        "completion_tokens": 2,
        "cost": 0.5,
        "when": "2026-11-24T04:00:00+00:00",
        "attempts": 1,
    }
    return Answer(**(fields | changes))


def line(one: Answer) -> bytes:
    """As it stands in the file."""
    return one.model_dump_json().encode() + b"\n"


def whole(file: AnswerFile) -> bytes:
    """The file's bytes."""
    return file.path.read_bytes()


def test_a_key_is_of_all_that_decides_the_answer_and_of_nothing_else() -> None:
    """The digest of the canonical JSON of what is set, worked by hand; each change makes another one."""
    # sha256 of {"messages":[{"content":"Why?","role":"user"}],"model":"m"}
    assert question().key == "b7c2cd78620eef99347fa90aab07e0ee83ec817e6e84009441ecbf859ccd36f6"
    others = [question(max_tokens=5), question(temperature=0), question(seed=0), question("Who?")]
    assert len({one.key for one in [question(), *others]}) == 5
    assert question(temperature=0).key == question(temperature=0.0).key


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, None),
        ({"finish_reason": "length"}, "length"),
        ({"finish_reason": "content_filter"}, "content_filter"),
        ({"answer": " \n"}, "empty"),
    ],
)
def test_only_a_whole_answer_teaches(changes: dict[str, Any], refusal: str | None, tmp_path: Path) -> None:
    """Whatever was cut off, filtered or is empty has its reason, and no reader gets it."""
    (tmp_path / "a.jsonl").write_bytes(line(answer(**changes)) + line(answer("Me.", to=question("Who?"))))
    assert answer(**changes).refusal == refusal
    texts = [one.answer for one in read_answers(tmp_path / "a.jsonl")]
    assert texts == (["Me."] if refusal else ["Because.", "Me."])


def test_a_file_of_refused_answers_teaches_nothing(tmp_path: Path) -> None:
    """It is an error, not an empty data set."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(answer(finish_reason="length")))
    with pytest.raises(DataError, match=re.escape(f"none of the 1 answers in {path} may teach; ask again with")):
        read_answers(path)


def test_reading_gives_the_conversation_and_its_answer(tmp_path: Path) -> None:
    """A line separator of Unicode in a text ends no line; the same line twice is one answer."""
    (tmp_path / "a.jsonl").write_bytes(line(answer("one\u2028two")) * 2)
    ((messages, text),) = read_answers(tmp_path / "a.jsonl")
    assert (messages, text) == ((Message(role="user", content="Why?"),), "one\u2028two")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (line(answer()) + line(answer("So.")), ":2 answers the question of line 1 otherwise; keep one of the two"),
        (line(answer())[:-9], ":1 is torn; run `matrix label` again: it mends the end of its file"),
        (line(answer())[:40] + line(answer()), ":1 is not valid; the top level: Invalid JSON"),
        (
            line(answer()).replace(b"Why", b"Who"),
            ":1 is not valid; the top level: Value error, the key is not the question's",
        ),
    ],
)
def test_a_reader_names_the_line_that_is_wrong(data: bytes, fault: str, tmp_path: Path) -> None:
    """Two answers to one question, half a line at the end or amidst, a line that was changed."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(f"{path}{fault}")):
        read_answers(path)


@pytest.mark.parametrize("left", [1, 5, 60, 200])
def test_half_a_line_at_the_end_is_cut_off(left: int, tmp_path: Path) -> None:
    """Wherever a kill tore it; the lines before stay as they are."""
    path, first, second = tmp_path / "a.jsonl", answer(), answer(to=question("Who?"))
    path.write_bytes(line(first) + line(second)[:left])
    with writing(path) as file:
        assert file.known == {first.key: None}
        assert file.notes == [f"the last line of {path} was torn when a run was killed: it is cut off, and asked again"]
        file.append(second)
    assert path.read_bytes() == line(first) + line(second)


def test_a_line_that_lacks_its_end_alone_was_paid_for_and_stays(tmp_path: Path) -> None:
    """A kill between the last letter and the end of the line loses nothing."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(answer())[:-1])
    with writing(path) as file:
        assert (file.known, file.notes) == ({answer().key: None}, [])
        assert whole(file) == line(answer())


@pytest.mark.parametrize("data", [b'{"prompt": "mine"}', b"my only copy", b'{"prompt": "mine"}\n'])
def test_a_file_of_something_else_is_left_alone(data: bytes, tmp_path: Path) -> None:
    """`--out` with the name of the prompts costs nothing."""
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"the last line of .* is no answer|:1 is not valid"), writing(path):
        pass
    assert path.read_bytes() == data


def test_one_process_writes_a_file(tmp_path: Path) -> None:
    """A second one is told so."""
    path = tmp_path / "a.jsonl"
    with writing(path), pytest.raises(UsageError, match="another process is writing"), writing(path):
        pass


def test_what_was_in_flight_at_a_kill_is_told_once(tmp_path: Path) -> None:
    """Not what was answered before the mark could be taken away."""
    path = tmp_path / "a.jsonl"
    left = writing(path)
    file = left.__enter__()  # and never left, as in a kill
    for text in ("Why?", "Who?", "When?"):
        file.asking(question(text).key)
    file.append(answer())
    file.asked(question("When?").key)
    file._stream.close()  # the kernel's part
    with writing(path) as again:
        assert again.notes == ["1 requests were in flight when a run was killed: they may have been paid for"]
    with writing(path) as once_more:
        assert once_more.notes == []
    assert [found.name for found in tmp_path.iterdir()] == ["a.jsonl"]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the line was taken, and is given back: the next line does not join it."""
    with writing(tmp_path / "a.jsonl") as file:
        file.append(answer())

        class Full:
            """A disk with 10 bytes left."""

            fileno = file._stream.fileno

            def __init__(self) -> None:
                self.real, self.left = file._stream, 10

            def write(self, data: bytes) -> int:
                """As many bytes as fit."""
                if not self.left:
                    raise OSError(28, "No space left on device")
                self.left = 0
                return self.real.write(data[:10])

        monkeypatch.setattr(file, "_stream", Full())
        with pytest.raises(OSError, match="No space left"):
            file.append(answer(to=question("Who?")))
        assert whole(file) == line(answer())


def test_prompts_are_read_from_text_and_from_json(tmp_path: Path) -> None:
    """A line each, blank ones apart; a system message comes first."""
    (tmp_path / "p.txt").write_text("Why?\r\n\n Who?\n", encoding="utf-8")
    read = read_prompts(tmp_path / "p.txt", system="Be brief.")
    assert [one.line for one in read] == [1, 3]
    assert [[message.content for message in one.messages] for one in read] == [
        ["Be brief.", "Why?"],
        ["Be brief.", "Who?"],
    ]
    (tmp_path / "p.jsonl").write_text(
        '{"prompt": "Why?"}\n{"messages": [{"role": "user", "content": "Why?"}]}\n', encoding="utf-8"
    )
    first, second = read_prompts(tmp_path / "p.jsonl")
    assert first.messages == second.messages == (Message(role="user", content="Why?"),)


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("p.csv", "x", " is neither .jsonl nor .txt; give one prompt a line: JSON, or plain text"),
        ("p.txt", "\n \n", " asks nothing; give at least one prompt"),
        ("p.jsonl", "{}", ':1 is not valid; the top level: Value error, give either "prompt" or "messages"'),
        ("p.jsonl", '{"prmpt": "x"}', ":1 is not valid; prmpt: unknown key, did you mean 'prompt'?"),
        (
            "p.jsonl",
            '{"messages": [{"role": "system", "content": "x"}]}',
            ":1 has a system message of its own; leave --system out, or take it away there",
        ),
    ],
)
def test_a_line_that_is_no_prompt_is_named(name: str, text: str, fault: str, tmp_path: Path) -> None:
    """The file, the line and the remedy."""
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises((DataError, UsageError)) as refused:
        read_prompts(tmp_path / name, system="Be brief.")
    assert str(refused.value) == f"{tmp_path / name}{fault}"


def test_a_conversation_that_ends_with_an_answer_is_no_question() -> None:
    """A training set is not what a teacher answers."""
    messages = (Message(role="user", content="Why?"), Message(role="assistant", content="Because."))
    with pytest.raises(ValueError, match="the last message is not the user's"):
        Question(model="m", messages=messages)


def test_equal_questions_are_one() -> None:
    """At the line that asks it first."""
    found = distinct([(1, question()), (2, question("Who?")), (3, question())])
    assert [(one.line, one.question) for one in found] == [(1, question()), (2, question("Who?"))]


def test_a_budget_counts_the_dearest_answers(tmp_path: Path) -> None:
    """By hand: 4 bytes + 2 x 16 tokens of markup at 1, and 10 tokens at 2, in millionths: 56e-6 a question.

    With 0.5 in the file and one in flight, a second fits into 0.5 + 112e-6 and not into less.
    """
    asked, prices = question(max_tokens=10), Prices(1.0, 2.0)
    assert prices.most(asked) == pytest.approx(56e-6)
    with writing(tmp_path / "a.jsonl") as file:
        file.append(answer())
        assert Budget(0.5 + 113e-6, file, prices).allows(asked, [asked])
        assert not Budget(0.5 + 111e-6, file, prices).allows(asked, [asked])
        assert not Budget(1e9, file, prices).allows(question(), [])


def test_no_budget_is_kept_where_a_cost_is_not_known(tmp_path: Path) -> None:
    """A server that counts no tokens, or a file made without prices."""
    with writing(tmp_path / "a.jsonl") as file:
        file.append(answer(cost=None, completion_tokens=None))
        with pytest.raises(UsageError, match=r"1 answers in .* have no cost, so no budget can be kept"):
            Budget(1.0, file, Prices(1.0, 1.0))


@pytest.mark.parametrize("key", [None, "", "  \n", "sk-geheim\u00df", "sk-two\nlines"])
def test_a_key_that_cannot_be_sent_is_refused_unseen(key: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's own error about it would quote it."""
    monkeypatch.delenv("A_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("A_KEY", key)
    with pytest.raises(UsageError) as refused:
        command._key("A_KEY")
    assert str(refused.value) == "$A_KEY holds no key; set it to the endpoint's key, of ASCII characters"


@pytest.mark.parametrize("url", ["example.com/v1", "ftp://example.com", "https://me:secret@example.com/v1"])
def test_an_endpoint_is_an_address_without_secrets(url: str) -> None:
    """Errors name it, so it must hold none."""
    with pytest.raises(UsageError) as refused:
        command._url(url)
    assert "secret" not in str(refused.value)
