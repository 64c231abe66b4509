"""Every export format of a tiny student, by the runtime that serves it; what is torn, foreign or wrong is refused in words."""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner
from optimum.onnxruntime import ORTModelForSequenceClassification
from transformers import BertForSequenceClassification

from matrix.canonical import file_digest
from matrix.cli import cli
from matrix.errors import DataError, ExitCode, MatrixError, UsageError
from matrix.exported import MANIFEST, Manifest
from matrix.strict import parse_json
from matrix.workloads import export, serve
from matrix.workloads.data import load_splits
from matrix.workloads.export import onnx_fused, parity
from matrix.workloads.inductor import compiler
from matrix.workloads.models import build_student, build_teacher, load_tokenizer, train_tokenizer
from matrix.workloads.serve import (
    Inputs,
    Predict,
    onnx_runtime,
    openvino_cpu,
    torch_compiled,
    torch_eager,
    torch_int8,
)
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
RECIPE = PROFILE.recipe.model_copy(
    update={"student": PROFILE.recipe.student.model_copy(update={"layers": 2}), "train_examples": 400}
)


class Made(NamedTuple):
    """A student's checkpoint, every format of it, and its own answers."""

    root: Path
    folders: dict[str, Path]
    reference: Predict
    asked: list[Inputs]

    def predict(self, name: str) -> Predict:
        """The format `name` as its runtime serves it."""
        model = self.folders[name] / export.exporter(name).MODEL
        return serve.runtime_of(name).load(model, device="cpu", threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Random weights, large enough that logits differ; the data's own tokenizer."""
    root = tmp_path_factory.mktemp("exports")
    splits = load_splits("embedded", RECIPE)
    tokenizer, student = train_tokenizer(splits.train.texts), build_student(RECIPE, splits.names)
    for weights in student.parameters():
        weights.data.mul_(5)
    for name, model in {"student": student, "teacher": build_teacher(RECIPE, splits.names)}.items():
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    encoded = tokenizer(list(splits.train.texts[:32]))["input_ids"]
    rows = [{"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)} for ids in encoded]
    folders = {"torch_fp32": root / "student"}
    for name in export.formats():
        if name != "torch_fp32":
            folders[name] = root / name
            folders[name].mkdir()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what exporters say of each other's age is in a run's log
                export.exporter(name).export(folders, folders[name], rows)
    reference = torch_eager.load(root / "student" / "model.safetensors", device="cpu", threads=1)
    return Made(root, folders, reference, list(parity.probes(RECIPE.vocabulary, 512)))


@pytest.mark.parametrize("name", export.formats())
def test_a_format_answers_as_its_checkpoint_does(made: Made, name: str) -> None:
    """Full precision to rounding with equal labels, whatever the length and the padding; the others nearly."""
    if name in export.EXACT:
        assert parity.check(name, made.predict(name), made.reference, made.asked) <= parity.LIMIT
    else:
        parity.alike(name, made.predict(name), made.reference, made.asked, 0.9)


def test_each_format_has_fewer_bytes_than_what_it_is_made_from(made: Made) -> None:
    """Half in fp16; a quarter in INT8, embeddings included."""
    size = {name: export.artifact_bytes(folder, export.exporter(name).MODEL) for name, folder in made.folders.items()}
    assert size["onnx_fp16"] < 0.7 * size["onnx_fp32"]
    assert size["onnx_int8_fused"] < 0.4 * size["onnx_fused"]
    assert size["openvino_int8_weights"] < 0.6 * size["openvino_fp32"]


def test_the_fused_graph_has_one_attention_a_layer_and_ends_with_one_token(made: Made) -> None:
    """What stands behind the last Attention sees the first token only."""
    model = onnx.load(made.folders["onnx_fused"] / "model.onnx")
    count = Counter(node.op_type for node in model.graph.node)
    layers = RECIPE.student.layers
    assert (count["Attention"], count["SkipLayerNormalization"], count["BiasGelu"]) == (layers, 2 * layers, layers)
    assert (count["EmbedLayerNormalization"], count["Slice"]) == (1, 2)
    last = [node for node in model.graph.node if node.op_type == "BiasGelu"][-1]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last.output[0], onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = [session.run([last.output[0]], dict(inputs))[0].shape for inputs in made.asked]
    assert {shape[1] for shape in shapes} == {1}


STATIC = [name for name in export.formats() if name.startswith("onnx_static_int8")]


@pytest.mark.parametrize("name", STATIC)
def test_static_weights_have_seven_bits(made: Made, name: str) -> None:
    """Eight would saturate on a CPU without VNNI: one artifact is to answer alike on both."""
    graph = onnx.load(made.folders[name] / export.exporter(name).MODEL).graph
    weights = [onnx.numpy_helper.to_array(one) for one in graph.initializer if one.data_type == onnx.TensorProto.INT8]
    largest = {int(np.abs(one.astype(np.int16)).max()) for one in weights if one.ndim == 2}
    assert largest == {64}


def test_static_formats_differ_in_their_ranges(made: Made) -> None:
    """Percentile and entropy leave out values that MinMax keeps: none of their activations has a wider range, some a narrower."""
    scales = {}
    for name in STATIC:
        graph = onnx.load(made.folders[name] / export.exporter(name).MODEL).graph
        values = {one.name: float(onnx.numpy_helper.to_array(one)) for one in graph.initializer if not one.dims}
        nodes = [node for node in graph.node if node.op_type == "QuantizeLinear"]
        scales[name] = np.array([values[node.input[1]] for node in nodes])
    widest, *others = (scales[name] for name in STATIC)
    for narrower in others:
        assert (narrower <= widest * (1 + 1e-6)).all()
        assert (narrower < widest).any()
    assert not np.array_equal(*others)


@pytest.mark.skipif(compiler("cpu") != "inductor", reason="torch.compile finds no compiler here")
def test_compiled_pytorch_answers_as_eager_does(made: Made) -> None:
    """At every length, by what the first call compiled."""
    predict = torch_compiled.load(made.root / "student" / "model.safetensors", device="cpu", threads=1)
    first, *others = made.asked
    parity.check("torch_compiled", predict, made.reference, [first])
    with torch.compiler.set_stance("fail_on_recompile"):
        parity.check("torch_compiled", predict, made.reference, others)


def test_without_a_compiler_compiled_pytorch_is_refused(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is loaded, with what to install."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(DataError, match=r"it finds no compiler.*install g\+\+"):
        torch_compiled.load(made.root / "student" / "model.safetensors", device="cpu", threads=1)


def test_attention_that_cannot_be_fused_is_refused(made: Made, tmp_path: Path) -> None:
    """Relative positions have no fused operator."""
    student = BertForSequenceClassification.from_pretrained(
        made.root / "student", position_embedding_type="relative_key"
    )
    student.save_pretrained(tmp_path / "student")
    (tmp_path / "out").mkdir()
    warnings.simplefilter("ignore")  # until this test ends
    with pytest.raises(DataError, match="0 of 2 attention layers"):
        onnx_fused.export({"torch_fp32": tmp_path / "student"}, tmp_path / "out", [])


def test_a_wrong_export_is_not_trusted(made: Made) -> None:
    """A thousandth of a logit is no rounding; NaN never is; an unrelated quantised model is none."""

    def off(by: float) -> Predict:
        return lambda inputs: made.reference(inputs) + np.float32(by)

    for by in (1e-3, np.nan):
        with pytest.raises(DataError, match="answers otherwise than its checkpoint"):
            parity.check("onnx_fp32", off(by), made.reference, made.asked)

    def other(inputs: Inputs) -> npt.NDArray[np.float32]:
        return made.reference(inputs)[:, ::-1]

    with pytest.raises(DataError, match="correlate by"):
        parity.alike("onnx_int8", other, made.reference, made.asked, 0.99)
    with pytest.raises(DataError, match=r"correlate by 0\.0000"):
        parity.alike("onnx_int8", off(np.nan), made.reference, made.asked, 0.99)


def _opset(data: bytes) -> bytes:
    model = onnx.load_from_string(data)
    model.opset_import[0].version = 99
    return bytes(model.SerializeToString())


def _foreign(_: bytes) -> bytes:
    image = onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT, [1])
    same = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["pixel_values"], ["logits"])], "g", [image], [same]
    )
    return bytes(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8
        ).SerializeToString()
    )


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda _: b"", "No graph was found"),
        (lambda data: data[: len(data) // 2], "Protobuf parsing failed"),
        (lambda _: b"no model " * 99, "Protobuf parsing failed"),
        (_opset, "opset"),
        (_foreign, "asks for pixel_values"),
    ],
    ids=["empty", "truncated", "garbage", "opset", "foreign"],
)
def test_a_file_that_onnx_runtime_cannot_serve_is_named(
    made: Made, tmp_path: Path, spoil: Callable[[bytes], bytes], why: str
) -> None:
    """With the file's name and what to do."""
    bad = tmp_path / "model.onnx"
    bad.write_bytes(spoil((made.folders["onnx_fused"] / "model.onnx").read_bytes()))
    with pytest.raises(DataError) as refused:
        onnx_runtime.load(bad, device="cpu", threads=1)
    told = str(refused.value)
    assert "model.onnx" in told
    assert why.lower() in told.lower()
    assert str(tmp_path) not in told


