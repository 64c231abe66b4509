"""One run of one target: prepare the workload, run the launches, seal the bundle. What ended is kept whatever happens next."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from matrix import definitions, engine, host, images
from matrix.bundle import Bundle
from matrix.canonical import digest
from matrix.cell import Cell
from matrix.choose import choose, executor_of, how
from matrix.errors import EvidenceError, HostError, IncompleteError, UsageError
from matrix.executors import EXECUTORS
from matrix.job import End, Event, Folders, Image, Job, Order, Prepared, WorkloadSpec
from matrix.launches import record_of
from matrix.ledger import Notary
from matrix.plan import cells_of_launch, make_plan
from matrix.profile import Profile
from matrix.sample import LaunchRecord
from matrix.store import RunFolder, RunState, Store
from matrix.strict import parse_json
from matrix.target import Executor as ExecutorName
from matrix.target import Target, Targets


class Watcher(Protocol):
    """Shows a run to whoever waits for it."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def expect(self, launches: Sequence[Sequence[Cell]]) -> None:
        """The cells of every launch that is to come."""

    def launch(self, index: int) -> None:
        """The next expected launch begins."""

    def event(self, event: Event) -> None:
        """Progress inside the preparation or a launch."""


@dataclass(frozen=True)
class Request:
    """What the user asked to be run, where it may write, and who signs; without a notary nobody vouches for the bundle."""

    target: str
    profile: Profile
    spec: WorkloadSpec
    store: Store
    cache: Path
    resume: bool = False
    executor: ExecutorName | None = None
    notary: Notary | None = None


def run(request: Request, targets: Targets, watcher: Watcher) -> Path:
    """Run the target and return its bundle's folder.

    Raises:
        HostError: this host cannot run it.
        UsageError: another run holds the store, or what should be resumed cannot be.
        IncompleteError: the workload could not be prepared; finished parts are kept.
    """
    name, target = choose(targets, request.target, request.executor)
    with request.store.measuring():
        folder = _resumed(request, name) if request.resume else _begun(request, name, target, watcher)
        return Runner(request, targets, folder, watcher).run()


def _begun(request: Request, name: str, target: Target, watcher: Watcher) -> RunFolder:
    executor = executor_of(target, request.executor) or target.executors[0]
    watcher.say(f"{name} runs {how(target, executor)}")
    left = request.store.unfinished(name)
    if left is not None:
        watcher.say(
            f"a run of {name} was left unfinished with {len(left.finished())} launches ({left.path}): "
            "--resume goes on with it; this is a new run"
        )
    state = RunState(
        target=name,
        executor=executor,
        created=datetime.now(UTC).isoformat(),
        attempt=request.store.attempts(name) + 1,
        profile=request.profile,
        spec=request.spec,
        plan=make_plan(name, target, request.profile, executor),
        source=definitions.source(),
        nonce=secrets.token_hex(16),
    )
    return request.store.begin(state)


def _resumed(request: Request, name: str) -> RunFolder:
    left = request.store.unfinished(name)
    if left is None:
        raise UsageError(
            f"no unfinished run of {name} is under {request.store.root}", remedy="start one without --resume"
        )
    now, before = definitions.source(), left.state.source
    asked = (request.profile, request.spec, now.commit, now.suite_sha256)
    if (left.state.profile, left.state.spec, before.commit, before.suite_sha256) != asked:
        raise UsageError(
            f"the unfinished run of {name} measured something else",
            remedy="its profile, seed, data, models, commit or suites differ from what is asked: start a new run without --resume",
        )
    return left


