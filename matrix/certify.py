"""Whether a policy can mean what it says: a gate that could never be certified is refused before anything is measured. Pure.

Refuses a margin too small for the sample size, a tail quantile of too few samples, a gate that selects nothing, evidence that
nobody may sign, and numbers that nothing can ever confirm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

from matrix import stats
from matrix.catalog import METRICS
from matrix.cell import STUDIES, Cell
from matrix.errors import UsageError
from matrix.findings import QUANTILES
from matrix.number import CONFIDENCE
from matrix.plan import make_plan
from matrix.policy import Gate, Policy
from matrix.profile import Profile, Profiles
from matrix.ranks import least_samples
from matrix.standing import LAUNCHED
from matrix.target import Target, Targets

_EMPTY = "a gate that selects nothing would pass on nothing; see `matrix plan` for what there is"


def targets_of(gate: Gate, targets: Targets) -> list[str]:
    """The targets that a gate's patterns name, in the order of the targets.

    Raises:
        UsageError: a pattern names none.
    """
    for pattern in gate.targets:
        if not any(fnmatchcase(name, pattern) for name in targets.target):
            raise UsageError(
                f"gate {gate.id!r}: no target is called {pattern!r}", remedy=f"name one of {', '.join(targets.target)}"
            )
    return [name for name in targets.target if any(fnmatchcase(name, pattern) for pattern in gate.targets)]


def required(
    gate: Gate, targets: Targets, profiles: Mapping[str, Sequence[Profile]]
) -> dict[tuple[str, Cell], str | None]:
    """Every (target, cell) that the gate names at the target's profiles, with why it is not planned there (None: it is).

    Raises:
        UsageError: a target, a variant or a parameter's value selects nothing that one of the targets could hold.
    """
    found: dict[tuple[str, Cell], str | None] = {}
    for name in targets_of(gate, targets):
        offered: dict[Cell, str | None] = {}
        for profile in profiles[name]:
            plan = make_plan(name, targets.of(name), profile)
            offered |= dict.fromkeys(plan.planned) | {item.cell: item.reason for item in plan.excluded}
        _check_selection(gate, name, list(offered))
        found |= {(name, cell): reason for cell, reason in offered.items() if gate.selects(cell)}
    return found


def _check_selection(gate: Gate, target: str, offered: Sequence[Cell]) -> None:
    """Refuse a gate of which some part selects nothing on a target: it would require less than it says."""
    suite = [cell for cell in offered if (cell.suite, cell.workload) == (gate.suite, gate.workload)]
    for pattern in gate.variants:
        if not any(fnmatchcase(cell.variant, pattern) for cell in suite):
            raise UsageError(f"gate {gate.id!r} selects nothing on {target} by variants = {pattern}", remedy=_EMPTY)
    chosen = [cell for cell in suite if gate.model_copy(update={"where": {}}).selects(cell)]
    selected = [cell for cell in suite if gate.selects(cell)]
    for name, values in gate.where.items():
        for cells in (chosen, selected):  # the first names what is not there at all
            if nothing := [str(value) for value in values if value not in {getattr(cell, name) for cell in cells}]:
                told = ", ".join(nothing)
                raise UsageError(f"gate {gate.id!r} selects nothing on {target} by {name} = {told}", remedy=_EMPTY)


def least_launches(gate: Gate, policy: Policy) -> int:
    """How many launches the gate asks for."""
    return max(policy.evidence.min_launches, gate.min_launches or 0)


def problems(policy: Policy, targets: Targets, profiles: Profiles) -> Iterator[UsageError]:
    """Everything in a policy that cannot mean what it says, each with its remedy."""
    yield from _in_evidence(policy, profiles)
    names = [gate.id for gate in policy.gate]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield UsageError(f"two gates are called {name!r}", remedy="give each gate its own id")
    for gate in policy.gate:
        if found := _of_form(gate):
            yield found
            continue
        try:
            known = [profiles.of(name) for name in policy.evidence.profiles if name in profiles.profile]
            required(gate, targets, dict.fromkeys(targets.target, known))
        except UsageError as error:
            yield error
            continue
        yield from _never_certified(gate, policy, known)
        for name in targets_of(gate, targets):
            yield from _never_believed(gate, policy, name, targets.of(name))


def check(policy: Policy, targets: Targets, profiles: Profiles) -> None:
    """Refuse a policy that cannot mean what it says.

    Raises:
        UsageError: the first of its `problems`.
    """
    for problem in problems(policy, targets, profiles):
        raise problem


def _of_form(gate: Gate) -> UsageError | None:
    if gate.suite in STUDIES:
        what = f"gate {gate.id!r} asks {gate.suite}, a study of which nothing ships"
        return UsageError(what, remedy="ask what ships: export_accuracy has the same metrics")
    yielded = [metric.name for metric in METRICS.values() if gate.suite in metric.suites]
    if gate.metric not in yielded:
        what = f"gate {gate.id!r} asks {gate.suite} for metric {gate.metric!r}"
        return UsageError(what, remedy=f"name one of {', '.join(yielded)}")
    if (gate.at_most is None) == (gate.at_least is None):
        return UsageError(f"gate {gate.id!r} needs one limit", remedy="give either at_most or at_least")
    return None


def _in_evidence(policy: Policy, profiles: Profiles) -> Iterator[UsageError]:
    margins, least = policy.margins, policy.evidence.min_launches
    for name in policy.evidence.profiles:
        if name not in profiles.profile:
            yield UsageError(f"no profile is called {name!r}", remedy=f"name one of {', '.join(profiles.profile)}")
    if stats.median_launch_confidence(least) < CONFIDENCE:
        told = 100 * stats.median_launch_confidence(least)
        yield UsageError(
            f"{least} launches bound the median launch at {told:.1f} %", remedy="ask for min_launches of at least 5"
        )
    if (p := stats.flip_p(0, margins.min_examples, margins.accuracy)) > 1 - CONFIDENCE:
        points = f"{100 * margins.accuracy:.2f} points"
        yield UsageError(
            f"{margins.min_examples} equal answers leave a difference of {points} possible (p {p:.3f})",
            remedy=f"raise min_examples until {points} can be proven, or widen the margin",
        )
    if margins.ratio_contradiction < margins.ratio:
        yield UsageError("ratio_contradiction is below ratio", remedy="one ratio would be confirmed and contradicted")


def _never_certified(gate: Gate, policy: Policy, profiles: Sequence[Profile]) -> Iterator[UsageError]:
    """What no sample that the policy accepts could prove."""
    kind, launches = METRICS[gate.metric].kind, least_launches(gate, policy)
    asked = f"gate {gate.id!r} at {100 * gate.confidence:g} %"
    if kind in LAUNCHED and stats.median_launch_confidence(launches) < gate.confidence:
        told = 100 * stats.median_launch_confidence(launches)
        yield UsageError(
            f"{asked}: {launches} launches bound the median launch at {told:.1f} %", remedy="raise min_launches"
        )
    for profile in profiles:
        if kind in LAUNCHED and profile.launches < launches:
            what = f"{asked} needs {launches} launches, profile {profile.name} has {profile.launches}"
            yield UsageError(what, remedy="accept other profiles, or ask for fewer")
        if gate.metric in QUANTILES:
            sampling = profile.training if gate.suite == "training_step" else profile.inference
            least = least_samples(QUANTILES[gate.metric], gate.confidence)
            if sampling.min_rounds < least:
                what = f"{asked}: {gate.metric} has no bound below {least} samples"
                remedy = (
                    f"profile {profile.name} may take {sampling.min_rounds}: ask for a lower quantile or confidence"
                )
                yield UsageError(what, remedy=remedy)
    yield from _margin_too_small(gate, policy)


def _margin_too_small(gate: Gate, policy: Policy) -> Iterator[UsageError]:
    """A limit that the best possible answers of the fewest examples do not reach."""
    n, two_sided = max(policy.margins.min_examples, gate.min_examples or 0), 2 * gate.confidence - 1
    none_differ = stats.proportion_interval(0, n, two_sided).high
    best = {"accuracy": 1 - none_differ, "accuracy_delta": -none_differ, "flip_rate": none_differ}.get(gate.metric)
    if best is None:
        return
    if (gate.at_least is not None and best < gate.at_least) or (gate.at_most is not None and best > gate.at_most):
        yield UsageError(
            f"gate {gate.id!r}: {n} examples, all answered alike, prove {best:.5f} and not {gate.limit:.5f}",
            remedy="raise min_examples, or widen the limit",
        )


def _never_believed(gate: Gate, policy: Policy, name: str, target: Target) -> Iterator[UsageError]:
    """A number that no evidence could make believed on this target."""
    kind = METRICS[gate.metric].kind
    if policy.signatures.of(name) is None:
        yield UsageError(
            f"gate {gate.id!r}: nobody may sign a bundle of {name}", remedy="name its roles in [signatures.bundle]"
        )
    if kind not in target.authority and kind not in target.confirmed_by:
        yield UsageError(
            f"gate {gate.id!r}: {METRICS[gate.metric].title} of {name} can never be believed",
            remedy=f"ask a target that is the authority for {kind}",
        )
    if target.device == "cpu" and kind in {"quality", "export_delta"} and name not in policy.deployment:
        yield UsageError(
            f"gate {gate.id!r}: what an export costs depends on the CPU, and [deployment] does not name {name}'s",
            remedy="say which instruction set production has",
        )
