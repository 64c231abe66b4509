"""Llamas: their sizes, and the FLOPs that are counted for them."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedModel

from matrix import definitions, flops
from matrix.estimates import parse_estimates
from matrix.plan import make_plan
from matrix.profile import LlamaShape
from matrix.workloads.llama import adapted, build_llama, llama_config
from tests.making import profiles
from tests.real.tiny import targets

pytestmark = pytest.mark.frameworks

SHAPE = LlamaShape(layers=3, dim=32, heads=4, kv_heads=2, hidden=64, vocabulary=300)
FULL = profiles().of("full")


def eager(shape: LlamaShape) -> PreTrainedModel:
    """Eager attention: torch 2.13 counts no FLOPs for the CPU's fused attention kernel."""
    return AutoModelForCausalLM.from_config(llama_config(shape, 64), attn_implementation="eager").eval()


def counted(batch: int, length: int, model: PreTrainedModel, *, backward: bool = False) -> int:
    """What FlopCounterMode sees, less the rotary embedding's table, (head width / 2) x 1 by 1 x length: no formula counts it."""
    ids = torch.ones(batch, length, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=ids).logits
        if backward:
            logits.sum().backward()
    return counter.get_total_flops() - SHAPE.dim // SHAPE.heads * length


@pytest.mark.parametrize(("batch", "length"), [(2, 16), (3, 40)])
def test_the_flop_formula_is_torchs_count(batch: int, length: int) -> None:
    """Forward, and forward with backward, which is two forwards; logits for every token."""
    forward = flops.decoder_forward(SHAPE, batch=batch, length=length)
    assert counted(batch, length, eager(SHAPE)) == forward
    assert counted(batch, length, eager(SHAPE), backward=True) == 3 * forward


def test_frozen_weights_have_no_gradient_products() -> None:
    """LoRA: the formula, less what the first layer does not compute, since neither its input nor its keys need a gradient."""
    forward = flops.decoder_forward(SHAPE, batch=2, length=16)
    attention = flops.attention_forward(SHAPE, batch=2, length=16)
    adapters = flops.adapters_forward(SHAPE, rank=4, tokens=32)
    found = counted(2, 16, adapted(eager(SHAPE), 4), backward=True)
    projections, reductions, keys = 2 * 32 * (32 * 32 + 2 * 32 * 16), 2 * 2 * 32 * 32 * 4, 2 * 2 * 16 * 16 * 32
    assert found == flops.adapted_training(forward, attention, adapters) - projections - reductions - keys


def test_generation_is_counted_a_token_at_a_time() -> None:
    """Seven tokens after sixteen, with a cache: the prompt's logits at its last token only."""
    model, ids = eager(SHAPE), torch.ones(2, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=7, min_new_tokens=7, do_sample=True
        )
    assert out.shape == (2, 23)
    formula = flops.decoder_generation(SHAPE, batch=2, prompt=16, new=7)
    assert counter.get_total_flops() == pytest.approx(formula, rel=2e-3)  # and the rotary tables


def test_llama_3_8b_has_its_size() -> None:
    """8.03e9 parameters in bf16 and 6.8e6 of adapters in fp32: 32 layers x 16 x (4096 + 4096 + 4096 + 1024). On the meta device."""
    shape = FULL.response
    model = build_llama(llama_config(shape.student, shape.length), seed=0, device="meta", dtype=torch.bfloat16)
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert sum(one.numel() for one in model.parameters()) == 8_030_261_248
    assert shape.lora_rank == 16
    trained = [one for one in adapted(model, shape.lora_rank).parameters() if one.requires_grad]
    assert {one.dtype for one in trained} == {torch.float32}
    assert sum(one.numel() for one in trained) == 32 * 16 * (4096 + 4096 + 4096 + 1024) == 6_815_744


def test_a_model_is_a_function_of_its_seed() -> None:
    """Equal for equal seeds, whatever was drawn before."""
    first, second, other = (
        build_llama(llama_config(SHAPE, 8), seed=seed, device="cpu", dtype=torch.float32).lm_head.weight
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_notes_8b_estimates_have_a_cell() -> None:
    """Each place of seed section 3.1 A2 is planned on an A100 at profile full: batch 8 of 512 tokens."""
    planned = make_plan("cuda-a100", targets().of("cuda-a100"), FULL).planned
    noted = parse_estimates(definitions.text("estimates.toml")).estimate
    places = [one.place for one in noted if one.place and one.place.variant == "trl_sft"]
    assert len(places) >= 3
    for place in places:
        matching = [
            cell
            for cell in planned
            if (cell.suite, cell.workload, cell.variant) == (place.suite, place.workload, place.variant)
            and (cell.batch, cell.length) == (place.batch, place.length)
        ]
        assert len(matching) == 1
