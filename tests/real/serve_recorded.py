"""`transformers serve`, which also writes down what it is asked: `serve_recorded FILE serve --port N ...`.

The server itself is transformers' own (4.57.6). It streams whatever is asked, counts no tokens, and says "stop" of an answer
that was cut off too.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn
from transformers.commands.transformers_cli import main

_ASKED = Path(sys.argv.pop(1))
_run = uvicorn.run


def _recorded(app: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """`app`, each of whose requests for an answer leaves its Idempotency-Key in the file, before it is answered."""

    async def asked(scope: dict[str, Any], receive: object, send: object) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            with _ASKED.open("a", encoding="utf-8") as lines:  # noqa: ASYNC230 - a line of a local file
                lines.write(dict(scope["headers"])[b"idempotency-key"].decode() + "\n")
        await app(scope, receive, send)

    return asked


uvicorn.run = lambda app, **options: _run(_recorded(app), **options)
if __name__ == "__main__":
    main()
