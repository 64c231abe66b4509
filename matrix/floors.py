"""The least time that an estimate's work takes: its counted matrix products at the published peak of its device. Pure.

What no machine beats is what a planning number is read against: 0.18 to 0.30 s a step are 29 to 49 times an A100's floor.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from matrix import flops
from matrix.profile import Profile
from matrix.strict import Strict


class Peak(Strict):
    """What a device can do at most: dense bf16 products with fp32 sums, as its maker publishes it."""

    flop_per_s: float = Field(gt=0)
    source: str


class Floor(Strict):
    """The work that an estimate is about: `examples` of `length` tokens through one training step, on `devices` devices."""

    peak: str
    model: Literal["classifier", "response"]
    examples: int = Field(gt=0)
    length: int = Field(gt=0)
    devices: int = Field(default=1, gt=0)


def training_flop(floor: Floor, profile: Profile) -> int:
    """FLOPs of training on the floor's examples: the teacher's forward pass, where it is live, and three of the student.

    The classifier's shapes are the profile's recipe; the response student is trained on answers, without a teacher.
    """
    shape = {"batch": floor.examples, "length": floor.length}
    if floor.model == "response":
        return flops.distillation_step(0, flops.decoder_forward(profile.response.student, **shape))
    teacher, student = (
        flops.encoder_forward(layers=one.layers, dim=one.dim, hidden=one.hidden, **shape)
        for one in (profile.recipe.teacher, profile.recipe.student)
    )
    return flops.distillation_step(teacher, student)


def seconds(floor: Floor, peak: Peak, profile: Profile) -> float:
    """The floor's time, in seconds."""
    return training_flop(floor, profile) / (floor.devices * peak.flop_per_s)
