"""Asks an OpenAI-compatible endpoint one question (chat completions, streamed): an answer, or why there is none.

Streamed, because silence then means trouble. An answer counts only with its finish reason. The retries are our own: those of
openai 2.54 keep no pace, end where a stream begins, and sleep through a stop.
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Self, cast

import httpx
import openai
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from matrix.errors import DataError, IncompleteError, UsageError
from matrix.label import Answer, Question
from matrix.strict import parse
from matrix.units import show

ATTEMPTS: Final = 8
"""Requests for one answer at most. Waits double from half a second, so they outlast a minute's quota."""
TORN_ATTEMPTS: Final = 3
"""No other request after so many if the last one was lost on its way or in its answer: those may have been paid for."""

_FIRST_WAIT_S, _LAST_WAIT_S = 0.5, 60.0
_LONGEST_S: Final = 600.0
"""The longest that is waited for a server that says when to come back."""
_SILENCE_S: Final = 600.0
"""A server that says nothing for so long has lost the request."""
_TOLD: Final = 300
"""Letters of a server's own words that are passed on."""
_PER: Final = 1e6
_MARKUP: Final = 16
"""Tokens that a chat template adds to a message at most; no more are known of."""


class StoppedError(Exception):
    """The run is ending: this question was not sent (again)."""


class FailedError(Exception):
    """This question has no answer; another one may. Its text says why."""


class TornError(Exception):
    """The stream ended before the answer did."""


class Prices(NamedTuple):
    """What a million tokens cost, in any currency."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What an answer cost, by list price: discounts are not known here."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _PER

    def most(self, question: Question) -> float:
        """What its answer can cost at most: no token is shorter than a byte of its text. Unbounded without `max_tokens`."""
        if question.max_tokens is None:
            return math.inf
        written = sum(len(message.content.encode()) + _MARKUP for message in question.messages) + _MARKUP
        return self.cost(written, question.max_tokens)


class Pace:
    """Lets requests begin one after the other, `per_minute` at most (None: no limit), and none while a server asks to wait."""

    def __init__(self, per_minute: float | None = None) -> None:
        self._gap_s = 60.0 / per_minute if per_minute else 0.0
        self._lock, self._next = threading.Lock(), 0.0

    def turn(self, stop: threading.Event) -> None:
        """Wait for a turn.

        Raises:
            StoppedError: `stop` was set meanwhile.
        """
        while not stop.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self._gap_s
                    return
                left = self._next - now
            stop.wait(left)
        raise StoppedError

    def hold(self, seconds: float) -> None:
        """Let nobody begin for so long."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)


class _Said(NamedTuple):
    """What a stream came to."""

    text: str
    finish_reason: str
    model: str | None
    usage: tuple[int, int] | None


def _collect(chunks: Iterator[ChatCompletionChunk]) -> _Said:
    """The whole answer; with its finish reason it is whole, and a connection lost after it costs the token counts only.

    Raises:
        TornError: the stream ended without one.
    """
    parts: list[str] = []
    reason = model = usage = None
    try:
        for chunk in chunks:
            model = chunk.model or model
            if chunk.usage:
                usage = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
            for choice in chunk.choices:
                parts.append(choice.delta.content or "")
                reason = choice.finish_reason or reason
    except (httpx.HTTPError, openai.APIError, ValueError):
        if reason is None:
            raise
    if reason is None:
        raise TornError("the stream ended before the answer did")
    return _Said("".join(parts), reason, model, usage)


def _asked_to_wait(headers: httpx.Headers) -> float | None:
    """Seconds that a server asks to wait (`Retry-After`: seconds or a date); None where it does not say."""
    said = headers.get("retry-after", "")
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(said) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):  # no date, or one without a zone
        return None


def _attempts(error: Exception) -> int:
    """How many requests an answer is worth that met with `error`."""
    if isinstance(error, openai.APIStatusError):
        return ATTEMPTS if error.status_code in {408, 409, 429} or error.status_code >= 500 else 1  # noqa: PLR2004 - HTTP's own
    never_sent = isinstance(error.__cause__, (httpx.ConnectError, httpx.ConnectTimeout))
    return ATTEMPTS if never_sent else TORN_ATTEMPTS


