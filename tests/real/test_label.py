"""`matrix label` against transformers' own server, killed and interrupted at any moment: no label is lost or asked for twice."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import openai
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from matrix.errors import ExitCode
from matrix.label import answers_of
from matrix.workloads.taught import read_answers

ROOT = Path(__file__).parents[2]
PROMPTS = 40
KILLS = 4
AT_A_TIME = 3


class Served(NamedTuple):
    """A server: its address, the model in it, and the file of the keys that it was asked for."""

    url: str
    model: Path
    asked: Path

    def keys(self) -> list[str]:
        """Every request's key, in the order of their arrival."""
        return self.asked.read_text(encoding="utf-8").split() if self.asked.exists() else []


def tiny(folder: Path) -> None:
    """Write a Llama of one layer that talks nonsense, letter by letter, until it is cut off."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = Tokenizer(models.BPE(vocab={token: at for at, token in enumerate(["<|end|>", *alphabet])}, merges=[]))
    letters.pre_tokenizer, letters.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=letters,
        eos_token="<|end|>",  # noqa: S106 - no secret
        chat_template="{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}",
        model_input_names=["input_ids", "attention_mask"],  # generate refuses token_type_ids, and the server then hangs
    ).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "max_position_embeddings": 256}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "bos_token_id": None, "eos_token_id": None}
    LlamaForCausalLM(LlamaConfig(vocab_size=1 + len(alphabet), **shape, **heads)).save_pretrained(folder)


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`transformers serve` with the tiny model."""
    folder = tmp_path_factory.mktemp("served")
    tiny(folder / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    served = Served(f"http://127.0.0.1:{port}/v1", folder / "model", folder / "asked")
    program = [sys.executable, ROOT / "tests/real/serve_recorded.py", served.asked]
    options = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--log-level", "warning"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*program, *options], env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while not healthy(port):
            assert process.poll() is None, (folder / "log").read_text(encoding="utf-8")
            assert time.monotonic() < until, (folder / "log").read_text(encoding="utf-8")
            time.sleep(0.2)
        warm(served)
        yield served
    finally:
        process.kill()  # it waits for open streams else
        process.wait()


def healthy(port: int) -> bool:
    """Whether the server answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def warm(served: Served) -> None:
    """Have the model loaded by one request: transformers 4.57.6 loads it in several at once, fails, and answers none of them."""
    with openai.OpenAI(base_url=served.url, api_key="none", max_retries=0, timeout=60) as client:
        said = client.chat.completions.create(
            model=str(served.model),
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=2,
            stream=True,
            extra_headers={"Idempotency-Key": "warm"},
        )
        assert [choice.finish_reason for part in said for choice in part.choices][-1] == "stop"


@pytest.fixture
def server(serving: Served) -> Served:
    """The server, which was asked nothing yet."""
    serving.asked.unlink(missing_ok=True)
    return serving


class Labeller:
    """The command on prompts of its own, as processes."""

    def __init__(self, server: Served, folder: Path) -> None:
        self.server, self.out, self.marks = server, folder / "answers.jsonl", folder / ".answers.jsonl.asking"
        prompts = [f"What is {number}?" for number in range(PROMPTS)]
        (folder / "p.txt").write_text("\n".join([*prompts, *prompts[:5]]), encoding="utf-8")
        self.command = [sys.executable, "-m", "matrix", "label", folder / "p.txt", "--out", self.out]
        self.command += [
            "--endpoint",
            server.url,
            "--model",
            server.model,
            "--max-tokens",
            "24",
            "--system",
            "Be brief.",
        ]
        self.command += ["--concurrency", str(AT_A_TIME)]

    def start(self) -> subprocess.Popen[str]:
        """A run of it, which heeds Ctrl-C also where these tests run as a script's background job, which ignores it."""
        pipe, heeds = subprocess.PIPE, partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        command = [*map(str, self.command)]
        return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, preexec_fn=heeds)  # noqa: PLW1509 - one call

    def when_asked(self, more: int, process: subprocess.Popen[str]) -> None:
        """Wait until the server was asked so often."""
        goal, until = len(self.server.keys()) + more, time.monotonic() + 60
        while len(self.server.keys()) < goal:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.002)

    def known(self) -> set[str]:
        """Keys of the whole lines."""
        with self.out.open("rb") as lines:
            return {one.key for one in answers_of((line for line in lines if line.endswith(b"\n")), "")}

    def in_flight(self) -> set[str]:
        """Keys that are marked and not answered."""
        return {mark.name for mark in self.marks.iterdir()} - self.known() if self.marks.exists() else set()


@pytest.fixture
def labeller(server: Served, tmp_path: Path) -> Labeller:
    """A labeller."""
    return Labeller(server, tmp_path)


def test_killed_at_any_moment_no_label_is_lost_or_asked_for_twice(labeller: Labeller, server: Served) -> None:
    """Killed four times: every prompt is answered once; whatever the server was asked for twice was in flight at a kill."""
    moments, lost = random.Random(7), Counter[str]()  # noqa: S311 - moments, no secrets
    for _ in range(KILLS):
        before = labeller.in_flight()
        with labeller.start() as process:
            labeller.when_asked(moments.randrange(1, PROMPTS // KILLS), process)
            time.sleep(moments.uniform(0, 0.1))
            process.kill()
            _, said = process.communicate()
        assert (f"{len(before)} requests were in flight when a run was killed: they may have" in said) == bool(before)
        assert len(labeller.in_flight()) <= AT_A_TIME
        lost.update(labeller.in_flight())
    with labeller.start() as process:
        out, said = process.communicate()
    assert process.returncode == ExitCode.PASS, said
    assert out.startswith(f"{PROMPTS + 5} prompts, {PROMPTS} different: ")
    asked = [messages[-1].content for messages, _ in read_answers(labeller.out)]
    assert sorted(asked) == sorted(f"What is {number}?" for number in range(PROMPTS))
    times = Counter(server.keys())
    assert times.keys() == labeller.known()
    assert all(count <= 1 + lost[key] for key, count in times.items())
    assert lost, "no kill met a request in flight: the test proves nothing"
    assert not labeller.marks.exists()


def test_interrupted_it_awaits_what_is_in_flight(labeller: Labeller, server: Served) -> None:
    """Ctrl-C: each request that the server was sent has its line, none is begun any more; the next run does the rest."""
    with labeller.start() as process:
        labeller.when_asked(8, process)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert "interrupted: what is answered is kept, the same command goes on from it" in said
    answered = labeller.known()
    assert len(answered) < PROMPTS
    assert Counter(server.keys()) == Counter(answered)
    assert f"{len(answered)} answered, 0 reused, 0 failed" in out
    assert not labeller.marks.exists()
    with labeller.start() as process:
        out, _ = process.communicate()
    assert process.returncode == ExitCode.PASS
    assert f"{PROMPTS - len(answered)} answered, {len(answered)} reused, 0 failed" in out
    assert set(Counter(server.keys()).values()) == {1}
