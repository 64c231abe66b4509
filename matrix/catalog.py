"""Everything that the matrix could hold: variants of each suite and the metrics that they yield. Data and nothing else.

Every system of the design note has a row here; a system that has no code yet says so as its reason, and is never a gap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from matrix.cell import ANSWERING, TRAINING, Suite, Workload
from matrix.target import Executor, Kind

Work = Literal[
    "output",
    "features",
    "hints",
    "attention",
    "relational",
    "similarity",
    "nst",
    "pkt",
    "several teachers",
    "answers",
    "token logits",
    "on-policy",
]

WORKS: Final[dict[Work, str]] = {
    "output": "output KD: (1 - α) CE + α T² KL to the teacher's logits",  # noqa: RUF001 - alpha
    "features": "TinyBERT's first stage: embeddings, hidden states and attention of mapped layers, no labels",
    "hints": "output KD + a FitNet hint: the projected hidden states of one layer",
    "attention": "output KD + attention transfer of mapped layers",
    "relational": "output KD + distances and angles among the batch's examples",
    "similarity": "output KD + similarities among the batch's examples (SP)",
    "nst": "output KD + neuron selectivity: the maximum mean discrepancy of hidden units",
    "pkt": "output KD + probabilistic knowledge transfer: conditional probabilities among the batch's examples",
    "several teachers": "output KD to the mean of two teachers' softened distributions",
    "answers": "cross entropy on a teacher's answers (response distillation)",
    "token logits": "Jensen-Shannon divergence from the teacher's next-token distributions on its answers",
    "on-policy": "reverse KL from the teacher's next-token distributions on what the student itself generates",
}
"""What a training step computes, for people."""


@dataclass(frozen=True)
class Variant:
    """One way to do what a suite measures. `missing` is None when it is built, else why it cannot be measured yet.

    `devices` are those that the variant runs on; `platforms` the machines for which its packages exist; `functions` says
    that a function's image can do it. `elsewhere` says why no other device runs it, where that is not plain; `barred` the one way
    of running that cannot measure it, and why; `module` is what an import cell imports.
    """

    suite: Suite
    workload: Workload
    name: str
    title: str
    devices: tuple[str, ...] = ("cpu", "cuda", "mps")
    platforms: tuple[str, ...] = ("linux/amd64", "linux/arm64", "darwin/arm64")
    missing: str | None = None
    batch: int | None = None
    functions: bool = False
    elsewhere: str | None = None
    barred: tuple[Executor, str] | None = None
    module: str | None = None
    work: Work = "output"
    note: str = ""


@dataclass(frozen=True)
class Metric:
    """What a number is: its kind decides which rule of trust holds for it, its unit how it is written, its suites yield it."""

    name: str
    title: str
    kind: Kind
    unit: str
    suites: tuple[Suite, ...]


REFERENCES: Final[dict[tuple[Suite, Workload], str]] = {
    ("training_step", "intent"): "raw_torch",
    ("training_step", "response"): "raw_sft",
    ("training_quality", "intent"): "raw_torch",
    ("export_accuracy", "intent"): "torch_fp32",
    ("quantization_schemes", "intent"): "fp32",
    ("response_quality", "response"): "torch_fp32",
    ("inference_latency", "intent"): "torch_eager",
    ("generation", "response"): "gguf_f16",
    ("concurrent_load", "intent"): "torch_eager",
    ("concurrent_load", "response"): "gguf_f16",
}
"""The variant that the others of a suite and workload are compared with, unless their work has its own."""

WORK_REFERENCES: Final[dict[Work, str]] = {"features": "tinybert_two_stage", "token logits": "raw_token_kd"}
"""The raw PyTorch stack of each other work that more than one stack does; it is itself set beside the workload's reference."""

_X86: Final = ("linux/amd64",)
_EVERYWHERE: Final = ("linux/amd64", "linux/arm64", "darwin/arm64")
_CPU: Final = ("cpu",)
_EXACT: Final = "a scheme's integers are the same on every device: the CPU targets hold them"
_UNLOCKED: Final = "{} is in no lock of this project (images/*/requirements.txt): {}"
_TORCHAO: Final = "on a CPU torchao 0.18 multiplies in fp32 unless Inductor compiles it, and images have no compiler"
_BITSANDBYTES: Final = "on a CPU bitsandbytes 0.50 multiplies in fp32; quantization_schemes judges what it computes"
_NO_IMAGE: Final[tuple[Executor, str]] = ("native", "ran natively, without an image")
_NO_COMPILER: Final[tuple[Executor, str]] = (
    "docker",
    "the image has no compiler, which Inductor needs: `--executor native` measures it where one is installed",
)
_NO_LLAMA: Final[tuple[Executor, str]] = (
    "docker",
    "the image has no llama.cpp, which is compiled where it is installed: `--executor native` measures it with the extra llama",
)
_ONE_LLAMA: Final = (
    "llama.cpp's files are made and judged on the CPU: what a type loses does not depend on where it runs"
)
_TORCH_AO: Final = "PyTorch INT8 runs on the CPU: torch.ao has no quantised kernels for a GPU"