class Endpoint:
    """An OpenAI-compatible server at `url` (which usually ends in /v1); safe to use from several threads.

    `key` goes to the server and nowhere else: no error's text contains it. `silence_s` is how long the server may say nothing.
    """

    def __init__(
        self, url: str, key: str | None, pace: Pace, prices: Prices | None = None, silence_s: float = _SILENCE_S
    ) -> None:
        self.url, self.pace, self.prices, self._key = url, pace, prices, key
        # A key must be given to openai 2.54, else it takes OPENAI_API_KEY, which need not be this server's to know.
        timeout = httpx.Timeout(silence_s, connect=min(silence_s, 10.0))
        self._client = openai.OpenAI(base_url=url, api_key=key or "none", max_retries=0, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, question: Question, stop: threading.Event, sending: Callable[[], None]) -> Answer:
        """The answer, refused ones too; `sending` is called before each request, and `stop` ends the waits between them.

        Raises:
            FailedError: there is none to this question.
            StoppedError: `stop` was set before it was asked (again).
            MatrixError: no question will be answered: the key, the model or the quota is at fault.
        """
        for attempt in range(1, ATTEMPTS + 1):
            self.pace.turn(stop)
            sending()
            try:
                return self._answer(question, self._said(question), attempt)
            # AttributeError, TypeError: openai 2.54 makes its types of what a server sends without a look at it
            except (
                openai.APIError,
                httpx.HTTPError,
                TornError,
                DataError,
                ValueError,
                AttributeError,
                TypeError,
            ) as error:
                self._halt(error)
                wait = self._wait(error, attempt)
            stop.wait(wait)
        raise AssertionError("the last attempt waits for no other")

    def _said(self, question: Question) -> _Said:
        some = {name: getattr(question, name) for name in ("max_tokens", "temperature", "seed")}
        messages = cast("list[ChatCompletionMessageParam]", [message.model_dump() for message in question.messages])
        with self._client.chat.completions.create(
            model=question.model,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers={"Idempotency-Key": question.key},  # a server that heeds it answers a repeated request once
            **cast("Any", {name: value for name, value in some.items() if value is not None}),
        ) as chunks:
            if not chunks.response.headers.get("content-type", "").startswith("text/event-stream"):
                remedy = "use a server that streams: what this one answers would be paid for and lost"
                raise UsageError(f"{self.url} does not stream chat completions", remedy=remedy)
            return _collect(iter(chunks))

    def _answer(self, question: Question, said: _Said, attempts: int) -> Answer:
        prompt_tokens, completion_tokens = said.usage or (None, None)
        cost = self.prices.cost(*said.usage) if self.prices and said.usage else None
        told = {
            "key": question.key,
            "question": question,
            "answer": said.text,
            "model": said.model,
            "finish_reason": said.finish_reason,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "cost": cost,
            "when": datetime.now(UTC).isoformat(timespec="seconds"),
            "attempts": attempts,
        }
        return parse(Answer, told, f"what {self.url} answered")

    def _words(self, error: Exception) -> str:
        """An error's own words and its cause's on one line, without the key."""
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        text = " ".join(f"{error}{cause}".split())
        return (text.replace(self._key, "***") if self._key else text)[:_TOLD] or type(error).__name__

    def _halt(self, error: Exception) -> None:
        """Raise where no question will be answered, whatever it is."""
        status = error.status_code if isinstance(error, openai.APIStatusError) else None
        if status in {401, 403}:
            what, remedy = "does not let us in", "name the variable that holds a valid key with --api-key-env"
        elif status == 404:  # noqa: PLR2004 - HTTP's own number
            what, remedy = "has no such place or model", "check --endpoint (it usually ends in /v1) and --model"
        elif status == 402 or getattr(error, "code", None) == "insufficient_quota":  # noqa: PLR2004 - likewise
            what, remedy = "wants to be paid", "see to it, and run again: what is answered is kept"
        else:
            return
        raise UsageError(f"{self.url} {what}: {self._words(error)}", remedy=remedy) from None

    def _wait(self, error: Exception, attempt: int) -> float:
        """Seconds to wait before the next attempt.

        Raises:
            FailedError: there should be none.
            IncompleteError: the server asks to wait too long.
        """
        if attempt >= (most := _attempts(error)):
            lost = ", which may have been paid for" if most == TORN_ATTEMPTS else ""
            raise FailedError(f"{self._words(error)}, after {attempt} attempts{lost}") from None
        asked = _asked_to_wait(error.response.headers) if isinstance(error, openai.APIStatusError) else None
        if asked is None:
            wait = min(_FIRST_WAIT_S * 2.0 ** (attempt - 1), _LAST_WAIT_S)
            return wait * random.uniform(0.75, 1.0)  # noqa: S311 - apart from the others, no secret
        if asked > _LONGEST_S:
            what = f"{self.url} asks to wait {show(asked, 's')}: {self._words(error)}"
            raise IncompleteError(what, remedy="run again then: what is answered is kept") from None
        self.pace.hold(asked)
        return asked
