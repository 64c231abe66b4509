"""The table of tools claims nothing that the matrix does not run."""

from __future__ import annotations

import ast

import pytest

from matrix import definitions
from matrix.capabilities import Capabilities, code_lines, parse_capabilities
from matrix.catalog import VARIANTS
from matrix.errors import DataError
from tests.making import tools

SEED = (
    "raw PyTorch",
    "transformers + custom Trainer",
    "TextBrewer",
    "Knowledge-Distillation-Zoo patterns",
    "optimum",
    "trl SFTTrainer",
    "trl distillation trainers",
    "Lightning",
    "accelerate",
    "Optimum Intel and OpenVINO",
    "llama.cpp and llama-cpp-python",
)
"""The rows of the note's section 2.2, and accelerate of its section 3.2 B4."""


STACKS = definitions.PACKAGE / "workloads" / "distill"


def imports(source: str) -> set[str]:
    """The packages that a module imports, anywhere in it or in the modules beside it that it imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = (node.module or "").split(".")
            beside = STACKS / f"{whole[-1]}.py"
            if whole[:3] == ["matrix", "workloads", "distill"] and len(whole) > 3 and beside.is_file():
                found |= imports(beside.read_text(encoding="utf-8"))
            found.add(whole[0])
    return found


def test_every_tool_of_the_note_has_its_row() -> None:
    """In its order."""
    assert tuple(one.tool.name for one in tools()) == SEED


def test_a_yes_is_shown_with_the_tool_itself() -> None:
    """Each stack that shows a tool imports its package: TextBrewer's yes is not raw PyTorch's."""
    for tool, _ in tools():
        stacks = {one.name for one in VARIANTS if one.suite == "training_step"} & set(tool.by)
        sources = definitions.variant_sources(stacks)
        assert set(sources) == stacks
        if tool.package:
            assert all(tool.package in imports(source) for source in sources.values()), tool.name


def test_every_stack_shows_some_tool() -> None:
    """No stack of the catalog is without a claim that it supports."""
    stacks = {one.name for one in VARIANTS if one.suite == "training_step"}
    assert stacks <= {name for tool, _ in tools() for name in tool.by}


def declared(output: str) -> Capabilities:
    """A table of one tool."""
    no = "\n".join(f'{name} = {{ no = "x" }}' for name in ("feature", "attention", "optimisation", "response"))
    return parse_capabilities(f'[[tool]]\nname = "t"\nreleased = "1"\nuse = "u"\nrole = "r"\noutput = {output}\n{no}\n')


def test_a_yes_needs_a_row_that_does_it() -> None:
    """Output KD is not shown by a stack of features, nor by a name that is no row."""
    assert declared('{ by = ["raw_torch"] }').tool[0].by == ("raw_torch",)
    for by in ("tinybert_two_stage", "nothing"):
        with pytest.raises(DataError, match=f"t: {by} is no built row of the catalog that shows output"):
            declared(f'{{ by = ["{by}"] }}')


def test_lines_of_code_are_counted_without_words() -> None:
    """Five lines: no comment, no blank line, no docstring of a module, a class or a function."""
    source = '''"""A module
of two lines."""

# a comment
import os


class A:
    """A class."""

    def f(self):
        """A function."""
        return "not a docstring"  # counted


x = 1
'''
    assert code_lines(source) == 5
