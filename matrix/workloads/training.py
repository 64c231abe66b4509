"""The training-step cells: builds the same work for every stack, proves that a stack does it, and reads what a step costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from matrix import flops
from matrix.cell import Cell
from matrix.errors import EvidenceError
from matrix.load import peak_memory, reset_peak_memory, trim_memory
from matrix.workloads import clock, distill
from matrix.workloads.distill import Batch, Work
from matrix.workloads.examples import windows
from matrix.workloads.launch import Launch
from matrix.workloads.models import build_student, build_teacher, load_model
from matrix.workloads.phases import Phases
from matrix.workloads.sampling import Arguments

_EXAMPLES = 512
_TOLERANCE = 1e-4
"""Relative: two fp32 graphs of the same formula on the same batch, whose sums are ordered differently."""


def _loader(launch: Launch, batch: int, length: int) -> DataLoader[dict[str, torch.Tensor]]:
    """Real utterances packed to exactly `length` tokens: no padding, so every FLOP that is counted is needed."""
    examples = launch.examples
    ids = torch.from_numpy(windows([list(row) for row in examples.train_ids()], length, _EXAMPLES))
    labels = torch.from_numpy(np.resize(examples.train_labels, _EXAMPLES))
    rows = [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": label}
        for row, label in zip(ids, labels, strict=True)
    ]
    # transformers' own collator turns the rows into tensors in both stacks; torch's default does the same here
    return DataLoader(rows, batch_size=batch, shuffle=True, generator=torch.Generator().manual_seed(launch.job.seed))


def _models(launch: Launch) -> tuple[PreTrainedModel, PreTrainedModel]:
    """Teacher and student: the teacher that was given, else its configuration; the student always from its configuration.

    Weights decide no time, and random ones make the cell's identity independent of who trained what where.
    """
    recipe, names, given = launch.job.profile.recipe, launch.prepared.data.classes, launch.job.spec.teacher
    teacher = load_model(given, names, "distilbert") if given else build_teacher(recipe, names)
    if launch.job.spec.student:
        checkpoint = launch.cache.folder("students", launch.prepared.student)
        student = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(checkpoint))
    else:
        student = build_student(recipe, names)
    return teacher.eval().requires_grad_(False).to(launch.job.device), student.train().to(launch.job.device)


class TrainingRun:
    """One stack at work on one cell."""

    def __init__(self, cell: Cell, launch: Launch) -> None:
        profile = launch.job.profile
        self.cell, self.launch = cell, launch
        self.batch, self.length = int(cell.batch or 1), int(cell.length or 1)
        teacher, student = _models(launch)
        self.work = Work(
            teacher=teacher,
            student=student,
            loader=_loader(launch, self.batch, self.length),
            batch=self.batch,
            temperature=profile.recipe.temperature,
            alpha=profile.recipe.alpha,
            device=launch.job.device,
            dtype=profile.training_dtype,
        )
        self.stack = distill.stack(cell.variant)(self.work)
        self.phases = Phases(launch.job.device)
        self.phases.watch(teacher, student, self.stack.optimizer)
        self.step = self.phases.wrap(self.stack.step)
        self._before = student.classifier.weight.detach().clone()
        self._can_reset = False

    def watch_memory(self) -> None:
        """Forget the high-water mark so far: building the models and `agree` are not what a step needs."""
        trim_memory()
        self._can_reset = reset_peak_memory()
        if self.launch.job.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def between(self) -> Iterator[Arguments]:
        """Outside the clock, before each step: read the last step's phases."""
        while True:
            self.phases.collect()
            yield (), {}

    def moved(self) -> bool:
        """Whether training changed the student, to finite values."""
        after = self.work.student.classifier.weight.detach()
        return bool(torch.isfinite(after).all()) and not torch.equal(after, self._before)

    def step_flop(self) -> int:
        """FLOPs of one step, by `matrix.flops`."""
        shape = {"batch": self.batch, "length": self.length}
        teacher, student = self.work.teacher.config, self.work.student.config
        classes = student.num_labels
        of_teacher = flops.encoder_forward(layers=teacher.n_layers, dim=teacher.dim, hidden=teacher.hidden_dim, **shape)
        of_student = flops.encoder_forward(
            layers=student.num_hidden_layers, dim=student.hidden_size, hidden=student.intermediate_size, **shape
        )
        heads = [
            flops.head_forward(dim=dim, classes=classes, batch=self.batch) for dim in (teacher.dim, student.hidden_size)
        ]
        return flops.distillation_step(of_teacher + heads[0], of_student + heads[1])

    def facts(self, rounds: int) -> dict[str, float | None]:
        """What the confirming block's `rounds` steps cost, beside their time."""
        self.phases.collect()
        device = self.launch.job.device
        if device == "cuda":
            peak: int | None = torch.cuda.max_memory_allocated()
        else:  # torch 2.13 tells no peak of MPS, and its driver's memory holds earlier cells' blocks
            peak = peak_memory() if device == "cpu" and self._can_reset else None
        return {
            **self.phases.shares(rounds),
            "step_flop": self.step_flop(),
            "matmul_flop_per_s": clock.matmul_peak(device, self.work.dtype),
            "peak_bytes": peak,
        }


