"""How a student comes to be: what its seed decides, and what two devices can compare."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel

from matrix.profile import Recipe
from matrix.workloads.models import build_student, build_teacher
from matrix.workloads.train import dropout_off
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
NAMES = tuple("abcdefghij")
RECIPE = PROFILE.recipe


@pytest.mark.parametrize("build", [build_student, build_teacher])
def test_without_dropout_training_mode_repeats(build: Callable[[Recipe, tuple[str, ...]], PreTrainedModel]) -> None:
    """Attention too: SDPA is told its share as a number, which no `Dropout` module holds."""
    model = build(RECIPE, NAMES).train()
    ids = torch.arange(5, 69).reshape(4, 16)
    dropout_off(model)
    assert torch.equal(model(ids).logits, model(ids).logits)
