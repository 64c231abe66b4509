"""Makes evidence by hand: bundles whose every sample and logit a test has chosen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from matrix import definitions
from matrix.bundle import Bundle, Evidence, FileEntry, Measured, Source
from matrix.canonical import digest, file_digest
from matrix.capabilities import Sized, parse_capabilities, sized
from matrix.cell import Cell, Plan, Suite
from matrix.deployment import Deployment, parse_deployment
from matrix.estimates import Estimates, parse_estimates
from matrix.gates import Case
from matrix.job import (
    BENCHMARK,
    DataIdentity,
    Image,
    Layer,
    ModelIdentity,
    Prepared,
    SplitIdentity,
    Training,
    WorkloadSpec,
)
from matrix.keys import Keys, home
from matrix.ledger import Ledgers, Notary
from matrix.number import CONFIDENCE
from matrix.policy import Policy, parse_policy
from matrix.profile import Profiles, parse_profiles
from matrix.provenance import DEVELOPMENT, Attestation, Ledger, Signer, Vouched
from matrix.sample import (
    EXTRA,
    INVENTORY,
    Battery,
    Canary,
    CellEvidence,
    ClockCheck,
    Confinement,
    DebianPackage,
    Environment,
    HostClass,
    Installed,
    Inventory,
    LaunchRecord,
    Load,
    Outcome,
    Tensor,
    Timing,
)
from matrix.standing import Rules
from matrix.store import RunFolder, RunState, Store
from matrix.target import Targets, parse_targets
from matrix.validity import Today

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def suites(letter: str) -> dict[Suite, str]:
    """A state of every suite's source."""
    return dict.fromkeys(get_args(Suite), letter * 64)


SUITES = suites("s")
TODAY = Today(NOW, SUITES)
QUIET = Load(wall_s=1.0, cpu_s=1.0, foreign_cores=0.0, steal_share=0.0, throttled_s=None)
SETTLED = Timing(
    warmup_calls=10,
    steady=True,
    adaptive_calls=30,
    capped=False,
    rounds=100,
    asked_width=0.02,
    doubt_width=0.05,
    width=0.01,
)
SOUND = Battery(device="cpu", canaries=(Canary(name="argmax", error=0.0, limit=0.0),))
RIGHT_CLOCK = ClockCheck(empty_s=1e-7, doubling=2.0, same=1.0)
HOST = HostClass(
    cpu="a CPU", machine="x86_64", flags=("avx2", "avx512_vnni"), cores=2, memory_bytes=2**34, virtual=False
)

HOSTS = {
    "cuda-a100": HOST.model_copy(update={"gpus": ("NVIDIA A100-SXM4-80GB",), "driver": "580.1"}),
    "cuda-a10g": HOST.model_copy(update={"gpus": ("NVIDIA A10G",), "driver": "580.1"}),
    "cuda-h200": HOST.model_copy(update={"gpus": ("NVIDIA H200",), "driver": "580.1"}),
    "mps": HOST.model_copy(update={"cpu": "Apple M4", "machine": "arm64", "flags": ()}),
}
"""What a target expects of its host; `HOST` for the others."""

RAW = Cell(suite="training_step", workload="intent", variant="raw_torch", batch=16, length=32)
TRAINER = RAW.model_copy(update={"variant": "hf_trainer"})
HINTS = RAW.model_copy(update={"variant": "kd_zoo_hints"})
STAGES = RAW.model_copy(update={"variant": "tinybert_two_stage"})
BREWED = RAW.model_copy(update={"variant": "textbrewer_features"})
TORCH = Cell(suite="export_accuracy", workload="intent", variant="torch_fp32", batch=64)
INT8 = Cell(suite="export_accuracy", workload="intent", variant="onnx_int8", batch=1)
EAGER = Cell(suite="inference_latency", workload="intent", variant="torch_eager", mode="warm", batch=1, length=16)
ORT = EAGER.model_copy(update={"variant": "ort_int8"})
PACKED = Cell(suite="packaging", workload="intent", variant="image")
IMPORT = PACKED.model_copy(update={"variant": "import_numpy"})
SERVED = ORT.model_copy(update={"memory_mb": 1024, "every_ms": 0})
STARTED = Cell(
    suite="inference_latency",
    workload="intent",
    variant="ort_int8",
    mode="cold",
    batch=1,
    length="data",
    memory_mb=1024,
    init="throttled",
)

