"""What makes a cold start of the Lambda image lean: each step's saving, in containers at one memory size, beside a plain handler.

    python -m tests.bench.lean --model DIR --tokenizer FILE [--image distill-matrix/lambda-amd64] [--memory 1024] [--rounds 10]

DIR has one .onnx file. The plain image has the same base, emulator and packages as the Lambda image, as pip leaves them, and
the handler that anyone would write; then one thing changes at a time. Every launch is a fresh container, in an order drawn anew
each round, once with a full core and once throttled from its first instruction as Lambda throttles (a quota of memory/1769 of a
core every 20 ms). `init` is the emulator's INIT REPORT, `cpu` what the process had used after one answer, `first answer` is from
before the container's creation. Asks: every image answers as the plain one does, to the last bit. Needs Docker and a registry
of packages; what it makes carries a label, by which it sweeps.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import random
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import docker
import requests

LABEL = {"distill-matrix.bench": "lean"}
LOCK = Path(__file__).parents[2] / "images" / "lambda" / "requirements-amd64.txt"
PERIOD_US, CORE_MB = 20_000, 1769
EVENTS: tuple[dict[str, Any], ...] = (
    {"text": "Where is my order? It was due on Monday."},
    {"text": ""},
    {"ids": [[2, *range(5, 131), 3]]},
    {"ids": [[2, 17, 31, 3], [2, 400, 11, 3]]},
)

PLAIN = """
import json, os, time
from pathlib import Path
import numpy as np, onnxruntime
from tokenizers import Tokenizer
MODEL = Path(os.environ["LAMBDA_TASK_ROOT"]) / "model"
TOKENIZER = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
TOKENIZER.enable_truncation(128)
TOKENIZER.no_padding()
LABELS = json.loads((MODEL / "labels.json").read_text())
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
SESSION = onnxruntime.InferenceSession(str(MODEL / "model.onnx"), options, providers=["CPUExecutionProvider"])
NAMES = [item.name for item in SESSION.get_inputs()]
def handler(event, context):
    if "about" in event:
        return {"cpu_s": time.process_time()}
    rows = np.array(event.get("ids") or [TOKENIZER.encode(event["text"]).ids], dtype=np.int64)
    known = {"input_ids": rows, "attention_mask": np.ones_like(rows), "token_type_ids": np.zeros_like(rows)}
    logits = SESSION.run(None, {name: known[name] for name in NAMES})[0]
    if "ids" in event:
        return {"logits": logits.tolist()}
    return {"label": LABELS[int(logits[0].argmax())], "logits": logits[0].tolist()}
"""
LOOP = r"""
import json, os, socket
from handler import handler
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].split(":")
def call(method, path, body=b""):
    with socket.create_connection((host, int(port))) as connection:
        head = f"{method} /2018-06-01/runtime/invocation/{path} HTTP/1.0\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    return dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:]), body
while True:
    head, body = call("GET", "next")
    call("POST", head["lambda-runtime-aws-request-id"] + "/response", json.dumps(handler(json.loads(body), None)).encode())
