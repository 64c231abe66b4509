"""Everything that a bundle says, as numbers with intervals and bounds. Pure: a function of one bundle's evidence.

A value over launches is their geometric mean with a t-interval on logarithms; a gate's bound is the worst launch. Samples
of different launches are never pooled. A quality number's uncertainty is over examples, paired with the reference's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from matrix import quality, responses, stats, trials
from matrix.bundle import Bundle, Evidence, Measured
from matrix.canonical import digest
from matrix.catalog import METRICS
from matrix.cell import ANSWERING, Cell
from matrix.health import Reasons, doubts_about
from matrix.identity import sizes
from matrix.number import CONFIDENCE, Number, over_launches, reference_of, same_work
from matrix.ranks import quantile
from matrix.sample import Tensor
from matrix.target import Kind
from matrix.verdict import Finding, Reason

PART = "bytes:"
"""What the facts about an image's parts begin with; the part's name follows."""
_CAUSES = 3
"""How many parts are named as what makes an image large: with more, none of them would be the cause."""
_BUILDS = {"cold_build_s", "warm_build_s"}
QUANTILES = {"p50_s": 0.5, "p95_s": 0.95, "p99_s": 0.99}
Floats = npt.NDArray[np.float64]


def _quantile_over_launches(metric: str, q: float, launches: Sequence[Floats], confidence: float) -> Number:
    """A quantile: each launch's own order-statistic bounds, and of those the worst launch's."""
    points = [quantile([float(s) for s in launch], q) for launch in launches]
    bounds = [stats.quantile_bounds([float(s) for s in launch], q, confidence) for launch in launches]
    number = over_launches(metric, points, min(len(launch) for launch in launches))
    lows, highs = [low for low, _ in bounds if low is not None], [high for _, high in bounds if high is not None]
    if len(highs) < len(
        launches
    ):  # a tail quantile that no sample bounds is only the largest sample under another name
        return replace(number, value=None, low=None, high=None, bound_low=None, bound_high=None)
    return replace(number, bound_low=min(lows) if len(lows) == len(launches) else None, bound_high=max(highs))


def _facts(launches: Sequence[Measured]) -> Iterator[Number]:
    """The single values that the suite noted, for metrics that the catalog knows."""
    for name in sorted({name for one in launches for name in one.evidence.facts}):
        values = [one.evidence.facts[name] for one in launches if name in one.evidence.facts]
        if name in METRICS and len(values) == len(launches):
            yield over_launches(name, values, 1)


def _training(cell: Cell, launches: Sequence[Measured], confidence: float) -> Iterator[Number]:
    medians = [quantile(list(one.samples), 0.5) for one in launches]
    yield _quantile_over_launches("step_s", 0.5, [one.samples for one in launches], confidence)
    yield over_launches("samples_per_s", [(cell.batch or 1) / m for m in medians], 1)
    peaks = [one.evidence.facts.get("matmul_flop_per_s") for one in launches]
    work = [one.evidence.facts.get("step_flop") for one in launches]
    if all(peaks) and all(work):
        floors = [flop / peak for flop, peak in zip(work, peaks, strict=True) if flop and peak]
        yield over_launches("floor_s", floors, 1)
        shares = [floor / seconds for floor, seconds in zip(floors, medians, strict=True)]
        yield over_launches("peak_fraction", shares, 1)


def _latency(cell: Cell, launches: Sequence[Measured], confidence: float) -> Iterator[Number]:
    if cell.mode == "cold":
        yield over_launches("start_s", [float(one.samples[0]) for one in launches], 1)
        return
    for metric, q in QUANTILES.items():
        yield _quantile_over_launches(metric, q, [one.samples for one in launches], confidence)


def _generation(cell: Cell, launches: Sequence[Measured], confidence: float) -> Iterator[Number]:
    rates = [float(cell.length or 0) / quantile(list(one.samples), 0.5) for one in launches]
    if cell.mode == "decode":
        yield over_launches("decode_per_s", rates, 1)
        return
    yield _quantile_over_launches("first_token_s", 0.5, [one.samples for one in launches], confidence)
    if cell.mode == "prefill":
        yield over_launches("prefill_per_s", rates, 1)


def _waited(evidence: Evidence, launches: Iterable[Measured]) -> list[Floats]:
    """The latencies under load that each launch kept, seconds: its one sample is how long the whole block took."""
    return [evidence.arrays[one.evidence.outputs].ravel() for one in launches if one.evidence.outputs]


def _under_load(evidence: Evidence, launches: Sequence[Measured]) -> Iterator[Number]:
    """Each launch's own quantiles: latencies of a queue are no independent samples, so no order statistic bounds them."""
    told = _waited(evidence, launches)
    for metric, q in QUANTILES.items():
        if len(told) == len(launches):
            yield over_launches(metric, [quantile(list(one), q) for one in told], min(map(len, told)))


