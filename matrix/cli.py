"""The command line: puts the commands together. What a command answers is its exit code (`matrix --help` lists them)."""

from __future__ import annotations

import click

from matrix.commands import distill, export, judge, label, measure, sign

_HELP = """Measure distilled models on every target, and say which of the numbers may be believed.

\b
  matrix doctor            what can this host run?
  matrix provide cpu       make what a run needs: its image, or its packages
  matrix plan cpu          what would be measured, and why not the rest?
  matrix label PROMPTS     have a teacher answer prompts, to learn from
  matrix run cpu           measure: trains, exports, times; seals and signs a bundle
  matrix distill --out DIR train a student, the fast way, and save it
  matrix export STUDENT    turn a student into what a service loads
  matrix report            judge every bundle, write reports/latest/
  matrix explain CELL      how did a number come to be what it is?
  matrix gate              may it ship? answers by its exit code
  matrix signoff           sign the record that it may; `matrix verify` checks it later

\b
Exit codes: 0 pass, 1 fail, 2 usage, 3 undecided, 4 invalid evidence,
5 this host cannot run the target, 6 a run is incomplete.
"""


@click.group(help=_HELP)
@click.version_option(package_name="distill-matrix")
def cli() -> None:
    """The root of all commands."""


for _command in (
    measure.plan,
    measure.doctor,
    measure.provide,
    measure.build,
    measure.images_group,
    measure.run_command,
    distill.distill,
    export.export,
    label.label,
    judge.report,
    judge.explain,
    judge.gate,
    judge.policy_group,
    judge.verify,
    sign.keys,
    sign.gather,
    sign.revoke,
    sign.waive,
    sign.cosign,
    sign.signoff,
):
    cli.add_command(_command)
