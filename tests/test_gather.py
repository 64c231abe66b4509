"""Stores of several machines come together, and nothing is lost or hidden on the way."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest

from matrix.bundle import Evidence
from matrix.errors import EvidenceError
from matrix.gather import gather
from matrix.keys import Keys, home
from matrix.ledger import Ledgers
from matrix.store import Store
from tests.making import NOW, ORT, evidence, sealed


def timed(hours: int = 0, target: str = "cpu-openvino") -> Evidence:
    """Evidence of some hours ago."""
    return evidence(target=target, samples={ORT: [[0.010] * 60] * 5}, created=NOW - timedelta(hours=hours))


def faults(root: Path) -> tuple[str, ...]:
    """What is wrong with the store's chains."""
    found, _ = Store(root).load_all()
    ledger = Ledgers(root, Keys(home()).keyring()).audit(found)
    return (*ledger.gaps.values(), *ledger.faults)


def test_two_machines_stores_become_one(tmp_path: Path) -> None:
    """Every bundle is there, each key's chain is whole, and gathering again adds nothing."""
    sealed(tmp_path / "a", timed(1), "nightly-cpu")
    sealed(tmp_path / "b", timed(2, "cuda-h200"), "nightly-cuda")
    assert [gather(tmp_path / "all", tmp_path / name) for name in ("a", "b", "a")] == [1, 1, 0]
    assert len(Store(tmp_path / "all").load_all()[0]) == 2
    assert faults(tmp_path / "all") == ()


def test_a_chain_goes_on_where_last_nights_ledger_ends(tmp_path: Path) -> None:
    """A runner is given the ledger and no bundles; its next statement has number 2."""
    sealed(tmp_path / "first", timed(1), "nightly-cpu")
    shutil.copytree(tmp_path / "first" / "ledger", tmp_path / "second" / "ledger")
    sealed(tmp_path / "second", timed(), "nightly-cpu")
    for name in ("first", "second"):
        gather(tmp_path / "all", tmp_path / name)
    assert faults(tmp_path / "all") == ()
    (head,) = Ledgers(tmp_path / "all", Keys(home()).keyring()).audit([]).heads.values()
    assert head.serial == 2


def test_two_first_statements_of_one_key_are_a_fork(tmp_path: Path) -> None:
    """A machine that began its chain anew would hide an attempt: refused, and nothing is added."""
    for hours, name in enumerate(("a", "b")):
        sealed(tmp_path / name, timed(hours), "nightly-cpu")
    gather(tmp_path / "all", tmp_path / "a")
    with pytest.raises(EvidenceError, match="forks"):
        gather(tmp_path / "all", tmp_path / "b")
    assert len(Store(tmp_path / "all").load_all()[0]) == 1
