"""The Lambda function against a graph small enough to work by hand: its events, its errors, its packed model."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [
    pytest.mark.frameworks,
    pytest.mark.skipif(
        sys.platform != "linux", reason="the function loads the C library of onnxruntime's wheel for Linux"
    ),
]

FUNCTION = Path(__file__).parents[1] / "images" / "lambda"
MODULES = ("handler", "session", "pack")
TABLE = [[0.0, 0.5], [1.0, -1.0], [0.1, 3.0], [7.0, 0.0], *([0.0, 0.0],) * 252]
"""The logits that each token adds, in any order; long enough (2 KiB) that a packed model maps it."""


def graph(path: Path, *, kind: str = "FLOAT") -> None:
    """A classifier of two labels: the sum, over the tokens that the mask lets through, of their rows of `TABLE`."""
    onnx = pytest.importorskip("onnx")
    make, types = onnx.helper, onnx.TensorProto
    axis = make.make_tensor("axis", types.INT64, [1], [1])
    last = make.make_tensor("last", types.INT64, [1], [2])
    table = make.make_tensor("table", types.FLOAT, [256, 2], [number for row in TABLE for number in row])
    nodes = [
        make.make_node("Gather", ["table", "input_ids"], ["rows"]),
        make.make_node("Cast", ["attention_mask"], ["mask"], to=types.FLOAT),
        make.make_node("Unsqueeze", ["mask", "last"], ["weights"]),
        make.make_node("Mul", ["rows", "weights"], ["counted"]),
        make.make_node("ReduceSum", ["counted", "axis"], ["sum"], keepdims=0),
        make.make_node("Cast", ["sum"], ["logits"], to=getattr(types, kind)),
    ]
    given = [make.make_tensor_value_info(n, types.INT64, ["rows", "n"]) for n in ("attention_mask", "input_ids")]
    answer = [make.make_tensor_value_info("logits", getattr(types, kind), ["rows", 2])]
    made = make.make_graph(nodes, "tiny", given, answer, initializer=[axis, last, table])
    onnx.save(make.make_model(made, opset_imports=[make.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A task root's model folder, as exported."""
    tokenizers = pytest.importorskip("tokenizers")
    folder = tmp_path / "model"
    folder.mkdir()
    graph(folder / "model.onnx")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0, "one": 1, "three": 2, "seven": 3}, "[UNK]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.enable_padding(length=200)
    words.save(str(folder / "tokenizer.json"))
    (folder / "labels.json").write_text(json.dumps(["left", "right"]), encoding="utf-8")
    return folder


@pytest.fixture
def load(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import a module of the function as a cold start would."""
    monkeypatch.setenv("LAMBDA_TASK_ROOT", str(model.parent))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(str(FUNCTION))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def handler(load: Callable[[str], ModuleType]) -> Callable[..., Any]:
    """The function's entry."""
    entry: Callable[..., Any] = load("handler").handler
    return entry


def test_a_text_gets_its_label_and_exact_logits(handler: Callable[..., Any]) -> None:
    """Two threes are [0.2, 6.0] in float32: 0.1 is not a float32, so its double is the nearest float32's."""
    assert handler({"text": "three three"}) == {"label": "right", "logits": [0.20000000298023224, 6.0]}


def test_a_text_is_truncated_at_128_tokens_and_never_padded(handler: Callable[..., Any]) -> None:
    """130 words count as 128, one word as one, whatever padding the tokenizer's file asks for."""
    assert handler({"text": "one " * 130})["logits"] == [128.0, -128.0]
    assert handler({"text": "one"})["logits"] == [1.0, -1.0]


def test_ids_are_taken_as_they_are(handler: Callable[..., Any]) -> None:
    """Rows are independent, and longer than 128 tokens if they say so."""
    assert handler({"ids": [[3, 1], [2, 0]]}) == {"logits": [[8.0, -1.0], [0.10000000149011612, 3.5]]}
    assert handler({"ids": [[1] * 200]}) == {"logits": [[200.0, -200.0]]}


def test_the_answers_are_those_of_the_python_package(handler: Callable[..., Any], model: Path) -> None:
    """Bit for bit: the C library of the wheel and its Python package are one runtime."""
    onnxruntime, numpy = pytest.importorskip("onnxruntime"), pytest.importorskip("numpy")
    session = onnxruntime.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
    ids = numpy.array([[at % 4 for at in range(97)], [(at * at) % 4 for at in range(97)]])
    expected = session.run(None, {"input_ids": ids, "attention_mask": numpy.ones_like(ids)})[0]
    assert handler({"ids": ids.tolist()})["logits"] == expected.tolist()


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        ({"text": 3}, "'text' must be a string, not int"),
        ({"ids": []}, "'ids' must be a list of rows of token ids, with at least one row and one id in each"),
        ({"ids": [[]]}, "'ids' must be a list of rows of token ids, with at least one row and one id in each"),
        ({"ids": [1, 2]}, "'ids' must be a list of rows of token ids, with at least one row and one id in each"),
        ({"ids": [[1], [1, 2]]}, "the rows of 'ids' must have one length: nothing is padded here"),
        ({"ids": [[-1]]}, "every id in 'ids' must be an integer from 0"),
        ({"ids": [[True]]}, "every id in 'ids' must be an integer from 0"),
        *(
            (event, 'an event is {"text": str}, {"ids": [[int]]} or {"about": true}, with no other key')
            for event in ({}, [], None, "text", {"about": False}, {"text": "one", "ids": [[1]]})
        ),
    ],
)
def test_any_other_event_is_refused(handler: Callable[..., Any], event: object, sentence: str) -> None:
    """With a ValueError whose message is a sentence."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the whole message is compared below
        handler(event)
    assert str(caught.value) == sentence


def test_an_unknown_token_is_refused(handler: Callable[..., Any]) -> None:
    """The graph's table has 256 rows; ONNX Runtime itself says so, as a ValueError."""
    with pytest.raises(ValueError, match="indices element out of data bounds, idx=256"):
        handler({"ids": [[256]]})