"""
COMPILE = "python3 -m compileall -q --invalidation-mode unchecked-hash"
STDLIB = "$(python3 -c 'import sysconfig; print(sysconfig.get_path(\"stdlib\"))')"


class Step(NamedTuple):
    """An image, by what it changes of another one."""

    title: str
    base: str
    """Another step, or `image` for the Lambda image itself."""
    lines: str


STEPS = {
    "plain": Step(
        "a plain handler, packages as installed",
        "image",
        "USER 0\nCOPY wheels /wheels\n"
        "RUN find / -xdev -name '*.pyc' -delete; rm -rf /var/task/* && cd / "
        "&& python3 -m pip install -q --no-index --no-deps --no-compile --target /var/task /wheels/*.whl\n"
        "ENV ORT_DISABLE_TELEMETRY=\nCOPY plain.py /var/task/handler.py\nCOPY onnx /var/task/model\nUSER 10001:10001",
    ),
    "packages": Step(
        "+ byte code of the packages", "plain", f"USER 0\nRUN {COMPILE} /var/task; true\nUSER 10001:10001"
    ),
    "stdlib": Step(
        "+ byte code of the standard library",
        "packages",
        f"USER 0\nRUN {COMPILE} -x test {STDLIB}; true\nUSER 10001:10001",
    ),
    "telemetry": Step("+ no telemetry (ORT_DISABLE_TELEMETRY=1)", "stdlib", "ENV ORT_DISABLE_TELEMETRY=1"),
    "blas": Step("+ one BLAS thread (OPENBLAS_NUM_THREADS=1)", "telemetry", "ENV OPENBLAS_NUM_THREADS=1"),
    "c": Step("ONNX Runtime's C library, no numpy (this handler)", "image", "COPY onnx /var/task/model"),
    "packed": Step(
        "+ the model packed: optimised before, weights mapped (as shipped)", "image", "COPY packed /var/task/model"
    ),
    "loop": Step(
        "+ a loop of 15 lines for awslambdaric (not shipped)",
        "packed",
        "COPY loop.py /var/task/loop.py\n"
        'ENTRYPOINT ["/usr/local/bin/aws-lambda-rie", "/usr/bin/env", "python3", "/var/task/loop.py"]',
    ),
}


class Launch(NamedTuple):
    """One cold start, in seconds; `answers` to `EVENTS`, as text."""

    init_s: float
    first_s: float
    cpu_s: float
    answers: tuple[str, ...]


def archive(files: Mapping[str, bytes]) -> io.BytesIO:
    """A build context of these files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            tar.addfile(member, io.BytesIO(data))
    out.seek(0)
    return out


def context(client: Any, options: argparse.Namespace, folder: Path) -> dict[str, bytes]:  # noqa: ANN401 - docker-py has no types
    """The files that the steps copy: wheels, handlers, and the model as exported and as packed by the image itself."""
    (model,) = options.model.glob("*.onnx")
    wheels, onnx, packed = (folder / name for name in ("wheels", "onnx", "packed"))
    asks = [
        "--no-deps",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--requirement",
        str(LOCK),
        "--dest",
        str(wheels),
    ]
    machine = [flag for tag in ("2_28", "2_27", "2_17") for flag in ("--platform", f"manylinux_{tag}_x86_64")]
    python = ["--platform", "manylinux2014_x86_64", "--python-version", "3.11", "--implementation", "cp"]
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *asks, *machine, *python], check=True)
    onnx.mkdir()
    (onnx / "model.onnx").write_bytes(model.read_bytes())
    (onnx / "tokenizer.json").write_bytes(options.tokenizer.read_bytes())
    (onnx / "labels.json").write_text(json.dumps([f"class {at}" for at in range(1000)]))
    client.containers.run(
        options.image,
        ["/var/task/pack.py", "/bench/onnx", "/bench/packed"],
        entrypoint=["python3"],
        user="0",
        volumes={str(folder): {"bind": "/bench", "mode": "rw"}},
        network_mode="none",
        remove=True,
        labels=LABEL,
    )
    made = {f"{part.name}/{file.name}": file.read_bytes() for part in (wheels, onnx, packed) for file in part.iterdir()}
    return made | {"plain.py": PLAIN.encode(), "loop.py": LOOP.encode()}


def build(client: Any, image: str, files: Mapping[str, bytes]) -> dict[str, Any]:  # noqa: ANN401 - likewise
    """The image of each step."""
    made: dict[str, Any] = {}
    for name, step in STEPS.items():
        base = made[step.base].id if step.base in made else image
        label = " ".join(f"{key}={value}" for key, value in LABEL.items())
        text = f"FROM {base}\nLABEL {label}\n{step.lines}\n"
        needed = {path: data for path, data in files.items() if f"COPY {path.split('/')[0]} " in text}
        made[name], _ = client.images.build(
            fileobj=archive(needed | {"Dockerfile": text.encode()}),
            custom_context=True,
            rm=True,
            forcerm=True,
        )
    return made


def invoke(address: str, event: Mapping[str, Any]) -> str:
    """The function's answer, once the emulator listens."""
    for _ in range(2000):
        try:
            reply = requests.post(
                f"http://{address}:8080/2015-03-31/functions/function/invocations", json=event, timeout=60
            )
        except requests.ConnectionError:
            time.sleep(0.005)
            continue
        reply.raise_for_status()
        return reply.text
    raise TimeoutError("the emulator never listened")


