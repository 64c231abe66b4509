"""What this machine is. Reads only; loads no framework; tells `None` where the system does not say."""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import os
import platform
import shutil
import subprocess
import sys
from functools import cache
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import psutil

from matrix.canonical import digest
from matrix.sample import Environment, HostClass
from matrix.target import Expectation

ISA_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "sve",
)
"""CPU flags that change which kernels run, and so may change times and INT8 results."""

PACKAGES = (
    "accelerate",
    "distill-matrix",
    "gguf",
    "llama-cpp-python",
    "nncf",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "optimum",
    "optimum-intel",
    "optimum-onnx",
    "pytest",
    "pytest-benchmark",
    "tokenizers",
    "torch",
    "transformers",
)
VARIABLES = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "MKL_NUM_THREADS",
    "KMP_AFFINITY",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "MALLOC_ARENA_MAX",
    "LD_PRELOAD",
)


def read_text(path: str) -> str | None:
    """A system file's text; None where this system has none."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None


def _output(*command: str) -> str | None:
    program = shutil.which(command[0])
    if program is None:
        return None
    try:
        done = subprocess.run([program, *command[1:]], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - fixed commands
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


@cache
def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo, or what sysctl tells on a Mac."""
    text = read_text("/proc/cpuinfo") or ""
    pairs = (line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    found = {key.strip(): value.strip() for key, value in pairs}
    if not found and (brand := _output("sysctl", "-n", "machdep.cpu.brand_string")):
        found = {"model name": brand}
    return found


def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of this CPU, as Linux names them; empty where the system does not tell."""
    info = _cpuinfo()
    return frozenset((info.get("flags") or info.get("Features") or "").split())


def without_paths(text: str) -> str:
    """`text` without this machine's folders: evidence is published."""
    for folder, name in ((sys.prefix, "<env>"), (str(Path.cwd()), "."), (str(Path.home()), "~")):
        text = text.replace(folder, name)
    return text


class Gpu(NamedTuple):
    """An NVIDIA GPU."""

    uuid: str
    name: str


@cache
def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs that this process may use, by nvidia-smi and CUDA_VISIBLE_DEVICES (UUIDs, or numbers in its order)."""
    listed = _output("nvidia-smi", "--query-gpu=uuid,name", "--format=csv,noheader") or ""
    rows = [line.split(",", 1) for line in listed.splitlines() if "," in line]
    found = [Gpu(uuid.strip(), name.strip()) for uuid, name in rows]
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return tuple(found)
    wanted = [item.strip() for item in allowed.split(",") if item.strip()]
    return tuple(gpu for number, gpu in enumerate(found) if str(number) in wanted or gpu.uuid in wanted)


def gpu_for(pattern: str) -> Gpu | None:
    """The first GPU whose name fits: a run uses this one alone, whatever else is in the machine."""
    return next((gpu for gpu in gpus() if fnmatch.fnmatch(gpu.name, pattern)), None)


def _process_name(told: str) -> str:
    """A process without its folder, for evidence is published; nvidia-smi's own `[Not Found]` as it is."""
    return told if told.startswith("[") else PurePosixPath(told.split(" ", maxsplit=1)[0]).name


def gpu_processes(uuid: str) -> tuple[str, ...] | None:
    """Names of the processes that compute on the GPU with this UUID, those of other containers too; None where not told."""
    listed = _output("nvidia-smi", "--query-compute-apps=gpu_uuid,process_name", "--format=csv,noheader")
    if listed is None:
        return None
    rows = [line.split(",", 1) for line in listed.splitlines() if "," in line]
    return tuple(_process_name(name.strip()) for gpu, name in rows if gpu.strip() == uuid)


def is_virtual() -> bool | None:
    """Whether this is a virtual machine; None where nothing tells."""
    if platform.system() == "Darwin":
        told = _output("sysctl", "-n", "kern.hv_vmm_present")
        return None if told is None else told == "1"
    flags = cpu_flags()
    return "hypervisor" in flags if flags else None


def cpu_quota() -> tuple[int, int] | None:
    """The CPU quota of this cgroup and its period, in microseconds; None without one (versions 1 and 2)."""
    if (text := read_text("/sys/fs/cgroup/cpu.max")) and not text.startswith("max"):
        quota, period = text.split()
        return int(quota), int(period)
    one = read_text("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    if one and int(one) > 0:
        return int(one), int(read_text("/sys/fs/cgroup/cpu/cpu.cfs_period_us") or 100_000)
    return None


def quota_cores() -> float | None:
    """The CPU quota of this cgroup, in cores; None without one."""
    quota = cpu_quota()
    return quota[0] / quota[1] if quota else None


def usable_cores() -> int:
    """Cores that this process may really use: its affinity, limited by the cgroup's quota.

    ONNX Runtime and OpenVINO ignore quotas (openvino #37838), so threads are always set from this number.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = quota_cores()
    return max(1, min(affinity, int(quota))) if quota else affinity


def host_class() -> HostClass:
    """The hardware as it matters to a number."""
    flags = cpu_flags()
    governor = read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return HostClass(
        cpu=_cpuinfo().get("model name") or platform.processor() or platform.machine(),
        machine=platform.machine(),
        flags=tuple(flag for flag in ISA_FLAGS if flag in flags),
        cores=usable_cores(),
        memory_bytes=psutil.virtual_memory().total,
        gpus=tuple(gpu.name for gpu in gpus()),
        driver=(_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader") or "").split("\n")[0]
        or None,
        virtual=is_virtual(),
        quota_cores=quota_cores(),
        governor=governor.strip() if governor else None,
    )


def host_class_id(host: HostClass) -> str:
    """Digest of the hardware class; memory is rounded to GiB, for kernels reserve a little each boot."""
    facts = host.model_dump(mode="json") | {"memory_bytes": round(host.memory_bytes / 2**30)}
    return digest(facts)


def host_instance() -> str:
    """A salted HMAC of the machine's id: tells two hosts apart without naming either."""
    machine = (
        read_text("/etc/machine-id") or _output("ioreg", "-rd1", "-c", "IOPlatformExpertDevice") or platform.node()
    )
    return hmac.new(b"distill-matrix host instance", machine.strip().encode(), hashlib.sha256).hexdigest()


def environment() -> Environment:
    """The software of this process."""
    installed = {dist.metadata["Name"].lower(): dist.version for dist in metadata.distributions()}
    return Environment(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()} {'-'.join(platform.libc_ver())}",
        packages={name: installed[name] for name in PACKAGES if name in installed},
        packages_sha256=digest(installed),
        variables={name: os.environ[name] for name in VARIABLES if name in os.environ},
    )


def environment_id(environment: Environment) -> str:
    """Digest of the software: what a contradiction is held against until it changes."""
    return digest(environment.model_dump(mode="json"))


def mismatches(expect: Expectation) -> list[str]:
    """What `expect` needs and this host is not, each a clause with both values; empty when the target may run here."""
    here = (platform.system(), platform.machine())
    if here != (expect.system, expect.machine):
        return [f"needs {expect.system} on {expect.machine} (this host is {here[0]} on {here[1]})"]
    found = []
    lacking = [flag for flag in expect.cpu_flags if flag not in cpu_flags()]
    if lacking:
        found.append(f"needs the CPU flags {', '.join(expect.cpu_flags)} (this CPU lacks {', '.join(lacking)})")
    if expect.gpu_name and gpu_for(expect.gpu_name) is None:
        here_are = ", ".join(gpu.name for gpu in gpus()) or "none"
        found.append(f"needs a GPU called {expect.gpu_name!r} (this host has {here_are})")
    if expect.bare_metal and is_virtual():
        found.append("needs a bare-metal machine (this host is virtual)")
    return found
