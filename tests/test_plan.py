"""Every cell that the matrix could have is planned or excluded with a reason."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec

import pytest

from matrix.catalog import REFERENCES, VARIANTS
from matrix.errors import UsageError
from matrix.plan import cells_of_launch, make_plan
from matrix.profile import Profile
from matrix.schemes import PERPLEXITIES
from matrix.workloads import distill, export, language, serve
from tests.making import profiles, targets

QUICK = profiles().of("quick")


@pytest.mark.parametrize("target", list(targets().target))
@pytest.mark.parametrize("profile", ["quick", "standard", "full"])
def test_nothing_is_left_unsaid(target: str, profile: str) -> None:
    """Each variant of the catalog appears on each target, and no cell twice."""
    plan = make_plan(target, targets().of(target), profiles().of(profile))
    cells = [*plan.planned, *(item.cell for item in plan.excluded)]
    assert len({cell.id for cell in cells}) == len(cells)
    assert {(cell.suite, cell.variant) for cell in cells} == {(variant.suite, variant.name) for variant in VARIANTS}
    assert all(item.reason for item in plan.excluded)


def test_the_catalog_knows_what_is_built() -> None:
    """A variant without a `missing` reason has a module, and each module is in the catalog."""
    built = {suite: {v.name for v in VARIANTS if v.suite == suite and v.missing is None} for suite, _ in REFERENCES}
    stacks = {workload: set(distill.stacks(workload)) for workload in ("intent", "response")}
    loaded = built["concurrent_load"]
    assert loaded < set(serve.SERVINGS) | set(language.TYPES)
    assert built == {
        "training_step": stacks["intent"] | stacks["response"],
        "training_quality": stacks["intent"] - {"textbrewer_features"},
        "export_accuracy": set(export.formats()),
        "quantization_schemes": set(PERPLEXITIES),
        "response_quality": {language.REFERENCE, *language.TYPES},
        "inference_latency": set(serve.SERVINGS),
        "generation": set(language.TYPES),
        "concurrent_load": loaded,
    }
    assert all(reference in built[suite] for (suite, _), reference in REFERENCES.items())
    assert all(find_spec(f"matrix.workloads.distill.{name}") for names in stacks.values() for name in names)


def test_the_cpu_target_measures_what_first_light_asks() -> None:
    """20 stacks and 5 of the response model, 5 exports, 5 runtimes at 3 lengths and the data's own, each also cold."""
    plan = make_plan("cpu-openvino", targets().of("cpu-openvino"), QUICK)
    count = Counter(cell.suite for cell in plan.planned)
    assert count == {"training_step": 25, "export_accuracy": 5, "inference_latency": 25, "packaging": 8}


def test_a_function_is_measured_at_each_memory_cold_and_warm() -> None:
    """Three sizes: cold with either init; warm back to back at each length, and at a rate at the longest and the data's."""
    plan = make_plan("lambda-x86", targets().of("lambda-x86"), QUICK)
    served = [cell for cell in plan.planned if cell.suite == "inference_latency"]
    assert {cell.variant for cell in served} == {"ort_int8"}
    for memory in (512, 1024, 1769):
        ours = [cell for cell in served if cell.memory_mb == memory]
        assert {cell.init for cell in ours if cell.mode == "cold"} == {"full", "throttled"}
        assert [cell.length for cell in ours if cell.every_ms == 0] == [16, 64, 128, "data"]
        assert [cell.length for cell in ours if cell.every_ms == 100] == [128, "data"]


def test_emulated_instructions_are_judged_on_fewer_examples() -> None:
    """Enough for a claim (1,400), and every export cell of the target says so in its identity."""
    plan = make_plan("lambda-arm", targets().of("lambda-arm"), QUICK)
    assert {cell.examples for cell in plan.planned if cell.suite == "export_accuracy"} == {1500}


def test_a_native_run_has_no_image() -> None:
    """The image's cell is planned for containers, and excluded with its reason without them."""
    target = targets().of("cpu-openvino")
    (image,) = [
        item for item in make_plan("cpu-openvino", target, QUICK, "native").excluded if item.cell.variant == "image"
    ]
    assert image.reason == "ran natively, without an image"


def test_only_a_native_run_compiles() -> None:
    """Images have no compiler; `standard` measures compiled PyTorch where it runs without one."""
    target, standard = targets().of("cpu-openvino"), profiles().of("standard")
    compiled = {
        executor: sum(
            cell.variant == "torch_compiled" for cell in make_plan("cpu-openvino", target, standard, executor).planned
        )
        for executor in target.executors
    }
    assert compiled == {"docker": 0, "native": 5}


