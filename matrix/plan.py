"""The plan: every cell that one target could have at one profile, planned or excluded with its reason. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator

from matrix.catalog import VARIANTS, Variant
from matrix.cell import ANSWERING, STUDIES, TRAINING, Cell, Exclusion, Plan
from matrix.profile import Profile
from matrix.target import Executor, Target


def _function_cells(same: dict[str, str], profile: Profile, target: Target) -> Iterator[Cell]:
    """A function's latencies: cold with either way of init, warm in a closed loop at each length, at a rate at two."""
    spaced = {max((n for n in profile.latency_lengths if n != "data"), default="data"), "data"}
    for memory in target.memory_mb:
        for init in ("full", "throttled"):
            yield Cell(**same, mode="cold", batch=1, length="data", memory_mb=memory, init=init)
        for every in target.every_ms:
            for length in profile.latency_lengths:
                if every == 0 or length in spaced:
                    yield Cell(**same, mode="warm", batch=1, length=length, memory_mb=memory, every_ms=every)


def _generation_cells(same: dict[str, str], profile: Profile) -> Iterator[Cell]:
    """A prompt from nothing and behind a kept prefix, and an answer."""
    language = profile.language
    for mode in ("prefill", "prefix"):
        yield Cell(**same, mode=mode, batch=1, length=language.prompt)
    yield Cell(**same, mode="decode", batch=1, length=language.answer)


def _loaded_cells(same: dict[str, str], profile: Profile) -> Iterator[Cell]:
    """Clients that wait, by either kind of workers; arrivals that do not, by the workers that answer most.

    llama.cpp's server is one worker with every thread.
    """
    modes = ("latency",) if same["workload"] == "response" else ("latency", "throughput")
    for mode in modes:
        for clients in profile.clients:
            yield Cell(**same, mode=mode, batch=1, length="data", clients=clients)
    for load in profile.loads:
        yield Cell(**same, mode=modes[-1], batch=1, length="data", load=load)


def _latency_cells(same: dict[str, str], profile: Profile) -> Iterator[Cell]:
    """Cold, and warm at each length."""
    yield Cell(**same, mode="cold", batch=1, length="data")
    for length in profile.latency_lengths:
        yield Cell(**same, mode="warm", batch=1, length=length)


def _training_cells(variant: Variant, same: dict[str, str], profile: Profile) -> Iterator[Cell]:
    """A step of the workload's own batch and length, or a trial."""
    if variant.suite == "training_quality":
        trial = profile.trial
        yield Cell(**same, batch=trial.batch, length=trial.length, examples=trial.examples * trial.epochs)
    elif variant.workload == "response":
        yield Cell(**same, batch=profile.response.batch, length=profile.response.length)
    else:
        yield Cell(**same, batch=profile.training_batch, length=profile.training_length)


def _cells(variant: Variant, profile: Profile, target: Target) -> Iterator[Cell]:
    """The cells of one variant: its suite says which parameters vary."""
    same = {"suite": variant.suite, "workload": variant.workload, "variant": variant.name}
    if _trains(variant):
        yield from _training_cells(variant, same, profile)
    elif variant.suite in ANSWERING:
        yield Cell(**same, batch=variant.batch, examples=target.evaluation_examples)
    elif variant.suite in ("response_quality", "packaging"):
        yield Cell(**same)
    elif variant.suite == "generation":
        yield from _generation_cells(same, profile)
    elif variant.suite == "concurrent_load":
        yield from _loaded_cells(same, profile)
    elif target.serves_only:
        yield from _function_cells(same, profile, target)
    else:
        yield from _latency_cells(same, profile)


def _reason_for_function(variant: Variant, target: Target) -> str | None:
    """Why a function does not run `variant`."""
    if _trains(variant):
        return f"{target.title} serves and never trains: a function's time, memory and disk end long before an epoch"
    if variant.suite in STUDIES:
        return f"nothing of a study ships, and {target.title} only serves: the CPU targets hold it"
    if variant.suite == "concurrent_load":
        return "an instance of a function answers one call at a time: under load there are more of them"
    if variant.workload == "response":
        return f"{target.title} is too small for an 8B model"
    if "quality" in target.emulates and _is_timed(variant):
        return (
            "under instruction emulation a time means nothing: "
            "even fp32 and INT8 change places (natively 2.2 and 3.3 ms, emulated 223 and 83)"
        )
    if "quality" in target.emulates and variant.name == "onnx_fp32":
        return "under instruction emulation an fp32 answer takes half a second; the function ships INT8"
    left_out = f"the function's image leaves out {variant.title}: it ships one INT8 model and what serves it"
    return variant.missing or (None if variant.functions else left_out)


def _reason_against(variant: Variant, target: Target, executor: Executor | None) -> str | None:
    """Why `variant` is not measured on `target`; None when it is. What can never be comes before what is not built."""
    if target.serves_only:
        return _reason_for_function(variant, target)
    if variant.barred and variant.barred[0] == executor:
        return variant.barred[1]
    if target.platform not in variant.platforms:
        return f"{variant.title} has no packages that ship for {target.platform} here"
    if target.device not in variant.devices:
        plain = f"{variant.title} runs on the CPU: its time belongs to the CPU targets, not to {target.title}"
        return variant.elsewhere or plain
    return variant.missing


def _trains(variant: Variant) -> bool:
    return variant.suite in TRAINING


def _is_timed(variant: Variant) -> bool:
    return variant.suite == "inference_latency" or variant.module is not None


def make_plan(name: str, target: Target, profile: Profile, executor: Executor | None = None) -> Plan:
    """Every cell of `target` at `profile`: nothing that the matrix could hold is left unsaid.

    `executor` is how it runs, by default the way that the target prefers.
    """
    planned: list[Cell] = []
    excluded: list[Exclusion] = []
    for variant in VARIANTS:
        reason = _reason_against(variant, target, executor or next(iter(target.executors), None))
        if reason is None and variant.suite not in profile.suites:
            reason = f"asked for were {', '.join(profile.suites)} only"
        chosen = profile.chosen(variant.suite, variant.workload)
        if reason is None and chosen is not None and variant.name not in chosen:
            reason = f"the profile {profile.name} asks for {', '.join(chosen)} only"
        for cell in _cells(variant, profile, target):
            if reason is None:
                planned.append(cell)
            else:
                excluded.append(Exclusion(cell=cell, reason=reason))
    return Plan(target=name, profile=profile.name, planned=tuple(planned), excluded=tuple(excluded))


def cells_of_launch(plan: Plan, profile: Profile, index: int, seed: int) -> tuple[Cell, ...]:
    """The cells that launch `index` (from 1) runs, in a permutation drawn from `seed`: a block of a randomised block design."""
    order = [cell for cell in plan.planned if index <= profile.launches_of(cell)]
    random.Random(seed).shuffle(order)  # noqa: S311 - an order, not a secret
    return tuple(order)
