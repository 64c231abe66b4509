"""Limits as they are read from inside, for both versions of control groups, and what becomes of one that does not hold."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import psutil
import pytest

from matrix import confined, host
from matrix.executors import docker
from matrix.findings import findings_of
from matrix.sample import Confinement
from matrix.target import Limits
from tests.making import ORT, evidence, targets

ASKED = Confinement(
    user=10001,
    read_only=True,
    interfaces=("lo",),
    capabilities=0,
    no_new_privileges=True,
    seccomp=True,
    pids=64,
    memory_bytes=1 << 30,
    memory_swap_bytes=1 << 30,
    cpus=(0, 1),
)
TWO = {
    "/sys/fs/cgroup/memory.max": "1073741824\n",
    "/sys/fs/cgroup/memory.swap.max": "0\n",
    "/sys/fs/cgroup/pids.max": "64\n",
    "/sys/fs/cgroup/cpu.max": "11576 20000\n",
}
ONE = {
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
    "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes": "1073741824\n",
    "/sys/fs/cgroup/pids/pids.max": "64\n",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "11576\n",
    "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "20000\n",
}
UNLIMITED = {
    "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "/sys/fs/cgroup/pids/pids.max": "max\n",
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
}
STATUS = {"/proc/self/status": "CapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nNoNewPrivs:\t1\nSeccomp:\t2\n"}

linux = pytest.mark.skipif(platform.system() != "Linux", reason="control groups are Linux's")


def found(files: dict[str, str], monkeypatch: pytest.MonkeyPatch, swap: int = 1 << 30) -> Confinement:
    """What a process sees where these files are."""
    for module in (confined, host):
        monkeypatch.setattr(module, "read_text", {**STATUS, **files}.get)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=swap))
    seen = confined.confinement()
    assert seen is not None
    return seen


@linux
@pytest.mark.parametrize("files", [TWO, ONE], ids=["version 2", "version 1"])
def test_both_versions_tell_the_same(files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory, memory with swap, processes, quota and its period."""
    seen = found(files, monkeypatch)
    assert (seen.memory_bytes, seen.memory_swap_bytes, seen.pids) == (1 << 30, 1 << 30, 64)
    assert (seen.quota_us, seen.period_us) == (11_576, 20_000)


@linux
def test_no_limit_is_none_and_a_machine_without_swap_needs_no_limit_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 1 writes a number near 2^63 for no limit."""
    seen = found(UNLIMITED, monkeypatch)
    assert (seen.memory_bytes, seen.memory_swap_bytes, seen.pids, seen.quota_us) == (None, None, None, None)
    only_memory = {"/sys/fs/cgroup/memory.max": "1073741824\n"}
    assert found(only_memory, monkeypatch, swap=0).memory_swap_bytes == 1 << 30


@linux
def test_a_capability_that_could_be_gained_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bounding set, not only the effective one."""
    assert found(TWO, monkeypatch).capabilities == 0xA80425FB


def test_a_limit_that_does_not_hold_names_both_values() -> None:
    """What is, and what was asked."""
    assert ASKED.broken_by(ASKED) == ()
    assert ASKED.broken_by(ASKED.model_copy(update={"pids": None})) == ("pids is None, asked was 64",)


@pytest.mark.parametrize("said", [ASKED.model_copy(update={"user": 0}), None], ids=["root", "said nothing"])
def test_every_number_of_an_unconfined_launch_is_invalid(said: Confinement | None) -> None:
    """Quality too: a launch that is not what it was asked to be is no evidence of anything."""
    made = evidence(samples={ORT: [[0.01] * 100] * 5})
    launches = tuple(
        record.model_copy(update={"asked": ASKED, "confinement": said if record.index == 1 else ASKED})
        for record in made.bundle.launches
    )
    one = type(made)(made.bundle.model_copy(update={"launches": launches}), made.name, made.measured, made.arrays)
    found = findings_of(one)
    assert found
    assert all(any(reason.rule == "limits" for reason in finding.faults) for finding in found)


def test_a_container_is_asked_for_what_its_target_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory without swap, and the last of the engine's cores."""
    monkeypatch.setattr(docker.engine, "cores", lambda: 4)
    limits = Limits(memory_mb=100, pids=7, cores=3)
    asked = docker.asked(targets().of("cpu-openvino").model_copy(update={"limits": limits}))
    assert asked is not None
    assert (asked.cpus, asked.pids, asked.memory_bytes, asked.memory_swap_bytes) == ((1, 2, 3), 7, 100 << 20, 100 << 20)
