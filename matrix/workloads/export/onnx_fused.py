"""ONNX in fp32 with BERT's own operators: one Attention a layer, and no token but the first behind the last of them.

optimum exports the attention of transformers' default (SDPA), in which ONNX Runtime's BERT optimiser finds nothing to fuse
(onnxruntime 1.31, transformers 4.57). Exported from eager attention by the TorchScript exporter, all four layers become
Attention, SkipLayerNormalization and BiasGelu, the embeddings one node. A classifier reads the first token of the last layer, so
that behind the last Attention every other token is cut off: three quarters of that layer's work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from onnx import helper, numpy_helper
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import AutoModelForSequenceClassification

from matrix.errors import DataError
from matrix.workloads.serve import INPUTS

MODEL = "model.onnx"
NEEDS: tuple[str, ...] = ("torch_fp32",)

OPSET: Final = 17
"""The first opset with LayerNormalization, which the optimiser looks for."""


class _Logits(torch.nn.Module):  # type: ignore[misc]
    """The classifier with plain tensors in and out, in the order of INPUTS."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Logits, batch x classes."""
        logits: torch.Tensor = self.model(**dict(zip(INPUTS, inputs, strict=True))).logits
        return logits


def export(made: Mapping[str, Path], out: Path, calibration: Sequence[Mapping[str, list[int]]]) -> None:  # noqa: ARG001
    """Export with dynamic batch and length, fuse, and cut.

    Raises:
        DataError: not every layer could be fused; the graph would be no faster than optimum's.
    """
    model = AutoModelForSequenceClassification.from_pretrained(
        made["torch_fp32"], attn_implementation="eager", torch_dtype=torch.float32
    ).eval()
    plain = out / "plain.onnx"
    ids = torch.ones(2, 16, dtype=torch.long)
    axes = {name: {0: "batch", 1: "length"} for name in INPUTS} | {"logits": {0: "batch"}}
    torch.onnx.export(
        _Logits(model),
        (ids, ids, torch.zeros_like(ids)),
        str(plain),
        input_names=list(INPUTS),
        output_names=["logits"],
        dynamic_axes=axes,
        opset_version=OPSET,
        dynamo=False,
    )
    config = model.config
    fused = optimizer.optimize_model(
        str(plain),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        optimization_options=FusionOptions("bert"),
        opt_level=0,
    )
    plain.unlink()
    found = fused.get_fused_operator_statistics()["Attention"]
    if found != config.num_hidden_layers:
        raise DataError(
            f"{found} of {config.num_hidden_layers} attention layers of this student could be fused",
            remedy="export it to onnx_fp32, which fuses nothing",
        )
    keep_first_token(fused.model.graph)
    fused.save_model_to_file(str(out / MODEL))  # which also names the domain of the fused operators


def keep_first_token(graph: Any) -> None:  # noqa: ANN401 - onnx.GraphProto
    """Cut every token but the first off the last Attention's output and off the residual beside it (batch x length x width)."""
    attention = [node for node in graph.node if node.op_type == "Attention"][-1]
    norm = next(node for node in _after(graph, attention.output[0]) if node.op_type == "SkipLayerNormalization")
    residual = next(name for name in norm.input[:2] if name == attention.input[0])
    graph.initializer.extend(
        numpy_helper.from_array(helper.np.array([value], dtype=helper.np.int64), name)
        for name, value in (("first_from", 0), ("first_to", 1), ("first_axis", 1))
    )
    for whole in (attention.output[0], residual):
        cut = f"{whole}_first"
        consumers = [norm] if whole == residual else [node for node in graph.node if whole in node.input]
        for node in consumers:
            for place, name in enumerate(node.input):
                if name == whole:
                    node.input[place] = cut
        made = helper.make_node("Slice", [whole, "first_from", "first_to", "first_axis"], [cut], f"Slice_{cut}")
        graph.node.insert(list(graph.node).index(attention) + 1, made)


def _after(graph: Any, name: str) -> list[Any]:  # noqa: ANN401 - onnx.GraphProto
    """Nodes that a tensor leads to, nearest first."""
    found, names = [], {name}
    for node in graph.node:
        if names & set(node.input):
            found.append(node)
            names.update(node.output)
    return found
