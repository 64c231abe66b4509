"""The Docker engine, by its own Python SDK: DOCKER_HOST says which, a local socket or `ssh://`. Left-overs are swept by label."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from platform import system
from typing import Any, Final

import docker
import requests
from docker.errors import DockerException, NotFound

from matrix.errors import HostError
from matrix.sample import Confinement

OWNER: Final = "distill-matrix.owner"
"""The label of every container, volume and network of a run: its value is the store that the run writes to."""

USER: Final = 10_001
"""Who processes are inside a container: nobody on the host."""

GONE: Final = (DockerException, requests.exceptions.RequestException, tarfile.TarError, OSError)
"""What is raised when the engine does not answer any more (docker-py 7.2 lets requests' own errors through), archives included."""


@cache
def _client(version: str) -> docker.DockerClient:
    return docker.from_env(use_ssh_client=True, version=version, timeout=120)


def connect() -> docker.DockerClient:
    """The engine that DOCKER_HOST names, or the local one.

    Raises:
        HostError: none answers.
    """
    try:
        client = _client("auto")
        client.ping()
    except GONE as error:
        reason = str(error).strip().splitlines()[-1][:200]
        raise HostError(
            "no Docker engine answers", remedy=f"start one, or point DOCKER_HOST to one ({reason})"
        ) from error
    return client


def lacking(platform: str, *, gpu: bool) -> str | None:
    """What this engine lacks to run containers of `platform` (with an NVIDIA GPU); None when it can."""
    try:
        info = connect().info()
    except HostError as error:
        return f"needs a Docker engine ({error.what})"
    if gpu and "nvidia" not in info.get("Runtimes", {}):
        return "needs an engine with NVIDIA's container runtime (this one has none: install nvidia-container-toolkit)"
    if info.get("OSType", "linux") != platform.split("/", maxsplit=1)[0]:
        return f"needs an engine of {platform} (this one runs {info.get('OSType')})"
    return None


def is_far() -> bool:
    """Whether DOCKER_HOST names an engine on another machine."""
    return not os.environ.get("DOCKER_HOST", "unix://").startswith(("unix://", "npipe://"))


def is_local() -> bool:
    """Whether this host's own processes can reach containers by their addresses: a Linux engine behind a socket here."""
    return not is_far() and system() == "Linux" and connect().info()["OperatingSystem"] != "Docker Desktop"


def foreign(platform: str) -> str | None:
    """What the engine's host lacks to emulate the instructions of `platform`; None when they are its own or it can."""
    architecture = platform.split("/")[1]
    own = {"x86_64": "amd64", "aarch64": "arm64"}.get(connect().info()["Architecture"])
    interpreter = {"arm64": "qemu-aarch64", "amd64": "qemu-x86_64"}[architecture]
    if architecture == own or Path("/proc/sys/fs/binfmt_misc", interpreter).exists():
        return None
    return f"needs {interpreter} registered in binfmt_misc (Debian: apt-get install qemu-user-static binfmt-support)"


def cores() -> int:
    """CPUs of the engine's host."""
    return int(connect().info()["NCPU"])


def confined(limits: Confinement) -> dict[str, Any]:
    """What `limits` are to the engine; the network apart, and no file is written but on a scratch mount in memory."""
    return {
        "user": f"{limits.user}:{limits.user}",
        "read_only": limits.read_only,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "pids_limit": limits.pids,
        "mem_limit": limits.memory_bytes,
        "memswap_limit": limits.memory_swap_bytes,
        "cpuset_cpus": ",".join(str(cpu) for cpu in limits.cpus),
        "tmpfs": {"/tmp": "rw,nosuid,nodev,size=2g,mode=1777"},  # noqa: S108 - the container's own
    }


def image_id(reference: str) -> str | None:
    """The configuration's digest of an image that the engine has; None when it has none of that name."""
    with suppress(NotFound):
        return str(connect().images.get(reference).id)
    return None


def sweep(owner: str) -> None:
    """Remove what a killed run of this store left behind: containers first, for they hold the rest."""
    client, marked = connect(), {"label": f"{OWNER}={owner}"}
    for container in client.containers.list(all=True, filters=marked):
        with suppress(NotFound):
            container.remove(force=True, v=True)
    for volume in client.volumes.list(filters=marked):
        with suppress(NotFound):
            volume.remove(force=True)
    for network in client.networks.list(filters=marked):
        with suppress(NotFound):
            network.remove()
    for image in client.images.list(filters=marked):  # functions' own: their containers' labels came with the commit
        with suppress(NotFound):
            client.images.remove(image.id, force=True)


@contextmanager
def removed_after(thing: Any, **how: bool) -> Iterator[Any]:  # noqa: ANN401 - a container, volume or network of the SDK
    """Give `thing`, and remove it when the block ends; an engine that is gone then cannot, and the next run sweeps."""
    try:
        yield thing
    finally:
        with suppress(*GONE):
            thing.remove(**how)


def put(container: Any, folder: str, files: Mapping[str, Path], *, folders: Iterable[str] = ()) -> None:  # noqa: ANN401 - the SDK's container
    """Copy files and trees into `folder` of a container under the given names, after empty `folders`, as its user's own."""

    def owned(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = USER
        entry.uname = entry.gname = ""
        entry.mode |= 0o755 if entry.isdir() else 0o444
        return entry

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in folders:
            empty = tarfile.TarInfo(name)
            empty.type = tarfile.DIRTYPE
            archive.addfile(owned(empty))
        for name, path in files.items():
            archive.add(path, name, filter=owned)
    container.put_archive(folder, buffer.getvalue())


class Chunks(io.RawIOBase):
    """An iterator of bytes as a file, so that an archive is unpacked while it arrives."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._left = iter(chunks), b""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer
        """Fill `buffer` with what has come; 0 at the end."""
        while not self._left:
            try:
                self._left = next(self._chunks)
            except StopIteration:
                return 0
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size


def get(container: Any, path: str, folder: Path, *, keep: Callable[[str], bool] = lambda _: True) -> None:  # noqa: ANN401 - the SDK's container
    """Copy what lies under `path` of a container into `folder`, without the path's own last name."""
    stream, _ = container.get_archive(path, chunk_size=1 << 20)

    def inner(entry: tarfile.TarInfo, where: str) -> tarfile.TarInfo | None:
        name = entry.name.partition("/")[2]
        if not name or not keep(name):
            return None
        return tarfile.data_filter(entry.replace(name=name, deep=False), where)

    with tarfile.open(fileobj=io.BufferedReader(Chunks(stream)), mode="r|") as archive:
        archive.extractall(folder, filter=inner)  # noqa: S202 - by the data filter


def exists(container: Any, path: str) -> bool:  # noqa: ANN401 - the SDK's container
    """Whether a container (started or not) has `path`."""
    try:
        stream, _ = container.get_archive(path)
        stream.close()
    except NotFound:
        return False
    return True
