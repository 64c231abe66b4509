"""Feature methods: each loss is its paper's, worked by hand and against its definition, with and without padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch

from matrix.workloads import distill, training
from matrix.workloads.distill import Run, gradients, reference_features
from matrix.workloads.distill.features import attention_mse, see, state_mse
from matrix.workloads.distill.kd_zoo_attention import AT, Attention
from matrix.workloads.distill.kd_zoo_hints import Hints
from matrix.workloads.distill.kd_zoo_nst import NST
from matrix.workloads.distill.kd_zoo_pkt import PKT
from matrix.workloads.distill.kd_zoo_relational import RKD
from matrix.workloads.distill.kd_zoo_similarity import SP
from matrix.workloads.distill.tinybert_two_stage import TwoStage
from matrix.workloads.distill.with_features import WithFeatures
from matrix.workloads.models import build_student
from tests.real.depths import NAMES, apart, batch, recipe, value, work

pytestmark = pytest.mark.frameworks
METHODS = ("hints", "attention", "relational", "similarity", "nst", "pkt")
FEATURES = (*(f"kd_zoo_{method}" for method in METHODS), "tinybert_two_stage")


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Iterator[WithFeatures]:
    """Each method of the Zoo, dropout off."""
    run = distill.stack(f"kd_zoo_{request.param}")(work())
    assert isinstance(run, WithFeatures)
    run.work.student.eval()
    yield run
    run.close()


@pytest.fixture(params=FEATURES)
def stack(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Each feature stack, dropout off."""
    run = distill.stack(request.param)(work())
    run.work.student.eval()
    yield run
    run.close()


def test_a_methods_own_loss_is_its_definition(method: WithFeatures) -> None:
    """Alone, so that output KD beside it hides nothing; of examples of unequal length, 4 layers taught by 6."""
    examples = batch(5, 9, 12, 7, 12, 3)
    mask = examples["attention_mask"]
    found = gradients(method.transfer(*method.seen(examples), mask), method.trained)
    defined = gradients(method.defined(*method.seen(examples), mask), method.trained)
    assert found.loss > 0
    assert apart(found, defined) < 1e-4


def test_a_method_is_added_to_output_kd(method: WithFeatures) -> None:
    """The loss is raw PyTorch's plus the weighted method."""
    examples = batch(12, 12, 12)
    plain = distill.stack("raw_torch")(method.work).loss(examples)
    own = method.transfer(*method.seen(examples), examples["attention_mask"])
    assert value(method.loss(examples)) == pytest.approx(value(plain + method.weight * own), rel=1e-6)


def test_a_stack_of_features_agrees_on_padded_batches(stack: Run) -> None:
    """The check before the clock, with padding in the batch."""
    assert max(training.apart(stack, batch(5, 9, 12, 7)).values()) < 1e-5


def test_padding_changes_no_loss_of_features(stack: Run) -> None:
    """Seven more padded positions: the same loss, the same gradient."""
    tight, wide = (stack.gradients(batch(5, 9, 12, 7, width=width)) for width in (12, 19))
    assert apart(wide, tight) < 1e-5


def test_only_student_and_projections_learn(stack: Run) -> None:
    """Projections are trained with the student, and the optimizer holds both; the frozen teacher gets no gradient."""
    mine = set(stack.work.student.parameters())
    stack.loss(batch(12, 12, 7, 7)).backward()
    added = [one for one in stack.trained if one not in mine]
    assert all(one.grad is not None and bool(one.grad.abs().sum() > 0) for one in added)
    assert all(one.grad is None for one in stack.work.teacher.parameters())
    assert set(stack.optimizer.param_groups[0]["params"]) == set(stack.trained)
    expected = {"Hints": 2, "TwoStage": 10}.get(type(stack).__name__, 0)
    assert len(added) == expected


def test_relations_of_three_examples_by_hand() -> None:
    """Student on a line (0, 1, 2), teacher an equilateral triangle.

    Distances over their mean 4/3: 3/4, 3/4, 3/2 against 1; Huber 1/32, 1/32, 1/8, each twice, over 9: 1/24. Cosines 1, -1, 1
    against 1/2: Huber 1/8, 1, 1/8, each twice, over 27: 5/54.
    """
    line = torch.tensor([[0.0], [1.0], [2.0]])
    triangle = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    by_hand = 25 / 24 + 50 * 5 / 54
    assert float(RKD()(line, triangle)) == pytest.approx(by_hand, rel=1e-5)
    defined = reference_features.relational(line, triangle, distance=25, angle=50)
    assert float(defined) == pytest.approx(by_hand, rel=1e-6)


def test_similarities_of_two_examples_by_hand() -> None:
    """Orthogonal for the student, rows (1, 0); equal for the teacher, rows (1, 1) / sqrt 2: ((1 - 1/sqrt 2)^2 + 1/2) * 2 / 4."""
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    by_hand = 1 - 1 / math.sqrt(2)
    assert float(SP()(student, teacher)) == pytest.approx(by_hand, rel=1e-6)
    assert float(reference_features.similarity(student, teacher)) == pytest.approx(by_hand, rel=1e-6)


def test_neighbours_of_two_examples_by_hand() -> None:
    """Kernel rows (1, 1/2) and (1, 1): q = (2/3, 1/3), p = (1/2, 1/2); two rows of ln(9/8) / 2 over 4."""
    student, teacher = torch.eye(2), torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    by_hand = math.log(9 / 8) / 4
    assert float(PKT()(student, teacher)) == pytest.approx(by_hand, rel=2e-5)
    assert float(reference_features.neighbours(student, teacher, epsilon=0)) == pytest.approx(by_hand, rel=1e-6)