@contextmanager
def prepared(cell: Cell, launch: Launch) -> Iterator[TrainingRun]:
    """The cell's stack, ready to step; unwound afterwards."""
    torch.set_num_threads(launch.job.threads)
    torch.manual_seed(launch.job.seed)
    run = TrainingRun(cell, launch)
    try:
        yield run
    finally:
        run.phases.close()
        run.stack.close()


def reference_loss(
    student: torch.Tensor, teacher: torch.Tensor, labels: torch.Tensor, *, temperature: float, alpha: float
) -> torch.Tensor:
    """The KD loss written out from its definition, in fp64 on the CPU (MPS has no fp64), sharing no code with the stacks.

    `(1 - a) * mean(-log p_y) + a * T^2 * mean(sum q (log q - log p_T))` with `p = softmax(student)`,
    `p_T = softmax(student / T)`, `q = softmax(teacher / T)`.
    """
    hot, cold = student.cpu().double(), teacher.cpu().double() / temperature
    log_p = hot - hot.logsumexp(-1, keepdim=True)
    log_pt = hot / temperature - (hot / temperature).logsumexp(-1, keepdim=True)
    log_q = cold - cold.logsumexp(-1, keepdim=True)
    hard = -log_p.gather(1, labels.cpu()[:, None]).mean()
    soft = (log_q.exp() * (log_q - log_pt)).sum(-1).mean()
    return (1 - alpha) * hard + alpha * temperature**2 * soft


def _gradient(loss: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    model.zero_grad()
    loss.backward()
    found = torch.cat([p.grad.flatten().cpu().double() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return found


def agree(run: TrainingRun) -> None:
    """Before any timing: the stack's loss and gradients on one frozen batch, dropout off, are the reference's.

    Raises:
        EvidenceError: they differ by more than rounding; the stack would be timed at other work.
    """
    work = run.work
    batch: Batch = {name: tensor.to(work.device) for name, tensor in next(iter(work.loader)).items()}
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    work.student.eval()
    loss = run.stack.loss(batch)
    theirs = _gradient(loss, work.student)
    with torch.autocast(work.device, torch.bfloat16, enabled=work.dtype == "bfloat16"):
        logits, taught = work.student(**inputs).logits, work.teacher(**inputs).logits
    expected = reference_loss(logits, taught, batch["labels"], temperature=work.temperature, alpha=work.alpha)
    ours = _gradient(expected, work.student)
    work.student.train()
    tolerance = _TOLERANCE if work.dtype == "float32" else 1e-2
    apart = {
        "loss": float(abs(loss.detach().cpu().double() - expected.detach()) / abs(expected.detach())),
        "gradient": float((theirs - ours).norm() / ours.norm()),
    }
    wrong = {name: value for name, value in apart.items() if not value <= tolerance}
    if wrong:
        raise EvidenceError(
            f"{run.cell.variant} does other work than the reference",
            remedy=f"relative differences {wrong}, allowed {tolerance}",
        )
