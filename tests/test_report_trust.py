"""What the report says of trust: who signed, what is doubted, what was withdrawn or waived. As text beside every mark."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from matrix.job import Training
from matrix.keys import Keys, home
from matrix.policy import Policy
from matrix.report import html, machine, markdown, page
from matrix.report.badges import MARKS, ORDER, mark_of
from matrix.report.tables import Table
from matrix.verdict import PRECEDENCE, State
from tests.making import with_training
from tests.story import Story, agreeing, asked, contradicted, differing, mac

STUDENT = Training(teacher_accuracy=0.9, student_accuracy=0.8, seconds=60.0, seed=0, device="cpu")
WHY = "TF32 was on: its products were rounded"


def tables(story: Story, section: str, policy: Policy | None = None) -> dict[str, Table]:
    """A section's tables by their identifier."""
    sections = page.build(story.material(policy)).sections
    return {table.id: table for one in sections if one.id == section for table in one.tables}


def column(table: Table, name: str) -> list[str]:
    """The texts of a column, each with its note, and the word of its mark."""
    at = table.head.index(name)
    entries = [row[at] for row in table.rows]
    return [" ".join(filter(None, (one.text, one.note, f"[{one.mark}]" if one.mark else ""))) for one in entries]


def test_a_bundle_says_who_signed_it_and_where_it_stands_in_their_chain(tmp_path: Path) -> None:
    """Role, short key and number; a key that nobody imported vouches for nothing, and the table says so."""
    story, _ = contradicted(tmp_path)
    signed = column(tables(story, "evidence")["bundles"], "Signed by")
    assert [re.sub(r"key \w{12}", "key K", one) for one in signed] == [
        "nightly-cuda key K, number 2",
        "nightly-cuda key K, number 1",
        "nightly-mps key K, number 1",
    ]
    (tmp_path / "bundles" / story.material().evidence[0].name / "bundle.intoto.json").unlink()
    assert column(tables(story, "evidence")["bundles"], "Signed by")[-1] == (
        "nobody who is trusted nobody signed it: it has no bundle.intoto.json"
    )


def test_what_is_not_believed_is_grouped_and_contradictions_come_first(tmp_path: Path) -> None:
    """Eleven numbers that no other machine can confirm share one row; each contradiction has its own."""
    story, names = contradicted(tmp_path)
    doubted = tables(story, "doubted")["doubted"]
    assert column(doubted, "State") == ["[contradicted]"] * 3 + ["[unconfirmed]"] * 3
    assert column(doubted, "Numbers")[-1].startswith("11 raw_torch step_s, ")
    assert column(doubted, "Found")[-1] == "step of Apple Silicon, MPS and 8 like it"
    assert all(names[2] in found for found in column(doubted, "Found")[:3])
    assert all(all(row) for row in zip(*(column(doubted, name) for name in doubted.head), strict=True))


def test_a_number_that_nobody_accepts_looks_like_none_to_rest_on(tmp_path: Path) -> None:
    """Trusted by its machine and signed by a development key: another mark, another word, another tone, everywhere."""
    story = Story(tmp_path)
    story.measured(agreeing(), "development")
    made = page.build(story.material())
    legend = {row[0].mark for row in next(one for one in made.sections if one.id == "states").tables[0].rows}
    shown = [one for one in made.sections if one.id != "states"]
    found = [e.mark for one in shown for table in one.tables for row in table.rows for e in row if e.mark]
    assert "trusted, not accepted" in found
    assert "trusted" not in found
    assert legend == set(MARKS)
    lead = next(one for one in made.sections if one.id == "training-cuda-h200").lead
    assert lead.endswith("Not accepted: signed by development, the policy asks for nightly-cuda.")


@pytest.mark.parametrize("badge", PRECEDENCE)
def test_only_what_the_policy_accepts_has_a_mark_to_rest_on(badge: str) -> None:
    """Every state has a mark; of an unaccepted one the tone is never good."""
    state = State.model_validate(
        {"badge": badge, "origin": "measured", "validity": "valid", "trust": "trusted", "freshness": "fresh"}
    )
    refused = state.model_copy(update={"accepted": False})
    assert mark_of(state) == badge
    assert MARKS[mark_of(refused)].tone != "good"
    assert {mark_of(state), mark_of(refused)} <= set(ORDER)


def test_revocations_and_waivers_are_listed_those_that_count_for_nothing_too(tmp_path: Path) -> None:
    """With who signed them, why, and until when."""
    story, names = contradicted(tmp_path)
    story.revoked(names[2], WHY)
    story.revoked(names[1], "it disagrees", role="nightly-cuda")
    story.waived("mps-*", "next release")
    story.waived("mps-*", "it is late", role="development")
    story.waived("old-*", "another policy", policy=asked().model_copy(update={"name": "old"}))
    found = tables(story, "ledger")
    assert set(zip(column(found["revocations"], "Bundle"), column(found["revocations"], "State"), strict=True)) == {
        (names[2], "[revoked]"),
        (names[1], "counts for nothing: the policy asks for release"),
    }
    today = dict(zip(column(found["waivers"], "Waiver"), column(found["waivers"], "Today"), strict=True))
    assert today["mps-by-release"] == "passes over 0 of the answers"
    assert today["mps-by-development"] == "counts for nothing: the policy asks for release"
    assert today["old-by-release"].startswith("counts for nothing: it is of another policy, ")
    assert column(found["waivers"], "From, to")[0] == "2026-11-22 to 2026-12-01"
    bundles = tables(story, "evidence")["bundles"]
    assert column(bundles, "Worst state")[0] == f"{WHY}, says release [revoked]"