_TIMED: Final = {"training_step": _training, "inference_latency": _latency, "generation": _generation}


def launch_values(evidence: Evidence, cell: Cell, metric: str) -> list[float]:
    """What each launch says of a metric of time or memory that is not a ratio: its quantile, its one sample, or its fact."""
    launches = evidence.launches_of(cell.id).values()
    loaded = cell.suite == "concurrent_load"
    if loaded and metric in QUANTILES:
        return [quantile(list(one), QUANTILES[metric]) for one in _waited(evidence, launches)]
    if not loaded and metric in {*QUANTILES, "step_s", "first_token_s"}:
        return [quantile(list(one.samples), QUANTILES.get(metric, 0.5)) for one in launches]
    if not loaded and metric in {"prefill_per_s", "decode_per_s"}:
        return [float(cell.length or 0) / quantile(list(one.samples), 0.5) for one in launches]
    if metric == "start_s":
        return [float(one.samples[0]) for one in launches]
    return [one.evidence.facts[metric] for one in launches if metric in one.evidence.facts]


def paired_log_ratios(ours: Mapping[int, Measured], reference: Mapping[int, Measured]) -> list[float]:
    """`log(median ours / median reference)` of each launch that ran both: drift and order fall on both alike."""
    both = sorted(set(ours) & set(reference))
    pairs = [(quantile(list(ours[i].samples), 0.5), quantile(list(reference[i].samples), 0.5)) for i in both]
    return [math.log(mine / base) for mine, base in pairs if mine > 0 and base > 0]


def _ratio(evidence: Evidence, cell: Cell) -> Iterator[Number]:
    reference = reference_of(cell, evidence.bundle.planned)
    if reference is None or reference == cell or cell.mode == "cold":
        return
    logs = paired_log_ratios(evidence.launches_of(cell.id), evidence.launches_of(reference.id))
    if logs:
        metric = "ratio" if same_work(cell, reference) else "method_ratio"
        yield replace(over_launches(metric, [math.exp(value) for value in logs], 1), launches=len(logs))


def _batteries(evidence: Evidence) -> list[tuple[Tensor, ...]]:
    told = [record.battery.tensors for record in evidence.bundle.launches if record.battery]
    return [tensors for tensors in told if tensors]


def tensors_of(evidence: Evidence) -> list[Tensor]:
    """The tensors of every launch's battery: a row that one launch corrupted is corrupted."""
    return [tensor for tensors in _batteries(evidence) for tensor in tensors]


def _tensor_rmse(evidence: Evidence) -> Iterator[Number]:
    """How far the device's own training step is from its fp64 reference: the largest share of a tensor's tolerance."""
    several, tensors = _batteries(evidence), tensors_of(evidence)
    if not tensors:
        return
    shares = [one.rmse / one.tolerance for one in tensors if one.rmse is not None and one.tolerance > 0]
    value = max(shares) if len(shares) == len(tensors) else None
    samples = min(map(len, several))
    yield Number("tensor_rmse", value, value, value, value, value, 1.0, samples, {}, launches=len(several))


def _trained_accuracy(evidence: Evidence, device: str, confidence: float) -> Iterator[Number]:
    """Accuracy on the validation split of the student that this very device trained from a known seed: one observation."""
    training, n = evidence.bundle.prepared.training, evidence.bundle.prepared.data.validation.examples
    if training and training.seed is not None and training.device == device:
        for number in quality.share("trained_accuracy", round(training.student_accuracy * n), n, confidence):
            yield replace(number, launches=1)


def family(bundle: Bundle) -> str:
    """What students of several seeds and devices must have in common to be compared: digest of all but seed and device.

    A teacher counts by its configuration; by its weights too where it was given, and so did not come from the seed.
    """
    prepared, teacher = bundle.prepared, bundle.prepared.teacher_model
    return digest(
        {
            "train": prepared.data.train.sha256,
            "validation": prepared.data.validation.sha256,
            "tokenizer": prepared.tokenizer_sha256,
            "profile": sizes(bundle.profile, seeded=False),
            "suites": bundle.source.suites.get("training_step", bundle.source.suite_sha256),
            "student": prepared.student_model.config_sha256,
            "teacher": teacher.config_sha256,
            "teacher_weights": teacher.weights_sha256 if teacher.origin == "given" else None,
        }
    )


