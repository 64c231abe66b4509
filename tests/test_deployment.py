"""Where to serve: sizes, bills and promises by hand, and no answer on numbers that may not be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from matrix.bundle import Evidence
from matrix.catalog import METRICS, variant
from matrix.cell import Cell
from matrix.deployment import Choice, Deployment, Offer, Traffic, choices, parse_deployment, sentence
from matrix.errors import DataError
from matrix.number import CONFIDENCE
from tests.making import ORT, SERVED, STARTED, case_of, deployment, evidence, policy, targets

WARM = ORT.model_copy(update={"length": "data"})
CALLED = SERVED.model_copy(update={"length": "data"})
PACED = CALLED.model_copy(update={"every_ms": 100})
COLD = STARTED.model_copy(update={"init": "full"})

SERVICE = evidence(samples={WARM: [[0.010] * 100] * 5})


def function(cold: float = 0.2, paced: float = 0.005) -> Evidence:
    """A function of 1024 MB: 4 ms back to back."""
    samples: Mapping[Cell, Any] = {CALLED: [[0.004] * 300] * 5, PACED: [[paced] * 300] * 5, COLD: [[cold]] * 5}
    return evidence(target="lambda-x86", samples=samples, facts={COLD: {"init_s": 0.1}})


def traffic(**changes: Any) -> Traffic:  # noqa: ANN401 - fields of Traffic
    """20 requests a second, day and night."""
    fields = {"title": "t", "mean_per_s": 20.0, "peak_per_s": 20.0, "bursts_per_day": 0, "burst_s": 0.0, "p95_s": 1.0}
    return Traffic.model_validate(fields | changes)


def chosen(bundles: Sequence[Evidence], asked: Traffic) -> Choice:
    """The project's options under this traffic."""
    judged = case_of(bundles).judged(policy(), 30, CONFIDENCE)
    (found,) = choices(deployment().model_copy(update={"traffic": (asked,)}), judged)
    return found


def offer(choice: Choice, title: str) -> Offer:
    """The one option of this title."""
    (found,) = [one for one in choice.offers if one.option.title.startswith(title)]
    return found


def test_a_service_is_sized_for_the_peak_and_billed_by_the_hour() -> None:
    """200 a second of 10 ms keep two cores busy: four tasks at most 60 % busy, each half busy, and M/M/1's wait on top."""
    found = offer(chosen([SERVICE], traffic(mean_per_s=20.0, peak_per_s=200.0)), "service, ONNX")
    assert found.instances == 4
    assert found.month == pytest.approx(4 * 730 * 0.04937)
    assert found.p95_s == pytest.approx(0.010 + 0.010 * math.log(0.5 / 0.05) / 0.5)
    assert (found.answer, found.cold_share, found.believed) == ("pass", None, True)


def test_a_service_has_at_least_two_tasks() -> None:
    """One may fail; hardly busy, nobody waits."""
    found = offer(chosen([SERVICE], traffic(mean_per_s=0.1, peak_per_s=0.1)), "service, ONNX")
    assert (found.instances, found.p95_s) == (2, 0.010)


def test_a_task_is_as_fast_as_a_worker_among_busy_ones() -> None:
    """Two workers that answer 125 a second take 16 ms each, not 10: six tasks, and a p95 that is 6 ms and a longer wait later."""
    clients = {"suite": "concurrent_load", "mode": "throughput"}
    few, many = (WARM.model_copy(update={**clients, "clients": count}) for count in (1, 8))
    facts = {few: {"workers": 2.0, "requests_per_s": 50.0}, many: {"workers": 2.0, "requests_per_s": 125.0}}
    loaded = evidence(samples={WARM: [[0.010] * 100] * 5, few: [[1.0]] * 5, many: [[1.0]] * 5}, facts=facts)
    found = offer(chosen([loaded], traffic(mean_per_s=20.0, peak_per_s=200.0)), "service, ONNX")
    assert found.instances == math.ceil(200 * 0.016 / 0.6) == 6
    used = 200 * 0.016 / 6
    assert found.p95_s == pytest.approx(0.016 + 0.016 * math.log(used / 0.05) / (1 - used))
    assert {one.finding.metric for one in found.rests_on} == {"p50_s", "p95_s", "requests_per_s"}


def test_a_function_is_billed_by_the_call_its_memory_and_its_inits() -> None:
    """By the slower way of calling, rounded up to a millisecond; without gaps or bursts nothing starts cold."""
    found = offer(chosen([function()], traffic()), "Lambda, 1024")
    calls = 20 * 3600 * 730
    assert found.cold_share == pytest.approx(0.0, abs=1e-12)
    assert found.month == pytest.approx(calls * (0.20e-6 + 0.005 * 0.0000166667))
    assert (found.p95_s, found.cold_s) == (0.005, 0.2)
    assert found.instances == 2  # Poisson of mean 0.1: two suffice 99.9 % of the time


