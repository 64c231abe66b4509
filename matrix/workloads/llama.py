"""Llamas from their configurations, with random weights: weights decide no time."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from matrix.profile import LlamaShape
from matrix.workloads.conversations import END, PAD


def llama_config(shape: LlamaShape, length: int) -> LlamaConfig:
    """The configuration of a shape for sequences of up to `length` tokens."""
    return LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.dim,
        intermediate_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=length,
        tie_word_embeddings=False,
        bos_token_id=None,
        pad_token_id=PAD,
        eos_token_id=END,
    )


def build_llama(config: LlamaConfig, *, seed: int, device: str, dtype: torch.dtype) -> PreTrainedModel:
    """A Llama drawn where it is used and in its own precision: 8B parameters of fp32 would pass through 32 GB of memory."""
    torch.manual_seed(seed)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)


def adapted(model: PreTrainedModel, rank: int) -> PreTrainedModel:
    """`model` frozen, with trained LoRA adapters on its query and value projections (Hu et al. 2021; peft's default for Llama).

    Adapters are fp32 whatever the model's precision (peft 0.21.2, `autocast_adapter_dtype`). Without dropout: the student
    computes the same in training and in evaluation.
    """
    from peft import LoraConfig, get_peft_model  # noqa: PLC0415 - takes a second, and small students need no adapters

    return get_peft_model(
        model,
        LoraConfig(
            r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
        ),
    )
