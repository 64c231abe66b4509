"""Commands that judge: report, gate, explain, verify, policy. What they answer is the exit code."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from matrix import definitions
from matrix.capabilities import parse_capabilities, sized
from matrix.certify import problems
from matrix.commands import options
from matrix.deployment import Deployment, choices, parse_deployment
from matrix.errors import ExitCode
from matrix.estimates import beside, parse_estimates
from matrix.explain import explain as explained
from matrix.gates import Case, decide, sentence
from matrix.junit import render as render_junit
from matrix.number import CONFIDENCE
from matrix.policy import Policy
from matrix.report import html, machine, markdown, page, summary
from matrix.report.material import Material
from matrix.signoff import SUFFIX, exit_of, signed_verdict
from matrix.verify import verified

_OUT = click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="Folder to write [default: STORE/latest]."
)


def deployment_of(path: Path | None) -> Deployment:
    """The prices and traffics in `path`, else the package's."""
    text = definitions.file_text(path) if path else definitions.text("deployment.toml")
    return parse_deployment(text, str(path or "deployment.toml"))


def material_of(policy: Policy, case: Case, deployment: Deployment) -> Material:
    """Everything that a report shows: the verdict at the gate's age, numbers at the display's."""
    judged = case.judged(policy, policy.evidence.display_days, CONFIDENCE)
    estimates = beside(parse_estimates(definitions.text("estimates.toml")), judged, case.profiles.of("full"))
    capabilities = parse_capabilities(definitions.text("capabilities.toml"))
    sources = definitions.variant_sources(name for tool in capabilities.tool for name in tool.by)
    tools = sized(capabilities, sources)
    return Material(
        case, judged, decide(policy, case), estimates, policy, tools, deployment, choices(deployment, judged)
    )


@click.command()
@options.store
@options.policy
@options.keyring
@options.at
@click.option(
    "--deployment",
    type=click.Path(path_type=Path),
    default=None,
    help="Prices and traffic for 'Where to serve' [default: the package's deployment.toml, a template for yours].",
)
@_OUT
def report(  # a command has as many parameters as options
    store: Path, policy: Path | None, keyring: Path | None, at: str | None, deployment: Path | None, out: Path | None
) -> None:
    """Judge every bundle and write index.html, latest.md and report.json. The verdict is printed; the exit code is 0."""
    case = options.case_of(store, keyring, at)
    material = material_of(options.policy_of(policy), case, deployment_of(deployment))
    place = out or store / "latest"
    place.mkdir(parents=True, exist_ok=True)
    made = page.build(material)
    for name, text in (
        ("index.html", html.render(made)),
        ("latest.md", markdown.render(made)),
        ("report.json", machine.render(material)),
    ):
        (place / name).write_text(text, encoding="utf-8")
    click.echo(made.sentence)
    click.echo(f"wrote {place / 'index.html'}, latest.md and report.json")


@click.command()
@options.store
@options.policy
@options.keyring
@options.at
@options.role
@_OUT
def gate(
    store: Path, policy: Path | None, keyring: Path | None, at: str | None, roles: tuple[str, ...], out: Path | None
) -> None:
    """Judge every bundle against the policy; write verdict.json, its signature and junit.xml; answer by the exit code.

    0 pass, 1 fail (a bound crosses its limit, or a required cell is missing), 3 undecided, 4 invalid evidence. In a GitHub
    workflow the verdict also becomes the step's summary.
    """
    case = options.case_of(store, keyring, at)
    asked = options.policy_of(policy)
    verdict, place = decide(asked, case), out or store / "latest"
    place.mkdir(parents=True, exist_ok=True)
    text = verdict.model_dump_json(indent=1) + "\n"
    (place / "verdict.json").write_text(text, encoding="utf-8")
    (place / "junit.xml").write_text(render_junit(verdict), encoding="utf-8")
    (place / f"verdict{SUFFIX}").write_bytes(signed_verdict(verdict, text, options.keys_of(roles)))
    if summary_file := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary_file).open("a", encoding="utf-8") as stream:
            stream.write(summary.render(verdict, asked))
    click.echo(sentence(verdict))
    sys.exit(exit_of(verdict))


@click.command()
@click.argument("cell")
@click.option("--metric", default=None, help="Which number of the cell [default: every one].")
@click.option("--target", default=None, help="Of which target [default: every one].")
@options.store
@options.policy
@options.keyring
@options.at
def explain(  # a command has as many parameters as options
    cell: str,
    metric: str | None,
    target: str | None,
    store: Path,
    policy: Path | None,
    keyring: Path | None,
    at: str | None,
) -> None:
    """Print how each number of CELL came to be what it is: samples, bounds, signatures, doubts, authorities, state, gates.

    CELL is a cell's identifier as in the report or the plan, or a part of it.

    \b
    matrix explain ort_int8 --metric p95_s --target cpu-openvino
    """  # noqa: D301 - click's own mark, a backspace
    case = options.case_of(store, keyring, at)
    click.echo(explained(case, options.policy_of(policy), cell, metric=metric, target=target))


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--json", "as_json", is_flag=True, help="For machines.")
@options.store
@options.keyring
def verify(paths: tuple[Path, ...], as_json: bool, store: Path, keyring: Path | None) -> None:
    """Check bundles, whole stores, and sign-offs: every file as sealed, every signature by a trusted key, no gap in a ledger.

    A bundle's folder is checked with the store that it lies in; a sign-off (signoffs/NAME.intoto.json) with the store that it
    lies in, else with --store. Works offline. Exit code 4 when something does not hold, or nobody who is trusted signed it.
    """
    ring = options.keyring_of(keyring)
    checked = [one for path in paths for one in verified(path, store, ring)]
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in checked], indent=1))
    else:
        for one in checked:
            click.echo(f"{'ok' if one.holds else 'NO'}  {one.name}: {one.says}")
    sys.exit(ExitCode.PASS if all(one.holds for one in checked) else ExitCode.INVALID_EVIDENCE)


@click.group(name="policy")
def policy_group() -> None:
    """What a policy asks for, and whether it can be met at all."""


@policy_group.command(name="check")
@click.argument("path", required=False, type=click.Path(path_type=Path))
def check_command(path: Path | None) -> None:
    """Refuse a policy (PATH, else the package's gates.toml) that can never be certified.

    A margin too small for the sample size, p95 from 30 samples, a gate that selects nothing, a bundle that nobody may sign:
    each is listed with its remedy, and the exit code is 2.
    """
    asked = options.policy_of(path)
    found = list(problems(asked, options.targets(), options.profiles()))
    for problem in found:
        click.echo(f"NO  {problem}")
    if not found:
        click.echo(f"ok  {asked.name} {asked.sha256[:12]}: {len(asked.gate)} gates can be certified")
    sys.exit(ExitCode.USAGE if found else ExitCode.PASS)


@policy_group.command()
def schema() -> None:
    """Print the JSON Schema of policies (TOML editors read it; it is published as matrix/gates.schema.json)."""
    click.echo(json.dumps(Policy.model_json_schema(), indent=1))
