"""The page as GitHub-flavoured Markdown: the same tables; plots stay with the HTML page."""

from __future__ import annotations

from collections.abc import Iterator

from matrix.report.badges import MARKS
from matrix.report.page import Page, Section
from matrix.report.tables import Entry, Table


def escaped(text: str) -> str:
    """`text` as it may stand in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _entry(entry: Entry) -> str:
    mark = MARKS[entry.mark] if entry.mark else None
    text, note, told = escaped(entry.text), escaped(entry.note), f"{mark.glyph} {mark.word}" if mark else ""
    parts = (text, note, told) if text else (told, note)
    return " ".join(part for part in parts if part)


def _table(table: Table) -> Iterator[str]:
    if table.lead:
        yield from ("", escaped(table.lead))
    yield from ("", f"| {' | '.join(escaped(name) for name in table.head)} |", f"|{'---|' * len(table.head)}")
    for row in table.rows:
        yield f"| {' | '.join(_entry(entry) for entry in row)} |"


def _section(section: Section) -> Iterator[str]:
    yield from ("", f"## {section.title}")
    if section.lead:
        yield from ("", escaped(section.lead))
    if section.commands:
        yield from ("", "```", *section.commands, "```")
    for table in section.tables:
        if len(section.tables) > 1:
            yield from ("", f"### {table.title}")
        yield from _table(table)


def render(page: Page) -> str:
    """The page as Markdown text."""
    mark = MARKS[page.answer]
    lines = [
        f"# {page.title}",
        "",
        f"**{mark.glyph} {page.sentence}**",
        "",
        f"Judged {page.made} under policy {page.policy}.",
    ]
    for section in page.sections:
        lines += _section(section)
    return "\n".join(lines) + "\n"
