"""TextBrewer's traps, its features against their definition, and the plain loop with several teachers."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention

from matrix.errors import UsageError
from matrix.workloads import distill, training
from matrix.workloads.distill import CLIP, Work, inputs_of, reference
from matrix.workloads.models import build_student, build_teacher
from matrix.workloads.works import frozen
from tests.real.test_libraries import ROOT, at_work, first_gradient, norm, shuffled, weights
from tests.real.test_stacks import NAMES, RECIPE, work

pytestmark = pytest.mark.frameworks


def test_textbrewer_without_t_squared_does_other_work() -> None:
    """With alpha = 1, T = 4: with the seed's weight the gradient is a sixteenth of output KD's."""
    made = shuffled(alpha=1.0, dropout=False)
    batch = next(iter(made.loader))
    with at_work("textbrewer", made) as run:
        right = run.gradients(batch).gradient
        assert training.apart(run, batch)["gradient"] < 1e-5
        run.distiller.d_config.kd_loss_weight = made.alpha
        wrong = run.gradients(batch).gradient
        assert training.apart(run, batch)["gradient"] == pytest.approx(15 / 16, rel=1e-4)
    assert float((right - 16 * wrong).norm() / right.norm()) < 1e-5


def test_textbrewer_is_told_its_device_and_leaves_no_folder() -> None:
    """Its default device is a GPU, whatever there is; its folder of checkpoints goes with the stack."""
    with at_work("textbrewer", shuffled()) as run:
        config = run.distiller.t_config
        assert type(config)(output_dir=config.output_dir).device == "cuda"
        assert config.device == "cpu"
        run.step()
        assert Path(config.output_dir).is_dir()
    assert not Path(config.output_dir).exists()


def test_textbrewer_is_compiled_without_a_warning(tmp_path: Path) -> None:
    """Its source, not yet compiled, with every warning an error: an image whose byte code is missing says nothing either."""
    spec = find_spec("textbrewer")
    assert spec is not None
    assert spec.origin is not None
    shutil.copytree(Path(spec.origin).parent, tmp_path / "textbrewer", ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "import sys, warnings, transformers, torch.utils.tensorboard, matrix.workloads.distill; "
        "warnings.simplefilter('error'); import matrix.workloads.distill.brewed as b; print(b.textbrewer.__file__)"
    )
    paths = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], env=os.environ | paths, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == str(tmp_path / "textbrewer" / "__init__.py")
    assert "Warning" not in done.stderr


def deep(student_layers: int, teacher_layers: int, **shape: int) -> Work:
    """Work whose models have so many layers."""
    shapes = {
        "teacher": RECIPE.teacher.model_copy(update={"layers": teacher_layers}),
        "student": RECIPE.student.model_copy(update={"layers": student_layers, **shape}),
    }
    recipe = RECIPE.model_copy(update=shapes)
    return dataclasses.replace(
        work(), teacher=frozen(build_teacher(recipe, NAMES), "cpu"), student=build_student(recipe, NAMES).train()
    )


def test_four_layers_learn_from_six_by_an_explicit_map() -> None:
    """Hidden states 0 1 2 3 4 from 0 1 3 4 6, attention of layers 1 to 4 from 1 3 4 6: plain means, since nothing is padded."""
    made = deep(4, 6)
    made.student.eval()
    batch = next(iter(made.loader))
    with at_work("textbrewer_features", made) as run:
        with torch.no_grad():
            student, teacher = (
                model(**inputs_of(batch), output_hidden_states=True, output_attentions=True)
                for model in (made.student, made.teacher)
            )
            linear = run.projected
            hidden = [
                F.mse_loss(linear[m](student.hidden_states[m]), teacher.hidden_states[n])
                for m, n in ((0, 0), (1, 1), (2, 3), (3, 4), (4, 6))
            ]
            attention = [
                F.mse_loss(student.attentions[m - 1], teacher.attentions[n - 1])
                for m, n in ((1, 1), (2, 3), (3, 4), (4, 6))
            ]
            assert float(run.loss(batch)) == pytest.approx(float(sum(hidden) + sum(attention)), rel=1e-6)
        apart = training.apart(run, batch)
        assert apart["loss"] < 1e-6
        assert apart["gradient"] < 1e-5


def test_padding_does_not_change_the_features_loss() -> None:
    """What stands in the padding is nobody's business, and the loss is its definition's over real tokens."""
    made = deep(1, 1)
    made.student.eval()
    ids = torch.randint(5, 500, (2, 12), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    with at_work("textbrewer_features", made) as run, torch.no_grad():
        padded = {"input_ids": ids, "attention_mask": mask}
        noise = {"input_ids": torch.where(mask.bool(), ids, 499 - ids % 400), "attention_mask": mask}
        assert float(run.loss(padded)) == pytest.approx(float(run.loss(noise)), rel=1e-6)
        assert float(run.loss(padded)) == pytest.approx(float(run.expected(padded)), rel=1e-6)


def test_projections_are_the_raw_stacks_and_trained_at_the_same_rate() -> None:
    """Drawn from the work's seed as torch draws a Linear; TextBrewer adds a group each, of the optimizer's own settings."""
    made = shuffled(lr=3e-4, seed=5)
    torch.manual_seed(5)
    expected = [torch.nn.Linear(32, 64) for _ in range(2)]
    with at_work("textbrewer_features", made) as run:
        projections = run.projected
        for found, raw in zip(projections, expected, strict=True):
            assert torch.equal(found.weight, raw.weight)
            assert torch.equal(found.bias, raw.bias)
        run.step()
        groups = run.optimizer.param_groups
        assert [(one["lr"], one["weight_decay"], one["fused"]) for one in groups] == [(3e-4, 0.0, True)] * 3
        held = [parameter for one in groups for parameter in one["params"]]
        assert [id(one) for one in held] == [id(one) for one in run.trained]
        assert all(not torch.equal(found.weight, raw.weight) for found, raw in zip(projections, expected, strict=True))


def test_textbrewer_clips_the_student_and_no_projection() -> None:
    """Declared: the student's gradients together are of length 1 at most, the projections' stay as they are."""
    made = shuffled(dropout=False)
    batch = next(iter(shuffled().loader))
    with at_work("textbrewer_features", made) as run:
        whole = run.gradients(batch).gradient
        students = sum(one.numel() for one in made.student.parameters())
    caught = first_gradient("textbrewer_features", shuffled(dropout=False))
    student, projected = caught[:-4], caught[-4:]
    assert norm(projected) == pytest.approx(float(whole[students:].norm()), rel=1e-4)
    assert norm(student) == pytest.approx(min(CLIP, float(whole[:students].norm())), rel=1e-3)


def test_models_that_do_not_match_layer_by_layer_are_refused() -> None:
    """Depths without a map, and other heads."""
    for made, told in (
        (deep(2, 3), "no map is known from 3 layers of a teacher to 2 of a student"),
        (deep(1, 1, heads=4), "the student has 4 attention heads and the teacher 2"),
    ):
        with pytest.raises(UsageError, match=told):
            distill.stack("textbrewer_features")(made)


def test_several_teachers_are_averaged_as_distributions() -> None:
    """T = 1, alpha = 1, teachers (3/4, 1/4) and (1/4, 3/4), student (4/5, 1/5): the mean is (1/2, 1/2), KL = log(5/4).

    By hand: 1/2 log(1/2 / (4/5)) + 1/2 log(1/2 / (1/5)) = 1/2 log(25/16). Of logits the mean would be the same here; with
    (9/10, 1/10) and (1/2, 1/2) it is (3/4, 1/4) and not (7/10, 3/10).
    """
    student, labels = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([0])
    even = [torch.tensor([[0.75, 0.25]]).log(), torch.tensor([[0.25, 0.75]]).log()]
    found = reference.several_teachers(student, even, labels, temperature=1.0, alpha=1.0)
    assert float(found) == pytest.approx(float(torch.tensor(5 / 4).log()), rel=1e-6)
    odd = [torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()]
    found = reference.several_teachers(student, odd, labels, temperature=1.0, alpha=1.0)
    by_hand = 0.7 * torch.tensor(0.7 / 0.8).log() + 0.3 * torch.tensor(0.3 / 0.2).log()
    assert float(found) == pytest.approx(float(by_hand), rel=1e-5)


def test_the_second_teacher_is_another_and_stays_frozen() -> None:
    """Both in evaluation mode, without gradients, unmoved; the loss is neither's alone."""
    made = shuffled(dropout=False)
    batch = next(iter(made.loader))
    with at_work("multi_teacher", made) as run:
        assert len(run.teachers) == run.teacher_passes == 2
        before = [weights(one) for one in run.teachers]
        assert not torch.equal(*before)
        both = float(run.loss(batch).detach())
        run.step()
        for teacher, were in zip(run.teachers, before, strict=True):
            assert not teacher.training
            assert all(one.grad is None for one in teacher.parameters())
            assert torch.equal(weights(teacher), were)
    with at_work("raw_torch", shuffled(dropout=False)) as raw:
        assert both != pytest.approx(float(raw.loss(batch).detach()), rel=1e-2)
