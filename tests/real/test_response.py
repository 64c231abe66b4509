"""The response workload: its stacks do the work that they name, on the same tokens, and trl's traps are known."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from accelerate.state import AcceleratorState

from matrix.workloads import conversations, distill, training
from matrix.workloads.conversations import IGNORED
from matrix.workloads.distill import Run, inputs_of, reference
from matrix.workloads.distill.raw_token_kd import divergence
from matrix.workloads.distill.response import BETA, ResponseWork
from tests.real.responding import SHAPE, rows, work

pytestmark = pytest.mark.frameworks


class Ready(NamedTuple):
    """A stack, and what it was given."""

    run: Run
    work: ResponseWork


RANKS = pytest.mark.parametrize("rank", [None, 4], ids=["all", "lora"])


@pytest.fixture(params=distill.stacks("response"))
def stack(request: pytest.FixtureRequest, rank: int | None) -> Iterator[Ready]:
    """Each stack, ready to step, closed afterwards."""
    made = work(rank)
    run = distill.stack(request.param)(made)
    yield Ready(run, made)
    run.close()


@RANKS
def test_a_stack_moves_what_is_trained_and_nothing_else(stack: Ready) -> None:
    """Three steps change the student (with LoRA its adapters alone); the teacher stays as it was, without gradients."""
    student, teacher = stack.work.student, stack.work.teacher
    before, taught = (copy.deepcopy(dict(model.named_parameters())) for model in (student, teacher))
    for _ in range(3):
        stack.run.step()
    moved = {name for name, value in student.named_parameters() if not torch.equal(before[name], value)}
    assert moved
    assert moved <= {name for name, value in student.named_parameters() if value.requires_grad}
    assert all("lora" in name for name in moved) or stack.work.shape.lora_rank is None
    assert all(torch.equal(taught[name], value) for name, value in teacher.named_parameters())
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())


@RANKS
def test_a_stack_does_the_work_that_it_names(stack: Ready) -> None:
    """Loss and gradients on a frozen batch: those of the definition, written out in fp64 without sharing code."""
    apart = training.apart(stack.run, next(iter(stack.work.loader)))
    assert (
        apart["loss"] < 1e-5
    )  # the divergence of two untrained models is small: a difference of sums 100 times as large
    assert apart["gradient"] < 1e-5


@pytest.fixture
def mixed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A trainer's precision outlives it (accelerate 1.15.0: a variable and a state of the process); a launch has one."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.parametrize("name", distill.stacks("response"))
def test_a_stack_does_its_work_in_bf16(name: str, mixed: None) -> None:
    """Under autocast, with LoRA: within a hundredth. Before its loop begins, GKDTrainer's divergence is bf16 and 5 to 9 % off."""
    run = distill.stack(name)(replace(work(4), dtype="bfloat16"))
    apart = training.apart(run, next(iter(run.work.loader)))
    run.close()
    assert apart["loss"] < 1e-3
    assert apart["gradient"] < 1e-2


@pytest.mark.parametrize("name", distill.stacks("response"))
def test_a_stack_learns_its_objective(name: str) -> None:
    """Ten steps at a large rate lower the loss of the definition on fixed tokens (on-policy: on what it generated first)."""
    made = replace(work(), lr=5e-3)
    run = distill.stack(name)(made)
    batch = next(iter(made.loader))
    first = float(run.expected(batch).detach())
    for _ in range(10):
        run.step()
    assert float(run.expected(batch).detach()) < first
    run.close()


def test_cross_entropy_looks_at_the_answer_alone() -> None:
    """Two tokens of four are labelled; the logits before them give 1/2 and 3/4: -(ln 1/2 + ln 3/4) / 2."""
    logits = torch.zeros(1, 4, 2)
    logits[0, 2] = torch.tensor([math.log(3), 0.0])
    logits[0, 0] = 100.0 * torch.tensor(
        [1.0, -1.0]
    )  # before a token of the prompt, and after the last: never looked at
    logits[0, 3] = logits[0, 0]
    labels = torch.tensor([[IGNORED, IGNORED, 1, 0]])
    assert float(reference.answers(logits, labels)) == pytest.approx(-(math.log(0.5) + math.log(0.75)) / 2)