IMAGE = Image(
    name="cpu-openvino",
    id="sha256:" + "1d" * 32,
    platform="linux/amd64",
    revision="c" * 40,
    inputs_sha256="1e" * 32,
    source_sha256="50" * 32,
    base="distill-matrix/base:amd64",
    base_created="2026-10-21T22:34:41Z",
    layers=(
        Layer(made_by="the base", sha256="ba" * 32, bytes=82_000_000, compressed_bytes=30_000_000),
        Layer(made_by="COPY /opt/venv", sha256="0b" * 32, bytes=1_118_000_000, compressed_bytes=340_000_000),
    ),
)
HELD = Inventory(
    python=(
        Installed(name="Small_One", version="1.0", licence="", bytes=1_000),
        Installed(name="numpy", version="2.4.6", licence="BSD-3-Clause AND MIT", bytes=49_000_000),
        Installed(name="old", version="0.1", licence="UNKNOWN", bytes=2_000),
        Installed(name="torch", version="2.13.0+cpu", licence="BSD License", bytes=421_000_000),
    ),
    debian=(DebianPackage(name="libc6", version="2.36-9+deb12u13", architecture="amd64"),),
)
PARTS = {
    "image_bytes": 1.2e9,
    "compressed_bytes": 370e6,
    "layers": 2.0,
    "packages": 5.0,
    "warm_build_s": 0.9,
    "base_age_s": 32 * 86_400.0,
    "bytes:base": 82e6,
    "bytes:torch": 421e6,
    "bytes:numpy": 49e6,
    "bytes:old": 2e3,
}
"""What a launch notes of `IMAGE`."""
LIMITS = Confinement(
    user=10_001,
    read_only=True,
    interfaces=("lo",),
    capabilities=0,
    no_new_privileges=True,
    seccomp=True,
    pids=1024,
    memory_bytes=12 << 30,
    memory_swap_bytes=12 << 30,
    cpus=(0, 1),
)


def targets() -> Targets:
    """The project's targets."""
    return parse_targets(definitions.text("targets.toml"))


def profiles() -> Profiles:
    """The project's profiles."""
    return parse_profiles(definitions.text("profiles.toml"))


def policy() -> Policy:
    """The project's policy."""
    return parse_policy(definitions.text("gates.toml"))


def estimates() -> Estimates:
    """The project's estimates."""
    return parse_estimates(definitions.text("estimates.toml"))


def deployment() -> Deployment:
    """The project's prices and traffics."""
    return parse_deployment(definitions.text("deployment.toml"))


def tools() -> list[Sized]:
    """The project's tools, with the sizes of its modules."""
    found = parse_capabilities(definitions.text("capabilities.toml"))
    return sized(found, definitions.variant_sources(name for tool in found.tool for name in tool.by))


def prepared(weights: str = "w" * 64) -> Prepared:
    """Identities of a workload."""
    split = SplitIdentity(examples=10, sha256="e" * 64)
    model = ModelIdentity(
        origin="trained", parameters=14_000_000, config_sha256="c" * 64, weights_sha256=digest(weights)
    )
    data = DataIdentity(
        source="embedded", classes=("a", "b"), train=split, validation=split, evaluation=split, dropped=0
    )
    return Prepared(
        data=data,
        tokenizer_sha256="t" * 64,
        teacher_model=model.model_copy(update={"origin": "configuration", "weights_sha256": None}),
        student_model=model,
        training=None,
        artifacts={},
        student="k",
        exports="k",
        examples="k",
        reused=False,
    )


ROLES = {
    "cuda": "nightly-cuda",
    "cpu": "nightly-cpu",
    "lambda": "nightly-cpu",
    "aws-lambda": "nightly-aws",
    "mps": "nightly-mps",
}
"""Who signs a group's bundles, as the project's policy asks."""


def signer(role: str) -> Signer:
    """The key of a role."""
    return Signer(key=digest(role), role=role)


def vouched(bundle: Bundle, name: str, role: str | None = None, serial: int = 1) -> Vouched:
    """A statement about a bundle, by the role that its target asks for unless said otherwise."""
    by = signer(
        role or ROLES[targets().target[bundle.target].group] if bundle.target in targets().target else "nightly-cpu"
    )
    created = datetime.fromisoformat(bundle.created)
    said = Attestation(
        chain=by.key,
        serial=serial,
        previous=None,
        bundle=name,
        target=bundle.target,
        created=bundle.created,
        expires=(created + timedelta(days=90)).isoformat(),
        nonce=bundle.nonce,
        attempt=bundle.attempt,
        commit=bundle.source.commit,
        tree=None,
        dirty=bundle.source.dirty,
        image=None,
        suite_sha256=bundle.source.suite_sha256,
        environment_id=bundle.environment_id,
        host_class_id=bundle.host_class_id,
        host_instance=bundle.host_instance,
    )
    return Vouched(said, (by,))


