"""The command that has a teacher answer prompts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
from rich.console import Console

from matrix.answered import writing
from matrix.console import Live
from matrix.errors import ExitCode, UsageError
from matrix.job import Event
from matrix.label import Question
from matrix.prompts import read_prompts
from matrix.strict import parse

_HELP: Final = """Have a teacher answer PROMPTS through any OpenAI-compatible endpoint that streams, for response distillation.

\b
  matrix label prompts.txt --out answers.jsonl --max-tokens 512 \\
    --endpoint https://api.example.com/v1 --model teacher-large \\
    --api-key-env EXAMPLE_KEY --per-minute 300 \\
    --price-in 2.50 --price-out 10 --budget 20

PROMPTS is a .txt of one prompt a line, or a .jsonl of {"prompt": "..."} or
{"messages": [{"role": "user", "content": "..."}]}.

Each line of the file of answers is one answer, on the disk before it counts, with its token counts, its cost and how it
ended. One that is cut off, filtered or empty is kept, and no student learns from it.

Stop or kill the command at any time, and run it again: what is answered is never asked again, unless the model, the
messages, --max-tokens, --temperature or --seed are others. Ends with exit code 6 if a question has no answer; the same
command asks it again.
"""


def _url(endpoint: str) -> str:
    parts = urlsplit(endpoint)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise UsageError("--endpoint is no address", remedy="write it as https://api.example.com/v1")
    if parts.username or parts.password:
        raise UsageError("--endpoint holds a name or password", remedy="put the key into a variable: --api-key-env")
    return endpoint


def _key(variable: str | None) -> str | None:
    """The key in the environment's `variable`; never shown, whatever is wrong with it."""
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise UsageError(f"${variable} holds no key", remedy="set it to the endpoint's key, of ASCII characters")
    return key


@click.command(help=_HELP)
@click.argument("prompts", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--endpoint", required=True, metavar="URL", help="Base address of the server; it usually ends in /v1.")
@click.option("--model", required=True, metavar="NAME", help="The teacher, as the server calls it.")
@click.option("--out", required=True, type=click.Path(path_type=Path, dir_okay=False), help="File of answers (.jsonl).")
@click.option("--system", metavar="TEXT", default=None, help="A system message before every prompt.")
@click.option("--max-tokens", type=click.IntRange(1), default=None, help="Longest answer; a longer one is refused.")
@click.option("--temperature", type=click.FloatRange(0), default=None, help="0 for the likeliest answer.")
@click.option(
    "--seed", type=click.IntRange(0, 2**53 - 1), default=None, help="Seed of sampling, where the server heeds it."
)
@click.option("--concurrency", type=click.IntRange(1, 256), default=4, show_default=True, help="Requests at a time.")
@click.option(
    "--per-minute", type=click.FloatRange(0, min_open=True), default=None, help="Requests begun in a minute at most."
)
@click.option("--price-in", type=click.FloatRange(0), default=None, help="What a million prompt tokens cost.")
@click.option("--price-out", type=click.FloatRange(0), default=None, help="What a million tokens of answers cost.")
@click.option(
    "--budget",
    type=click.FloatRange(0),
    default=None,
    help="What the answers in the file may cost together; needs prices and --max-tokens.",
)
@click.option(
    "--api-key-env", metavar="VARIABLE", default=None, help="Variable that holds the key [default: none is sent]."
)
def label(
    prompts: Path,
    endpoint: str,
    model: str,
    out: Path,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    concurrency: int,
    per_minute: float | None,
    price_in: float | None,
    price_out: float | None,
    budget: float | None,
    api_key_env: str | None,
) -> None:
    """Have a teacher answer prompts."""
    from matrix import endpoint as teacher  # noqa: PLC0415 - openai takes a second to import; no other command needs it
    from matrix import labelling  # noqa: PLC0415 - likewise

    if (price_in is None) != (price_out is None):
        raise UsageError("one price is missing", remedy="give --price-in and --price-out together")
    prices = None if price_in is None or price_out is None else teacher.Prices(price_in, price_out)
    if budget is not None and (prices is None or max_tokens is None):
        raise UsageError("a budget needs to know costs", remedy="give --price-in, --price-out and --max-tokens too")
    sampling = {"model": model, "max_tokens": max_tokens, "temperature": temperature, "seed": seed}
    read = [
        (one.line, parse(Question, {"messages": one.messages, **sampling}, f"{prompts}:{one.line}"))
        for one in read_prompts(prompts, system)
    ]
    work = labelling.distinct(read)
    server = teacher.Endpoint(_url(endpoint), _key(api_key_env), teacher.Pace(per_minute), prices)
    with server, writing(out) as file, Live(Console(stderr=True)) as live:
        for note in file.notes:
            live.say(note)
        limit = None if budget is None or prices is None else labelling.Budget(budget, file, prices)
        run = labelling.Labelling(file, server, concurrency, limit)
        try:
            run.run(work, live.say, lambda done, total: live.event(Event(stage="label", done=done, total=total)))
        except KeyboardInterrupt:
            live.say("interrupted: what is answered is kept, the same command goes on from it")
            sys.exit(ExitCode.INTERRUPTED)
        finally:
            click.echo(f"{len(read)} prompts, {len(work)} different: {run.tally}")
    sys.exit(ExitCode.INCOMPLETE if run.tally.failed else ExitCode.PASS)
