"""A teacher that fails: every fault of a server over HTTP, met by the command itself."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from matrix import endpoint
from matrix.__main__ import main
from matrix.errors import ExitCode
from matrix.label import Answer, answers_of

KEY = "sk-do-not-tell-0123456789"


class Handler(BaseHTTPRequestHandler):
    """Answers a prompt with the faults that its `Teacher` has in store for it, and then well."""

    protocol_version = "HTTP/1.1"
    server: Teacher

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
        """Say nothing."""

    def do_POST(self) -> None:
        """One request."""
        self.body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = self.body["messages"][-1]["content"]
        with self.server.lock:
            self.server.requests.append(Request(text, dict(self.headers.items()), self.body, time.monotonic()))
            faults = self.server.faults.get(text, [])
            act = faults.pop(0) if faults else Handler.well
        act(self)

    def refuse(self, status: int, message: str = "no", code: str | None = None, **headers: str) -> None:
        """An error as OpenAI words it."""
        data = json.dumps({"error": {"message": message, "code": code}}).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(data)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def begin(self) -> None:
        """A stream, which ends with its connection."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def event(self, data: str) -> None:
        """One event of it."""
        raw = f"data: {data}\n\n".encode()
        self.wfile.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    def end(self) -> None:
        """Its end."""
        self.wfile.write(b"0\r\n\r\n")

    def delta(self, text: str | None = None, reason: str | None = None) -> None:
        """A part of the answer."""
        choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": reason}
        self.event(json.dumps({"id": "1", "model": "teacher-v1", "choices": [choice]}))

    def usage(self) -> None:
        """10 tokens of the prompt, 2 of the answer."""
        count = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
        self.event(json.dumps({"id": "1", "model": "teacher-v1", "choices": [], "usage": count}))

    def well(self, reason: str = "stop") -> None:
        """A whole answer of two parts, with its token counts."""
        self.begin()
        self.delta("Be")
        self.delta("cause.")
        self.delta(reason=reason)
        self.usage()
        self.event("[DONE]")
        self.end()


Act = Callable[[Handler], None]


class Request(NamedTuple):
    """What the teacher was asked, and when (monotonic seconds)."""

    text: str
    headers: dict[str, str]
    body: dict[str, Any]
    at: float