def ledger_of(bundles: Sequence[Evidence], role: str | None = None, **more: Any) -> Ledger:  # noqa: ANN401 - fields of Ledger
    """A ledger in which every bundle is signed: by whom the project's policy asks for, unless `role` is another."""
    return Ledger(vouched={one.name: vouched(one.bundle, one.name, role) for one in bundles}, **more)


def rules(days: float = 7.0, **changes: Any) -> Rules:  # noqa: ANN401 - fields of Rules
    """The project's own definitions and policy, on the day of the tests."""
    return replace(Rules(targets(), policy(), TODAY, days, CONFIDENCE), **changes)


def case_of(bundles: Sequence[Evidence], ledger: Ledger | None = None, **changes: Any) -> Case:  # noqa: ANN401 - fields of Case
    """A case on the day of the tests, signed as the project's policy asks unless there is a ledger."""
    return replace(Case(bundles, ledger or ledger_of(bundles), targets(), profiles(), TODAY), **changes)


Launches = Sequence[Sequence[float]]


def logits(answers: Sequence[int], classes: int = 10) -> npt.NDArray[np.float32]:
    """Logits whose largest is at each of `answers`."""
    out = np.zeros((len(answers), classes), dtype=np.float32)
    out[np.arange(len(answers)), answers] = 5.0
    return out


def evidence(  # noqa: PLR0913 - a test says what it cares about, by name
    *,
    target: str = "cpu-openvino",
    samples: Mapping[Cell, Launches] | None = None,
    outputs: Mapping[Cell, npt.NDArray[np.float32]] | None = None,
    labels: npt.NDArray[np.int64] | None = None,
    facts: Mapping[Cell, Mapping[str, float]] | None = None,
    lost: Mapping[tuple[Cell, int], str] | None = None,
    load: Load = QUIET,
    timing: Timing = SETTLED,
    clock: ClockCheck = RIGHT_CLOCK,
    created: datetime = NOW,
    host: str = "h" * 64,
    torch: str = "2.13.0+cpu",
    weights: str = "w" * 64,
    environment: str = "v" * 64,
    image: Image | None = None,
    inventory: Inventory | None = None,
    confined: tuple[Confinement, Confinement] | None = None,
    battery: Battery | None = SOUND,
    **source: Any,  # noqa: ANN401 - fields of Source
) -> Evidence:
    """A bundle with these samples (a list a launch) and outputs (in launch 1), on a quiet host unless said otherwise.

    `confined` are the limits that its launches were asked to have and those that they found.
    """
    samples, outputs, lost = samples or {}, outputs or {}, lost or {}
    arrays: dict[str, npt.NDArray[Any]] = {}

    def keep(array: npt.NDArray[Any] | None) -> str | None:
        if array is None:
            return None
        name = hashlib.sha256(f"{array.dtype}{array.shape}".encode() + array.tobytes()).hexdigest()
        arrays[name] = array
        return name

    count = max([len(launches) for launches in samples.values()], default=1)
    measured: dict[tuple[str, int], Measured] = {}
    orders: dict[int, list[Outcome]] = {index: [] for index in range(1, count + 1)}
    for cell in (*samples, *outputs):
        launches = samples.get(cell, [[1.0]])
        for index, values in enumerate(launches, start=1):
            error = lost.get((cell, index))
            orders[index].append(Outcome(cell=cell.id, state="failed" if error else "measured", error=error))
            if error:
                continue
            found = CellEvidence(
                cell=cell,
                workload_id=digest([cell.id, weights]),
                device="cpu",
                dtype="float32",
                threads=1,
                load=load,
                timing=timing if cell in samples else None,
                facts=dict((facts or {}).get(cell, {})),
                outputs=keep(outputs.get(cell)),
                labels=keep(labels) if cell in outputs else None,
            )
            measured[cell.id, index] = Measured(np.array(values, dtype=np.float64), found)
    if battery is SOUND and target in targets().target:
        battery = SOUND.model_copy(update={"device": targets().target[target].device})
    software = Environment(
        python="3.11", system="Linux", packages={"torch": torch}, packages_sha256="p" * 64, variables={}
    )
    bundle = Bundle(
        target=target,
        executor="docker" if image else "native",
        image=image,
        created=created.isoformat(),
        attempt=1,
        nonce=digest([target, created.isoformat(), host, environment])[:32],
        profile=profiles().of("quick"),
        spec=WorkloadSpec(),
        prepared=prepared(weights),
        source=Source(
            **{"version": "0.1.0", "commit": "c" * 40, "dirty": (), "suite_sha256": "s" * 64, "suites": SUITES} | source
        ),
        environment_id=environment,
        host_class_id="k" * 64,
        host_instance=host,
        planned=tuple({cell.id: cell for cell in (*samples, *outputs)}.values()),
        excluded=(),
        launches=tuple(
            LaunchRecord(
                index=index,
                seed=index,
                order=tuple(outcome.cell for outcome in told),
                outcomes=tuple(told),
                clock=clock,
                environment=software,
                host=HOSTS.get(target, HOST),
                started=created.isoformat(),
                seconds=1.0,
                exit_code=0,
                asked=confined[0] if confined else None,
                confinement=confined[1] if confined else None,
                battery=battery,
                nonce=digest([target, created.isoformat(), host, environment])[:32],
            )
            for index, told in orders.items()
        ),
        files={"launches/01/benchmark.json": FileEntry(sha256=digest([repr(samples), sorted(arrays)]), bytes=1)},
    )
    return Evidence(bundle, f"{target}-{bundle.digest[:12]}", measured, arrays, inventory=inventory)