@pytest.mark.parametrize("name", ["openvino_model.xml", "openvino_model.bin"])
def test_a_torn_openvino_model_is_named(made: Made, tmp_path: Path, name: str) -> None:
    """Topology or weights."""
    shutil.copytree(made.folders["openvino_int8"], tmp_path / "ir")
    path = tmp_path / "ir" / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="is no model that OpenVINO"):
        openvino_cpu.load(tmp_path / "ir" / "openvino_model.xml", device="cpu", threads=1)


def test_a_torn_pytorch_int8_model_is_named(made: Made, tmp_path: Path) -> None:
    """Half of its weights; and another device than it has kernels for."""
    shutil.copytree(made.folders["torch_int8"], tmp_path / "int8")
    path = tmp_path / "int8" / "model_quantized.pt"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"model_quantized\.pt is no model that PyTorch"):
        torch_int8.load(path, device="cpu", threads=1)
    with pytest.raises(DataError, match="no INT8 kernels for cuda"):
        torch_int8.load(path, device="cuda", threads=1)


def test_a_torn_checkpoint_is_named(made: Made, tmp_path: Path) -> None:
    """Half of its weights."""
    shutil.copytree(made.root / "student", tmp_path / "student")
    path = tmp_path / "student" / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"model\.safetensors is no model that transformers"):
        torch_eager.load(path, device="cpu", threads=1)


