"""The ways to train a student that `tests.bench.fast` compares: the Trainer as its users call it, a plain loop, the fast path.

All do the recipe's work: its loss, batch, rate (a linear warm-up over a tenth, then linearly to 0), clipping and decay. The
Trainer decays neither norms nor biases, which is its own way and stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import torch
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

from matrix.profile import Recipe
from matrix.workloads.distill import fast
from matrix.workloads.distill.hf_trainer import DistillationTrainer
from matrix.workloads.student import how_of
from matrix.workloads.train import CLIP, WEIGHT_DECAY, Encoded, Fit, distillation_loss, fit

PADDED: Final = 128
"""Tokens that the seed pads every example to."""


@dataclass(frozen=True)
class Task:
    """What every arm is given. `soft` are the teacher's logits on `data`."""

    recipe: Recipe
    teacher: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    data: Encoded
    soft: torch.Tensor

    def part(self, examples: int) -> Task:
        """The first `examples` of it."""
        data = Encoded(self.data.ids[:examples], self.data.labels[:examples])
        return Task(self.recipe, self.teacher, self.tokenizer, data, self.soft[:examples])


def nobody(*_: object) -> None:
    """Report to nobody."""


class CachedTrainer(Trainer):  # type: ignore[misc]  # transformers is not typed
    """A Trainer whose batches bring the teacher's logits with them."""

    def __init__(self, recipe: Recipe, **kwargs: Any) -> None:  # noqa: ANN401 - the Trainer's own
        super().__init__(**kwargs)
        self.recipe = recipe
        self.model_accepts_loss_kwargs = False  # as in DistillationTrainer

    def compute_loss(  # the Trainer's own signature
        self,
        model: Any,  # noqa: ANN401
        inputs: Any,  # noqa: ANN401
        return_outputs: bool = False,
        num_items_in_batch: Any = None,  # noqa: ANN401, ARG002
    ) -> Any:  # noqa: ANN401
        """The KD loss by the cached logits."""
        outputs = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        loss = distillation_loss(
            outputs.logits,
            inputs["soft"],
            inputs["labels"],
            temperature=self.recipe.temperature,
            alpha=self.recipe.alpha,
        )
        return (loss, outputs) if return_outputs else loss


def _arguments(recipe: Recipe, folder: str, epochs: int, *, grouped: bool) -> TrainingArguments:
    return TrainingArguments(
        output_dir=folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=recipe.student_batch,
        learning_rate=recipe.student_lr,
        lr_scheduler_type="linear",
        warmup_ratio=0.1,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP,
        optim="adamw_torch_fused",
        group_by_length=grouped,
        seed=recipe.seed % 2**32,
        use_cpu=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _trained(trainer: Trainer) -> None:
    trainer.remove_callback(PrinterCallback)  # it would print among the table's lines
    trainer.train()


def padded_rows(task: Task) -> list[dict[str, torch.Tensor]]:
    """Examples padded to 128, as the seed feeds its Trainer."""
    width = max(PADDED, *map(len, task.data.ids))
    rows = []
    for ids, label in zip(task.data.ids, task.data.labels, strict=True):
        room = [0] * (width - len(ids))
        mask = torch.tensor([1] * len(ids) + room)
        rows.append({"input_ids": torch.tensor(ids + room), "attention_mask": mask, "labels": label})
    return rows


def cached_rows(task: Task) -> list[dict[str, Any]]:
    """Examples at their own lengths, with the teacher's logits."""
    columns = zip(task.data.ids, task.data.labels.tolist(), task.soft.tolist(), strict=True)
    return [{"input_ids": ids, "attention_mask": [1] * len(ids), "labels": y, "soft": soft} for ids, y, soft in columns]


def trainer_online(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """The Trainer with the teacher beside it, every example padded to 128."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = DistillationTrainer(
            model=student,
            teacher=task.teacher,
            temperature=task.recipe.temperature,
            alpha=task.recipe.alpha,
            args=_arguments(task.recipe, folder, epochs, grouped=False),
            train_dataset=padded_rows(task),
        )
        _trained(trainer)


def _trainer_cached(student: PreTrainedModel, task: Task, epochs: int, *, grouped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = CachedTrainer(
            task.recipe,
            model=student,
            args=_arguments(task.recipe, folder, epochs, grouped=grouped),
            train_dataset=cached_rows(task),
            data_collator=DataCollatorWithPadding(task.tokenizer),
        )
        _trained(trainer)


def trainer_best(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """The Trainer as fast as its options make it: cached logits, `group_by_length`, padded to the longest of a batch."""
    _trainer_cached(student, task, epochs, grouped=True)


def trainer_same(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """What `trainer_online` computes, in less time: cached logits, and padded to the longest; batches in random order."""
    _trainer_cached(student, task, epochs, grouped=False)


def _plain(student: PreTrainedModel, task: Task, epochs: int, *, dropout: bool) -> None:
    recipe = task.recipe
    how = Fit("", epochs, recipe.student_batch, recipe.student_lr, dropout=dropout, soft=task.soft)
    fit(student, task.data, how, recipe, nobody)


def plain_loop(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """A plain loop over cached logits and batches of similar length, fused AdamW, with dropout."""
    _plain(student, task, epochs, dropout=True)


def plain_without_dropout(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """The same with the student's dropout switched off, as the fast path has it."""
    _plain(student, task, epochs, dropout=False)


def _fast(student: PreTrainedModel, task: Task, epochs: int, switches: fast.Switches) -> None:
    recipe = task.recipe.model_copy(update={"student_epochs": epochs})
    fast.train(student, task.data, task.soft, how_of(recipe, "cpu", switches), nobody)


def fast_with_dropout(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """The fast path with the student's dropout."""
    _fast(student, task, epochs, fast.Switches(dropout=True))


def fast_path(student: PreTrainedModel, task: Task, epochs: int) -> None:
    """The fast path as `matrix distill` runs it."""
    _fast(student, task, epochs, fast.Switches())


Arm = Callable[[PreTrainedModel, Task, int], None]

ARMS: Final[dict[str, Arm]] = {
    "HF Trainer, online, padded to 128": trainer_online,
    "HF Trainer, cached, grouped by length": trainer_best,
    "plain loop, cached, sorted by length": plain_loop,
    "plain loop, cached, sorted, no dropout": plain_without_dropout,
    "fast path, with dropout": fast_with_dropout,
    "fast path": fast_path,
}
ONLINE = next(iter(ARMS))
OTHERS = list(ARMS)[:3]
"""The ways of other stacks, each in its best configuration of the same training."""
BORROWING = list(ARMS)[3]
"""The fastest of them with the fast path's own switch, which is another training."""