def test_a_strangers_waiver_and_revocation_are_shown_and_not_heard(tmp_path: Path) -> None:
    """Each by its file: two of them do not hide one another."""
    story, names = contradicted(tmp_path)
    story.waived("mps-*", "next release", role="stranger")
    story.revoked(names[2], WHY, role="stranger")
    keys = Keys(home())
    keys.revoke(keys.signing("stranger").name, "2026-11-22")
    unheard = tables(story, "ledger")["unheard"]
    assert [name.split("/")[0] for name in column(unheard, "Statement")] == ["revocations", "waivers"]
    assert all("was revoked on 2026-11-22" in why for why in column(unheard, "Why it is not heard"))


def test_a_waived_answer_stays_what_it_is(tmp_path: Path) -> None:
    """Failed, and waived by whom, in both views."""
    story, _ = contradicted(tmp_path)
    story.waived("mps-*", "next release")
    answers = column(tables(story, "gates")["gates"], "Answer")
    waived = "waived by mps-by-release [fail]"
    assert answers == [waived, "[pass]", waived]
    made = page.build(story.material())
    assert "| ✗ fail waived by mps-by-release |" in markdown.render(made)
    assert made.sentence.endswith("2 of them waived by mps-by-release")


def test_evidence_that_was_taken_away_is_the_first_thing_that_a_reader_sees(tmp_path: Path) -> None:
    """The banner says invalid, the first section names the bundle, the gates say that no answer counts."""
    story, names = contradicted(tmp_path)
    shutil.rmtree(tmp_path / "bundles" / names[2])
    made = page.build(story.material())
    assert (made.answer, made.sections[0].id) == ("invalid", "invalid")
    (row,) = made.sections[0].tables[0].rows
    assert row[1].text.startswith(f"{names[2]} is gone, which key ")
    assert tables(story, "gates")["gates"].lead.startswith("The evidence is invalid, and no answer of these counts.")
    statements = dict(
        zip(*(column(tables(story, "ledger")["chains"], one) for one in ("Role", "Statements")), strict=True)
    )
    assert statements == {"nightly-cuda": "2 1 gone or changed", "nightly-mps": "1"}


def test_the_machine_readable_report_holds_signers_chains_and_waivers(tmp_path: Path) -> None:
    """Enough to decide without the page: accepted, revoked, heads, faults, gaps, waivers and why they are idle."""
    story, names = contradicted(tmp_path)
    story.revoked(names[2], WHY)
    story.waived("mps-*", "it is late", role="development")
    facts = json.loads(machine.render(story.material()))
    bundles = {one["name"]: one for one in facts["bundles"]}
    assert bundles[names[2]]["revoked"] == f"{WHY}, says release"
    assert [bundles[name]["accepted"] for name in names] == [True, True, True]
    assert {one["role"] for one in bundles[names[0]]["signers"]} == {"nightly-mps"}
    ledger = facts["ledger"]
    assert sorted(head["serial"] for head in ledger["heads"].values()) == [1, 1, 2]
    assert (ledger["faults"], ledger["gaps"], len(ledger["revocations"])) == ([], {}, 1)
    assert ledger["revocations"][0]["counts"] is True
    assert [(one["idle"], one["used"]) for one in facts["waivers"]] == [("the policy asks for release", 0)]
    assert all("accepted" in one["state"] for one in facts["numbers"])


def test_a_devices_own_tensors_and_students_are_columns_where_a_bundle_holds_them(tmp_path: Path) -> None:
    """And nowhere else."""
    story = Story(tmp_path)
    story.measured(with_training(differing(), STUDENT), "nightly-cuda")
    head = tables(story, "training-cuda-a100")["training"].head
    assert head[-2:] == ("tensor RMSE / tolerance", "accuracy of a student trained here")


def test_the_page_tells_how_to_check_it(tmp_path: Path) -> None:
    """Commands that name the bundle, and a number that a gate asks for."""
    story = Story(tmp_path)
    name = story.measured(mac(), "nightly-mps")
    commands = next(one.commands for one in page.build(story.material()).sections if one.id.startswith("reproduce-mps"))
    assert any(
        line.startswith("matrix run mps --executor native --profile quick --suite training_step ") for line in commands
    )
    assert any(line.startswith(f"matrix verify reports/bundles/{name} ") for line in commands)
    assert "matrix explain 'export_accuracy/intent/torch_fp32[batch=64]' --metric accuracy --target mps" in commands


def test_the_page_of_the_story_needs_no_network_and_is_the_same_twice(tmp_path: Path) -> None:
    """Policy, addresses, bytes; code between backticks is code and markup in it stays text."""
    story, names = contradicted(tmp_path)
    story.revoked(names[2], "see `x <y>` <script>")
    first, again = (html.render(page.build(story.material())) for _ in range(2))
    assert first == again
    assert "default-src 'none'" in first
    assert not re.search(r"(src|href)=\"(?!#)", first)
    assert "<code>x &lt;y&gt;</code> &lt;script&gt;" in first
    for mark in re.findall(r'<span class="mark[^>]*>(.*?)</span>', first):
        assert re.fullmatch(r"<b>.</b> [a-z, ]+", mark), mark
    identifiers = re.findall(r' id="([^"]+)"', first)
    assert len(identifiers) == len(set(identifiers))
