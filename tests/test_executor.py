"""The Docker executor's and the function's own arithmetic: paths, reasons, shares and schedules, without an engine."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from matrix.cell import Cell
from matrix.executors import docker
from matrix.job import Event, Folders, Job, Order, WorkloadSpec
from matrix.workloads import function
from tests.making import profiles, targets

QUICK = profiles().of("quick")


def order(folder: Path, **spec: str) -> Order:
    """A process of the CPU target."""
    job = Job(
        target="cpu-openvino",
        device="cpu",
        profile=QUICK,
        spec=WorkloadSpec(**spec),
        suite_sha256="s",
        cells=(),
        folders=Folders(cache="here", out="here"),
        threads=2,
    )
    return Order(targets().of("cpu-openvino"), job, {}, folder, folder / "cache", 60.0)


def test_the_users_files_travel_into_the_container(tmp_path: Path) -> None:
    """A data file with its domains, and a checkpoint's folder; a hub's name stays a name."""
    data, student = tmp_path / "data_full.json", tmp_path / "student"
    data.write_text("{}")
    data.with_name("domains.json").write_text("{}")
    student.mkdir()
    job, files = docker._inputs(order(tmp_path, data=str(data), student=str(student), teacher="someone/teacher").job)
    assert job.spec == WorkloadSpec(
        data="/launch/inputs/data/data_full.json", student="/launch/inputs/student/student", teacher="someone/teacher"
    )
    assert job.folders == Folders(cache="/cache", out="/launch/out")
    assert set(files) == {"inputs/data/data_full.json", "inputs/data/domains.json", "inputs/student/student"}


def test_a_job_says_its_own_command() -> None:
    """Preparing is a module; a launch is pytest on the suites that its cells need, and on no other."""
    prepares = order(Path()).job
    assert prepares.command("/suites", "/job.json") == ["-m", "matrix.workloads.prepare", "/job.json"]
    cell = Cell(suite="export_accuracy", workload="intent", variant="torch_fp32", batch=64)
    launch = prepares.model_copy(update={"launch": 1, "cells": (cell,)}).command("/suites", "/job.json")
    assert "/suites/test_export_accuracy.py" in launch
    assert not any("training_step" in word for word in launch)


@pytest.mark.parametrize(
    ("state", "code", "log", "says"),
    [
        ({"OOMKilled": True}, 0, "", "memory limit of 12288 MB"),
        ({"OOMKilled": True}, 137, "", "exit code 137"),
        ({}, 1, "OSError: [Errno 28] No space left on device", "no space was left"),
        ({}, 137, "", "its container was killed (exit code 137)"),
        ({"Error": "no such file"}, 127, "", "ended with exit code 127: no such file"),
    ],
)
def test_a_bad_end_has_its_reason(tmp_path: Path, state: dict[str, Any], code: int, log: str, says: str) -> None:
    """Memory first: a killed child leaves a container that ends well."""
    (tmp_path / "log.txt").write_text(log)
    assert says in (docker._why(state, order(tmp_path), code) or "")


def test_a_good_end_needs_none(tmp_path: Path) -> None:
    """Nothing to explain."""
    assert docker._why({"OOMKilled": False}, order(tmp_path), 0) is None


def test_events_are_read_as_they_come(tmp_path: Path) -> None:
    """In pieces that end anywhere."""
    seen: list[Event] = []
    follower = docker._Follower(order(tmp_path), seen.append)
    line = json.dumps({"stage": "look", "samples": 3}).encode() + b"\n"
    for piece in (line[:7], line[7:] + line[:3], line[3:]):
        follower._events(piece)
    assert seen == [Event(stage="look", samples=3)] * 2


@pytest.mark.parametrize(("memory", "quota"), [(1769, 20_000), (1024, 11_577), (512, 5_789), (128, 1_447)])
def test_a_functions_share_is_its_memory_over_1769(memory: int, quota: int) -> None:
    """One vCPU at 1769 MB, in periods of 20 ms."""
    assert function.quota_us(memory) == quota


def service(every_ms: int, monkeypatch: pytest.MonkeyPatch) -> tuple[function.Service, list[float]]:
    """A service with two requests on a clock that only sleeping and calling move."""
    clock = [100.0]
    monkeypatch.setattr(function.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(function.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + seconds))
    functions: Any = SimpleNamespace(image=lambda _: "image", network=None)
    cell = Cell(suite="inference_latency", workload="intent", variant="ort_int8", memory_mb=512, every_ms=every_ms)
    return function.Service(functions, cell, [b"a", b"b"]), clock


def test_calls_come_at_their_rate_and_late_ones_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """One each 100 ms from start to start; a call of 250 ms makes its successors late until the rate is caught."""
    made, clock = service(100, monkeypatch)
    starts = []
    for number, (request, _) in enumerate(itertools.islice(made.arrivals(), 6)):
        starts.append((round(clock[0] - 100.0, 3), request))
        clock[0] += 0.250 if number == 2 else 0.010
    assert [request for _, (request,) in starts] == [b"a", b"b"] * 3
    assert [at for at, _ in starts] == [0.0, 0.1, 0.2, 0.45, 0.46, 0.55]
    assert made._late == 2


def test_a_closed_loop_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next call starts where the last one ended."""
    made, clock = service(0, monkeypatch)
    before = clock[0]
    list(itertools.islice(made.arrivals(), 5))
    assert clock[0] == before
    assert made._late == 0


def test_an_event_is_a_text_or_ids() -> None:
    """What the handler's contract says."""
    assert json.loads(function._event("where is my order")) == {"text": "where is my order"}
    assert json.loads(function._event({"input_ids": np.array([[1, 2]])})) == {"ids": [[1, 2]]}