def ran(store: Store, one: Evidence) -> RunFolder:
    """A run in `store` whose finished launches hold the samples and outputs of `one`."""
    bundle = one.bundle
    state = RunState(
        target=bundle.target,
        executor=bundle.executor,
        created=bundle.created,
        attempt=bundle.attempt,
        profile=bundle.profile,
        spec=bundle.spec,
        plan=Plan(target=bundle.target, profile=bundle.profile.name, planned=bundle.planned, excluded=()),
        source=bundle.source,
    )
    run = store.begin(state)
    run.keep_prepared(bundle.prepared)
    for record in bundle.launches:
        place = run.workplace(f"launch-{record.index:02d}")
        (place / "outputs").mkdir()
        renamed: dict[str | None, str] = {}
        for name, array in one.arrays.items():
            path = place / "outputs" / "x.npy"
            np.save(path, array)
            renamed[name] = file_digest(path)
            path.rename(path.with_name(f"{renamed[name]}.npy"))
        benchmarks = []
        for (_, index), found in one.measured.items():
            if index == record.index:
                files = {"outputs": renamed.get(found.evidence.outputs), "labels": renamed.get(found.evidence.labels)}
                told = found.evidence.model_copy(update=files).model_dump(mode="json")
                benchmarks.append({"stats": {"data": list(found.samples)}, "extra_info": {EXTRA: told}})
        (place / BENCHMARK).write_text(json.dumps({"benchmarks": benchmarks}), encoding="utf-8")
        if one.inventory:
            (place / INVENTORY).write_text(one.inventory.model_dump_json() + "\n", encoding="utf-8")
        run.keep_launch(place, record)
    return run


def sealed(root: Path, one: Evidence, *roles: str) -> Path:
    """The folder of `one` as a bundle in the store at `root`, signed by keys of these roles (development without any)."""
    keys, store = Keys(home()), Store(root)
    mine = tuple(
        keys.signing(role) if (keys.folder / "keys" / f"{role}.pem").exists() else keys.new(role)
        for role in roles or (DEVELOPMENT,)
    )
    notary = Notary(Ledgers(root, keys.keyring()), mine)
    place = store.seal(ran(store, one), one.bundle, notary.attest)
    notary.ledgers.remember()
    return place


def with_battery(one: Evidence, *tensors: Tensor, launches: Sequence[int] = (1,)) -> Evidence:
    """`one` with a battery that found `tensors` in these launches."""
    battery = Battery(device=targets().target[one.bundle.target].device, canaries=SOUND.canaries, tensors=tensors)
    records = tuple(
        record.model_copy(update={"battery": battery}) if record.index in launches else record
        for record in one.bundle.launches
    )
    return replace(one, bundle=one.bundle.model_copy(update={"launches": records}))


def with_training(one: Evidence, training: Training) -> Evidence:
    """`one` with a student that came to be so."""
    told = one.bundle.prepared.model_copy(update={"training": training})
    return replace(one, bundle=one.bundle.model_copy(update={"prepared": told}))