def test_an_export_loads_with_optimum_and_with_a_plain_session(made: Made, tmp_path: Path) -> None:
    """`matrix export`: model, tokenizer, labels, and a manifest whose digests are those of the files."""
    out = tmp_path / "service"
    said = CliRunner().invoke(
        cli, ["export", str(made.root / "student"), "--format", "onnx-int8", "--out", str(out)], catch_exceptions=False
    )
    assert said.exit_code == 0, said.output
    manifest = parse_json(Manifest, (out / MANIFEST).read_bytes(), MANIFEST)
    assert {path.name for path in out.iterdir()} == {*manifest.files, MANIFEST}
    assert all(file_digest(out / name) == file.sha256 for name, file in manifest.files.items())
    assert manifest.student_sha256 == file_digest(made.root / "student" / "model.safetensors")
    assert list(tmp_path.iterdir()) == [out]

    tokenizer = load_tokenizer(out)
    encoded = tokenizer(["where is my order"], return_tensors="np")
    session = onnxruntime.InferenceSession(str(out / manifest.model), providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {name: encoded[name].astype(np.int64) for name in manifest.inputs})
    optimum = ORTModelForSequenceClassification.from_pretrained(out)
    theirs = optimum(**{name: torch.from_numpy(encoded[name]) for name in manifest.inputs}).logits
    assert np.array_equal(logits, theirs.detach().numpy())
    assert tuple(optimum.config.id2label.values()) == manifest.classes

    again = CliRunner().invoke(cli, ["export", str(made.root / "student"), "--format", "onnx", "--out", str(out)])
    assert isinstance(again.exception, UsageError)
    assert "nothing is written over" in str(again.exception)


@pytest.mark.parametrize(("student", "why"), [("teacher", "is a distilbert model"), ("nothing", "no classifier is at")])
def test_what_cannot_be_exported_leaves_nothing(made: Made, tmp_path: Path, student: str, why: str) -> None:
    """Neither the folder nor a hidden one beside it."""
    out = tmp_path / "service"
    said = CliRunner().invoke(cli, ["export", str(made.root / student), "--format", "onnx", "--out", str(out)])
    assert isinstance(said.exception, MatrixError)
    assert said.exception.exit_code == ExitCode.USAGE
    assert why in str(said.exception)
    assert list(tmp_path.iterdir()) == []
