"""Commands that measure: plan, doctor, provide, build, images, run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal, get_args

import click
from rich.console import Console
from rich.table import Table

from matrix import bases, definitions, host, images, locks, provision
from matrix.cell import Suite
from matrix.choose import choose, executor_of, how, obstacles
from matrix.commands import options
from matrix.console import Live
from matrix.errors import ExitCode
from matrix.executors import EXECUTORS
from matrix.job import WorkloadSpec
from matrix.ledger import Ledgers, Notary
from matrix.plan import make_plan
from matrix.run import Request, failures, run
from matrix.store import Store, load
from matrix.target import Executor
from matrix.units import show

_profile = click.option(
    "--profile", default="quick", show_default=True, help="quick, standard or full: how much is trained and sampled."
)
_executor = click.option(
    "--executor",
    type=click.Choice(tuple(EXECUTORS)),
    default=None,
    help="How to run it [default: in containers where an engine answers, else natively].",
)


@click.command()
@click.argument("target", required=False)
@_profile
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def plan(target: str | None, profile: str, as_json: bool) -> None:
    """List every cell that TARGET (or each target) could have: planned, or excluded with its reason."""
    targets, sizes = options.targets(), options.profiles().of(profile)
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


@click.command()
@click.argument("target", required=False)
@_executor
def doctor(target: str | None, executor: Executor | None) -> None:
    """Say for each target whether this host can run it, how, and what is missing.

    With TARGET, end with exit code 5 unless this host can run it.
    """
    targets = options.targets()
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


@click.command()
@click.argument("target")
@_executor
def provide(target: str, executor: Executor | None) -> None:
    """Make what `run` needs for TARGET: its image where an engine answers, else its packages in this Python."""
    targets = options.targets()
    name, _ = choose(targets, target, executor, environment=False)
    provision.provide(targets, name, executor, click.echo)


@click.command()
@click.argument("target")
@click.option("--fresh", is_flag=True, help="Use nothing that the builder has cached: the time of a cold build.")
def build(target: str, fresh: bool) -> None:
    """Build the image of TARGET (a target, a group, or an image's own name) with buildx, and record what it is.

    \b
    BASE_IMAGE    the base image [default: python:3.11-slim-bookworm, by digest]; see `matrix images base`
    TORCH_WHEELS  a folder with PyTorch's CPU wheel [default: pip's find-links, else PyTorch's own index]
    CA_FILE       certificates that pip trusts in the build [default: PIP_CERT or SSL_CERT_FILE]
    """  # noqa: D301 - click's own mark, a backspace
    targets = options.targets()
    known = target in targets.target or any(one.group == target for one in targets.target.values())
    name = str(targets.of(targets.named(target)[0]).image) if known else target
    made = images.build(name, click.echo, fresh=fresh)
    click.echo(
        f"{made.name}: {made.id}, {show(made.bytes, 'bytes')}, {show(made.compressed_bytes, 'bytes')} compressed"
    )
    for layer in made.layers:
        click.echo(f"  {show(layer.bytes, 'bytes'):>10}  {layer.made_by}")


@click.group(name="images")
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


@click.command(name="run")
@click.argument("target")
@_profile
@click.option(
    "--suite",
    "suites",
    type=click.Choice(get_args(Suite)),
    multiple=True,
    help="Measure this suite only; may be repeated [default: the profile's]. A number means the same either way.",
)
@options.data
@click.option(
    "--answers",
    default="embedded",
    show_default=True,
    help="Teacher answers that the response student learns from: embedded, or the file of `matrix label`.",
)
@click.option(
    "--teacher", default=None, help="Checkpoint folder or hub id [default: a DistilBERT configuration, trained here]."
)
@click.option(
    "--student", default=None, help="Checkpoint folder or hub id [default: TinyBERT 4L-312D, distilled here]."
)
@click.option("--resume", is_flag=True, help="Go on with the last unfinished run of TARGET.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=None,
    help="Seed of weights and of the order of training [default: the profile's]. Five seeds, the same on CUDA and "
    "on MPS and each in a fresh $MATRIX_CACHE, are what confirming a student trained on MPS takes.",
)
@_executor
@options.store
@options.keyring
@options.role
def run_command(
    target: str,
    profile: str,
    suites: tuple[Suite, ...],
    data: str,
    answers: str,
    teacher: str | None,
    student: str | None,
    resume: bool,
    seed: int | None,
    executor: Executor | None,
    store: Path,
    keyring: Path | None,
    roles: tuple[str, ...],
) -> None:
    """Measure TARGET (or the member of a group such as cuda that this host is) and seal a bundle.

    Trains and exports the student once for each set of inputs (kept in $MATRIX_CACHE), then runs every planned cell in
    fresh processes. Stop it at any time: finished launches are kept, and --resume goes on from them. The bundle is signed here,
    outside every container, with your key of --role: a development key unless you say otherwise.
    """
    spec = WorkloadSpec(data=data, answers=answers, teacher=teacher, student=student)
    sizes = options.profiles().of(profile)
    keys = options.keys_of(roles)  # now: a missing key must not be found out after an hour
    notary = Notary(Ledgers(store, options.keyring_of(keyring)), keys)
    sizes = sizes if seed is None else sizes.seeded(seed)
    sizes = sizes.only(suites) if suites else sizes
    request = Request(target, sizes, spec, Store(store), definitions.cache(), resume, executor, notary)
    with Live(Console(stderr=True)) as live:
        try:
            place = run(request, options.targets(), live)
        except KeyboardInterrupt:
            live.say("interrupted: finished launches are kept, the same command with --resume goes on from them")
            sys.exit(ExitCode.INTERRUPTED)
    lost = failures(load(place).bundle.launches)
    click.echo(
        f"{place}" + (f": {lost} planned measurements failed, each with its reason in the bundle" if lost else "")
    )
    sys.exit(ExitCode.INCOMPLETE if lost else ExitCode.PASS)
