"""Makes the story that the project is for: a Mac's numbers, what two CUDA hosts say of them, and who may take that back.

Its bundles are made by hand and say so (`SOURCE`); they are sealed, signed and read back like any other. Nothing in them was
measured. Keys come from fixed seeds and dates are fixed, so that every run tells the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from matrix import ledger as ledgers
from matrix.bundle import Evidence
from matrix.deployment import choices
from matrix.estimates import beside
from matrix.gates import Case, decide
from matrix.keys import Keys, PublicKey, home
from matrix.ledger import Ledgers
from matrix.number import CONFIDENCE
from matrix.policy import Gate, Policy
from matrix.provenance import Waiver
from matrix.report.material import Material
from matrix.sample import Battery, Canary, HostClass, Tensor
from matrix.signoff import witnessed
from matrix.store import Store
from tests.making import (
    EAGER,
    INT8,
    NOW,
    RAW,
    TODAY,
    TORCH,
    TRAINER,
    case_of,
    deployment,
    estimates,
    evidence,
    logits,
    policy,
    sealed,
)

SOURCE: Final = "made by tests/story.py"
EXAMPLES: Final = 3_000
STEP = RAW.model_copy(update={"batch": 8, "length": 16})
LIBRARY = TRAINER.model_copy(update={"batch": 8, "length": 16})

HOSTS: Final = {
    "mps": HostClass(
        cpu="Apple M4 Max", machine="arm64", flags=("dotprod",), cores=12, memory_bytes=64 << 30, virtual=False
    ),
    "cuda-h200": HostClass(
        cpu="a CPU", machine="x86_64", flags=("avx2",), cores=16, memory_bytes=128 << 30, gpus=("NVIDIA H200",)
    ),
    "cuda-a100": HostClass(
        cpu="a CPU", machine="x86_64", flags=("avx2",), cores=16, memory_bytes=128 << 30, gpus=("NVIDIA A100",)
    ),
}

MPS_ACCURACY = Gate(
    id="mps-accuracy",
    why="a student that is tried on a Mac answers there as it will in production",
    targets=("mps",),
    suite="export_accuracy",
    variants=("torch_fp32",),
    metric="accuracy",
    at_least=0.85,
)
MPS_DROP = MPS_ACCURACY.model_copy(
    update={
        "id": "mps-int8-drop",
        "why": "an INT8 export costs at most 0.6 points of accuracy",
        "variants": ("onnx_int8",),
        "metric": "accuracy_delta",
        "at_least": -0.006,
    }
)
MPS_RATIO = Gate(
    id="mps-trainer-ratio",
    why="the library's loop costs at most a quarter more than the plain one",
    targets=("mps",),
    suite="training_step",
    variants=("hf_trainer",),
    metric="ratio",
    at_most=1.25,
)


def asked() -> Policy:
    """The package's own policy, roles and margins and all, with three gates on a Mac's numbers."""
    return policy().model_copy(update={"name": "story", "gate": (MPS_ACCURACY, MPS_DROP, MPS_RATIO)})


def _key(role: str) -> None:
    """A private key of `role` in $MATRIX_HOME, from a seed that everybody knows: for tests and nothing else."""
    keys, place = Keys(home()), home() / "keys" / f"{role}.pem"
    if place.exists():
        return
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"story: {role}".encode()).digest())
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    keys.trust(PublicKey(role=role, public=keys.signing(role).public))


_DRIFTS: Final = (0.0, 0.004, -0.003, 0.01, 0.002)


def _launches(seconds: float, samples: int = 100, drifts: Sequence[float] = _DRIFTS) -> list[list[float]]:
    """A launch for each of `drifts`, of samples that spread by 2 %."""
    return [[seconds * (1 + drift) * (1 + 0.02 * i / samples) for i in range(samples)] for drift in drifts]


def _tensors(rmse: float) -> tuple[Tensor, ...]:
    """A training step's tensors: three batches of each of two shapes, all as far from their fp64 reference."""
    return tuple(
        Tensor(
            name=name,
            shape=(8, length),
            batch=batch,
            elements=8 * length,
            rmse=rmse,
            tolerance=1e-4,
            corrupted_rows=0,
            rerun=0.0,
        )
        for length in (16, 32)
        for batch in (0, 1, 2)
        for name in ("logits", "gradient")
    )


def _dressed(one: Evidence, rmse: float) -> Evidence:
    """`one` with the host of its target, a battery, and the word that it was made by hand."""
    target = one.bundle.target
    canary = Canary(name="argmax", error=0.0, limit=0.0)
    battery = Battery(device=target.partition("-")[0], canaries=(canary,), tensors=_tensors(rmse))
    told = {"host": HOSTS[target], "battery": battery}
    records = tuple(record.model_copy(update=told) for record in one.bundle.launches)
    split = one.bundle.prepared.data.evaluation.model_copy(update={"examples": EXAMPLES})
    data = one.bundle.prepared.data.model_copy(update={"source": SOURCE, "evaluation": split})
    prepared = one.bundle.prepared.model_copy(update={"data": data})
    return replace(one, bundle=one.bundle.model_copy(update={"launches": records, "prepared": prepared}))