def _import(module: str, *, platforms: tuple[str, ...] = _EVERYWHERE, functions: bool = False) -> Variant:
    name = f"import_{module.replace('.', '_')}"
    return Variant(
        "packaging", "intent", name, f"import of {module}", platforms=platforms, functions=functions, module=module
    )


def _scheme(name: str, title: str) -> Variant:
    return Variant("quantization_schemes", "intent", name, title, devices=_CPU, elsewhere=_EXACT, batch=64)


def _gguf(suite: Suite, elsewhere: str | None = None) -> Iterator[Variant]:
    """A row a type of llama.cpp's."""
    for name, title in (("f16", "f16"), ("q8_0", "Q8_0"), ("q6_k", "Q6_K"), ("q4_k_m", "Q4_K_M")):
        titled = f"GGUF {title}"
        yield Variant(suite, "response", f"gguf_{name}", titled, devices=_CPU, elsewhere=elsewhere, barred=_NO_LLAMA)


_SERVED: Final = ("gguf_f16", "gguf_q4_k_m")
"""The types that are put under load by llama.cpp's server: as it was trained, and as the design note ships it."""


def _loaded(name: str, title: str, *, platforms: tuple[str, ...] = _EVERYWHERE) -> Variant:
    return Variant("concurrent_load", "intent", name, title, devices=_CPU, platforms=platforms)


def _unlocked_export(name: str, title: str, package: str, why: str) -> Variant:
    return Variant("export_accuracy", "intent", name, title, missing=_UNLOCKED.format(package, why))


_INTENT: Final[tuple[tuple[str, str, Work, str], ...]] = (
    ("raw_torch", "raw PyTorch", "output", ""),
    ("kd_zoo_soft_targets", "KD-Zoo: soft targets", "output", ""),
    ("hf_trainer", "transformers Trainer", "output", ""),
    ("accelerate", "accelerate", "output", ""),
    ("lightning", "Lightning", "output", ""),
    ("textbrewer", "TextBrewer", "output", "its KD loss has no T²: kd_loss_weight is α T²"),  # noqa: RUF001 - alpha
    (
        "ddp",
        "DDP, frozen teacher outside",
        "output",
        "two processes on gloo, each half of the batch and of the threads",
    ),
    (
        "fsdp2",
        "FSDP2 student, replicated teacher",
        "output",
        "two processes on gloo, each half of the batch and of the threads",
    ),
    ("cached_teacher", "cached teacher logits", "output", "the cache is full before the clock starts"),
    ("mixed_refresh", "cached teacher, mixed refresh", "output", "a tenth of each batch's logits are made anew"),
    ("fast", "the fast path", "output", "cached teacher logits and no dropout"),
    ("tinybert_two_stage", "TinyBERT, two stages", "features", "its first stage; the second is output KD"),
    (
        "textbrewer_features",
        "TextBrewer: features and attention",
        "features",
        "it clips the student's gradients, not the projections'",
    ),
    ("kd_zoo_hints", "KD-Zoo: FitNet hints", "hints", ""),
    ("kd_zoo_attention", "KD-Zoo: attention transfer", "attention", ""),
    ("kd_zoo_relational", "KD-Zoo: relational", "relational", ""),
    ("kd_zoo_similarity", "KD-Zoo: SP", "similarity", ""),
    ("kd_zoo_nst", "KD-Zoo: NST", "nst", ""),
    ("kd_zoo_pkt", "KD-Zoo: PKT", "pkt", ""),
    ("multi_teacher", "several teachers", "several teachers", ""),
)
_RESPONSE: Final[tuple[tuple[str, str, Work, str], ...]] = (
    ("raw_sft", "raw PyTorch, answers", "answers", ""),
    ("trl_sft", "trl SFTTrainer", "answers", ""),
    ("raw_token_kd", "raw PyTorch, token logits", "token logits", ""),
    (
        "trl_gkd",
        "trl GKDTrainer, off-policy",
        "token logits",
        "its divergence is at temperature 1, whatever it is told",
    ),
    (
        "trl_distillation",
        "trl DistillationTrainer",
        "on-policy",
        "a step generates: answers of one length, then reverse KL",
    ),
)
_PROCESSES: Final = ("ddp", "fsdp2")
_ONE_GPU: Final = "each of its two processes needs a GPU of its own (NCCL), and a run has one"
_NO_CLASSIFIER: Final = "it sees no label and no logit: only TinyBERT's second stage makes a classifier of that"
_OPEN_ANSWERS: Final = "an open answer is neither right nor wrong: accuracy is a classifier's"