def test_about_accounts_for_the_process(handler: Callable[..., Any]) -> None:
    """Seconds, bytes and the cgroup's counters; what a system does not tell is None or empty, never 0."""
    about = handler({"about": True})
    assert sorted(about) == ["cores", "cpu_s", "cpu_stat", "init", "peak_bytes", "resident_bytes"]
    assert sorted(about["init"]) == ["import_s", "session_s", "tokenizer_s"]
    assert all(seconds > 0 for seconds in (about["cpu_s"], *about["init"].values()))
    assert about["peak_bytes"] >= about["resident_bytes"] > 0
    assert about["cores"] >= 1


def test_the_cgroup_is_read_in_both_versions(
    load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first account that exists is taken, and none is an empty one."""
    module = load("handler")
    account = tmp_path / "cpu.stat"
    monkeypatch.setattr(module, "CPU_STATS", (str(tmp_path / "none"), str(account)))
    assert module._cpu_stat() == {}
    account.write_text("nr_periods 7\nnr_throttled 3\nthrottled_time 41000\n", encoding="ascii")
    assert module._cpu_stat() == {"nr_periods": 7, "nr_throttled": 3, "throttled_time": 41000}


def test_a_packed_model_answers_the_same_and_is_preferred(load: Callable[[str], ModuleType], model: Path) -> None:
    """The exported graph may be gone, or wrong: a packed one beside it is what is loaded."""
    packed = model.parent / "packed"
    load("pack").pack(model, packed)
    for file in packed.iterdir():
        file.rename(model / file.name)
    (model / "model.onnx").write_bytes(b"no graph")
    assert load("handler").handler({"text": "three three"})["logits"] == [0.20000000298023224, 6.0]


def test_packing_is_deterministic(load: Callable[[str], ModuleType], model: Path) -> None:
    """The same model gives the same bytes, and a whole model folder."""
    first, second = (model.parent / name for name in ("first", "second"))
    for out in (first, second):
        load("pack").pack(model, out)
    assert sorted(file.name for file in first.iterdir()) == [
        "labels.json",
        "packed.data",
        "packed.onnx",
        "tokenizer.json",
    ]
    assert all((second / file.name).read_bytes() == file.read_bytes() for file in first.iterdir())


def test_a_packed_model_that_answers_differently_is_never_written(
    load: Callable[[str], ModuleType], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left behind."""
    pack = load("pack")
    answers = iter([[[[1.0]]], [[[1.0000001]]]])
    monkeypatch.setattr(pack, "probe", lambda *_: next(answers))
    with pytest.raises(RuntimeError, match=r"^the packed model's logits differ .*: ship model.onnx as it is$"):
        pack.pack(model, model.parent / "packed")
    assert list((model.parent / "packed").iterdir()) == []


def test_a_graph_whose_output_is_not_float32_is_refused(load: Callable[[str], ModuleType], model: Path) -> None:
    """Its bytes would be read as what they are not."""
    graph(model / "model.onnx", kind="DOUBLE")
    with pytest.raises(RuntimeError, match=r"^the graph's first output has ONNX element type 11, not float32 \(1\)$"):
        load("handler").handler({"text": "one"})


def test_a_missing_runtime_is_named(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheel for another system has no such file."""
    session = load("session")
    monkeypatch.setattr(sys, "path", ["", "/nonexistent"])
    with pytest.raises(RuntimeError, match=r"^no onnxruntime/capi/libonnxruntime\.so\.\* on sys\.path"):
        session.library()