def _packaging(launches: Sequence[Measured]) -> Iterator[Number]:
    """What an image or an import said of itself: a size with its causes, and a build as the one time that it is.

    Every launch repeats when its image was built: five copies of one time are one observation, with no interval.
    """
    for number in _facts(launches):
        if number.metric == "image_bytes":
            yield replace(number, notes=_causes(launches[0]))
        elif number.metric in _BUILDS:
            yield replace(over_launches(number.metric, [launches[0].evidence.facts[number.metric]], 1), launches=1)
        else:
            yield number


def _causes(measured: Measured) -> dict[str, float]:
    """The largest parts of an image, by name."""
    parts = {name.removeprefix(PART): value for name, value in measured.evidence.facts.items() if name.startswith(PART)}
    return dict(sorted(parts.items(), key=lambda part: (-part[1], part[0]))[:_CAUSES])


def _numbers(evidence: Evidence, cell: Cell, launches: Sequence[Measured], confidence: float) -> Iterator[Number]:
    if cell.suite in ANSWERING:
        yield from quality.numbers_of(evidence, cell, confidence)
    elif cell.suite == responses.SUITE:
        yield from responses.numbers_of(evidence, cell, confidence)
    elif cell.suite == "concurrent_load":
        yield from _under_load(evidence, launches)
    elif cell.suite == "packaging":
        yield from _packaging(launches)
        return
    elif cell.suite == "training_quality":
        yield from trials.numbers(evidence, cell)
    else:
        yield from _TIMED[cell.suite](cell, launches, confidence)
        yield from _ratio(evidence, cell)
    if (cell.suite, cell.workload) == ("training_step", "intent") and reference_of(
        cell, evidence.bundle.planned
    ) == cell:
        yield from _tensor_rmse(evidence)
        yield from _trained_accuracy(evidence, launches[0].evidence.device, confidence)
    yield from _facts(launches)


def _about(cell: Cell, reasons: tuple[Reason, ...]) -> tuple[Reason, ...]:
    return tuple(reason.model_copy(update={"number": f"{cell.variant}: {reason.number}"}) for reason in reasons)


def _compares(metric: str) -> bool:
    return METRICS[metric].kind in {"ratio", "export_delta"} or metric == trials.PAIRED


def _reasons(evidence: Evidence, cell: Cell, kind: Kind, *, compared: bool) -> Reasons:
    """Doubts and faults about a number: of its own cell, and of the reference's for one that is `compared` with it."""
    doubts, faults = doubts_about(evidence, cell, kind)
    reference = reference_of(cell, evidence.bundle.planned) if compared else None
    if reference is None or reference == cell:
        return doubts, faults
    theirs = [_about(reference, reasons) for reasons in doubts_about(evidence, reference, kind)]
    return (*doubts, *theirs[0]), (*faults, *theirs[1])


def findings_of(evidence: Evidence, confidence: float = CONFIDENCE) -> list[Finding]:
    """Every number of the bundle in the plan's order, with one-sided bounds at `confidence`.

    A cell that no launch measured has all its numbers without a value.
    """
    found: list[Finding] = []
    for cell in evidence.bundle.planned:
        launches = list(evidence.launches_of(cell.id).values())
        numbers = list(_numbers(evidence, cell, launches, confidence) if launches else _none(cell))
        asked = {one.metric: (METRICS[one.metric].kind, _compares(one.metric)) for one in numbers}
        reasons = {key: _reasons(evidence, cell, key[0], compared=key[1]) for key in set(asked.values())}
        found += [_finding(evidence, cell, one, launches, reasons[asked[one.metric]]) for one in numbers]
    return found


def _none(cell: Cell) -> Iterator[Number]:
    """The numbers that a cell would have had."""
    for metric in METRICS.values():
        if cell.suite in metric.suites:
            yield Number(metric.name, None, None, None, None, None, 0.0, 0, {})


def _finding(evidence: Evidence, cell: Cell, number: Number, launches: Sequence[Measured], reasons: Reasons) -> Finding:
    metric, (doubts, faults) = METRICS[number.metric], reasons
    ids = {one.evidence.workload_id for one in launches}
    if len(ids) > 1:
        mixed = Reason(rule="workload_id", number=f"{len(ids)} identities", threshold="one", remedy="run it again")
        faults = (*faults, mixed)
    fields: dict[str, Any] = {
        key: getattr(number, key)
        for key in ("value", "low", "high", "bound_low", "bound_high", "confidence", "samples")
    }
    return Finding(
        target=evidence.bundle.target,
        cell=cell,
        metric=metric.name,
        kind=metric.kind,
        unit=metric.unit,
        launches=len(launches) if number.launches is None else number.launches,
        workload_id=min(ids) if ids else None,
        bundle=evidence.name,
        created=evidence.bundle.created,
        profile=evidence.bundle.profile.name,
        subject=evidence.bundle.prepared.subject,
        doubts=doubts,
        faults=faults,
        notes=dict(number.notes),
        **fields,
    )