@pytest.mark.parametrize(
    ("target", "suite", "variant", "reason"),
    [
        ("lambda-x86", "training_step", "raw_torch", "serves and never trains"),
        ("lambda-arm", "inference_latency", "ort_int8", "under instruction emulation a time means nothing"),
        ("lambda-arm", "export_accuracy", "onnx_fp32", "an fp32 answer takes half a second"),
        ("cuda-a100", "inference_latency", "ort_int8", "its time belongs to the CPU targets, not to NVIDIA A100"),
        ("lambda-x86", "inference_latency", "torch_eager", "the function's image leaves out PyTorch eager"),
        ("mps", "export_accuracy", "openvino_int8", "no packages that ship for darwin/arm64"),
        ("cpu-openvino", "training_quality", "raw_torch", "asked for were training_step, export_accuracy"),
        ("cpu-openvino", "quantization_schemes", "absmax", "asked for were training_step, export_accuracy"),
        ("lambda-x86", "quantization_schemes", "absmax", "nothing of a study ships"),
        ("mps", "quantization_schemes", "absmax", "a scheme's integers are the same on every device"),
        ("cpu-openvino", "response_quality", "gguf_f16", "the image has no llama.cpp"),
        ("mps", "response_quality", "gguf_f16", "what a type loses does not depend on where it runs"),
        ("lambda-x86", "generation", "gguf_q4_k_m", "too small for an 8B model"),
        ("lambda-x86", "concurrent_load", "ort_int8", "an instance of a function answers one call at a time"),
        ("cuda-a100", "concurrent_load", "torch_eager", "runs on the CPU"),
        ("cpu-openvino", "export_accuracy", "bitsandbytes_int8", "bitsandbytes is in no lock of this project"),
        ("cpu-openvino", "inference_latency", "torch_compiled", "the image has no compiler, which Inductor needs"),
        ("cuda-a100", "export_accuracy", "torch_int8", "torch.ao has no quantised kernels for a GPU"),
    ],
)
def test_an_exclusion_says_why(target: str, suite: str, variant: str, reason: str) -> None:
    """What can never be is told before what is not built."""
    plan = make_plan(target, targets().of(target), QUICK)
    found = [item.reason for item in plan.excluded if (item.cell.suite, item.cell.variant) == (suite, variant)]
    assert found
    assert all(reason in one for one in found)


def test_a_profile_may_train_with_few_stacks() -> None:
    """The others are excluded with the profile's name; exports and runtimes stay."""
    few = QUICK.model_copy(update={"stacks": ("raw_torch",)})
    plan = make_plan("cpu-openvino", targets().of("cpu-openvino"), few)
    assert [cell.variant for cell in plan.planned if cell.suite == "training_step"] == ["raw_torch"]
    (reason,) = {item.reason for item in plan.excluded if item.cell.suite == "training_step"}
    assert reason == "the profile quick asks for raw_torch only"
    assert any(cell.suite == "export_accuracy" for cell in plan.planned)


def test_a_launch_is_a_shuffled_block() -> None:
    """Same seed, same order; another seed, another order; always the same cells."""
    plan = make_plan("cpu-openvino", targets().of("cpu-openvino"), QUICK)
    first, again, other = (cells_of_launch(plan, QUICK, 1, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert set(first) == set(other) == set(plan.planned)


def test_quality_cells_run_in_the_first_launches_only() -> None:
    """Outputs repeat: profile quick judges them once, and times in all five launches."""
    plan = make_plan("cpu-openvino", targets().of("cpu-openvino"), QUICK)
    second = cells_of_launch(plan, QUICK, 2, 7)
    assert {cell.suite for cell in second} == {"training_step", "inference_latency", "packaging"}
    assert "image" not in {cell.variant for cell in second}


def test_names_mean_a_target_or_a_group() -> None:
    """`cuda` is three targets; a typo names what there is."""
    assert targets().named("cuda") == ("cuda-a100", "cuda-a10g", "cuda-h200")
    assert targets().named("mps") == ("mps",)
    with pytest.raises(UsageError, match="no target is called 'gpu'; name one of cuda-a100"):
        targets().named("gpu")


GATED = [profile for profile in profiles().profile.values() if "export_accuracy" in profile.suites]


@pytest.mark.parametrize("profile", GATED, ids=lambda profile: profile.name)
def test_every_profile_that_gates_judge_can_certify(profile: Profile) -> None:
    """Each has the launches and samples that the statistics need, and evaluates on 10,000 examples."""
    assert profile.launches >= 5
    assert profile.inference.min_rounds >= 59
    assert profile.training.min_rounds >= 6
    assert profile.recipe.evaluation_examples >= 10_000


def test_a_run_of_one_suite_plans_the_profile_s_own_cells_of_it() -> None:
    """No other suite's, and none that the whole profile would not have."""
    target = targets().of("cuda-h200")
    whole = make_plan("cuda-h200", target, QUICK).planned
    part = make_plan("cuda-h200", target, QUICK.only(("training_step",))).planned
    assert part == tuple(cell for cell in whole if cell.suite == "training_step")
    assert part
