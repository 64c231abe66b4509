"""One self-contained page: no network, no script, dark and light, print. The same page gives the same bytes."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from matrix.report.badges import MARKS
from matrix.report.page import Page


def render(page: Page) -> str:
    """The page as HTML text."""
    environment = Environment(
        loader=PackageLoader("matrix.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(page=page, marks=MARKS)
