"""The response student as GGUF, made without a network: fp32 by PyPI's `gguf`, every other type from it by llama.cpp itself.

llama.cpp's own converter is in the sdist of llama-cpp-python and in no wheel (0.3.36), and PyPI's `gguf` has the writer only;
a Llama has twelve kinds of tensors, which are named here. A file appears whole or not at all: it is made beside its place.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from matrix.errors import DataError
from matrix.profile import K_BLOCK
from matrix.workloads.language import TYPES

_WHOLE: Final = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER: Final = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def name_of(parameter: str) -> str:
    """GGUF's name of a parameter of transformers' Llama.

    Raises:
        DataError: a Llama of llama.cpp has no such tensor.
    """
    stem = parameter.removesuffix(".weight")
    if stem in _WHOLE:
        return f"{_WHOLE[stem]}.weight"
    _, _, layer = stem.partition("model.layers.")
    number, _, rest = layer.partition(".")
    if not number.isdigit() or rest not in _LAYER or stem == parameter:
        raise DataError(
            f"GGUF has no name for {parameter}", remedy="give a Llama without biases and adapters (merge them first)"
        )
    return f"blk.{number}.{_LAYER[rest]}.weight"


def paired(weight: npt.NDArray[Any], heads: int) -> npt.NDArray[Any]:
    """A query or key projection (heads x size, in) in ggml's order of rows.

    transformers rotates a head's first half against its second, ggml's Llama neighbours (RoFormer, equation 34): row `i` of
    the first half and row `i` of the second stand side by side.
    """
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _checked(model: PreTrainedModel) -> None:
    """Refuse what llama.cpp would take without a word and turn into something else.

    Raises:
        DataError: the model is no Llama, or a row of weights is no multiple of K-quants' block.
    """
    if model.config.model_type != "llama":
        raise DataError(
            f"a {model.config.model_type} is no Llama", remedy="export a causal student of the Llama architecture"
        )
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2 and tensor.shape[1] % K_BLOCK:  # noqa: PLR2004 - a matrix
            raise DataError(
                f"{name} has rows of {tensor.shape[1]} weights, no multiple of {K_BLOCK}",
                remedy="llama.cpp would quantise it to another type without an error: choose dim and hidden as multiples",
            )


def _vocabulary(writer: Any, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:  # noqa: ANN401 - gguf has no types
    """The byte-level BPE as llama.cpp knows it: GPT-2's, which splits with the same expression as tokenizers' ByteLevel."""
    from gguf import TokenType  # noqa: PLC0415 - an optional package

    known = {number: token for token, number in tokenizer.get_vocab().items()}
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    kinds = [
        TokenType.UNUSED if number not in known else TokenType.CONTROL if number in special else TokenType.NORMAL
        for number in range(rows)
    ]
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([known.get(number, f"[UNUSED{number}]") for number in range(rows)])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def write(student: Path, place: Path) -> None:
    """Write the Llama of the folder `student` to `place`, every tensor fp32.

    Raises:
        DataError: GGUF or llama.cpp has no place for it; nothing is written then.
    """
    from gguf import GGUFWriter, LlamaFileType  # noqa: PLC0415 - an optional package

    model, tokenizer = AutoModelForCausalLM.from_pretrained(student), AutoTokenizer.from_pretrained(student)
    _checked(model)
    config = model.config
    beside = _beside(place)
    writer = GGUFWriter(str(beside), "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_file_type(LlamaFileType.ALL_F32)
    _vocabulary(writer, tokenizer, config.vocab_size)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for parameter, tensor in model.state_dict().items():
        name, weight = name_of(parameter), tensor.float().numpy()
        rotated = heads.get(name.split(".")[-2])
        weight = paired(weight, rotated) if rotated else weight
        writer.add_tensor(name, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    beside.replace(place)


@contextmanager
def told() -> Iterator[list[str]]:
    """What llama.cpp logs inside the block, line by line, instead of on standard error."""
    import llama_cpp  # noqa: PLC0415 - an optional package
    from llama_cpp._logger import llama_log_callback  # noqa: PLC0415 - the package's own, which its import sets

    lines: list[str] = []
    log = llama_cpp.llama_log_callback(lambda _level, text, _data: lines.append(text.decode(errors="replace")))
    llama_cpp.llama_log_set(log, ctypes.c_void_p(0))
    try:
        yield lines
    finally:
        llama_cpp.llama_log_set(llama_log_callback, ctypes.c_void_p(0))


def quantise(plain: Path, place: Path, variant: str) -> None:
    """Write the fp32 file `plain` to `place` as another variant, by llama.cpp.

    Raises:
        DataError: llama.cpp refuses it, or would take another type for a tensor; nothing is written then.
    """
    import llama_cpp  # noqa: PLC0415 - an optional package

    asked, beside = llama_cpp.llama_model_quantize_default_params(), _beside(place)
    asked.ftype, asked.nthread = getattr(llama_cpp, TYPES[variant]), 1
    with told() as lines:
        failed = llama_cpp.llama_model_quantize(str(plain).encode(), str(beside).encode(), ctypes.byref(asked))
    said = "".join(lines)
    if failed or "fallback" in said:
        beside.unlink(missing_ok=True)
        raise DataError(
            f"llama.cpp cannot make {variant} of {plain.name}", remedy=said.strip()[-500:] or "export the student again"
        )
    beside.replace(place)


def _beside(place: Path) -> Path:
    return place.with_name(f".{place.name}.part")
