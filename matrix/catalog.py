"""Everything that the matrix could hold: variants of each suite and the metrics that they yield. Data and nothing else.

Every system of the design note has a row here; a system that has no code yet says so as its reason, and is never a gap.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from matrix.cell import Suite, Workload
from matrix.target import Kind


@dataclass(frozen=True)
class Variant:
    """One way to do what a suite measures. `missing` is None when it is built, else why it cannot be measured yet.

    `devices` are those that the variant runs on; `platforms` the machines for which its packages exist; `functions` says
    that a function's image can do it. `module` is what an import cell imports.
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
    module: str | None = None


@dataclass(frozen=True)
class Metric:
    """What a number is: its kind decides which rule of trust holds for it, its unit how it is written, its suites yield it."""

    name: str
    title: str
    kind: Kind
    unit: str
    suites: tuple[Suite, ...]


REFERENCES: Final[dict[Suite, str]] = {
    "training_step": "raw_torch",
    "export_accuracy": "torch_fp32",
    "inference_latency": "torch_eager",
}
"""The variant that the others of a suite are compared with."""

_X86: Final = ("linux/amd64",)
_EVERYWHERE: Final = ("linux/amd64", "linux/arm64", "darwin/arm64")
_CPU: Final = ("cpu",)
_UNBUILT: Final = "no {} module is built yet"


def _stack(name: str, title: str, *, missing: str | None = None, workload: Workload = "intent") -> Variant:
    return Variant("training_step", workload, name, title, missing=missing)


def _import(module: str, *, platforms: tuple[str, ...] = _EVERYWHERE, functions: bool = False) -> Variant:
    name = f"import_{module.replace('.', '_')}"
    return Variant(
        "packaging", "intent", name, f"import of {module}", platforms=platforms, functions=functions, module=module
    )


def _unbuilt_stack(name: str, title: str, workload: Workload = "intent") -> Variant:
    return _stack(name, title, missing=_UNBUILT.format("stack"), workload=workload)


def _unbuilt_export(name: str, title: str, workload: Workload = "intent") -> Variant:
    return Variant("export_accuracy", workload, name, title, missing=_UNBUILT.format("export"))


def _unbuilt_runtime(name: str, title: str, workload: Workload = "intent") -> Variant:
    return Variant("inference_latency", workload, name, title, missing=_UNBUILT.format("runtime"))


