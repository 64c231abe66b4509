"""Builds the same work for every stack of a cell: models, examples, loss and optimizer settings.

Weights decide no time, and random ones make a step's identity independent of who trained what where. A trial is another
matter: its teacher was trained, its examples are real.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from matrix.catalog import variant
from matrix.cell import Cell
from matrix.errors import DataError, EvidenceError
from matrix.job import Job
from matrix.profile import Recipe
from matrix.workloads.conversations import ResponseExample, encode
from matrix.workloads.conversations import read as read_conversations
from matrix.workloads.distill import Work
from matrix.workloads.distill.response import ResponseWork
from matrix.workloads.examples import windows
from matrix.workloads.launch import Launch
from matrix.workloads.llama import adapted, build_llama, llama_config
from matrix.workloads.models import build_student, build_teacher, load_model

_BATCHES = 8
"""Batches of distinct examples: enough that no batch is the one before; what keeps teacher logits fills its cache with them."""
Rows = list[dict[str, torch.Tensor]]


def frozen(model: PreTrainedModel, device: str) -> PreTrainedModel:
    """A teacher: in evaluation mode, without gradients, on the device."""
    return model.eval().requires_grad_(False).to(device)


@cache
def _drawn(recipe: str, names: tuple[str, ...]) -> PreTrainedModel:
    """A teacher with random weights: drawing 67 M of them takes a second, which each cell of a launch would pay."""
    return build_teacher(Recipe.model_validate_json(recipe), names)


def _teacher(job: Job, names: Sequence[str]) -> PreTrainedModel:
    """The teacher that was given, else its configuration; a copy, so that no stack leaves a trace for the next."""
    given = job.spec.teacher
    if given:
        return load_model(given, names, "distilbert")
    return copy.deepcopy(_drawn(job.profile.recipe.model_dump_json(), tuple(names)))


def _loader(launch: Launch, batch: int, length: int) -> DataLoader[dict[str, torch.Tensor]]:
    """Real utterances packed to exactly `length` tokens: no padding, so every FLOP that is counted is needed."""
    examples, count = launch.examples, _BATCHES * batch
    ids = torch.from_numpy(windows([list(row) for row in examples.train_ids()], length, count))
    labels = torch.from_numpy(np.resize(examples.train_labels, count))
    rows = [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": label}
        for row, label in zip(ids, labels, strict=True)
    ]
    return _shuffled(rows, batch, launch.job.seed)


def _shuffled(rows: Rows, batch: int, seed: int) -> DataLoader[dict[str, torch.Tensor]]:
    # transformers' own collator turns the rows into tensors in both stacks; torch's default does the same here
    return DataLoader(rows, batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(seed))


def _student(launch: Launch, recipe: Recipe) -> PreTrainedModel:
    """The student with fresh weights, drawn from the recipe's seed: of the given one's configuration, else of the recipe's."""
    if launch.job.spec.student:
        torch.manual_seed(recipe.seed)
        checkpoint = launch.cache.folder("students", launch.prepared.student)
        return AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(checkpoint))
    return build_student(recipe, launch.prepared.data.classes)


def intent(cell: Cell, launch: Launch) -> Work:
    """The classifier's work: teacher, student from its configuration, utterances of one length."""
    job, names = launch.job, launch.prepared.data.classes
    recipe, device = job.profile.recipe, job.device
    other = recipe.model_copy(update={"seed": recipe.seed + 2})
    return Work(
        teacher=frozen(_teacher(job, names), device),
        student=_student(launch, recipe).train().to(device),
        loader=_loader(launch, cell.batch or 1, int(cell.length or 1)),
        batch=cell.batch or 1,
        temperature=recipe.temperature,
        alpha=recipe.alpha,
        device=device,
        dtype=job.profile.training_dtype,
        another_teacher=lambda: frozen(build_teacher(other, names), device),
        seed=job.seed,
        threads=job.threads,
    )