@pytest.mark.parametrize(("teacher", "by_hand"), [([[0.0], [2.0]], 2.0), ([[1.0, 0.0], [0.0, 3.0]], 0.5)])
def test_selectivities_over_two_tokens_by_hand(teacher: list[list[float]], by_hand: float) -> None:
    """The student's one unit fires at token 1: against one of token 2, 1 + 1 - 0; against one of each, 1/2 + 1 - 2/2."""
    states = torch.tensor([[[5.0], [0.0]]]), torch.tensor([teacher])
    mask = torch.ones(1, 2)
    assert float(NST()(*states, mask)) == pytest.approx(by_hand)
    assert float(reference_features.selectivity(*states, mask)) == pytest.approx(by_hand)


def test_attention_maps_of_two_tokens_by_hand() -> None:
    """(1, 0, 1, 0) / sqrt 2 against (1, 1, 1, 1) / 2, two heads summed: (2 (1/sqrt 2 - 1/2)^2 + 1/2) / 4."""
    student = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]])
    teacher = torch.full((1, 2, 2, 2), 0.5)
    by_hand = (2 - math.sqrt(2)) / 4
    assert float(AT()(student, teacher, torch.ones(1, 2))) == pytest.approx(by_hand, rel=1e-6)
    assert float(reference_features.attention_transfer([(student, teacher)], torch.ones(1, 2))) == pytest.approx(
        by_hand
    )


def test_means_leave_padding_out_by_hand() -> None:
    """Two tokens of which one is padding: the mean is over what is left."""
    mask = torch.tensor([[1, 0]])
    assert float(state_mse(torch.tensor([[[3.0, 1.0], [9.0, 9.0]]]), torch.zeros(1, 2, 2), mask)) == 5.0
    assert float(attention_mse(torch.full((1, 2, 2, 2), 0.5), torch.zeros(1, 2, 2, 2), mask)) == 0.25


@pytest.mark.parametrize("criterion", [RKD(), SP(), PKT()])
def test_relations_of_equal_embeddings_are_free(criterion: torch.nn.Module) -> None:
    """The teacher's own embeddings cost nothing; nor do they turned and stretched."""
    generator = torch.Generator().manual_seed(2)
    embeddings = torch.randn(6, 8, generator=generator)
    turned = 3 * embeddings @ torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    assert float(criterion(embeddings, embeddings)) == 0
    assert float(criterion(turned, embeddings)) < 1e-9


@pytest.mark.parametrize(
    ("criterion", "defined"),
    [
        (RKD(), lambda *pair: reference_features.relational(*pair, distance=25, angle=50)),
        (PKT(), lambda *pair: reference_features.neighbours(*pair, epsilon=1e-6)),
    ],
)
def test_embeddings_that_lie_close_keep_their_digits(
    criterion: torch.nn.Module, defined: Callable[..., torch.Tensor]
) -> None:
    """A hundredth apart, as [CLS] is before training: three digits, where the formulas taken at their word lose them."""
    generator = torch.Generator().manual_seed(4)
    pair = [
        torch.randn(width, generator=generator) + 0.01 * torch.randn(8, width, generator=generator)
        for width in (16, 24)
    ]
    assert float(criterion(*pair)) == pytest.approx(float(defined(*pair)), rel=1e-3)


@pytest.mark.parametrize("name", FEATURES)
def test_a_stack_of_features_agrees_under_bf16(name: str) -> None:
    """Both forward passes in bf16, the method in fp32: what a GPU's profile checks before its clock."""
    made = work(dtype="bfloat16")
    training.agree(name, distill.stack(name)(made), made)


@pytest.mark.parametrize("criterion", [RKD(), SP(), PKT()])
@pytest.mark.parametrize("copies", [1, 2, 4])
def test_relations_of_one_example_have_a_gradient(criterion: torch.nn.Module, copies: int) -> None:
    """A batch's last example alone, or the same one several times: no distance to divide by, and no NaN."""
    student = torch.ones(copies, 3, requires_grad=True)
    loss = criterion(student, torch.arange(copies * 2.0).reshape(copies, 2) + 1)
    loss.backward()
    assert student.grad is not None
    assert bool(torch.isfinite(loss) and torch.isfinite(student.grad).all())


def test_features_equal_to_the_teachers_cost_nothing() -> None:
    """A teacher that is the student's copy, projections that change nothing: stage one, hint and attention are 0."""
    made = work(build_student(recipe(), NAMES))
    made.student.eval()
    two, hints, attention = TwoStage(made), Hints(made), Attention(made)
    for projection in (*two.projections, hints.added[0]):
        torch.nn.init.eye_(projection.weight)
        torch.nn.init.zeros_(projection.bias)
    examples = batch(5, 9, 12)
    assert value(two.loss(examples)) == 0
    for run in (hints, attention):
        assert value(run.transfer(*run.seen(examples), examples["attention_mask"])) == 0


def test_hidden_states_have_no_activation_map() -> None:
    """Why attention transfer reads attention: after a LayerNorm all tokens have one sum of squares, to a thousandth."""
    made = work()
    for model in (made.student.eval(), made.teacher):
        for state in see(model, batch(12, 12)).states[1:]:
            sums = state.square().sum(-1)
            assert value(sums.std() / sums.mean()) < 1e-3