def _stacks() -> Iterator[Variant]:
    """A row a stack in each of the two training suites."""
    for suite in TRAINING:
        for name, title, work, note in _INTENT:
            if suite == "training_quality" and name == "textbrewer_features":
                yield Variant(suite, "intent", name, title, work=work, note=note, missing=_NO_CLASSIFIER)
            elif name in _PROCESSES:
                yield Variant(suite, "intent", name, title, devices=_CPU, elsewhere=_ONE_GPU, work=work, note=note)
            else:
                yield Variant(suite, "intent", name, title, work=work, note=note)
        for name, title, work, note in _RESPONSE:
            missing = _OPEN_ANSWERS if suite == "training_quality" else None
            yield Variant(suite, "response", name, title, work=work, note=note, missing=missing)


VARIANTS: Final[tuple[Variant, ...]] = (
    *_stacks(),
    # fp32 is exact up to rounding, so equal-length batches are fair; dynamic INT8 scales its activations by the whole batch,
    # so an INT8 answer is only the served one at the served batch size
    Variant("export_accuracy", "intent", "torch_fp32", "PyTorch fp32", batch=64, functions=True),
    Variant("export_accuracy", "intent", "onnx_fp32", "ONNX fp32", batch=64, functions=True),
    Variant("export_accuracy", "intent", "onnx_int8", "ONNX dynamic INT8", batch=1, functions=True),
    Variant("export_accuracy", "intent", "openvino_fp32", "OpenVINO fp32", platforms=_X86, batch=64),
    Variant("export_accuracy", "intent", "openvino_int8", "OpenVINO INT8", platforms=_X86, batch=1),
    Variant("export_accuracy", "intent", "openvino_int8_weights", "OpenVINO INT8 weights", platforms=_X86, batch=64),
    Variant("export_accuracy", "intent", "onnx_fp16", "ONNX fp16", batch=64),
    Variant("export_accuracy", "intent", "onnx_static_int8", "ONNX static INT8", batch=64),
    Variant("export_accuracy", "intent", "onnx_static_int8_percentile", "ONNX static INT8, percentile", batch=64),
    Variant("export_accuracy", "intent", "onnx_static_int8_entropy", "ONNX static INT8, entropy", batch=64),
    Variant("export_accuracy", "intent", "onnx_fused", "ONNX fp32, fused", batch=64),
    Variant("export_accuracy", "intent", "onnx_int8_fused", "ONNX dynamic INT8, fused", batch=1),
    Variant("export_accuracy", "intent", "torch_int8", "PyTorch INT8", devices=_CPU, elsewhere=_TORCH_AO, batch=1),
    _unlocked_export("torchao_int8", "torchao INT8", "torchao", _TORCHAO),
    _unlocked_export("bitsandbytes_int8", "bitsandbytes INT8", "bitsandbytes", _BITSANDBYTES),
    # the rows of the paper's table 1 (schemes.py has it too)
    _scheme("fp32", "fp32"),
    _scheme("absmax", "absmax"),
    _scheme("zeropoint", "zero-point"),
    _scheme("absmax_row_wise", "absmax row-wise"),
    _scheme("absmax_vector_wise", "absmax vector-wise"),
    _scheme("zeropoint_vector_wise", "zero-point vector-wise"),
    _scheme("absmax_row_wise_decomposed", "absmax row-wise + decomposition"),
    _scheme("llm_int8", "absmax LLM.int8()"),
    _scheme("llm_int8_zeropoint", "zero-point LLM.int8()"),
    Variant("response_quality", "response", "torch_fp32", "PyTorch fp32", devices=_CPU, elsewhere=_ONE_LLAMA),
    *_gguf("response_quality", _ONE_LLAMA),
    Variant("inference_latency", "intent", "torch_eager", "PyTorch eager"),
    Variant("inference_latency", "intent", "ort_fp32", "ONNX Runtime fp32", devices=_CPU),
    Variant("inference_latency", "intent", "ort_int8", "ONNX Runtime INT8", devices=_CPU, functions=True),
    Variant("inference_latency", "intent", "openvino_fp32", "OpenVINO fp32", devices=_CPU, platforms=_X86),
    Variant("inference_latency", "intent", "openvino_int8", "OpenVINO INT8", devices=_CPU, platforms=_X86),
    Variant(
        "inference_latency", "intent", "openvino_int8_weights", "OpenVINO INT8 weights", devices=_CPU, platforms=_X86
    ),
    Variant("inference_latency", "intent", "ort_fp16", "ONNX Runtime fp16", devices=_CPU),
    Variant("inference_latency", "intent", "ort_static_int8", "ONNX Runtime static INT8", devices=_CPU),
    Variant("inference_latency", "intent", "ort_fused", "ONNX Runtime fp32, fused", devices=_CPU),
    Variant("inference_latency", "intent", "ort_int8_fused", "ONNX Runtime INT8, fused", devices=_CPU),
    Variant("inference_latency", "intent", "torch_compiled", "PyTorch compiled", barred=_NO_COMPILER),
    Variant("inference_latency", "intent", "torch_int8", "PyTorch INT8", devices=_CPU),
    *_gguf("generation"),
    _loaded("torch_eager", "PyTorch eager"),
    _loaded("ort_fp32", "ONNX Runtime fp32"),
    _loaded("ort_int8", "ONNX Runtime INT8"),
    _loaded("ort_int8_fused", "ONNX Runtime INT8, fused"),
    _loaded("openvino_fp32", "OpenVINO fp32", platforms=_X86),
    _loaded("openvino_int8", "OpenVINO INT8", platforms=_X86),
    *(one for one in _gguf("concurrent_load") if one.name in _SERVED),
    Variant(
        "packaging",
        "intent",
        "image",
        "the image",
        platforms=("linux/amd64", "linux/arm64"),
        functions=True,
        barred=_NO_IMAGE,
    ),
    _import("numpy"),
    _import("tokenizers", functions=True),
    _import("onnxruntime"),
    _import("awslambdaric.bootstrap", platforms=(), functions=True),
    _import("openvino", platforms=_X86),
    _import("torch"),
    _import("transformers"),
    _import("optimum.onnxruntime"),
)

