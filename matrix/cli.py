"""The command line: parses, calls, prints. What a command answers is its exit code (`matrix --help` lists them)."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.table import Table

from matrix import bases, definitions, host, images, locks, provision
from matrix.choose import choose, executor_of, how, obstacles
from matrix.console import Live
from matrix.errors import EvidenceError, ExitCode
from matrix.estimates import compare, parse_estimates
from matrix.executors import EXECUTORS
from matrix.gates import decide, sentence
from matrix.job import WorkloadSpec
from matrix.junit import render as render_junit
from matrix.plan import make_plan
from matrix.policy import Policy, parse_policy
from matrix.profile import Profiles, parse_profiles
from matrix.report import html, machine, markdown, page
from matrix.report.material import Material
from matrix.run import Request, failures, run
from matrix.store import Store, load
from matrix.target import Executor, Targets, parse_targets
from matrix.trust import Today, judge
from matrix.units import show
from matrix.verdict import Verdict

_HELP = """Measure distilled models on every target, and say which of the numbers may be believed.

\b
  matrix doctor            what can this host run?
  matrix provide cpu       make what a run needs: its image, or its packages
  matrix plan cpu          what would be measured, and why not the rest?
  matrix run cpu           measure: trains, exports, times; seals a bundle
  matrix report            judge every bundle, write reports/latest/
  matrix gate              may it ship? answers by its exit code

