"""What each tool of the design note can do (its section 2.2), where a yes is what the matrix itself runs. Pure.

Refuses a yes by a row that the catalog does not have, or whose work is another: a claim and what shows it are one thing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from matrix.catalog import VARIANTS, Variant, Work
from matrix.strict import Strict, parse_toml

Capability = Literal["output", "feature", "attention", "optimisation", "response"]

TITLES: Final[dict[Capability, str]] = {
    "output": "Output KD",
    "feature": "Feature KD",
    "attention": "Attention KD",
    "optimisation": "After distillation",
    "response": "Response distillation",
}
_SHOWN_BY: Final[dict[Capability, frozenset[Work]]] = {
    "output": frozenset({"output", "several teachers", "token logits", "on-policy"}),
    "feature": frozenset({"features", "hints", "relational", "similarity", "nst", "pkt"}),
    "attention": frozenset({"features", "attention"}),
    "response": frozenset({"answers", "token logits", "on-policy"}),
}
"""Works that show a capability of training."""


class Yes(Strict):
    """Variants of the catalog that do it."""

    by: tuple[str, ...] = Field(min_length=1)


class No(Strict):
    """Why not."""

    no: str = Field(min_length=1)


def rows(name: str) -> list[Variant]:
    """The catalog's built rows of a variant: a runtime and an export may share a name."""
    suites = {"training_step", "export_accuracy", "inference_latency", "response_quality", "generation"}
    return [one for one in VARIANTS if one.name == name and one.suite in suites and one.missing is None]


def _shows(name: str, capability: Capability) -> bool:
    if capability == "optimisation":
        return any(one.suite != "training_step" for one in rows(name))
    return any(one.suite == "training_step" and one.work in _SHOWN_BY[capability] for one in rows(name))


class Tool(Strict):
    """One row of the note's table: `use`, `role` and the order are the note's; `package` is what its rows must import."""

    name: str
    package: str | None = None
    released: str
    use: str
    role: str
    output: Yes | No
    feature: Yes | No
    attention: Yes | No
    optimisation: Yes | No
    response: Yes | No

    def answers(self) -> Iterator[tuple[Capability, Yes | No]]:
        """Each capability with its answer."""
        for capability in TITLES:
            yield capability, getattr(self, capability)

    @property
    def by(self) -> tuple[str, ...]:
        """Every variant that shows something of the tool, once."""
        return tuple(
            dict.fromkeys(name for _, answer in self.answers() if isinstance(answer, Yes) for name in answer.by)
        )

    @model_validator(mode="after")
    def _every_yes_is_shown(self) -> Self:
        for capability, answer in self.answers():
            for name in answer.by if isinstance(answer, Yes) else ():
                if not _shows(name, capability):
                    raise ValueError(f"{self.name}: {name} is no built row of the catalog that shows {capability}")
        return self


class Capabilities(Strict):
    """Every tool, in the note's order."""

    tool: tuple[Tool, ...] = Field(min_length=1)


class Sized(NamedTuple):
    """A tool, and the lines of code of each module of ours that shows it."""

    tool: Tool
    lines: Mapping[str, int]


def sized(capabilities: Capabilities, sources: Mapping[str, str]) -> list[Sized]:
    """Every tool with the sizes of its modules; `sources` are Python by the variant's name."""
    return [
        Sized(tool, {name: code_lines(sources[name]) for name in tool.by if name in sources})
        for tool in capabilities.tool
    ]


def parse_capabilities(text: str, where: str = "capabilities.toml") -> Capabilities:
    """The tools that `text` (TOML) declares.

    Raises:
        DataError: with the path to each fault.
    """
    return parse_toml(Capabilities, text, where)


def code_lines(source: str) -> int:
    """Lines of Python that are neither blank, nor comment, nor docstring: what a user writes, counted."""
    tree = ast.parse(source)
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    told: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            told.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    lines = enumerate(source.splitlines(), start=1)
    return sum(1 for number, line in lines if number not in told and line.strip() and not line.lstrip().startswith("#"))