class Runner:
    """A run at work in its folder."""

    def __init__(self, request: Request, targets: Targets, folder: RunFolder, watcher: Watcher) -> None:
        self.request, self.folder, self.watcher, self.state = request, folder, watcher, folder.state
        self.target = targets.of(self.state.target)
        self.preparing = targets.of(self.target.prepared_by or self.state.target)
        self.image = None if self.state.executor == "native" else self._image()

    def _image(self) -> Image:
        """The image that is measured.

        Raises:
            UsageError: the finished launches measured another one.
        """
        found = images.current(str(self.target.image))
        before = {record.image for record in self.folder.finished().values()}
        if before - {found.id}:
            raise UsageError(
                "the image is no longer the one that the finished launches measured",
                remedy="start a new run without --resume",
            )
        return found

    def run(self) -> Path:
        """Prepare, launch, seal."""
        prepared = self._prepare()
        kept = self.folder.finished()
        ahead = [
            index for index in range(1, self.state.profile.launches + 1) if index not in kept and self._cells(index)
        ]
        if kept:
            self.watcher.say(f"{len(kept)} launches are kept from before")
        self.watcher.expect([self._cells(index) for index in ahead])
        for index in ahead:
            self.watcher.launch(index)
            self._launch(index, prepared)
        notary = self.request.notary
        if notary is None:
            return self.request.store.seal(self.folder, self._bundle(prepared))
        place = self.request.store.seal(self.folder, self._bundle(prepared), notary.attest)
        notary.ledgers.remember()
        return place

    def _seed(self, index: int | None) -> int:
        return int(digest([self.state.created, index or 0])[:8], 16)

    def _cells(self, index: int) -> tuple[Cell, ...]:
        """The cells of a launch; a target whose times mean nothing has some only where quality is judged."""
        return cells_of_launch(self.state.plan, self.state.profile, index, self._seed(index))

    def _job(self, place: Path, index: int | None, prepared: Prepared | None) -> Job:
        plan, profile = self.state.plan, self.state.profile
        return Job(
            target=self.state.target,
            device=self.target.device,
            profile=profile,
            spec=self.state.spec,
            suite_sha256=self.state.source.suite_sha256,
            cells=self._cells(index) if index else plan.planned,
            folders=Folders(cache=str(self.request.cache), out=str(place)),
            threads=EXECUTORS[self._executor(index)].cores(self._target(index)),
            launch=index,
            seed=self._seed(index),
            prepared=prepared,
            image=self.image,
            emulates=self.state.executor == "emulator",
            owner=self.request.store.owner,
            nonce=self.state.nonce,
        )

    def _target(self, index: int | None) -> Target:
        """Whose environment runs launch `index`, or (None) prepares."""
        return self.preparing if index is None else self.target

    def _executor(self, index: int | None) -> ExecutorName:
        if self._target(index) is self.target:
            return self.state.executor
        return executor_of(self.preparing) or "native"

    def _gpu(self) -> host.Gpu | None:
        """The one GPU of this host that the target uses."""
        pattern = self.target.expect.gpu_name
        return host.gpu_for(pattern) if pattern else None

    def _foreign_gpu(self) -> tuple[str, ...] | None:
        """Who computes on the launch's GPU before it does; None where it has none, or one of an engine far away."""
        far = self.state.executor != "native" and engine.is_far()
        gpu = None if far else self._gpu()
        return host.gpu_processes(gpu.uuid) if gpu else None

    def _execute(self, job: Job, place: Path, variables: dict[str, str], timeout_s: float) -> End:
        common = {
            "OMP_NUM_THREADS": str(job.threads),
            "TOKENIZERS_PARALLELISM": "false",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime 1.31's wheels for Linux report to their maker unless told not to
        }
        if policy := os.environ.get("OMP_WAIT_POLICY"):  # a container would not see it; its launch records it
            common["OMP_WAIT_POLICY"] = policy
        gpu = self._gpu()
        if gpu:  # with more in sight, the Trainer would spread a step over all of them, and raw PyTorch use the first
            common["CUDA_VISIBLE_DEVICES"] = gpu.uuid
        order = Order(
            target=self._target(job.launch),
            job=job,
            variables=common | variables,
            folder=place,
            cache=self.request.cache,
            timeout_s=timeout_s,
        )
        return EXECUTORS[self._executor(job.launch)].execute(order, self.watcher.event)

    def _prepare(self) -> Prepared:
        place = self.folder.workplace("prepare")
        # Training allocates and frees the same large blocks each step; by default glibc maps and unmaps them each time, and
        # the page faults cost a third of the student's step (measured: 168 -> 102 ms). Nothing is timed in this process.
        keep_heap = {
            "MALLOC_MMAP_THRESHOLD_": "4000000000",
            "MALLOC_TRIM_THRESHOLD_": "8000000000",
            "MALLOC_TOP_PAD_": "500000000",
        }
        job = self._job(place, None, None)
        end = self._execute(job, place, keep_heap, job.profile.prepare_timeout_s)
        answer = place / "prepared.json"
        if end.exit_code != 0 or not answer.exists():
            tail = (place / "log.txt").read_text(encoding="utf-8", errors="replace").strip()[-2_000:]
            raise IncompleteError(f"the workload could not be prepared, {end.story}", remedy=tail or "it said nothing")
        prepared, before = parse_json(Prepared, answer.read_bytes(), str(answer)), self.folder.prepared()
        if before is None:
            self.folder.keep_prepared(prepared)
        elif before.model_copy(update={"reused": prepared.reused}) != prepared:
            raise UsageError(
                f"the workload is no longer what the finished launches of {self.folder.path.name} measured",
                remedy="the data, a model or the cache changed: start a new run without --resume",
            )
        return before or prepared

    def _launch(self, index: int, prepared: Prepared) -> None:
        place, started = self.folder.workplace(f"launch-{index:02d}"), datetime.now(UTC)
        job = self._job(place, index, prepared)
        asked = EXECUTORS[self.state.executor].asked(self.target)  # now: the engine may be gone afterwards
        foreign = self._foreign_gpu()
        end = self._execute(job, place, {}, job.profile.launch_timeout_s)
        record = record_of(place, job, end, started, asked, foreign)
        self._places([*self.folder.finished().values(), record])
        if record.host and (other := record.host.differs(self.target.expect)):
            raise HostError(
                f"this is no {self.target.title}: {' and '.join(other)}", remedy="measure the machine that it is"
            )
        self.folder.keep_launch(place, record)
        for fault in record.broken:
            self.watcher.say(f"launch {index} is invalid: {fault}")
        for outcome in record.outcomes:
            if outcome.state != "measured":
                self.watcher.say(
                    f"launch {index}: {outcome.cell} {outcome.state}: {(outcome.error or '').strip().splitlines()[-1]}"
                )

    def _places(self, launches: Sequence[LaunchRecord]) -> set[tuple[str, str]]:
        """The environment and the class of host in which these launches ran: one, or none where none lived to say it.

        Raises:
            EvidenceError: they differ.
        """
        spoke = [(record.environment, record.host) for record in launches if record.environment and record.host]
        found = {(host.environment_id(software), host.host_class_id(hardware)) for software, hardware in spoke}
        if len(found) > 1:
            raise EvidenceError(
                f"the launches of {self.folder.path.name} ran in {len(found)} environments or kinds of host",
                remedy="a bundle is one environment on one host: start a new run without --resume",
            )
        return found

    def _bundle(self, prepared: Prepared) -> Bundle:
        launches = tuple(record for _, record in sorted(self.folder.finished().items()))
        places = self._places(launches)
        if not places:
            raise IncompleteError(
                "no launch lived long enough to say what it ran on", remedy=f"read the logs under {self.folder.path}"
            )
        environment_id, host_class_id = places.pop()
        state = self.state
        return Bundle(
            target=state.target,
            executor=state.executor,
            image=self.image,
            created=state.created,
            attempt=state.attempt,
            profile=state.profile,
            spec=_public(state.spec),
            prepared=prepared,
            source=definitions.measured_by(state.source),
            environment_id=environment_id,
            host_class_id=host_class_id,
            host_instance=host.host_instance(),
            planned=state.plan.planned,
            excluded=state.plan.excluded,
            launches=launches,
            files={},
            nonce=state.nonce,
        )


def _public(spec: WorkloadSpec) -> WorkloadSpec:
    """The request without this machine's folders: a path keeps its last name; digests identify what was there."""

    def name(value: str | None) -> str | None:
        return Path(value).name if value and Path(value).expanduser().exists() else value

    return WorkloadSpec(
        data=name(spec.data) or spec.data,
        answers=name(spec.answers) or spec.answers,
        teacher=name(spec.teacher),
        student=name(spec.student),
    )


def failures(launches: tuple[LaunchRecord, ...]) -> int:
    """How many planned measurements of a run's launches did not happen."""
    return sum(outcome.state != "measured" for record in launches for outcome in record.outcomes)
