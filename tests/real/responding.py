"""What the tests of the response workload share: tiny Llamas and real conversations, equal each time."""

from __future__ import annotations

from functools import cache

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.profile import LlamaShape, Response
from matrix.workloads import conversations
from matrix.workloads.conversations import ResponseExample
from matrix.workloads.distill.response import ResponseWork
from matrix.workloads.llama import adapted, build_llama, llama_config
from matrix.workloads.works import conversation_loader, frozen

SHAPE = Response(
    student=LlamaShape(layers=2, dim=32, heads=4, kv_heads=2, hidden=64, vocabulary=1_800),
    teacher=LlamaShape(layers=2, dim=48, heads=4, kv_heads=4, hidden=96, vocabulary=1_800),
    batch=4,
    length=40,
    answer=12,
)


@cache
def rows() -> tuple[PreTrainedTokenizerBase, tuple[ResponseExample, ...]]:
    """The embedded conversations, cut to the tiny shape, and their tokenizer."""
    examples = conversations.load_answers("embedded")
    tokenizer = conversations.train_tokenizer(examples, SHAPE.student.vocabulary)
    return tokenizer, tuple(conversations.cut(tokenizer, examples, SHAPE))


def llama(shape: LlamaShape, seed: int) -> PreTrainedModel:
    """A tiny Llama on the CPU."""
    return build_llama(llama_config(shape, SHAPE.length), seed=seed, device="cpu", dtype=torch.float32)


def work(rank: int | None = None) -> ResponseWork:
    """Tiny models and real conversations, equal each time."""
    tokenizer, said = rows()
    student = llama(SHAPE.student, 1)
    return ResponseWork(
        teacher=frozen(llama(SHAPE.teacher, 2), "cpu"),
        student=(student if rank is None else adapted(student, rank)).train(),
        loader=conversation_loader(tokenizer, said, SHAPE.batch, 0),
        batch=SHAPE.batch,
        temperature=1.0,
        alpha=1.0,
        device="cpu",
        dtype="float32",
        another_teacher=lambda: frozen(llama(SHAPE.teacher, 3), "cpu"),
        tokenizer=tokenizer,
        conversations=said,
        shape=SHAPE.model_copy(update={"lora_rank": rank}),
    )