\b
Exit codes: 0 pass, 1 fail, 2 usage, 3 undecided, 4 invalid evidence,
5 this host cannot run the target, 6 a run is incomplete.
"""

_store = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder of bundles and runs.",
)
_profile = click.option(
    "--profile", default="quick", show_default=True, help="quick, standard or full: how much is trained and sampled."
)
_executor = click.option(
    "--executor",
    type=click.Choice(tuple(EXECUTORS)),
    default=None,
    help="How to run it [default: in containers where an engine answers, else natively].",
)
_policy = click.option(
    "--policy", type=click.Path(path_type=Path), default=None, help="Policy file [default: the package's gates.toml]."
)


def _targets() -> Targets:
    return parse_targets(definitions.text("targets.toml"))


def _profiles() -> Profiles:
    return parse_profiles(definitions.text("profiles.toml"))


def _read_policy(path: Path | None) -> Policy:
    return parse_policy(
        definitions.file_text(path) if path else definitions.text("gates.toml"), str(path or "gates.toml")
    )


@click.group(help=_HELP)
@click.version_option(package_name="distill-matrix")
def cli() -> None:
    """The root of all commands."""


@cli.command()
@click.argument("target", required=False)
@_profile
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan(target: str | None, profile: str, as_json: bool) -> None:
    """List every cell that TARGET (or each target) could have: planned, or excluded with its reason."""
    targets, sizes = _targets(), _profiles().of(profile)
    names = targets.named(target) if target else tuple(targets.target)
    plans = [make_plan(name, targets.of(name), sizes) for name in names]
    if as_json:
        click.echo(json.dumps([one.model_dump(mode="json") for one in plans], indent=1))
        return
    for one in plans:
        click.echo(f"{one.target} at profile {one.profile}: {len(one.planned)} planned, {len(one.excluded)} excluded")
        for cell in one.planned:
            click.echo(f"  + {cell.id}")
        for item in one.excluded:
            click.echo(f"  - {item.cell.id}: {item.reason}")


@cli.command()
@click.argument("target", required=False)
@_executor
def doctor(target: str | None, executor: Executor | None) -> None:
    """Say for each target whether this host can run it, how, and what is missing.

    With TARGET, end with exit code 5 unless this host can run it.
    """
    targets = _targets()
    if target:
        name, one = choose(targets, target, executor, environment=False)
        click.echo(f"this host can run {name} {how(one, executor_of(one, executor) or 'native')}")
        return
    table = Table("target", "here", "how", "what is missing", title="What this host can run")
    for name, one in targets.target.items():
        found = obstacles(targets, name, executor)
        by = None if host.mismatches(one.expect) else executor_of(one, executor)
        table.add_row(name, "no" if found else "yes", by or "", "; ".join(found))
    Console().print(table)


@cli.command()
@click.argument("target")
@_executor
def provide(target: str, executor: Executor | None) -> None:
    """Make what `run` needs for TARGET: its image where an engine answers, else its packages in this Python."""
    targets = _targets()
    name, _ = choose(targets, target, executor, environment=False)
    provision.provide(targets, name, executor, click.echo)


@cli.command()
@click.argument("target")
@click.option("--fresh", is_flag=True, help="Use nothing that the builder has cached: the time of a cold build.")
def build(target: str, fresh: bool) -> None:
    r"""Build the image of TARGET (a target, a group, or an image's own name) with buildx, and record what it is.

    \b
    BASE_IMAGE    the base image [default: python:3.11-slim-bookworm, by digest]; see `matrix images base`
    TORCH_WHEELS  a folder with PyTorch's CPU wheel [default: pip's find-links, else PyTorch's own index]
    CA_FILE       certificates that pip trusts in the build [default: PIP_CERT or SSL_CERT_FILE]
    """
    targets = _targets()
    known = target in targets.target or any(one.group == target for one in targets.target.values())
    name = str(targets.of(targets.named(target)[0]).image) if known else target
    made = images.build(name, click.echo, fresh=fresh)
    click.echo(
        f"{made.name}: {made.id}, {show(made.bytes, 'bytes')}, {show(made.compressed_bytes, 'bytes')} compressed"
    )
    for layer in made.layers:
        click.echo(f"  {show(layer.bytes, 'bytes'):>10}  {layer.made_by}")


@cli.group(name="images")
def images_group() -> None:
    """What images are made from: locks and local bases."""


@images_group.command()
@click.option(
    "--check", is_flag=True, help="Change nothing; end with exit code 1 if a lock differs from pyproject.toml."
)
def lock(check: bool) -> None:
    """Write every image's locked requirements, with hashes, for its platform (needs uv)."""
    root = definitions.PACKAGE.parent
    if not check:
        locks.relock(root, say=click.echo)
        return
    found = locks.drift(root)
    for sentence_ in found:
        click.echo(sentence_)
    sys.exit(ExitCode.FAIL if found else ExitCode.PASS)


@images_group.command()
@click.argument("architecture", type=click.Choice(["amd64", "arm64"]))
@click.option("--tag", default=None, help="Name of the image [default: distill-matrix/base:ARCHITECTURE].")
@click.option("--mirror", default=None, help="Debian mirror [default: this host's own].")
def base(architecture: Literal["amd64", "arm64"], tag: str | None, mirror: str | None) -> None:
    """Make a local stand-in for python:3.11-slim-bookworm from a Debian mirror, for sites without a registry."""
    made = bases.make(architecture, tag or bases.TAGS[architecture], mirror=mirror, say=click.echo)
    click.echo(made)


@cli.command(name="run")
@click.argument("target")
@_profile
@click.option(
    "--data",
    default="embedded",
    show_default=True,
    help="embedded; a CLINC150 .json, a .csv or .jsonl of text,label; or a hub id.",
)
@click.option(
    "--teacher", default=None, help="Checkpoint folder or hub id [default: a DistilBERT configuration, trained here]."
)
@click.option(
    "--student", default=None, help="Checkpoint folder or hub id [default: TinyBERT 4L-312D, distilled here]."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=None,
    help="Seed of embedded data, weights and order of training [default: the profile's]. Five seeds, the same on CUDA and "
    "on MPS, are what confirming a student trained on MPS takes.",
)
@click.option("--resume", is_flag=True, help="Go on with the last unfinished run of TARGET.")
@_executor
@_store
def run_command(
    target: str,
    profile: str,
    data: str,
    teacher: str | None,
    student: str | None,
    seed: int | None,
    resume: bool,
    executor: Executor | None,
    store: Path,
) -> None:
    """Measure TARGET (or the member of a group such as cuda that this host is) and seal a bundle.

    Trains and exports the student once for each set of inputs (kept in $MATRIX_CACHE), then runs every planned cell in
    fresh processes. Stop it at any time: finished launches are kept, and --resume goes on from them.
    """
    spec = WorkloadSpec(data=data, teacher=teacher, student=student)
    sizes = _profiles().of(profile)
    sizes = sizes if seed is None else sizes.seeded(seed)
    request = Request(target, sizes, spec, Store(store), definitions.cache(), resume, executor)
    with Live(Console(stderr=True)) as live:
        try:
            place = run(request, _targets(), live)
        except KeyboardInterrupt:
            live.say("interrupted: finished launches are kept, the same command with --resume goes on from them")
            sys.exit(ExitCode.INTERRUPTED)
    lost = failures(load(place).bundle.launches)
    click.echo(
        f"{place}" + (f": {lost} planned measurements failed, each with its reason in the bundle" if lost else "")
    )
    sys.exit(ExitCode.INCOMPLETE if lost else ExitCode.PASS)


def _material(store: Path, policy_path: Path | None, *, gate: bool) -> Material:
    """Every bundle of the store, judged: numbers at the display age for a report and at the gate's age for a gate."""
    policy, targets, profiles = _read_policy(policy_path), _targets(), _profiles()
    evidence, torn = Store(store).load_all()
    today = Today(datetime.now(UTC), definitions.suite_digest())
    strict = judge(evidence, targets, policy, today, days=policy.evidence.gate_days)
    invalid = [*(str(error) for error in torn), *(f"{one.name}: {one.faults[0]}" for one in evidence if one.faults)]
    verdict = decide(policy, strict, targets, profiles, invalid=invalid, bundles=[one.name for one in evidence])
    judged = strict if gate else judge(evidence, targets, policy, today, days=policy.evidence.display_days)
    estimates = [compare(estimate, judged) for estimate in parse_estimates(definitions.text("estimates.toml")).estimate]
    return Material(
        evidence, judged, verdict, estimates, policy, targets, profiles, today.now, [str(error) for error in torn]
    )


@cli.command()
@_store
@_policy
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder to write [default: STORE/latest].")
def report(store: Path, policy: Path | None, out: Path | None) -> None:
    """Judge every bundle and write index.html, latest.md and report.json. The verdict is printed; the exit code is 0."""
    material = _material(store, policy, gate=False)
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


_EXITS = {"pass": ExitCode.PASS, "fail": ExitCode.FAIL, "undecided": ExitCode.UNDECIDED}


def _exit_of(verdict: Verdict) -> ExitCode:
    return ExitCode.INVALID_EVIDENCE if verdict.invalid else _EXITS[verdict.answer]


@cli.command()
@_store
@_policy
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Folder to write [default: STORE/latest].")
def gate(store: Path, policy: Path | None, out: Path | None) -> None:
    """Judge every bundle against the policy; write verdict.json and junit.xml; answer by the exit code.

    0 pass, 1 fail (a bound crosses its limit, or a required cell is missing), 3 undecided, 4 invalid evidence.
    """
    material = _material(store, policy, gate=True)
    place = out or store / "latest"
    place.mkdir(parents=True, exist_ok=True)
    verdict = material.verdict
    (place / "verdict.json").write_text(verdict.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (place / "junit.xml").write_text(render_junit(verdict), encoding="utf-8")
    click.echo(sentence(verdict))
    sys.exit(_exit_of(verdict))


@cli.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
def verify(bundles: tuple[Path, ...]) -> None:
    """Check that every file of each bundle folder is as it was sealed."""
    faults = [f"{folder.name}: {fault}" for folder in bundles for fault in load(folder).faults]
    if faults:
        raise EvidenceError("the evidence was changed", remedy="; ".join(faults))
    for folder in bundles:
        click.echo(f"{folder.name}: every file is as sealed")
