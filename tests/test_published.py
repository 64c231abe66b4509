"""What the project publishes is evidence that a reader can verify, and what the README points to is there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from matrix.findings import findings_of
from matrix.store import Store

ROOT = Path(__file__).parent.parent
PUBLISHED = ROOT / "reports" / "published"


def test_published_bundles_are_whole_and_were_measured_from_a_commit() -> None:
    """Every file as sealed; no uncommitted change."""
    found, torn = Store(PUBLISHED).load_all()
    assert found
    assert torn == []
    for evidence in found:
        source = evidence.bundle.source
        assert (evidence.faults, source.dirty) == ((), ())
        assert source.commit


def test_published_numbers_are_those_of_the_published_bundles() -> None:
    """Derived anew from raw samples and outputs, to the last digit."""
    facts = json.loads((PUBLISHED / "report.json").read_text(encoding="utf-8"))
    found = {
        (finding.bundle, finding.cell.id, finding.metric): [finding.value, finding.low, finding.high]
        for evidence in Store(PUBLISHED).load_all()[0]
        for finding in findings_of(evidence)
    }
    shown = {
        (one["bundle"], one["cell"], one["metric"]): [one["value"], one["low"], one["high"]] for one in facts["numbers"]
    }
    assert shown == found


def test_no_path_of_a_machine_is_published() -> None:
    """Nor a user's name."""
    for path in PUBLISHED.rglob("*"):
        if path.suffix in {".json", ".html", ".md"}:
            assert not re.search(r"/(home|root|work|Users|tmp)/", path.read_text(encoding="utf-8")), path.name


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_every_link_leads_somewhere(name: str) -> None:
    """Files and folders of the repository."""
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []
