"""TinyBERT's two stages: an explicit map of layers, what each stage trains, and where attention probabilities come from."""

from __future__ import annotations

import copy
import itertools
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from matrix.errors import DataError, UsageError
from matrix.workloads import distill, training
from matrix.workloads.distill.features import layer_map, projections, see
from matrix.workloads.distill.kd_zoo_attention import Attention
from matrix.workloads.distill.tinybert_two_stage import TwoStage
from tests.real.depths import batch, recipe, value, work

pytestmark = pytest.mark.frameworks


def test_six_layers_teach_four_by_an_explicit_map() -> None:
    """Trap 7: TinyBERT's code asserts that 4 divides 6. Equal depths map to themselves."""
    assert TwoStage(work()).layers == (0, 1, 3, 4, 6)
    assert TwoStage(work(made=recipe(student=3, teacher=3))).layers == (0, 1, 2, 3)
    assert TwoStage(work(made=recipe(student=2, teacher=6)), layers=(0, 2, 5)).layers == (0, 2, 5)


def test_other_depths_are_refused_without_a_map() -> None:
    """The sentence says what to give."""
    with pytest.raises(UsageError) as error:
        TwoStage(work(made=recipe(student=2, teacher=3)))
    assert str(error.value) == (
        "no map is known from 3 layers of a teacher to 2 of a student; "
        "give one: for each of the student's 3 hidden states the number of the teacher's, 0 to 3"
    )


@pytest.mark.parametrize("given", [(0, 1, 3, 4), (0, 1, 3, 3, 6), (0, 1, 3, 4, 7), (-1, 1, 3, 4, 6)])
def test_a_wrong_map_is_refused(given: tuple[int, ...]) -> None:
    """Too short, twice the same layer, beyond the teacher, before its embeddings."""
    made = work()
    with pytest.raises(UsageError, match="give 5 numbers that ascend within 0 to 6: the first is the embeddings'"):
        layer_map(made.student, made.teacher, given)


def test_unequal_heads_are_refused() -> None:
    """Stage one compares heads one by one; attention transfer sums over them and takes any number."""
    made = work(made=recipe(heads=4))
    with pytest.raises(UsageError, match="the student has 4 attention heads and the teacher 2; they are compared"):
        TwoStage(made)
    run = Attention(made)
    assert max(training.apart(run, batch(5, 9, 12)).values()) < 1e-5


def test_the_second_stage_is_output_kd() -> None:
    """At half of a trial the projections go, the optimizer begins anew, and the loss is raw PyTorch's."""
    run, examples = TwoStage(work()), batch(5, 9, 12)
    student = set(run.work.student.parameters())
    optimizer, projected = run.optimizer, [one.weight for one in run.projections]
    run.progress(0, 10)
    run.step()
    run.progress(4, 10)
    assert set(run.trained) > student
    run.progress(5, 10)
    assert set(run.trained) == student
    assert run.optimizer is optimizer
    assert not optimizer.state
    assert max(training.apart(run, examples).values()) < 1e-5
    run.work.student.eval()
    plain = distill.stack("raw_torch")(run.work)
    assert value(run.loss(examples)) == value(plain.loss(examples))
    before = [one.detach().clone() for one in (*projected, run.work.student.classifier.weight)]
    run.step()
    run.progress(6, 10)
    assert [torch.equal(*pair) for pair in zip(projected, before, strict=False)] == [True] * 5
    assert not torch.equal(run.work.student.classifier.weight, before[-1])
    assert set(optimizer.state) <= student


def test_the_first_stage_leaves_the_classifier_alone() -> None:
    """Its loss has neither labels nor logits: three steps move the encoder, and not what reads it."""
    run = TwoStage(work())
    before = copy.deepcopy(run.work.student.state_dict())
    for _ in range(3):
        run.step()
    moved = {name for name, value in run.work.student.state_dict().items() if not torch.equal(before[name], value)}
    assert "bert.encoder.layer.3.output.dense.weight" in moved
    assert not any(name.startswith(("classifier", "bert.pooler")) for name in moved)


def test_stage_one_moves_towards_the_teacher() -> None:
    """Thirty steps on the same examples: the features' loss falls."""
    run, examples = TwoStage(work()), batch(5, 9, 12, 7)
    first = value(run.loss(examples))
    for group in run.optimizer.param_groups:
        group["lr"] = 5e-3
    for _ in range(30):
        run.step()
    assert value(run.loss(examples)) < 0.8 * first


def test_attentions_are_the_eager_models() -> None:
    """Asked for attentions, the fused models compute with the eager code: equal bits, padding included."""
    made, examples = work(), batch(5, 9, 12)
    for model in (made.student.eval(), made.teacher):
        eager = AutoModelForSequenceClassification.from_config(model.config, attn_implementation="eager").eval()
        eager.load_state_dict(model.state_dict())
        fused, plain = see(model, examples, attentions=True), see(eager, examples, attentions=True)
        pairs = zip((*fused.attentions, *fused.states), (*plain.attentions, *plain.states), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        assert len(fused.attentions) == model.config.num_hidden_layers == len(fused.states) - 1


def test_a_model_without_attentions_is_refused() -> None:
    """Some implementations return None for each layer: that must not become an empty sum."""

    def model(**_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=torch.zeros(1, 2), hidden_states=(torch.zeros(1, 1, 1),), attentions=(None, None))

    model.config = SimpleNamespace(model_type="bert")  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="the bert model gives no attention probabilities; load it with attn_impl"):
        see(model, batch(3), attentions=True)  # type: ignore[arg-type]


def test_projections_are_a_function_of_the_seed() -> None:
    """Equal each time, and no other draw moves."""
    made = work()
    torch.manual_seed(1)
    undisturbed = torch.rand(3)
    torch.manual_seed(1)
    first = projections(made, 2)
    assert torch.equal(torch.rand(3), undisturbed)
    for mine, again in itertools.zip_longest(first.parameters(), projections(made, 2).parameters()):
        assert torch.equal(mine, again)
    assert not torch.equal(first[0].weight, first[1].weight)
