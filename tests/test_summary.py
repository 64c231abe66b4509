"""What CI shows of a verdict: the step's summary and JUnit, the worst first, and waivers where everybody sees them."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

from matrix.gates import decide
from matrix.junit import render as junit
from matrix.report import summary
from matrix.verdict import GateResult, Verdict
from tests.story import Story, asked, contradicted

WHY = "nobody ships from a Mac before the next release"


def waived(root: Path) -> Story:
    """A store in which a contradicted accuracy is waived, and a contradicted ratio is not."""
    story, _ = contradicted(root)
    story.waived("mps-accuracy", WHY)
    return story


def results(text: str) -> list[list[str]]:
    """The rows of the summary's table."""
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| mps-")]


def test_what_is_open_comes_first_and_what_was_waived_says_so(tmp_path: Path) -> None:
    """Failed, then waived, then passed; the waiver with its signer, its end, its reason and its use."""
    verdict = decide(asked(), waived(tmp_path).case())
    text = summary.render(verdict, asked())
    assert [(row[0], row[4], row[5]) for row in results(text)] == [
        ("mps-trainer-ratio", "contradicted", "✗ fail"),
        ("mps-accuracy", "contradicted", "✗ fail, waived by mps-accuracy-by-release"),
        ("mps-int8-drop", "confirmed", "✓ pass"),
    ]
    assert (
        f"- **waiver mps-accuracy-by-release** by release until 2026-12-01, passes over 1 of the answers: {WHY}\n"
        in text
    )
    assert text.startswith(f"## ✗ story: student {verdict.subject[:12] if verdict.subject else ''}: FAIL (2 fail")
    assert ", 1 of them waived by mps-accuracy-by-release; first: mps-trainer-ratio on mps" in text


def many(count: int) -> Verdict:
    """A verdict of so many answers, the failures among them last."""

    def one(number: int) -> GateResult:
        answer = "fail" if number >= count - 3 else "pass"
        return GateResult(
            gate="mps-accuracy",
            target="mps",
            cell=f"export_accuracy/intent/é{number}",
            metric="accuracy",
            unit="share",
            answer=answer,
            bound=0.9,
            limit=0.85,
            badge="trusted",
            why="because | of <this>",
        )

    return Verdict(
        judged="2026-11-22T12:00:00+00:00",
        policy="story",
        policy_sha256=asked().sha256,
        subject=None,
        answer="fail",
        results=tuple(one(number) for number in range(count)),
        invalid=(),
        bundles=(),
    )


def test_a_summary_is_never_longer_than_ci_takes_and_loses_the_best_answers_first() -> None:
    """GitHub drops more than 1 MiB as a whole: 20,000 answers are cut, the three failures stand, the rest is counted."""
    text = summary.render(many(20_000), asked())
    assert 990_000 < len(text.encode()) <= 1_000_000
    rows = results(text)
    assert [row[5] for row in rows[:4]] == ["✗ fail", "✗ fail", "✗ fail", "✓ pass"]
    told = re.search(r"\n(\d+) more lines are in verdict.json\.\n$", text)
    assert told
    assert int(told[1]) == 20_000 - len(rows)


def test_a_summary_that_fits_is_whole() -> None:
    """No count, and text that cannot break the table."""
    text = summary.render(many(5), asked())
    assert len(results(text)) == 5
    assert "more lines" not in text
    assert "because \\| of &lt;this>" in text


def suite(verdict: Verdict) -> Element:
    """The verdict's JUnit suite."""
    return fromstring(junit(verdict))  # noqa: S314 - our own text


def test_a_waived_requirement_is_no_failure_in_junit_and_prints_why(tmp_path: Path) -> None:
    """Three tests, one failure: the waived one carries answer, waiver and reason as its output."""
    found = suite(decide(asked(), waived(tmp_path).case()))
    assert {key: found.get(key) for key in ("tests", "failures", "errors", "skipped")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
        "skipped": "0",
    }
    accuracy = next(case for case in found if "accuracy.mps" in (case.get("classname") or ""))
    assert [part.tag for part in accuracy] == ["system-out"]
    assert (accuracy[0].text or "").startswith("fail, waived by mps-accuracy-by-release: contradicted: ")


def test_invalid_evidence_is_a_failure_that_no_waiver_covers(tmp_path: Path) -> None:
    """In JUnit a case of its own; in the summary above every answer."""
    story = waived(tmp_path)
    verdict = decide(asked(), story.case()).model_copy(update={"invalid": ("a bundle is gone",)})
    found = suite(verdict)
    assert (found.get("tests"), found.get("failures")) == ("4", "2")
    text = summary.render(verdict, asked())
    assert text.index("**invalid evidence**: a bundle is gone") < text.index("| Gate |")
