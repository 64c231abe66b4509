"""A policy that cannot be met, or that would pass on nothing, is refused before anything is measured."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from matrix import definitions
from matrix.certify import problems
from matrix.policy import Policy, Signatures, Signed
from tests.making import policy, profiles, targets
from tests.test_gates import DROP, LATENCY, asking


def told(asked: Policy) -> list[str]:
    """What is wrong with a policy, in words."""
    return [problem.what for problem in problems(asked, targets(), profiles())]


def test_the_packages_own_policy_has_no_problems() -> None:
    """Every one of its gates can be certified."""
    assert told(policy()) == []


def test_the_published_schema_is_the_policys_own() -> None:
    """Editors complete and check what the program reads."""
    assert json.loads(definitions.text("gates.schema.json")) == Policy.model_json_schema()


def test_development_is_accepted_nowhere_in_the_packages_policy() -> None:
    """The key that every machine makes for itself speaks for no target, withdraws, waives and signs off nothing."""
    asked = policy().signatures
    every = [*asked.bundle.values(), asked.revocation, asked.waiver, asked.signoff]
    assert all("development" not in signed.roles for signed in every)
    assert {name for name in targets().target if asked.of(name) is None} == set()


def test_who_measures_neither_withdraws_nor_waives_nor_signs_off() -> None:
    """In the package's policy the two are apart."""
    asked = policy().signatures
    measuring = {role for signed in asked.bundle.values() for role in signed.roles}
    assert not measuring & {*asked.revocation.roles, *asked.waiver.roles, *asked.signoff.roles}


GATES: list[tuple[Mapping[str, object], str]] = [
    ({"confidence": 0.99}, "gate 'warm' at 99 %: 5 launches bound the median launch at 96.9 %"),
    ({"min_launches": 6}, "gate 'warm' at 95 % needs 6 launches, profile quick has 5"),
    ({"metric": "p99_s"}, "gate 'warm' at 95 %: p99_s has no bound below 299 samples"),
    ({"targets": ("mps",)}, "gate 'warm': p95 of mps can never be believed"),
    ({"at_most": None}, "gate 'warm' needs one limit"),
    ({"suite": "quantization_schemes"}, "gate 'warm' asks quantization_schemes, a study of which nothing ships"),
    ({"targets": ("nowhere",)}, "gate 'warm': no target is called 'nowhere'"),
]


@pytest.mark.parametrize(("change", "message"), GATES)
def test_a_gate_that_no_evidence_can_certify_is_named(change: dict[str, object], message: str) -> None:
    """What it asks, and what the accepted profiles could give."""
    assert message in told(asking(LATENCY.model_copy(update=change)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"at_least": -0.0001}, "gate 'drop': 1500 examples, all answered alike, prove -0.00200 and not -0.00010"),
        (
            {"at_least": -0.001, "min_examples": 2_994},
            "gate 'drop': 2994 examples, all answered alike, prove -0.00100 and",
        ),
        ({"metric": "flip_rate", "at_least": None, "at_most": 0.001}, "gate 'drop': 1500 examples, all answered alike"),
    ],
)
def test_a_margin_that_the_sample_cannot_prove_is_named(change: dict[str, object], message: str) -> None:
    """Worked by hand: 1 - 0.05^(1/1500) = 0.00200, and 2,995 examples are the fewest that prove 0.1 points."""
    assert any(one.startswith(message) for one in told(asking(DROP.model_copy(update=change))))
    enough = DROP.model_copy(update={"at_least": -0.001, "min_examples": 2_995})
    assert told(asking(enough)) == []


def test_a_bundle_that_nobody_may_sign_is_named() -> None:
    """A target that no pattern matches."""
    asked = asking(LATENCY)
    none: Signatures = asked.signatures.model_copy(update={"bundle": {"cuda-*": Signed(roles=("x",))}})
    assert told(asked.model_copy(update={"signatures": none})) == [
        "gate 'warm': nobody may sign a bundle of cpu-openvino"
    ]


def test_a_cpu_whose_deployment_is_unknown_is_named() -> None:
    """What an export costs depends on its instruction set."""
    (problem,) = told(asking(DROP).model_copy(update={"deployment": {}}))
    assert (
        problem == "gate 'drop': what an export costs depends on the CPU, and [deployment] does not name cpu-openvino's"
    )


def test_every_problem_is_told_and_not_only_the_first() -> None:
    """A policy is mended in one go."""
    wrong = LATENCY.model_copy(update={"at_most": None})
    found = told(asking(wrong, wrong.model_copy(update={"id": "other", "metric": "p97_s"}), LATENCY))
    assert len(found) == 3
    assert found[0] == "two gates are called 'warm'"


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("evidence", {"profiles": ("quick", "long")}, "no profile is called 'long'"),
        ("evidence", {"min_launches": 4}, "4 launches bound the median launch at 93.8 %"),
        ("margins", {"min_examples": 1496}, "1496 equal answers leave a difference of 0.20 points possible (p 0.050)"),
        ("margins", {"ratio_contradiction": 1.01}, "ratio_contradiction is below ratio"),
    ],
)
def test_evidence_that_proves_too_little_is_named(part: str, change: dict[str, object], message: str) -> None:
    """Counts and margins of the whole policy."""
    whole = policy()
    assert message in told(whole.model_copy(update={part: getattr(whole, part).model_copy(update=change)}))