def launch(client: Any, image: str, network: Any, memory: int, *, throttled: bool) -> Launch:  # noqa: ANN401 - likewise
    """One cold start, hardened as the matrix runs it."""
    quota = {"cpu_period": PERIOD_US, "cpu_quota": round(PERIOD_US * memory / CORE_MB)} if throttled else {}
    begin = time.perf_counter()
    container = client.containers.run(
        image,
        detach=True,
        mem_limit=f"{memory}m",
        memswap_limit=f"{memory}m",
        pids_limit=256,
        read_only=True,
        tmpfs={"/tmp": ""},  # noqa: S108 - the container's own
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        network=network.name,
        labels=LABEL,
        **quota,
    )
    try:
        container.reload()
        address = container.attrs["NetworkSettings"]["Networks"][network.name]["IPAddress"]
        answers = [invoke(address, EVENTS[0])]
        first_s = time.perf_counter() - begin
        cpu_s = json.loads(invoke(address, {"about": True}))["cpu_s"]
        answers += [invoke(address, event) for event in EVENTS[1:]]
        report = re.search(r"INIT REPORT\(durationMs: ([\d.]+)\)", container.logs().decode())
        if not report:
            raise RuntimeError(container.logs().decode())
        return Launch(float(report[1]) / 1e3, first_s, cpu_s, tuple(answers))
    finally:
        container.remove(force=True)


def sweep(client: Any) -> None:  # noqa: ANN401 - likewise
    """Remove what carries the label: of this run, or of one that was killed."""
    wanted = {"label": [f"{key}={value}" for key, value in LABEL.items()]}
    for container in client.containers.list(all=True, filters=wanted):
        container.remove(force=True)
    for network in client.networks.list(filters=wanted):
        network.remove()
    client.images.prune(filters={"dangling": True, "label": wanted["label"]})


@contextmanager
def bench(client: Any) -> Iterator[Any]:  # noqa: ANN401 - likewise
    """An internal network, and nothing left behind."""
    sweep(client)
    try:
        yield client.networks.create("distill-matrix-lean", internal=True, labels=LABEL)
    finally:
        sweep(client)


def spread(values: list[float], plain: list[float]) -> str:
    """Median [least-most] in milliseconds, and its ratio to the plain handler's."""
    middle = median(values)
    return f"{1e3 * middle:5.0f} [{1e3 * min(values):.0f}-{1e3 * max(values):.0f}] {middle / median(plain):.2f}"


def table(found: Mapping[tuple[str, bool], list[Launch]], images: Mapping[str, Any]) -> Iterator[str]:
    """What was found, as Markdown."""
    yield "| step | init, full core | init, throttled | CPU | first answer, throttled | MB |"
    yield "|---|---|---|---|---|---|"
    for name, step in STEPS.items():
        cells = [
            spread(
                [getattr(one, field) for one in found[name, slow]],
                [getattr(one, field) for one in found["plain", slow]],
            )
            for field, slow in (("init_s", False), ("init_s", True), ("cpu_s", False), ("first_s", True))
        ]
        yield f"| {' | '.join([step.title, *cells])} | {images[name].attrs['Size'] / 1e6:.0f} |"


def main() -> None:
    """Build, launch in turns, print; fail where an answer differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--image", default="distill-matrix/lambda-amd64")
    parser.add_argument("--memory", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    client, order = docker.from_env(), random.Random(0)
    with tempfile.TemporaryDirectory() as folder, bench(client) as network:
        images = build(client, options.image, context(client, options, Path(folder)))
        cells = list(itertools.product(STEPS, (False, True)))
        found: dict[tuple[str, bool], list[Launch]] = {cell: [] for cell in cells}
        for turn in range(options.rounds + 1):
            for name, slow in order.sample(cells, len(cells)):
                one = launch(client, images[name].id, network, options.memory, throttled=slow)
                if turn:  # the first round fills the page cache
                    found[name, slow].append(one)
        print("\n".join(table(found, images)))
    answers = {name: {one.answers for slow in (False, True) for one in found[name, slow]} for name in STEPS}
    differ = [name for name in STEPS if answers[name] != answers["plain"] or len(answers[name]) != 1]
    print(f"answers differ from the plain handler's: {', '.join(differ) or 'none'}")
    sys.exit(bool(differ))


if __name__ == "__main__":
    main()
