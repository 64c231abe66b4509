"""The plan: every cell that one target could have at one profile, planned or excluded with its reason. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator

from matrix.catalog import VARIANTS, Variant
from matrix.cell import Cell, Exclusion, Plan
from matrix.profile import Profile
from matrix.target import Target


def _cells(variant: Variant, profile: Profile, memory_mb: tuple[int, ...]) -> Iterator[Cell]:
    """The cells of one variant: its suite says which parameters vary."""
    same = {"suite": variant.suite, "workload": variant.workload, "variant": variant.name}
    if variant.suite == "training_step":
        yield Cell(**same, batch=profile.training_batch, length=profile.training_length)
    elif variant.suite == "export_accuracy":
        yield Cell(**same, batch=variant.batch)
    else:
        for memory in memory_mb or (None,):
            yield Cell(**same, mode="cold", batch=1, length="data", memory_mb=memory)
            for length in profile.latency_lengths:
                yield Cell(**same, mode="warm", batch=1, length=length, memory_mb=memory)


def _reason_against(variant: Variant, target: Target) -> str | None:
    """Why `variant` is not measured on `target`; None when it is. What can never be comes before what is not built."""
    if target.serves_only and variant.suite == "training_step":
        return f"{target.title} serves and never trains: a function's time, memory and disk end long before an epoch"
    if target.serves_only and variant.workload == "response":
        return f"{target.title} is too small for an 8B model"
    if "time" in target.emulates and target.platform == "linux/arm64" and variant.suite == "inference_latency":
        return (
            "under instruction emulation a time means nothing: "
            "even fp32 and INT8 change places (natively 2.2 and 3.3 ms, emulated 223 and 83)"
        )
    if target.platform not in variant.platforms:
        return f"{variant.title} has no packages that ship for {target.platform} here"
    if target.device not in variant.devices:
        return f"{variant.title} runs on the CPU: its time belongs to the CPU targets, not to {target.title}"
    if target.executors == ("docker",):
        return "this target runs only in its image, and the Docker executor is not built yet"
    return variant.missing


def make_plan(name: str, target: Target, profile: Profile) -> Plan:
    """Every cell of `target` at `profile`: nothing that the matrix could hold is left unsaid."""
    planned: list[Cell] = []
    excluded: list[Exclusion] = []
    for variant in VARIANTS:
        reason = _reason_against(variant, target)
        for cell in _cells(variant, profile, target.memory_mb):
            if reason is None:
                planned.append(cell)
            else:
                excluded.append(Exclusion(cell=cell, reason=reason))
    return Plan(target=name, profile=profile.name, planned=tuple(planned), excluded=tuple(excluded))


def cells_of_launch(plan: Plan, profile: Profile, index: int, seed: int) -> tuple[Cell, ...]:
    """The cells that launch `index` (from 1) runs, in a permutation drawn from `seed`: a block of a randomised block design."""
    order = [cell for cell in plan.planned if index <= profile.launches_of(cell.suite)]
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    return tuple(order)
