"""Training stacks do the same work, and the seed's traps are mended."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, TrainingArguments

from matrix import flops
from matrix.errors import DataError, EvidenceError
from matrix.workloads import distill, training
from matrix.workloads.distill import Batch, Run, Work, inputs_of
from matrix.workloads.distill.hf_trainer import DistillationTrainer
from matrix.workloads.models import (
    build_student,
    build_teacher,
    check_vocabulary,
    load_model,
    train_tokenizer,
    vocabulary,
)
from matrix.workloads.train import batches, distillation_loss
from matrix.workloads.works import frozen
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
NAMES = tuple("abcdefghij")
RECIPE = PROFILE.recipe


def rows(count: int = 32, length: int = 16) -> list[dict[str, torch.Tensor]]:
    """Examples of random ids, equal each time."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, 500, (count, length), generator=generator)
    labels = torch.randint(0, 10, (count,), generator=generator)
    return [
        {"input_ids": i, "attention_mask": torch.ones_like(i), "labels": y} for i, y in zip(ids, labels, strict=True)
    ]


def work(batch: int = 4) -> Work:
    """Tiny models and examples, equal each time."""
    teacher, student = build_teacher(RECIPE, NAMES), build_student(RECIPE, NAMES)
    return Work(
        teacher=frozen(teacher, "cpu"),
        student=student.train(),
        loader=DataLoader(rows(), batch_size=batch),  # type: ignore[arg-type]  # a list is a dataset
        batch=batch,
        temperature=4.0,
        alpha=0.7,
        device="cpu",
        dtype="float32",
        another_teacher=lambda: frozen(build_teacher(RECIPE.model_copy(update={"seed": 7}), NAMES), "cpu"),
    )


class Ready(NamedTuple):
    """A stack, and what it was given."""

    run: Run
    work: Work


@pytest.fixture(params=distill.stacks("intent"))
def stack(request: pytest.FixtureRequest) -> Iterator[Ready]:
    """Each stack, ready to step, closed afterwards."""
    made = work()
    run = distill.stack(request.param)(made)
    yield Ready(run, made)
    run.close()


def test_a_stack_steps_and_moves_the_student_only(stack: Ready) -> None:
    """Three steps change the student, leave the frozen teacher as it was and without gradients, and end."""
    teacher = stack.work.teacher
    before, frozen = (copy.deepcopy(model.state_dict()) for model in (stack.run.student(), teacher))
    for _ in range(3):
        stack.run.step()
    assert any(not torch.equal(before[name], value) for name, value in stack.run.student().state_dict().items())
    assert all(torch.equal(frozen[name], value) for name, value in teacher.state_dict().items())
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_stack_does_the_work_that_it_names(stack: Ready) -> None:
    """Loss and gradients on a frozen batch, dropout off: those of the definition, written out in fp64 without sharing code."""
    batch = next(iter(DataLoader(rows(), batch_size=8)))  # type: ignore[arg-type]  # a list is a dataset
    apart = training.apart(stack.run, batch)
    assert apart["loss"] < 1e-6
    assert apart["gradient"] < 1e-5


def test_the_loss_keeps_t_squared() -> None:
    """Two classes, logits 1 apart, T = 2, alpha = 1: T^2 KL, worked by hand. Without T^2 it would be a quarter."""
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]])
    q = torch.softmax(teacher / 2, -1)[0]
    by_hand = 4 * sum(float(p) * float(torch.log(p / 0.5)) for p in q)
    loss = distillation_loss(student, teacher, torch.tensor([0]), temperature=2.0, alpha=1.0)
    assert float(loss) == pytest.approx(by_hand, rel=1e-6)


def _gradient(accumulation: int, batch: int, folder: Path) -> torch.Tensor:
    """The student's gradient as the Trainer accumulates it over 16 examples, without dropout or clipping."""
    torch.manual_seed(0)
    made = work()
    for module in made.student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    caught: list[torch.Tensor] = []

    class Catching(torch.optim.SGD):
        def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
            caught.append(
                torch.cat([p.grad.flatten() for p in made.student.parameters() if p.grad is not None]).clone()
            )

    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation,
        max_steps=1,
        max_grad_norm=0.0,
        use_cpu=True,
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )
    optimizer = Catching(made.student.parameters(), lr=0.1)
    trainer = DistillationTrainer(
        model=made.student,
        teacher=made.teacher,
        temperature=4.0,
        alpha=0.7,
        args=arguments,
        train_dataset=rows(16),
        optimizers=(optimizer, None),
    )
    trainer.train()
    return caught[0]


def test_gradient_accumulation_does_not_scale_the_gradient(tmp_path: Path) -> None:
    """4 x 4 examples accumulated give the gradient of 16 at once (trap 1: it was 4 times as large)."""
    once, accumulated = _gradient(1, 16, tmp_path), _gradient(4, 4, tmp_path)
    assert float((once - accumulated).norm() / once.norm()) < 1e-5


def test_a_stack_with_another_loss_is_refused_before_it_is_timed() -> None:
    """Without T^2, as one library computes it: the agreement check says by how much."""

    class Wrong(Run):
        """A run whose loss lacks T^2."""

        def loss(self, batch: Batch) -> torch.Tensor:
            """The KL at T without its factor."""
            student, teacher = (model(**inputs_of(batch)).logits for model in (self.work.student, self.work.teacher))
            return distillation_loss(student, teacher, batch["labels"], temperature=4.0, alpha=0.7 / 16)

        def step(self) -> None:
            """It is never timed."""

    with pytest.raises(EvidenceError, match="wrong does other work than the reference"):
        training.agree("wrong", Wrong(made := work()), made)


