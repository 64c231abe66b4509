"""What a bundle ran on and what it measured: the facts with which a reader can reproduce it, or explain a difference."""

from __future__ import annotations

from collections.abc import Iterator

from matrix.bundle import Bundle
from matrix.job import Image
from matrix.report.packaging import short
from matrix.report.tables import Entry, Table
from matrix.sample import Confinement, Environment, HostClass
from matrix.units import DASH, show

Fact = tuple[str, str]


def _hardware(host: HostClass) -> Iterator[Fact]:
    memory = show(host.memory_bytes, "bytes")
    yield "CPU", f"{host.cpu}, {host.cores} cores usable, {memory}, flags {' '.join(host.flags) or 'unknown'}"
    yield "GPU", ", ".join(host.gpus) + (f", driver {host.driver}" if host.driver else "") if host.gpus else "none"
    yield "virtual machine", {True: "yes", False: "no", None: "unknown"}[host.virtual]
    yield "CPU quota", f"{host.quota_cores} cores" if host.quota_cores else "none"
    yield "frequency governor", host.governor or "not told"


def _software(software: Environment) -> Iterator[Fact]:
    yield "system", f"{software.system}, Python {software.python}"
    yield "packages", ", ".join(f"{name} {version}" for name, version in software.packages.items())
    yield "variables", ", ".join(f"{key}={value}" for key, value in software.variables.items()) or "none"


def _image(image: Image) -> str:
    """The image by its name, and by what it was made from."""
    born = f", made {image.base_created[:10]}" if image.base_created else ""
    return (
        f"{image.name} {short(image.id)} for {image.platform}, code of {image.revision}, on {image.base}{born}; "
        f"dependencies {image.inputs_sha256[:12]}"
    )


def _limits(bundle: Bundle) -> Iterator[Fact]:
    """What the launches were confined to, and where that did not hold."""
    asked = list(dict.fromkeys(record.asked for record in bundle.launches if record.asked))
    for limits in asked:
        yield "limits", _limit(limits)
    if bundle.image and not asked:
        yield "limits", "none of its own: the launch is a client, and the function's containers have the limits"
    for record in bundle.launches:
        if record.broken:
            yield "limits broken", f"launch {record.index}: {'; '.join(record.broken)}"


def _limit(asked: Confinement) -> str:
    """The limits of a container in words; what is left out was not limited."""
    told = [
        f"user {asked.user}",
        "files read-only" if asked.read_only else "files writable",
        f"network {', '.join(asked.interfaces) or 'none'}",
        f"capabilities {asked.capabilities:#x}" if asked.capabilities else "no capabilities",
        "no new privileges" if asked.no_new_privileges else "new privileges allowed",
        "seccomp" if asked.seccomp else "no seccomp",
        f"{asked.pids} processes" if asked.pids else "any number of processes",
        f"memory {show(asked.memory_bytes, 'bytes')}, with swap {show(asked.memory_swap_bytes, 'bytes')}",
        f"{len(asked.cpus)} CPUs",
        f"quota {asked.quota_us} of {asked.period_us} µs" if asked.quota_us else "no CPU quota",
    ]
    return "; ".join(told)


def _code(bundle: Bundle) -> Iterator[Fact]:
    yield "executor", bundle.executor + ("" if bundle.image else ", without an image")
    if bundle.image:
        yield "image", _image(bundle.image)
    yield (
        "code",
        f"commit {bundle.source.commit or 'unknown'}" + (", uncommitted changes" if bundle.source.dirty else ""),
    )
    environment, host = bundle.environment_id[:12], bundle.host_class_id[:12]
    yield "identities", f"environment {environment}, host class {host}, host {bundle.host_instance[:12]}"


def _workload(bundle: Bundle) -> Iterator[Fact]:
    prepared = bundle.prepared
    data, teacher, student, training = prepared.data, prepared.teacher_model, prepared.student_model, prepared.training
    sizes = f"{data.train.examples:,} train, {data.validation.examples:,} validation, {data.evaluation.examples:,} evaluation"
    yield (
        "data",
        f"{data.source}: {sizes}" + (f"; {data.dropped} train rows dropped, also held out" if data.dropped else ""),
    )
    taught = f", validation accuracy {show(training.teacher_accuracy, 'share')}" if training else ""
    yield "teacher", f"{teacher.parameters / 1e6:.2f} M parameters, {teacher.origin}{taught}"
    learnt = f", validation accuracy {show(training.student_accuracy, 'share')}" if training else ""
    spent = f", made in {show(training.seconds, 's')}" if training else ""
    yield "student", f"{student.parameters / 1e6:.2f} M parameters, {student.origin}{learnt}{spent}"
    yield "weights", student.weights_sha256 or DASH


def environment(bundle: Bundle) -> Table:
    """Hardware, software, code and workload of a bundle."""
    spoke = next((record for record in bundle.launches if record.environment and record.host), None)
    facts: list[Fact] = []
    if spoke and spoke.environment and spoke.host:
        facts += [*_hardware(spoke.host), *_software(spoke.environment)]
    facts += [*_code(bundle), *_limits(bundle), *_workload(bundle)]
    return Table(
        "environment", "Environment", "", ("Fact", "Value"), tuple((Entry(name), Entry(value)) for name, value in facts)
    )