def test_gaps_and_bursts_start_instances() -> None:
    """A request that comes after five idle minutes is cold; so is each of a burst's until the first new one is warm."""
    quiet = traffic(mean_per_s=1 / 600, peak_per_s=1 / 600)
    gaps = offer(chosen([function()], quiet), "Lambda, 1024")
    assert gaps.cold_share == pytest.approx(math.exp(-0.5))
    assert gaps.p95_s == 0.2  # most requests wait for a start

    bursts = traffic(mean_per_s=2.0, peak_per_s=100.0, bursts_per_day=10, burst_s=60.0)
    burst = offer(chosen([function()], bursts), "Lambda, 1024")
    kept = 2  # of the base rate, 1.3 a second
    assert burst.cold_share == pytest.approx(10 * (100 * 0.2 - kept) / (86_400 * 2.0), rel=0.06)
    assert burst.instances == 20


def test_rare_cold_starts_push_the_95th_percentile_into_the_warm_tail() -> None:
    """Above one in a thousand the warm p99 bound is asked; what has none falls back to the cold start."""
    asked = traffic(mean_per_s=0.0125, peak_per_s=0.0125)  # exp(-3.75): 2.4 % cold
    found = offer(chosen([function()], asked), "Lambda, 1024")
    assert found.cold_share == pytest.approx(math.exp(-3.75))
    assert found.p95_s == 0.005
    assert {one.finding.metric for one in found.rests_on} >= {"p99_s"}
    few: Mapping[Cell, Any] = {CALLED: [[0.004] * 100] * 5, COLD: [[0.2]] * 5}
    short = evidence(target="lambda-x86", samples=few, facts={COLD: {"init_s": 0.1}})
    found = offer(chosen([short], traffic(mean_per_s=0.0125, peak_per_s=0.0125, p95_s=0.1)), "Lambda, 1024")
    assert (found.p95_s, found.answer) == (0.2, "fail")
    assert found.why.endswith("the cold start stands in for the warm p99, which has no bound")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"p95_s": 0.004}, "95 % are answered within 5.0 ms, not 4 ms"),
        ({"cold_s": 0.150}, "a new instance answers after 200 ms, not 150 ms"),
        ({"mean_per_s": 9e5, "peak_per_s": 9e5}, "beyond the quota of 1000"),
    ],
)
def test_a_broken_promise_is_named(changes: Mapping[str, float], why: str) -> None:
    """With the measured number and the promised one."""
    found = offer(chosen([function()], traffic(**changes)), "Lambda, 1024")
    assert found.answer == "fail"
    assert why in found.why


def test_an_emulated_function_is_a_candidate_and_never_the_answer() -> None:
    """Alone it leaves the question open; beside a trusted service it is named, and the service is taken."""
    alone = chosen([function()], traffic(mean_per_s=0.2, peak_per_s=0.2))
    assert alone.chosen is None
    assert sentence(alone).startswith("Undecided: Lambda, 1024 MB would cost $ 0.")
    both = chosen([function(), SERVICE], traffic(mean_per_s=0.2, peak_per_s=0.2))
    assert both.chosen is offer(both, "service, ONNX")
    assert sentence(both).startswith("Take service, ONNX Runtime INT8: $ 72.08 a month. Lambda, 1024 MB would")


def test_what_was_not_measured_has_no_bill_and_says_what_is_missing() -> None:
    """No GPU, no function: a dash, and the metric by name; nothing measured is no answer."""
    found = chosen([SERVICE], traffic())
    gpu, cold = offer(found, "GPU"), offer(found, "Lambda, 512")
    assert (gpu.answer, gpu.month, gpu.why) == (
        "not measured",
        None,
        "no bundle of cuda-a10g has p50_s, p95_s of torch_eager",
    )
    assert cold.why.endswith("p50_s, p95_s, start_s, init_s of ort_int8")
    assert "GPU service" in sentence(chosen([SERVICE], traffic(p95_s=0.001)))


def test_invalid_evidence_measures_nothing() -> None:
    """An uncommitted tree's numbers are no numbers here either."""
    dirty = evidence(samples={WARM: [[0.010] * 100] * 5}, dirty=("matrix/x.py",))
    assert offer(chosen([dirty], traffic()), "service, ONNX").answer == "not measured"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("peak_per_s = 20.0", "peak_per_s = 0.01", "its peak is below its mean"),
        ("mean_per_s = 0.1", "mean_per_s = 0.01", "its bursts alone hold more requests than its mean"),
        ("burst_s = 30.0", "burst_s = 9000.0", "its bursts fill more than the day"),
        ("per_gb_s = 0.0000166667", "", "price 'lambda' does not say per_gb_s"),
        ('price = "g5"', 'price = "p5"', "price 'p5' does not say per_hour"),
        ("memory_mb = 512", "memory = 512", "did you mean 'memory_mb'?"),
    ],
)
def test_a_file_that_does_not_add_up_is_refused(old: str, new: str, why: str) -> None:
    """With the place and the reason."""
    from matrix import definitions  # noqa: PLC0415 - the only test that needs its text

    text = definitions.text("deployment.toml")
    assert old in text
    with pytest.raises(DataError) as refused:
        parse_deployment(text.replace(old, new, 1))
    assert why in f"{refused.value} {refused.value.remedy}"


def test_every_option_of_the_project_names_cells_that_exist() -> None:
    """Targets and variants are the matrix's own; each price says its day."""
    ours: Deployment = deployment()
    for option in (*ours.function, *ours.service):
        targets().of(option.target)
        assert variant("inference_latency", option.variant).missing is None
        assert ours.price[option.price].date >= "2026"
    assert {"p50_s", "p95_s", "p99_s", "start_s", "init_s"} <= set(METRICS)