VARIANTS: Final[tuple[Variant, ...]] = (
    _stack("raw_torch", "raw PyTorch"),
    _stack("hf_trainer", "transformers Trainer"),
    _unbuilt_stack("textbrewer", "TextBrewer"),
    _unbuilt_stack("kd_zoo_hints", "Knowledge-Distillation-Zoo: FitNet hints"),
    _unbuilt_stack("kd_zoo_attention", "Knowledge-Distillation-Zoo: attention transfer"),
    _unbuilt_stack("kd_zoo_relational", "Knowledge-Distillation-Zoo: relational"),
    _unbuilt_stack("lightning", "Lightning"),
    _unbuilt_stack("accelerate", "accelerate"),
    _unbuilt_stack("ddp", "DDP, frozen teacher outside"),
    _unbuilt_stack("fsdp2", "FSDP2 student, replicated teacher"),
    _unbuilt_stack("tinybert_two_stage", "TinyBERT, two stages"),
    _unbuilt_stack("cached_teacher", "cached teacher logits"),
    _unbuilt_stack("multi_teacher", "several teachers"),
    _unbuilt_stack("trl_sft", "trl SFTTrainer", "response"),
    _unbuilt_stack("trl_distillation", "trl DistillationTrainer", "response"),
    _unbuilt_stack("trl_gkd", "trl GKDTrainer", "response"),
    # fp32 is exact up to rounding, so equal-length batches are fair; dynamic INT8 scales its activations by the whole batch,
    # so an INT8 answer is only the served one at the served batch size
    Variant("export_accuracy", "intent", "torch_fp32", "PyTorch fp32", batch=64, functions=True),
    Variant("export_accuracy", "intent", "onnx_fp32", "ONNX fp32", batch=64, functions=True),
    Variant("export_accuracy", "intent", "onnx_int8", "ONNX dynamic INT8", batch=1, functions=True),
    Variant("export_accuracy", "intent", "openvino_fp32", "OpenVINO fp32", platforms=_X86, batch=64),
    Variant("export_accuracy", "intent", "openvino_int8", "OpenVINO INT8", platforms=_X86, batch=1),
    _unbuilt_export("onnx_fp16", "ONNX fp16"),
    _unbuilt_export("onnx_static_int8", "ONNX static INT8"),
    _unbuilt_export("openvino_int8_weights", "OpenVINO INT8 weights only"),
    _unbuilt_export("gguf_f16", "GGUF f16", "response"),
    _unbuilt_export("gguf_q8_0", "GGUF Q8_0", "response"),
    _unbuilt_export("gguf_q6_k", "GGUF Q6_K", "response"),
    _unbuilt_export("gguf_q4_k_m", "GGUF Q4_K_M", "response"),
    Variant("inference_latency", "intent", "torch_eager", "PyTorch eager"),
    Variant("inference_latency", "intent", "ort_fp32", "ONNX Runtime fp32", devices=_CPU),
    Variant("inference_latency", "intent", "ort_int8", "ONNX Runtime INT8", devices=_CPU, functions=True),
    Variant("inference_latency", "intent", "openvino_fp32", "OpenVINO fp32", devices=_CPU, platforms=_X86),
    Variant("inference_latency", "intent", "openvino_int8", "OpenVINO INT8", devices=_CPU, platforms=_X86),
    _unbuilt_runtime("torch_compiled", "PyTorch compiled"),
    _unbuilt_runtime("llama_cpp", "llama.cpp", "response"),
    Variant("packaging", "intent", "image", "the image", platforms=("linux/amd64", "linux/arm64"), functions=True),
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
_EXPORT: Final[tuple[Suite, ...]] = ("export_accuracy",)
_SERVING: Final[tuple[Suite, ...]] = ("inference_latency",)
_PACKAGING: Final[tuple[Suite, ...]] = ("packaging",)

_METRICS: Final = (
    Metric("step_s", "step", "time", "s", _TRAINING),
    Metric("samples_per_s", "samples/s", "throughput", "per_s", _TRAINING),
    Metric("peak_fraction", "of matmul peak", "time", "share", _TRAINING),
    Metric("teacher_forward_share", "teacher forward", "time", "share", _TRAINING),
    Metric("student_forward_share", "student forward", "time", "share", _TRAINING),
    Metric("backward_share", "backward", "time", "share", _TRAINING),
    Metric("optimizer_share", "optimizer", "time", "share", _TRAINING),
    Metric("other_share", "other", "time", "share", _TRAINING),
    Metric("matmul_flop_per_s", "matmul peak", "throughput", "flop_per_s", _TRAINING),
    Metric("step_flop", "work a step", "static", "flop", _TRAINING),
    Metric("tensor_rmse", "tensor RMSE / tolerance", "tensors", "share", _TRAINING),
    Metric("trained_accuracy", "accuracy of a student trained here", "trained", "share", _TRAINING),
    Metric("peak_bytes", "peak memory", "memory", "bytes", _TRAINING + _SERVING),
    Metric("p50_s", "p50", "time", "s", _SERVING),
    Metric("p95_s", "p95", "time", "s", _SERVING),
    Metric("p99_s", "p99", "time", "s", _SERVING),
    Metric("start_s", "start to first answer", "time", "s", _SERVING),
    Metric("import_s", "import", "time", "s", _SERVING + _PACKAGING),
    Metric("load_s", "load", "time", "s", _SERVING),
    Metric("first_call_s", "first call", "time", "s", _SERVING),
    Metric("resident_bytes", "resident memory", "memory", "bytes", _SERVING),
    Metric("init_s", "init", "time", "s", _SERVING),
    Metric("create_s", "container start", "time", "s", _SERVING),
    Metric("cpu_call_s", "CPU a call", "time", "s", _SERVING),
    Metric("share_s", "CPU a call / share", "time", "s", _SERVING),
    Metric("throttled_share", "throttled (sum over CPUs)", "time", "share", _SERVING),
    Metric("late_share", "late calls", "time", "share", _SERVING),
    Metric("ratio", "against the reference", "ratio", "ratio", _TRAINING + _SERVING),
    Metric("accuracy", "accuracy", "quality", "share", _EXPORT),
    Metric("accuracy_delta", "accuracy delta", "export_delta", "points", _EXPORT),
    Metric("mean_kl", "mean KL", "export_delta", "", _EXPORT),
    Metric("flip_rate", "flip rate", "export_delta", "share", _EXPORT),
    Metric("max_dlogit", "max |Δlogit|", "export_delta", "", _EXPORT),
    Metric("artifact_bytes", "artifact", "static", "bytes", _EXPORT),
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