def test_an_error_inside_the_trainer_reaches_the_caller() -> None:
    """The loop runs in a thread: its exception must not be lost there, and the thread ends."""
    run = distill.stack("hf_trainer")(work())

    def broken(*_: object, **__: object) -> torch.Tensor:
        raise FloatingPointError("the loss exploded")

    run.trainer.compute_loss = broken  # type: ignore[attr-defined]
    with pytest.raises(FloatingPointError, match="the loss exploded"):
        run.step()
    run.close()


@pytest.mark.parametrize(("batch", "length"), [(2, 16), (3, 40)])
def test_the_flop_formula_is_torchs_count(batch: int, length: int) -> None:
    """Every matrix product of teacher and student, forward, as FlopCounterMode sees them."""
    inputs = {
        "input_ids": torch.ones(batch, length, dtype=torch.long),
        "attention_mask": torch.ones(batch, length, dtype=torch.long),
    }
    shapes = {"batch": batch, "length": length}
    teacher, student = RECIPE.teacher, RECIPE.student
    for model, shape in ((build_teacher(RECIPE, NAMES), teacher), (build_student(RECIPE, NAMES), student)):
        # eager attention: torch 2.13 counts no FLOPs for the CPU's fused attention kernel
        eager = AutoModelForSequenceClassification.from_config(model.config, attn_implementation="eager")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            eager.eval()(**inputs)
        counted = flops.encoder_forward(layers=shape.layers, dim=shape.dim, hidden=shape.hidden, **shapes)
        assert counter.get_total_flops() == counted + flops.head_forward(dim=shape.dim, classes=10, batch=batch)


def test_a_backward_pass_is_two_forwards() -> None:
    """Counted on the student with eager attention; embeddings and biases multiply nothing."""
    config = build_student(RECIPE, NAMES).config
    model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()
    ids = torch.ones(2, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        loss = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    assert backward.get_total_flops() == pytest.approx(2 * forward.get_total_flops(), rel=0.05)


def test_the_models_have_the_seeds_sizes() -> None:
    """66.96 M and 14.35 M parameters: the note's 66M and 14.5M."""
    recipe = RECIPE.model_copy(
        update={"vocabulary": 30_522, "teacher": type(RECIPE.teacher)(), "student": type(RECIPE.student)()}
    )
    sizes = [sum(p.numel() for p in build(recipe, NAMES).parameters()) for build in (build_teacher, build_student)]
    assert sizes == [66_961_162, 14_353_378]


def test_the_tokenizer_is_a_function_of_its_texts() -> None:
    """Trained twice, to the byte: the library's own trainer is not."""
    texts = ["where is my order", "where is naruto", "wheer is it", "my my order"]
    first, second = (train_tokenizer(texts).backend_tokenizer.to_str() for _ in range(2))
    assert first == second
    assert vocabulary(texts)[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert vocabulary(texts)[-4:] == ["is", "my", "order", "where"]
    assert train_tokenizer(texts).tokenize("wheer order") == ["w", "##h", "##e", "##e", "##r", "order"]


def test_a_checkpoint_with_other_classes_is_refused(tmp_path: Path) -> None:
    """Three classes for ten, and the same ten in another order."""
    build_student(RECIPE, ("a", "b", "c")).save_pretrained(tmp_path / "three")
    with pytest.raises(DataError, match="has 3 classes and the data 10"):
        load_model(str(tmp_path / "three"), NAMES, "bert")
    build_student(RECIPE, NAMES[::-1]).save_pretrained(tmp_path / "turned")
    with pytest.raises(DataError, match="orders its classes"):
        load_model(str(tmp_path / "turned"), NAMES, "bert")
    with pytest.raises(DataError, match="no classifier is at"):
        load_model(str(tmp_path / "nowhere"), NAMES, "bert")


def test_a_checkpoint_of_another_family_or_vocabulary_is_refused(tmp_path: Path) -> None:
    """A BERT as teacher; and a tokenizer with ids that the model has no rows for, which a GPU would only assert on later."""
    build_student(RECIPE, NAMES).save_pretrained(tmp_path / "bert")
    with pytest.raises(DataError, match="is a bert model; give a distilbert one"):
        load_model(str(tmp_path / "bert"), NAMES, "distilbert")
    tokenizer = train_tokenizer([f"word{number} word{number}" for number in range(50)])
    small = build_student(RECIPE.model_copy(update={"vocabulary": 40}), NAMES)
    with pytest.raises(DataError, match="tokens and the bert model 40 rows"):
        check_vocabulary(small, tokenizer)


def test_length_batches_hold_every_example_once() -> None:
    """Sorted windows, shuffled batches: a permutation of the data."""
    lengths = [1 + (7 * i) % 23 for i in range(1000)]
    found = batches(lengths, 16, np.random.default_rng(1))
    assert sorted(itertools.chain.from_iterable(part.tolist() for part in found)) == list(range(1000))
    spread = sum(max(lengths[i] for i in part) - min(lengths[i] for i in part) for part in found) / len(found)
    assert spread < 3