def test_the_divergence_by_hand() -> None:
    """P = (1/2, 1/2), q = (3/4, 1/4): KL(q|p) at beta 0, KL(p|q) at 1, the Jensen-Shannon divergence between."""
    p, q = (0.5, 0.5), (0.75, 0.25)

    def kl(a: tuple[float, float], b: tuple[float, float]) -> float:
        return sum(x * math.log(x / y) for x, y in zip(a, b, strict=True))

    student, teacher = (torch.tensor(one).log()[None] for one in (p, q))
    labels = torch.tensor([[IGNORED, 1]])
    found = [
        float(reference.token_divergence(student.expand(1, 2, 2), teacher.expand(1, 2, 2), labels, beta=beta))
        for beta in (0.0, 0.5, 1.0)
    ]
    middle = (0.625, 0.375)
    assert found == pytest.approx([kl(q, p), (kl(q, middle) + kl(p, middle)) / 2, kl(p, q)])
    assert float(divergence(student, teacher)) == pytest.approx(found[1], rel=1e-5)
    assert BETA == 0.5


def _both(run: Run, batch: object) -> list[tuple[list[int], list[int]]]:
    rows_ = zip(batch["input_ids"], batch["labels"], strict=True)  # type: ignore[index]  # a batch of tensors
    return [(ids.tolist(), labels.tolist()) for ids, labels in rows_]


@pytest.mark.parametrize("name", ["trl_sft", "trl_gkd"])
def test_trl_trains_on_the_same_tokens_as_the_raw_loop(name: str) -> None:
    """Each trainer tokenises the messages itself; ids and labels of every row are the raw loop's."""
    made = work()
    run = distill.stack(name)(made)
    expected = [(row["input_ids"].tolist(), row["labels"].tolist()) for row in made.loader.dataset]  # type: ignore[attr-defined]
    batches = list(run.trainer.get_train_dataloader())  # type: ignore[attr-defined]
    found = [row for batch in batches for row in _both(run, batch)]
    run.close()
    assert sorted(found) == sorted(expected)
    assert all(bool(batch["attention_mask"].all()) for batch in batches)


def test_the_student_writes_what_it_learns_from() -> None:
    """On-policy: exact prompts without padding, exactly as many new tokens as the profile says, none of which ends the turn."""
    made = work()
    run = distill.stack("trl_distillation")(made)
    batch = next(iter(made.loader))
    made.student.eval()
    rows_ = run.generated(batch)  # type: ignore[attr-defined]
    prompts = [conversations.encode(made.tokenizer, one) for one in made.conversations[: made.batch]]
    assert rows_["prompt_ids"].tolist() == [one.ids[: one.prompt] for one in prompts]
    assert rows_["completion_ids"].shape == (made.batch, SHAPE.answer)
    assert bool(rows_["prompt_mask"].all() and rows_["completion_mask"].all())
    assert not bool((rows_["completion_ids"] == made.tokenizer.eos_token_id).any())
    assert rows_["completion_ids"].tolist() != [one.ids[one.prompt :] for one in prompts]
    assert run.generated(batch) is rows_  # type: ignore[attr-defined]
    assert not run.has_phases
    run.close()


def test_off_policy_gkd_never_generates(monkeypatch: pytest.MonkeyPatch) -> None:
    """`lmbda=0` steps on the data alone; the default of 0.5 would generate in every other step."""
    made = work()
    run = distill.stack("trl_gkd")(made)

    def generate(*_: object, **__: object) -> None:
        raise AssertionError("generated")

    monkeypatch.setattr(made.student, "generate", generate)
    run.step()
    run.trainer.lmbda = 1.0  # type: ignore[attr-defined]
    with pytest.raises(AssertionError, match="generated"):
        run.step()
    run.close()