_TRAINING: Final[tuple[Suite, ...]] = ("training_step",)
_QUALITY: Final[tuple[Suite, ...]] = ("training_quality",)
_EXPORT: Final[tuple[Suite, ...]] = ("export_accuracy",)
_SCHEMES: Final[tuple[Suite, ...]] = ("quantization_schemes",)
_RESPONSES: Final[tuple[Suite, ...]] = ("response_quality",)
_SERVING: Final[tuple[Suite, ...]] = ("inference_latency",)
_GENERATION: Final[tuple[Suite, ...]] = ("generation",)
_LOAD: Final[tuple[Suite, ...]] = ("concurrent_load",)
_PACKAGING: Final[tuple[Suite, ...]] = ("packaging",)

_METRICS: Final = (
    Metric("step_s", "step", "time", "s", _TRAINING),
    Metric("samples_per_s", "samples/s", "throughput", "per_s", _TRAINING),
    Metric("floor_s", "its floor", "time", "s", _TRAINING),
    Metric("peak_fraction", "floor / step", "time", "share", _TRAINING),
    Metric("teacher_forward_share", "teacher forward", "time", "share", _TRAINING),
    Metric("student_forward_share", "student forward", "time", "share", _TRAINING),
    Metric("backward_share", "backward", "time", "share", _TRAINING),
    Metric("optimizer_share", "optimizer", "time", "share", _TRAINING),
    Metric("other_share", "other", "time", "share", _TRAINING),
    Metric("matmul_flop_per_s", "matmul peak", "throughput", "flop_per_s", _TRAINING),
    Metric("step_flop", "work a step", "static", "flop", _TRAINING),
    Metric("tensor_rmse", "tensor RMSE / tolerance", "tensors", "share", _TRAINING),
    Metric("trained_accuracy", "accuracy of a student trained here", "trained", "share", _TRAINING),
    Metric("trial_accuracy", "accuracy", "trained", "share", _QUALITY),
    Metric("trial_delta", "accuracy against raw PyTorch", "trained", "points", _QUALITY),
    Metric("time_to_accuracy_s", "time to the goal", "time", "s", _QUALITY),
    Metric("train_s", "training", "time", "s", _QUALITY),
    Metric("setup_s", "of it before the first step", "time", "s", _QUALITY),
    Metric("examples_per_s", "examples/s of its steps", "throughput", "per_s", _QUALITY),
    # what else keeps a package busy is in its joules as it is in a time: the same doubts
    Metric("cpu_energy_j", "energy of the CPU packages", "time", "J", _QUALITY),
    Metric("gpu_energy_j", "energy of the GPUs", "time", "J", _QUALITY),
    Metric("peak_bytes", "peak memory", "memory", "bytes", _TRAINING + _QUALITY + _SERVING),
    Metric("p50_s", "p50", "time", "s", _SERVING + _LOAD),
    Metric("p95_s", "p95", "time", "s", _SERVING + _LOAD),
    Metric("p99_s", "p99", "time", "s", _SERVING + _LOAD),
    Metric("start_s", "start to first answer", "time", "s", _SERVING),
    Metric("import_s", "import", "time", "s", _SERVING + _PACKAGING),
    Metric("load_s", "load", "time", "s", _SERVING + _GENERATION),
    Metric("first_call_s", "first call", "time", "s", _SERVING),
    Metric("resident_bytes", "resident memory", "memory", "bytes", _SERVING),
    Metric("first_token_s", "first token", "time", "s", _GENERATION + _LOAD),
    Metric("prefill_per_s", "tokens read a second", "throughput", "per_s", _GENERATION),
    Metric("decode_per_s", "tokens written a second", "throughput", "per_s", _GENERATION + _LOAD),
    Metric("requests_per_s", "answers a second", "throughput", "per_s", _LOAD),
    Metric("capacity_per_s", "capacity, answers a second", "throughput", "per_s", _LOAD),
    Metric("queued_s", "waiting, median", "time", "s", _LOAD),
    Metric("error_share", "unanswered or wrong", "static", "share", _LOAD),
    Metric("workers", "workers", "static", "", _LOAD),
    Metric("init_s", "init", "time", "s", _SERVING),
    Metric("create_s", "container start", "time", "s", _SERVING),
    Metric("cpu_call_s", "CPU a call", "time", "s", _SERVING),
    Metric("share_s", "CPU a call / share", "time", "s", _SERVING),
    Metric("throttled_share", "throttled (sum over CPUs)", "time", "share", _SERVING),
    Metric("late_share", "late calls", "time", "share", _SERVING),
    Metric("ratio", "against the reference", "ratio", "ratio", _TRAINING + _SERVING + _GENERATION),
    Metric("method_ratio", "other work, beside raw PyTorch", "ratio", "ratio", _TRAINING),
    Metric("accuracy", "accuracy", "quality", "share", ANSWERING),
    Metric("accuracy_delta", "accuracy delta", "export_delta", "points", ANSWERING),
    Metric("mean_kl", "mean KL", "export_delta", "", ANSWERING),
    Metric("flip_rate", "flip rate", "export_delta", "share", ANSWERING),
    Metric("max_dlogit", "max |Δlogit|", "export_delta", "", ANSWERING),
    Metric("perplexity", "perplexity", "quality", "", _RESPONSES),
    Metric("perplexity_ratio", "perplexity / reference's", "export_delta", "ratio", _RESPONSES),
    Metric("token_kl", "KL a token", "export_delta", "", _RESPONSES),
    Metric("same_top", "same first token", "export_delta", "share", _RESPONSES),
    Metric("mean_delta_p", "mean Δp", "export_delta", "points", _RESPONSES),
    Metric("rms_delta_p", "RMS Δp", "export_delta", "share", _RESPONSES),
    Metric("product_error", "error, one sign", "static", "", _SCHEMES),
    Metric("two_sided_error", "error, either sign", "static", "", _SCHEMES),
    Metric("plain_error", "error, no outlier", "static", "", _SCHEMES),
    Metric("outlier_share", "features taken out", "static", "share", _SCHEMES),
    Metric("artifact_bytes", "artifact", "static", "bytes", _EXPORT + _RESPONSES + _GENERATION),
    Metric("image_bytes", "image", "static", "bytes", _PACKAGING),
    Metric("compressed_bytes", "compressed", "static", "bytes", _PACKAGING),
    Metric("layers", "layers", "static", "", _PACKAGING),
    Metric("packages", "packages", "static", "", _PACKAGING),
    Metric("cold_build_s", "build, cold", "time", "s", _PACKAGING),
    Metric("warm_build_s", "build, warm", "time", "s", _PACKAGING),
    Metric("base_age_s", "age of the base", "static", "s", _PACKAGING),
)


METRICS: Final[dict[str, Metric]] = {metric.name: metric for metric in _METRICS}


def variant(suite: str, name: str) -> Variant:
    """The variant `name` of `suite`.

    Raises:
        KeyError: there is none.
    """
    for found in VARIANTS:
        if (found.suite, found.name) == (suite, name):
            return found
    raise KeyError(f"{suite}/{name}")