def response(cell: Cell, launch: Launch) -> ResponseWork:
    """The causal student's work: the teacher's answers in conversations of one length, models from their configurations."""
    job, told = launch.job, launch.prepared.response
    if told is None:
        raise EvidenceError(f"no conversations were prepared for {cell.id}", remedy="prepare the workload again")
    shape, device, seed = job.profile.response, job.device, job.profile.recipe.seed
    tokenizer, conversations = read_conversations(launch.cache.folder("conversations", told.conversations))
    # a teacher whose answers are the labels takes part in no step: on the meta device it takes no memory
    absent = variant(cell.suite, cell.variant).work == "answers"
    frozen_dtype = getattr(torch, job.profile.training_dtype)

    def teacher(drawn: int) -> PreTrainedModel:
        config, place = llama_config(shape.teacher, shape.length), "meta" if absent else device
        return frozen(build_llama(config, seed=drawn, device=place, dtype=frozen_dtype), place)

    config, dtype = (
        llama_config(shape.student, shape.length),
        torch.float32 if shape.lora_rank is None else frozen_dtype,
    )
    student = build_llama(config, seed=seed + 1, device=device, dtype=dtype)
    return ResponseWork(
        teacher=teacher(seed),
        student=(student if shape.lora_rank is None else adapted(student, shape.lora_rank)).train(),
        loader=conversation_loader(tokenizer, conversations, shape.batch, job.seed),
        batch=shape.batch,
        temperature=1.0,
        alpha=1.0,
        device=device,
        dtype=job.profile.training_dtype,
        another_teacher=lambda: teacher(seed + 2),
        seed=job.seed,
        threads=job.threads,
        tokenizer=tokenizer,
        conversations=conversations,
        shape=shape,
    )


def conversation_loader(
    tokenizer: PreTrainedTokenizerBase, conversations: Sequence[ResponseExample], batch: int, seed: int
) -> DataLoader[dict[str, torch.Tensor]]:
    """The conversations as token ids; the prompt's labels are ignored."""
    rows = []
    for example in conversations:
        row = encode(tokenizer, example)
        ids = torch.tensor(row.ids)
        rows.append({"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor(row.labels)})
    return DataLoader(rows, batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(seed))


def work_of(cell: Cell, launch: Launch) -> Work:
    """The work of the cell's workload."""
    return {"intent": intent, "response": response}[cell.workload](cell, launch)


def _padded(launch: Launch) -> Rows:
    """The first training examples of a trial, each padded to its length; a longer one is cut and keeps its last token.

    Raises:
        DataError: the data has fewer.
    """
    trial, examples = launch.job.profile.trial, launch.examples
    if len(examples.train_labels) < trial.examples:
        raise DataError(
            f"a trial takes {trial.examples} training examples and the data has {len(examples.train_labels)}",
            remedy="lower `examples` of the profile's trial",
        )
    ids = torch.zeros(trial.examples, trial.length, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for place, row in enumerate(examples.train_ids()[: trial.examples]):
        kept = torch.from_numpy(np.append(row[: trial.length - 1], row[-1]) if len(row) > trial.length else row)
        ids[place, : len(kept)], mask[place, : len(kept)] = kept, 1
    labels = torch.from_numpy(examples.train_labels[: trial.examples])
    return [
        {"input_ids": row, "attention_mask": seen, "labels": label}
        for row, seen, label in zip(ids, mask, labels, strict=True)
    ]


def _trained(launch: Launch, which: int = 0) -> PreTrainedModel:
    """A trained teacher: the one that was given, else the one of that number that `prepare` left.

    Raises:
        DataError: there is no such one.
    """
    given, kept = launch.job.spec.teacher, launch.prepared.teachers
    names = [given] if given else [str(launch.cache.folder("teachers", key)) for key in kept]
    if which >= len(names):
        raise DataError(
            f"this trial learns from {which + 1} trained teachers and has {len(names)}",
            remedy="leave out --teacher: a second one is then trained from another seed",
        )
    return load_model(names[which], launch.prepared.data.classes, "distilbert")


def trial(launch: Launch) -> Work:
    """The classifier's whole training: trained teacher, real examples with their labels, a fresh student of this launch.

    The launch's seed decides the student's weights and the order of examples, for every stack alike.
    """
    profile, device = launch.job.profile, launch.job.device
    recipe = profile.seeded(profile.recipe.seed + launch.index).recipe
    return Work(
        teacher=frozen(_trained(launch), device),
        student=_student(launch, recipe).train().to(device),
        loader=_shuffled(_padded(launch), profile.trial.batch, recipe.seed),
        batch=profile.trial.batch,
        temperature=recipe.temperature,
        alpha=recipe.alpha,
        device=device,
        dtype=profile.training_dtype,
        another_teacher=lambda: frozen(_trained(launch, 1), device),
        lr=profile.trial.lr,
        seed=recipe.seed,
        threads=launch.job.threads,
    )