def test_gkd_ignores_its_temperature_in_the_divergence() -> None:
    """Trl 1.16.0 does not hand it on: the loss at 0.9, its default, is the loss at 1, and is not the divergence at 0.9."""
    made = work()
    run = distill.stack("trl_gkd")(made)
    batch = next(iter(made.loader))
    at_one = float(run.loss(batch).detach())
    run.trainer.temperature = 0.9  # type: ignore[attr-defined]
    assert float(run.loss(batch).detach()) == at_one
    logits, taught = (model(**inputs_of(batch)).logits.detach() / 0.9 for model in (made.student, made.teacher))
    assert float(reference.token_divergence(logits, taught, batch["labels"], beta=BETA)) != pytest.approx(
        at_one, rel=0.05
    )
    run.close()


def test_the_note_s_arguments_are_gone() -> None:
    """`max_seq_length` of SFTConfig and `lmbda` of DistillationConfig (seed, sections 2.7 and 2.8) are refused by trl 1.16.0."""
    from trl import DistillationConfig, SFTConfig  # noqa: PLC0415 - takes seconds to import

    with pytest.raises(TypeError, match="max_seq_length"):
        SFTConfig("out", max_seq_length=512)
    with pytest.raises(TypeError, match="lmbda"):
        DistillationConfig("out", lmbda=0.0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has bf16")
def test_trls_default_precision_needs_a_gpu() -> None:
    """bf16 is the default of every trl configuration: a host without a GPU refuses it."""
    from trl import SFTConfig  # noqa: PLC0415 - takes seconds to import

    with pytest.raises(ValueError, match="bf16"):
        SFTConfig("out")


def _trained_loss(folder: Path, dataset: object) -> tuple[float, float]:
    """What SFTTrainer reports for one step on four rows, and the cross entropy of the tokens that it counts."""
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415 - takes seconds to import

    made = work()
    trainer = SFTTrainer(
        model=made.student,
        args=SFTConfig(
            str(folder),
            max_steps=1,
            per_device_train_batch_size=4,
            learning_rate=0.0,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=dataset,
        processing_class=made.tokenizer,
    )
    reported = trainer.train().training_loss
    batch = next(iter(trainer.get_train_dataloader()))
    labels = batch["labels"].clone()
    labels[:, 0] = IGNORED  # nothing predicts the first token
    return reported, float(reference.answers(made.student(batch["input_ids"]).logits.detach(), labels))


def test_whole_texts_are_averaged_over_a_token_too_many(tmp_path: Path) -> None:
    """Trl 1.16.0 on transformers 4.57.6 divides by every labelled token, also the first, which nothing predicts.

    The loss of four texts of n tokens together is (n - 4) / n of the mean; prompt-completion data has no label there.
    """
    from datasets import Dataset  # noqa: PLC0415 - takes seconds to import

    tokenizer, said = rows()
    texts = [tokenizer.apply_chat_template(conversations.messages(one), tokenize=False) for one in said[:4]]
    reported, mean = _trained_loss(tmp_path, Dataset.from_dict({"text": texts}))
    tokens = sum(len(tokenizer.encode(text, add_special_tokens=False)) for text in texts)
    assert reported == pytest.approx(mean * (tokens - 4) / tokens, rel=1e-5)
    pairs = [conversations.messages(one) for one in said[:4]]
    data = Dataset.from_list([{"prompt": pair[:1], "completion": pair[1:]} for pair in pairs])
    reported, mean = _trained_loss(tmp_path, data)
    assert reported == pytest.approx(mean, rel=1e-5)


def test_nothing_is_written_beside_the_trainers_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's root is read-only: data sets in memory leave no cache, and the folder is gone when the stack is closed."""
    import datasets  # noqa: PLC0415 - takes a second to import

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    run = distill.stack("trl_sft")(work())
    run.step()
    assert run.trainer.train_dataset.cache_files == []  # type: ignore[attr-defined]
    run.close()
    assert not (tmp_path / "cache").exists()
    assert not Path(run.folder).exists()  # type: ignore[attr-defined]
