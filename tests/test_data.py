"""Data that can carry a claim, from wherever it comes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from matrix.errors import DataError
from matrix.profile import Recipe
from matrix.workloads.data import load_splits
from matrix.workloads.mangaassist import best_accuracy, generate, load_grammar

SMALL = Recipe(train_examples=300, teacher_epochs=1, student_epochs=1, validation_examples=100, evaluation_examples=400)


def test_equal_seeds_give_equal_utterances_and_others_do_not() -> None:
    """The generator is a function of its arguments."""
    assert generate(50, 1) == generate(50, 1)
    assert generate(50, 1) != generate(50, 2)


def test_the_best_classifier_is_right_in_91_percent() -> None:
    """80 % clear cores, 20 % with a mean posterior of 0.672, and 2 % of the labels wrong: 91.6 %."""
    assert best_accuracy(load_grammar()) == pytest.approx((0.8 + 0.2 * 0.671875) * 0.98)


def test_the_grammar_really_is_that_ambiguous() -> None:
    """Count over 20,000: of the utterances with a two-intent core about a third have the rarer label or a wrong one."""
    grammar = load_grammar()
    shares = [item.first for item in grammar.ambiguous]
    assert sum(shares) / len(shares) == pytest.approx(0.671875)
    counts = Counter(one.label for one in generate(20_000, 3))
    assert set(counts) == set(range(10))
    assert max(counts.values()) < 2 * min(counts.values())


def test_utterances_are_as_long_as_customers_write() -> None:
    """Nine in ten have 6 to 20 words, which are about 8 to 25 tokens."""
    words = sorted(len(one.text.split()) for one in generate(5_000, 4))
    assert words[250] >= 5
    assert words[4_750] <= 20


def test_the_embedded_splits_share_no_text() -> None:
    """What is claimed on was neither trained on nor watched."""
    splits = load_splits("embedded", SMALL)
    texts = [set(part.texts) for part in (splits.train, splits.validation, splits.evaluation)]
    assert [len(part) for part in texts] == [300, 100, 400]
    assert len(set.union(*texts)) == 300 + 100 + 400
    assert splits.names == load_grammar().labels


def test_more_training_data_leaves_the_evaluation_set_as_it_is() -> None:
    """Two profiles are judged on the same examples."""
    more = SMALL.model_copy(update={"train_examples": 500})
    assert load_splits("embedded", SMALL).evaluation.sha256 == load_splits("embedded", more).evaluation.sha256


def test_clinc_is_read_with_its_domains_as_classes(tmp_path: Path) -> None:
    """`data_full.json` beside `domains.json`: intents become domains; out-of-scope rows are left out."""
    rows = [["freeze it", "freeze_account"], ["pay it", "pay_bill"], ["book it", "book_flight"]]
    content = {"train": rows, "val": rows[:1], "test": rows[2:], "oos_test": [["what", "oos"]]}
    content["train"] = [[f"{text} now", label] for text, label in rows]
    (tmp_path / "data_full.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "domains.json").write_text(
        json.dumps({"banking": ["freeze_account", "pay_bill"], "travel": ["book_flight"]}), encoding="utf-8"
    )
    splits = load_splits(str(tmp_path / "data_full.json"), SMALL)
    assert splits.names == ("banking", "travel")
    assert splits.evaluation.labels == (1,)


def test_a_csv_and_a_jsonl_of_the_same_rows_give_the_same_splits(tmp_path: Path) -> None:
    """60 % to train, 10 % to watch, 30 % to claim on, by seed."""
    rows = [(f"text {i}", "ab"[i % 2]) for i in range(100)]
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(f"{t},{y}\n" for t, y in rows), encoding="utf-8")
    (tmp_path / "x.jsonl").write_text(
        "".join(json.dumps({"text": t, "label": y}) + "\n" for t, y in rows), encoding="utf-8"
    )
    first, second = (load_splits(str(tmp_path / name), SMALL) for name in ("x.csv", "x.jsonl"))
    assert (len(first.train), len(first.validation), len(first.evaluation)) == (60, 10, 30)
    assert [part.sha256 for part in (first.train, first.evaluation)] == [
        part.sha256 for part in (second.train, second.evaluation)
    ]


def test_a_training_text_that_is_also_held_out_is_dropped_and_counted(tmp_path: Path) -> None:
    """Otherwise the accuracy would be of memory."""
    rows = [["a b", "x"], ["c d", "y"], ["e f", "x"]]
    content = {"train": [*rows, ["held out", "x"]], "val": [["v", "y"]], "test": [["held out", "x"]]}
    (tmp_path / "d.json").write_text(json.dumps(content), encoding="utf-8")
    splits = load_splits(str(tmp_path / "d.json"), SMALL)
    assert (len(splits.train), splits.dropped) == (3, 1)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.jsonl", '{"text": "a", "label": "b"}\nnonsense\n', "x.jsonl:2 is not JSON"),
        ("x.jsonl", '{"text": "a"}\n', "x.jsonl:1 has no text or no label"),
        ("x.csv", "utterance,intent\na,b\n", "x.csv:2 has no text or no label"),
        ("x.json", "[]", "is not CLINC150"),
        ("x.json", "{", "cannot be read"),
        ("x.txt", "a", "has no format that is known here"),
        ("x.csv", "text,label\na,b\n", "the train split cannot carry a claim"),
    ],
)
def test_bad_data_is_refused_with_its_place(tmp_path: Path, name: str, content: str, message: str) -> None:
    """File and line, and what to do."""
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_splits(str(tmp_path / name), SMALL)
    assert message in str(caught.value)


def test_a_label_that_training_never_saw_is_refused(tmp_path: Path) -> None:
    """No model could be right about it."""
    content = {"train": [["a", "x"], ["b", "y"]], "val": [["c", "x"]], "test": [["d", "z"]]}
    (tmp_path / "d.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=r"labels that training never saw: \['z'\]"):
        load_splits(str(tmp_path / "d.json"), SMALL)


def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(tmp_path: Path) -> None:
    """A typo in a path must not become a download."""
    with pytest.raises(DataError, match="no file is at"):
        load_splits(str(tmp_path / "nowhere.json"), SMALL)


def test_a_text_stays_in_the_split_that_claims_most(tmp_path: Path) -> None:
    """Evaluation before validation before training; what is dropped is counted."""
    content = {
        "train": [["pay it", "b"], ["fly", "a"], ["go", "a"], ["pay", "b"], ["ride", "a"]],
        "val": [["fly", "a"], ["go", "a"], ["pay it", "b"]],
        "test": [["go", "a"], ["owe", "b"]],
    }
    (tmp_path / "data_full.json").write_text(json.dumps(content), encoding="utf-8")
    splits = load_splits(str(tmp_path / "data_full.json"), SMALL)
    assert (set(splits.train.texts), set(splits.validation.texts), set(splits.evaluation.texts)) == (
        {"pay", "ride"},
        {"fly", "pay it"},
        {"go", "owe"},
    )
    assert splits.dropped == 4


def test_classes_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    """A checkpoint's class 10 comes after its class 2."""
    rows = [f"text {i} of {i % 12},{i % 12}\n" for i in range(240)]
    (tmp_path / "x.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    assert load_splits(str(tmp_path / "x.csv"), SMALL).names == tuple(str(i) for i in range(12))