class Teacher(ThreadingHTTPServer):
    """A server on a port of its own, with `faults` for each prompt."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock, self.requests, self.faults = threading.Lock(), list[Request](), dict[str, list[Act]]()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    """A running teacher."""
    with Teacher() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Ended(NamedTuple):
    """What the command said, and the answers that it left."""

    code: int
    out: str
    err: str
    answers: list[Answer]


Command = Callable[..., Ended]


@pytest.fixture
def label(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """`matrix label` as a shell would call it, with short waits; its words and files never hold the key."""
    monkeypatch.setattr(endpoint, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("TEACHER_KEY", KEY)
    out = tmp_path / "answers.jsonl"

    def call(prompts: str, *options: object) -> Ended:
        (tmp_path / "p.txt").write_text(prompts.replace(" ", "\n"), encoding="utf-8")
        fixed = ["--endpoint", teacher.url, "--model", "teacher", "--out", out, "--api-key-env", "TEACHER_KEY"]
        monkeypatch.setattr(sys, "argv", ["matrix", "label", *map(str, [tmp_path / "p.txt", *fixed, *options])])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        with out.open("rb") as lines:
            answers = list(answers_of(lines, "answers.jsonl"))
        kept = [path.name for path in tmp_path.iterdir() if path.is_file()]
        assert sorted(kept) == ["answers.jsonl", "p.txt"]
        assert KEY not in said.out + said.err + out.read_text(encoding="utf-8")
        return Ended(int(ended.value.code or 0), said.out, said.err.replace("\n", " "), answers)

    return call


def refusing(status: int, *arguments: str, **headers: str) -> Act:
    """An answer of this status."""
    return lambda handler: handler.refuse(status, *arguments, **headers)


def dropped(handler: Handler) -> None:
    """The connection ends in the midst of the answer."""
    handler.begin()
    handler.delta("Be")
    handler.close_connection = True


def silent(handler: Handler) -> None:
    """The connection ends before the answer begins."""
    handler.close_connection = True


def nonsense(handler: Handler) -> None:
    """Half a JSON."""
    handler.begin()
    handler.event('{"id": "1", "choi')
    handler.end()


def misshapen(handler: Handler) -> None:
    """JSON of another shape."""
    handler.begin()
    handler.event('{"id": "1", "choices": [7]}')
    handler.end()


def faulty(handler: Handler) -> None:
    """An error inside the stream."""
    handler.begin()
    handler.event('{"error": {"message": "out of memory"}}')
    handler.end()


def test_an_answer_is_recorded_with_its_tokens_and_its_cost(teacher: Teacher, label: Command) -> None:
    """10 tokens at 2.5 and 2 at 10 a million: 45 millionths; the request says all that it is asked to."""
    ended = label("Why?", "--price-in", 2.5, "--price-out", 10, "--max-tokens", 9, "--temperature", 0, "--seed", 3)
    (one,), (request,) = ended.answers, teacher.requests
    assert (one.answer, one.model, one.finish_reason, one.attempts) == ("Because.", "teacher-v1", "stop", 1)
    assert (one.prompt_tokens, one.completion_tokens, one.cost) == (10, 2, pytest.approx(45e-6))
    assert (request.headers["Authorization"], request.headers["Idempotency-Key"]) == (f"Bearer {KEY}", one.key)
    assert request.body == {
        "model": "teacher",
        "messages": [{"role": "user", "content": "Why?"}],
        "max_tokens": 9,
        "temperature": 0.0,
        "seed": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert ended.code == ExitCode.PASS
    assert ended.out == (
        "1 prompts, 1 different: 1 answered, 0 reused, 0 failed; 0 of the answers refused; 10 + 2 tokens; cost 4.5e-05\n"
    )


def test_nothing_is_asked_twice(teacher: Teacher, label: Command) -> None:
    """Neither in one run nor in the next; another sampling is another question."""
    assert "3 prompts, 2 different: 2 answered, 0 reused" in label("a b a").out
    assert "3 prompts, 3 different: 1 answered, 2 reused" in label("a b c").out
    assert len(teacher.requests) == 3
    assert "1 prompts, 1 different: 1 answered, 0 reused" in label("a", "--seed", 1).out


@pytest.mark.parametrize(
    "fault",
    [refusing(429), refusing(500), refusing(503), silent, dropped, nonsense, misshapen, faulty],
    ids=["429", "500", "503", "silent", "dropped", "nonsense", "misshapen", "faulty"],
)
def test_a_fault_that_passes_costs_an_attempt(teacher: Teacher, label: Command, fault: Act) -> None:
    """The same request again, under the same key."""
    teacher.faults["a"] = [fault]
    (one,) = label("a").answers
    assert (one.answer, one.attempts) == ("Because.", 2)
    assert [request.headers["Idempotency-Key"] for request in teacher.requests] == [one.key, one.key]


def test_a_server_that_asks_to_wait_is_waited_for_by_all(teacher: Teacher, label: Command) -> None:
    """For the second that it asks for, no request begins."""
    teacher.faults["a"] = [refusing(429, retry_after="1")]
    assert [one.attempts for one in label("a b", "--concurrency", 1).answers] == [2, 1]
    times = [request.at for request in teacher.requests]
    assert [request.text for request in teacher.requests] == ["a", "a", "b"]
    assert times[1] - times[0] >= 1.0


def test_requests_keep_the_pace(teacher: Teacher, label: Command) -> None:
    """600 a minute: a tenth of a second between two, retries included, however many at a time."""
    teacher.faults["a"] = [refusing(500)]
    label("a b c d", "--per-minute", 600, "--concurrency", 4)
    times = sorted(request.at for request in teacher.requests)
    assert len(times) == 5
    assert times[-1] - times[0] >= 0.4 - 0.05  # as the server sees them


def test_a_question_without_an_answer_leaves_no_line_and_is_asked_again(teacher: Teacher, label: Command) -> None:
    """A refused request is not sent twice; the run says which line, and is incomplete."""
    teacher.faults["b"] = [refusing(400, f"too long, dear owner of {KEY}")]
    ended = label("a b c")
    assert ended.code == ExitCode.INCOMPLETE
    assert sorted(one.question.messages[0].content for one in ended.answers) == ["a", "c"]
    assert "line 2 of the prompts has no answer: Error code: 400" in ended.err
    assert "too long, dear owner of ***" in ended.err
    assert "2 answered, 0 reused, 1 failed" in ended.out
    assert len(teacher.requests) == 3
    again = label("a b c")
    assert (again.code, len(again.answers)) == (ExitCode.PASS, 3)


def test_attempts_have_an_end(teacher: Teacher, label: Command) -> None:
    """8 for what the server did not take on; 3 for what may have been paid for, and it says so."""
    teacher.faults = {"a": [refusing(500)] * 20, "b": [dropped] * 20, "c": [silent] * 20}
    ended = label("a b c")
    assert [sum(request.text == text for request in teacher.requests) for text in "abc"] == [8, 3, 3]
    assert "after 8 attempts " in ended.err
    assert "after 3 attempts, which may have been paid for" in ended.err
    assert ended.answers == []


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (
            refusing(401, f"Incorrect API key provided: {KEY}"),
            "name the variable that holds a valid key with --api-key-env",
        ),
        (refusing(403), "name the variable that holds a valid key with --api-key-env"),
        (refusing(404), "check --endpoint (it usually ends in /v1) and --model"),
        (refusing(402), "see to it, and run again: what is answered is kept"),
        (refusing(429, "quota", "insufficient_quota"), "see to it, and run again: what is answered is kept"),
        (refusing(429, retry_after="86400"), "run again then: what is answered is kept"),
        (refusing(200), "use a server that streams: what this one answers would be paid for and lost"),
    ],
    ids=["401", "403", "404", "402", "quota", "tomorrow", "no stream"],
)
def test_what_no_question_would_survive_ends_the_run(
    teacher: Teacher, label: Command, fault: Act, sentence: str
) -> None:
    """At its first request, with the remedy."""
    teacher.faults["b"] = [fault] * 9
    ended = label("a b c d", "--concurrency", 1)
    assert ended.code in {ExitCode.USAGE, ExitCode.INCOMPLETE}
    assert ended.err.strip().endswith(sentence)
    assert [request.text for request in teacher.requests] == ["a", "b"]
    assert len(ended.answers) == 1


def test_an_endpoint_that_is_not_there_was_paid_nothing(teacher: Teacher, label: Command) -> None:
    """No connection: all attempts, and no word of money."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and never listens
        ended = label("a", "--endpoint", f"http://127.0.0.1:{nobody.getsockname()[1]}/v1")
    assert (ended.code, teacher.requests) == (ExitCode.INCOMPLETE, [])
    assert "Connection refused), after 8 attempts" in ended.err
    assert "paid for" not in ended.err


