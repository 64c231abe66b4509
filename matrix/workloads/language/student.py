"""Trains the response student that ships: a small Llama on a teacher's answers, and keeps apart what it is judged on.

Every other question, in the order of the source and counted once however often it is asked, is held out: no question is in both
halves. The loss looks at answers only, and so does the judgement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from matrix.errors import DataError
from matrix.job import Event
from matrix.profile import Language
from matrix.strict import Strict, parse_json
from matrix.workloads.conversations import IGNORED, PAD, Conversation, ResponseExample, encode
from matrix.workloads.llama import build_llama, llama_config
from matrix.workloads.progress import Tell

HELD_OUT: Final = "held_out.json"
"""The conversations that a student is judged on, beside its weights."""

_WARM_UP: Final = 0.1
"""Share of the steps in which the rate rises."""


class HeldOut(Strict):
    """Token ids of conversations, and how many of each one's first tokens are its prompt."""

    ids: tuple[tuple[int, ...], ...]
    prompts: tuple[int, ...]


def halves(examples: Sequence[ResponseExample]) -> tuple[list[ResponseExample], list[ResponseExample]]:
    """The examples to learn from and those to be judged on, by question.

    Raises:
        DataError: there are fewer than two questions.
    """
    number = {prompt: index for index, prompt in enumerate(dict.fromkeys(one.prompt for one in examples))}
    learnt = [one for one in examples if number[one.prompt] % 2 == 0]
    held = [one for one in examples if number[one.prompt] % 2]
    if not held:
        raise DataError(
            f"{len(examples)} answers to {len(number)} question leave none to judge a student on",
            remedy="give the answers of at least two questions",
        )
    return learnt, held


def _batch(rows: Sequence[Conversation]) -> dict[str, torch.Tensor]:
    """Rows padded at their end (batch x longest): ids, mask, labels."""
    longest = max(len(row.ids) for row in rows)
    padded = [(row, longest - len(row.ids)) for row in rows]
    return {
        "input_ids": torch.tensor([row.ids + [PAD] * short for row, short in padded]),
        "attention_mask": torch.tensor([[1] * len(row.ids) + [0] * short for row, short in padded]),
        "labels": torch.tensor([row.labels + [IGNORED] * short for row, short in padded]),
    }


def train(rows: Sequence[Conversation], recipe: Language, tell: Tell) -> PreTrainedModel:
    """A student of the recipe's shape, trained on the CPU by AdamW: the rate rises over the first tenth and falls as a cosine."""
    config = llama_config(recipe.student, recipe.context)
    model = build_llama(config, seed=recipe.seed, device="cpu", dtype=torch.float32).train()
    steps = recipe.epochs * math.ceil(len(rows) / recipe.batch)
    rising = max(1, round(_WARM_UP * steps))
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / rising, (1 + math.cos(math.pi * step / steps)) / 2),
    )
    order, done = torch.Generator().manual_seed(recipe.seed), 0
    for _ in range(recipe.epochs):
        for part in torch.randperm(len(rows), generator=order).split(recipe.batch):
            loss = model(**_batch([rows[index] for index in part.tolist()])).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            done += 1
            tell(Event(stage="train the response student", done=done, total=steps))
    return model.eval()


def make(
    out: Path, tokenizer: PreTrainedTokenizerBase, examples: Sequence[ResponseExample], recipe: Language, tell: Tell
) -> None:
    """Train a student and write it to `out`, with its tokenizer and what it is judged on.

    Raises:
        DataError: the student has fewer rows than the tokenizer has tokens, or there is nothing to judge it on.
    """
    if len(tokenizer) > recipe.student.vocabulary:
        raise DataError(
            f"the response student has {recipe.student.vocabulary} rows for {len(tokenizer)} tokens",
            remedy="give the profile's language.student as many rows as its response.student",
        )
    learnt, held = ([encode(tokenizer, one) for one in half] for half in halves(examples))
    train(learnt, recipe, tell).save_pretrained(out)
    tokenizer.save_pretrained(out)
    kept = HeldOut(ids=tuple(tuple(row.ids) for row in held), prompts=tuple(row.prompt for row in held))
    (out / HELD_OUT).write_text(kept.model_dump_json(), encoding="utf-8")


def held_out(folder: Path) -> HeldOut:
    """What the student of `folder` is judged on."""
    return parse_json(HeldOut, (folder / HELD_OUT).read_bytes(), HELD_OUT)