def run(  # noqa: PLR0913 - a test says what it cares about, by name
    target: str, host: str, *, hours: int, step_s: float, ratio: float, wrong: int, rmse: float = 1e-5
) -> Evidence:
    """A run `hours` before now: the time of a step, of the library's step beside it, and the answers that are `wrong`.

    INT8 gets three more wrong, wherever it runs.
    """
    one = evidence(
        target=target,
        host=host * 64,
        environment=host * 64,
        torch="2.13.0",
        created=NOW - timedelta(hours=hours),
        samples={
            STEP: _launches(step_s, 20),
            LIBRARY: _launches(step_s * ratio, 20, _DRIFTS[::-1]),
            EAGER: _launches(step_s / 40),
        },
        outputs={
            TORCH: logits([1] * wrong + [0] * (EXAMPLES - wrong)),
            INT8: logits([1] * (wrong + 3) + [0] * (EXAMPLES - wrong - 3)),
        },
        labels=np.zeros(EXAMPLES, dtype=np.int64),
        facts={EAGER: {"peak_bytes": 3e8}},
    )
    return _dressed(one, rmse)


def mac() -> Evidence:
    """The Mac: 90 % right, the library's loop 12 % slower than the plain one."""
    return run("mps", "1", hours=3, step_s=0.20, ratio=1.12, wrong=300)


def agreeing() -> Evidence:
    """An H200 that answers the same, and on which the library's loop costs 10 %."""
    return run("cuda-h200", "2", hours=2, step_s=0.02, ratio=1.10, wrong=300)


def differing() -> Evidence:
    """An A100 that gets 60 of 3,000 answers wrong which the Mac has right, and on which the library's loop costs 60 %."""
    return run("cuda-a100", "3", hours=1, step_s=0.03, ratio=1.60, wrong=360)


@dataclass(frozen=True)
class Story:
    """A store on disk and what has been signed into it."""

    root: Path

    def measured(self, one: Evidence, role: str) -> str:
        """Seal and sign a run; its bundle's name."""
        _key(role)
        return sealed(self.root, one, role).name

    def revoked(self, name: str, why: str, role: str = "release") -> None:
        """Withdraw a bundle."""
        _key(role)
        mine = Keys(home())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledgers, "_now", lambda: NOW.isoformat(timespec="seconds"))
            Ledgers(self.root, mine.keyring()).revoke(name, why, [mine.signing(role)])

    def waived(self, gate: str, why: str, role: str = "release", policy: Policy | None = None) -> None:
        """Let a gate be unmet for nine days from an hour ago."""
        _key(role)
        mine, created = Keys(home()), NOW - timedelta(hours=1)
        waiver = Waiver(
            name=f"{gate.strip('*-')}-by-{role}",
            policy=(policy or asked()).sha256,
            gate=gate,
            target="mps",
            cell="*",
            created=created.isoformat(),
            expires=(created + timedelta(days=9)).isoformat(),
            why=why,
        )
        Ledgers(self.root, mine.keyring()).grant(waiver, [mine.signing(role)])

    def case(self) -> Case:
        """What the store holds today, read back from disk."""
        found, torn = Store(self.root).load_all()
        ring = Keys(home()).keyring()
        ledger = witnessed(self.root, ring, Ledgers(self.root, ring).audit(found))
        return case_of(found, ledger, torn=[str(error) for error in torn], today=TODAY)

    def material(self, policy: Policy | None = None) -> Material:
        """All that a report shows of it."""
        case, by = self.case(), policy or asked()
        judged = case.judged(by, by.evidence.display_days, CONFIDENCE)
        planned = beside(estimates(), judged, case.profiles.of("full"))
        return Material(case, judged, decide(by, case), planned, by, [], deployment(), choices(deployment(), judged))


def held(path: Path, text: str) -> None:
    """`text` is what the golden file at `path` holds; `UPDATE_GOLDEN=1` writes it anew."""
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"{path.name}: UPDATE_GOLDEN=1 writes it anew, to be read"


def called(text: str, names: Sequence[str]) -> str:
    """`text` with each bundle under its place in the story: names are digests, and change with every field of a bundle."""
    for name, place in zip(names, ("mps-1", "cuda-h200-2", "cuda-a100-3"), strict=False):
        text = text.replace(name, place)
    return text


def contradicted(root: Path) -> tuple[Story, Sequence[str]]:
    """The story up to its third step: a Mac, an H200 that agrees with it, an A100 that does not; the bundles' names."""
    story = Story(root)
    names = [
        story.measured(mac(), "nightly-mps"),
        story.measured(agreeing(), "nightly-cuda"),
        story.measured(differing(), "nightly-cuda"),
    ]
    return story, names