def test_an_endpoint_that_is_down_ends_the_run(
    teacher: Teacher, label: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After ten questions in a row without an answer, not after all of them."""
    monkeypatch.setattr(endpoint, "ATTEMPTS", 1)
    prompts = [f"q{number}" for number in range(30)]
    teacher.faults = {prompt: [refusing(500)] for prompt in prompts}
    ended = label(" ".join(prompts), "--concurrency", 1)
    assert ended.code == ExitCode.INCOMPLETE
    assert "the last 10 questions have no answer; see to the endpoint, and run again" in ended.err
    assert len(teacher.requests) == 10


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_a_refused_answer_is_kept_and_not_asked_again(teacher: Teacher, label: Command, reason: str) -> None:
    """It was paid for; the summary says why it is of no use."""
    teacher.faults["a"] = [lambda handler: handler.well(reason)]
    assert label("a").answers[0].refusal == reason
    assert f"0 answered, 1 reused, 0 failed; 1 of the answers refused (1 {reason})" in label("a").out
    assert len(teacher.requests) == 1


def test_a_connection_lost_after_the_answer_costs_its_token_counts_only(teacher: Teacher, label: Command) -> None:
    """The answer is whole and paid for; what it cost is not known, and is not made up."""

    def cut(handler: Handler) -> None:
        handler.begin()
        handler.delta("Because.", "stop")
        handler.close_connection = True

    teacher.faults["a"] = [cut]
    ended = label("a", "--price-in", 1, "--price-out", 1)
    (one,) = ended.answers
    assert (one.answer, one.attempts, one.prompt_tokens, one.cost) == ("Because.", 1, None, None)
    assert "0 + 0 tokens (1 answers do not tell theirs); cost —" in ended.out


def test_a_budget_is_never_exceeded(teacher: Teacher, label: Command) -> None:
    """12 tokens an answer at 1 a token; its most is 1 + 2 x 16 + 2 = 35. A budget of 60 pays for 3 (36 and 35 more is 71).

    A larger one goes on where it ended.
    """
    prices = ("--price-in", 1e6, "--price-out", 1e6, "--max-tokens", 2, "--concurrency", 4)
    ended = label("a b c d e", *prices, "--budget", 60)
    assert ended.code == ExitCode.INCOMPLETE
    assert "the next of 2 questions could cost more than is left of the budget of 60; raise --budget" in ended.err
    assert len(teacher.requests) == len(ended.answers) == 3
    assert label("a b c d e", *prices, "--budget", 90).code == ExitCode.PASS
    assert len(teacher.requests) == 5


def test_a_server_that_counts_no_tokens_has_no_budget(teacher: Teacher, label: Command) -> None:
    """The run ends with its first answer, which is kept."""

    def uncounted(handler: Handler) -> None:
        handler.begin()
        handler.delta("Because.", "stop")
        handler.event("[DONE]")
        handler.end()

    teacher.faults["a"] = [uncounted]
    ended = label("a b", "--price-in", 1, "--price-out", 1, "--max-tokens", 2, "--budget", 1, "--concurrency", 1)
    assert "have no cost, so no budget can be kept; leave --budget out" in ended.err
    assert (ended.code, len(ended.answers), len(teacher.requests)) == (ExitCode.USAGE, 1, 1)


def test_a_halt_awaits_what_is_in_flight(teacher: Teacher, label: Command) -> None:
    """A refused key ends the run; the slow answer beside it is paid for, so it is kept."""
    going = threading.Event()

    def slow(handler: Handler) -> None:
        going.set()
        time.sleep(0.5)
        handler.well()

    def refused(handler: Handler) -> None:
        assert going.wait(10)
        handler.refuse(401)

    teacher.faults = {"a": [slow], "b": [refused]}
    ended = label("a b c d", "--concurrency", 2)
    assert "waiting for 1 requests in flight: they are paid for" in ended.err
    assert [one.question.messages[0].content for one in ended.answers] == ["a"]
    assert len(teacher.requests) == 2
