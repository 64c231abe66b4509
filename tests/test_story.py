"""A Mac's numbers from measured to believed and back: who says what of them, and what a gate makes of it.

Each step's golden file is compared whole; `UPDATE_GOLDEN=1 python -m pytest tests/test_story.py` writes them anew. Names of
bundles are their digests, so the files name them by their place in the story.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from matrix.gates import sentence
from matrix.report import markdown, page
from matrix.signoff import exit_of
from matrix.units import show
from matrix.verdict import Judged
from tests.making import QUIET
from tests.story import Story, agreeing, asked, called, contradicted, differing, held, mac

GOLDEN = Path(__file__).parent / "golden" / "story"
BUSY = QUIET.model_copy(update={"steal_share": 0.2})
WHY = "TF32 was on: its products were rounded"


def _cells(*texts: str) -> str:
    return f"| {' | '.join(markdown.escaped(text) for text in texts)} |"


def _number(one: Judged) -> str:
    finding, state = one.finding, one.state
    name = f"{finding.cell.variant} {finding.metric}"
    accepted = "" if state.accepted else ", not accepted"
    first = str(state.reasons[0]) if state.reasons else ""
    return _cells(finding.bundle, name, show(finding.value, finding.unit), f"{state.badge}{accepted}", first)


def _section(text: str, title: str) -> str:
    """One section of a Markdown report."""
    found = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    return f"## The report: {title}\n{found.rstrip()}"


def _lines(story: Story, title: str) -> Iterator[str]:
    """All that a step's golden file holds."""
    material = story.material()
    verdict = material.verdict
    yield f"# {title}\n"
    yield f"{sentence(verdict)}\n"
    yield f"Exit code {int(exit_of(verdict))}.\n"
    yield "## Numbers\n\n| bundle | number | value | badge | first reason |\n|---|---|---|---|---|"
    yield from (_number(one) for one in material.judged)
    yield "\n## Gates\n\n| gate | answer | why |\n|---|---|---|"
    for result in verdict.results:
        yield _cells(
            result.gate, result.answer + (f", waived by {result.waived_by}" * bool(result.waived_by)), result.why
        )
    report = markdown.render(page.build(material))
    yield f"\n{_section(report, 'The matrix')}\n"
    yield _section(report, "Gates")


def check(story: Story, names: Sequence[str], step: str, title: str) -> None:
    """The step is told as its golden file says."""
    text = called("\n".join(_lines(story, title)) + "\n", names)
    subject = story.material().verdict.subject or ""
    held(GOLDEN / f"{step}.md", text.replace(f"student {subject[:12]}", "student S"))


def test_a_mac_alone_is_believed_by_nobody(tmp_path: Path) -> None:
    """Measured, signed by whom the policy asks for, and no gate may rest on it."""
    story = Story(tmp_path)
    names = [story.measured(mac(), "nightly-mps")]
    check(story, names, "1-measured", "A Mac was measured")


def test_an_h200_that_agrees_confirms_what_it_can(tmp_path: Path) -> None:
    """Another host, another role, the same torch and workload; no time of the Mac's is confirmed by it."""
    story = Story(tmp_path)
    names = [story.measured(mac(), "nightly-mps"), story.measured(agreeing(), "nightly-cuda")]
    check(story, names, "2-confirmed", "An H200 agrees")


def test_an_a100_that_differs_beats_the_h200(tmp_path: Path) -> None:
    """In what it contradicts and in nothing else."""
    story, names = contradicted(tmp_path)
    check(story, names, "3-contradicted", "An A100 differs")


def test_a_contradiction_can_be_withdrawn_by_the_release_role(tmp_path: Path) -> None:
    """Confirmed again, and the reason stays in the report."""
    story, names = contradicted(tmp_path)
    story.revoked(names[2], WHY)
    check(story, names, "4-revoked", "The A100's run is revoked")


def test_who_measured_cannot_withdraw_a_contradiction(tmp_path: Path) -> None:
    """The same words signed by the runner's own key change nothing."""
    story, names = contradicted(tmp_path)
    before = story.material()
    story.revoked(names[2], WHY, role="nightly-cuda")
    after = story.material()
    assert [one.state for one in after.judged] == [one.state for one in before.judged]
    assert after.verdict.results == before.verdict.results


def test_a_contradiction_that_is_deleted_makes_everything_invalid(tmp_path: Path) -> None:
    """The chain of the key that signed it knows its name."""
    story, names = contradicted(tmp_path)
    shutil.rmtree(tmp_path / "bundles" / names[2])
    check(story, names, "5-deleted", "The A100's bundle is deleted instead")
    assert story.material().verdict.invalid[0].startswith(f"{names[2]} is gone")


def test_a_revoked_mac_leaves_nothing_to_rest_on(tmp_path: Path) -> None:
    """However well CUDA answers, the gates ask for the Mac."""
    story, names = contradicted(tmp_path)
    story.revoked(names[2], WHY)
    story.revoked(names[0], "the Mac ran on battery")
    check(story, names, "6-nothing-left", "The Mac's run is revoked too")


def test_a_waiver_passes_over_a_contradiction_and_hides_nothing(tmp_path: Path) -> None:
    """Answer and badge stay; the sentence says by which waiver the verdict passes."""
    story, names = contradicted(tmp_path)
    story.waived("mps-*", "nobody ships from a Mac before the next release")
    check(story, names, "7-waived", "The release role waives the Mac's gates")


@pytest.mark.parametrize("role", ["nightly-mps", "development"])
def test_a_waiver_by_another_role_changes_nothing(tmp_path: Path, role: str) -> None:
    """Who measures may not waive."""
    story, _ = contradicted(tmp_path)
    before = story.material().verdict
    story.waived("mps-*", "it is late", role=role)
    assert story.material().verdict == before
    assert before.policy_sha256 == asked().sha256


def test_a_busy_mac_is_told_of_its_own_doubt_and_not_that_cuda_agrees(tmp_path: Path) -> None:
    """Degraded comes before confirmed: the gate names what to mend."""
    story, one = Story(tmp_path), mac()
    busy = {
        key: replace(found, evidence=found.evidence.model_copy(update={"load": BUSY}))
        for key, found in one.measured.items()
    }
    story.measured(replace(one, measured=busy), "nightly-mps")
    story.measured(agreeing(), "nightly-cuda")
    ratio = next(result for result in story.material().verdict.results if result.gate == "mps-trainer-ratio")
    assert (ratio.answer, ratio.badge) == ("undecided", "degraded")
    assert ratio.why.startswith("degraded: cpu_steal: ")


def test_the_story_says_that_it_was_made_by_hand() -> None:
    """Nobody can take it for a measurement."""
    assert {one().bundle.prepared.data.source for one in (mac, agreeing, differing)} == {"made by tests/story.py"}
