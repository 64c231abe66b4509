"""The teacher cache: what is a hit, what is asked anew, what a file may hold, and students to the bit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from matrix.errors import DataError
from matrix.workloads.distill import Work, cached_teacher, mixed_refresh, raw_torch
from matrix.workloads.distill.teacher_cache import Origin, TeacherCache, keys_of, teacher_digest
from matrix.workloads.models import build_student, build_teacher, train_tokenizer
from matrix.workloads.train import distillation_loss, pad
from tests.real.tiny import PROFILE

pytestmark = pytest.mark.frameworks
NAMES = tuple("abcdefghij")
RECIPE = PROFILE.recipe
ORIGIN = Origin("teacher", "float32", "tokenizer")
LENGTH = 12


class Asked:
    """A teacher that remembers each call's rows; a row's logits are its number of calls so far and its first token."""

    def __init__(self, ids: torch.Tensor) -> None:
        self.ids = ids
        self.calls: list[list[int]] = []

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Answer them."""
        self.calls.append(rows.tolist())
        return torch.stack([torch.full((len(rows),), float(len(self.calls))), self.ids[rows, 0].float()], 1)


def ids_of(*firsts: int) -> torch.Tensor:
    """One row of three tokens for each first token."""
    return torch.tensor([[first, 7, 8] for first in firsts])


def ask(cache: TeacherCache, ids: torch.Tensor) -> tuple[list[list[int]], torch.Tensor]:
    """The rows that one unpadded batch made the cache ask for, by call, and what it answered."""
    teacher = Asked(ids)
    answer = cache.logits(ids, torch.ones_like(ids), teacher)
    return teacher.calls, answer


def teacher() -> PreTrainedModel:
    """A tiny frozen teacher, equal each time."""
    return build_teacher(RECIPE, NAMES).eval().requires_grad_(False)


def examples(count: int = 32) -> list[dict[str, torch.Tensor]]:
    """Padded examples of 5 to 12 random ids, equal each time."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(5, 500, (count, LENGTH), generator=generator)
    lengths = torch.randint(5, LENGTH + 1, (count, 1), generator=generator)
    mask = (torch.arange(LENGTH) < lengths).long()
    labels = torch.randint(0, 10, (count,), generator=generator)
    return [{"input_ids": i * m, "attention_mask": m, "labels": y} for i, m, y in zip(ids, mask, labels, strict=True)]


def work(*, shuffle: bool = False, batch: int = 8) -> Work:
    """Tiny models and examples, equal each time; dropout is on."""
    torch.manual_seed(3)
    return Work(
        teacher=teacher(),
        student=build_student(RECIPE, NAMES).train(),
        loader=DataLoader(examples(), batch_size=batch, shuffle=shuffle, generator=torch.Generator().manual_seed(1)),
        batch=batch,
        temperature=4.0,
        alpha=0.7,
        device="cpu",
        dtype="float32",
        another_teacher=teacher,
    )


def weights(model: torch.nn.Module) -> torch.Tensor:
    """All weights, flat."""
    return torch.cat([value.flatten() for value in model.state_dict().values()])


# --- keys


def test_a_key_is_of_the_tokens_and_their_tokenizer() -> None:
    """Another tokenizer, token or length is another key; padding and the place in a batch are not."""
    short, long = [[5, 6, 7]], [[5, 6, 7], [5, 6, 7, 8, 9]]
    one, two = pad(short, torch.tensor([0]).numpy()), pad(long, torch.tensor([1, 0]).numpy())
    (key,) = keys_of(one["input_ids"], one["attention_mask"], "a")
    other, same = keys_of(two["input_ids"], two["attention_mask"], "a")
    assert len(key) == 32
    assert key == same != other
    assert key not in keys_of(one["input_ids"], one["attention_mask"], "b")
    assert key not in keys_of(torch.tensor([[5, 6, 4]]), one["attention_mask"], "a")
    assert key not in keys_of(torch.tensor([[5, 6, 7, 0]]), torch.ones(1, 4), "a"), "a real token 0 is no padding"


def test_another_tokenizer_misses() -> None:
    """Two vocabularies give two words the same ids: a hit would serve the logits of the other word."""
    first, second = train_tokenizer(["ab ab"]), train_tokenizer(["ba ba"])
    ids = torch.tensor([first("ab")["input_ids"]])
    assert ids.tolist() == [second("ba")["input_ids"]]
    assert second("ab")["input_ids"] != second("ba")["input_ids"]
    digests = [hashlib.sha256(one.backend_tokenizer.to_str().encode()).hexdigest() for one in (first, second)]
    cache = TeacherCache(Origin("teacher", "float32", digests[0]))
    ask(cache, ids)
    assert ask(cache, ids)[0] == []
    cache.origin = Origin("teacher", "float32", digests[1])
    assert ask(cache, ids)[0] == [[0]]


@pytest.mark.parametrize("mask", [[[0, 1, 1]], [[1, 0, 1]], [[0, 0, 0]]])
def test_padding_before_the_end_is_refused(mask: list[list[int]]) -> None:
    """The same tokens at other positions have other logits, under one key."""
    message = "^a row of the batch is empty, or padded elsewhere than at its end; pad on the right"
    with pytest.raises(DataError, match=message):
        keys_of(torch.tensor([[5, 6, 7]]), torch.tensor(mask), "a")


# --- what is asked


def test_only_what_is_missing_is_asked() -> None:
    """A batch of four of which two are known: the teacher sees the other two, at their positions, in one call."""
    cache = TeacherCache(ORIGIN)
    assert ask(cache, ids_of(10, 11))[0] == [[0, 1]]
    calls, answer = ask(cache, ids_of(20, 11, 21, 10))
    assert calls == [[0, 2]]
    assert answer[:, 1].tolist() == [20, 11, 21, 10]
    assert ask(cache, ids_of(10, 21, 20, 11))[0] == []
    assert (len(cache), cache.served, cache.taught) == (4, 10, 4)


def test_an_example_twice_in_a_batch_is_asked_once() -> None:
    """And both its rows are served."""
    calls, answer = ask(TeacherCache(ORIGIN), ids_of(10, 11, 10))
    assert calls == [[0, 1]]
    assert answer[:, 1].tolist() == [10, 11, 10]


def test_a_share_is_regenerated_oldest_first() -> None:
    """One of four rows a step: in four steps each is asked once, in the order in which they were made."""
    cache = TeacherCache(ORIGIN, share=0.25)
    for first in (13, 11, 12, 10):
        ask(cache, ids_of(first))
    found = [ask(cache, ids_of(10, 11, 12, 13))[0] for _ in range(5)]
    assert found == [[[3]], [[1]], [[2]], [[0]], [[3]]]


def test_what_is_regenerated_replaces_what_was_kept() -> None:
    """The later answer is served from then on."""
    ids, cache = ids_of(10, 11), TeacherCache(ORIGIN, share=0.5)
    teacher = Asked(ids)
    answers = [cache.logits(ids, torch.ones_like(ids), teacher)[:, 0].tolist() for _ in range(3)]
    assert answers == [[1, 1], [2, 1], [2, 3]]


@pytest.mark.parametrize(
    ("share", "rows", "regenerated"), [(0.1, 10, 1), (0.1, 30, 3), (0.1, 8, 1), (0.5, 5, 3), (1, 4, 4)]
)
def test_a_share_is_whole_rows(share: float, rows: int, regenerated: int) -> None:
    """Rounded up; 0.1 * 30 is 3, whatever the machine's product."""
    ids, cache = ids_of(*range(10, 10 + rows)), TeacherCache(ORIGIN, share=share)
    ask(cache, ids)
    assert [len(call) for call in ask(cache, ids)[0]] == [regenerated]


def test_misses_count_towards_the_share() -> None:
    """Two of four are missing and half is due: no known row is asked as well."""
    cache = TeacherCache(ORIGIN, share=0.5)
    ask(cache, ids_of(10, 11))
    assert ask(cache, ids_of(10, 11, 12, 13))[0] == [[2, 3]]


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_is_a_share(share: float) -> None:
    """From none to all."""
    with pytest.raises(ValueError, match="rows of a step are regenerated from none"):
        TeacherCache(ORIGIN, share=share)


def test_a_teacher_that_fails_leaves_the_cache_as_it_was() -> None:
    """It raises, or answers other rows or classes than it was asked for."""
    ids, cache = ids_of(10, 11, 12), TeacherCache(ORIGIN)
    ask(cache, ids[:2])

    def broken(_: torch.Tensor) -> torch.Tensor:
        raise FloatingPointError("out of range")

    with pytest.raises(FloatingPointError, match="out of range"):
        cache.logits(ids, torch.ones_like(ids), broken)
    for shape in ((2, 2), (1, 3)):
        with pytest.raises(ValueError, match="for 1 rows of 2 classes"):
            cache.logits(ids, torch.ones_like(ids), lambda _, shape=shape: torch.zeros(shape))
    assert (len(cache), cache.served, cache.taught) == (2, 2, 2)
    assert ask(cache, ids)[0] == [[2]]


def test_what_is_served_is_a_copy() -> None:
    """A caller that divides by its temperature in place does not spoil what is kept."""
    cache = TeacherCache(ORIGIN)
    before = ask(cache, ids_of(10))[1].clone()
    ask(cache, ids_of(10))[1].mul_(0)
    assert torch.equal(ask(cache, ids_of(10))[1], before)


# --- bits


def asked(model: PreTrainedModel, inputs: dict[str, torch.Tensor], rows: torch.Tensor | slice) -> torch.Tensor:
    """The online teacher on some rows."""
    with torch.no_grad():
        logits: torch.Tensor = model(**{name: tensor[rows] for name, tensor in inputs.items()}).logits
    return logits


def test_fixed_inputs_are_served_to_the_bit() -> None:
    """A frozen teacher on one padded batch: online, at the cache's first sight, and from the cache."""
    model, inputs = teacher(), pad([[5, 6, 7], [9, 8, 7, 6, 5], [11]], torch.arange(3).numpy())
    cache = TeacherCache(ORIGIN)
    served = [
        cache.logits(inputs["input_ids"], inputs["attention_mask"], lambda rows: asked(model, inputs, rows))
        for _ in range(2)
    ]
    online = asked(model, inputs, slice(None))
    assert all(torch.equal(online, one) for one in served)
    assert cache.taught == 3


def test_other_padding_and_neighbours_change_rounding_only() -> None:
    """A hit that was made in another batch: within 1e-6 of the largest logit (measured: 5e-7), ten classes, fp32."""
    model = teacher()
    alone, among = pad([[5, 6, 7]], torch.arange(1).numpy()), pad([[5, 6, 7], [9] * 60], torch.arange(2).numpy())
    cache = TeacherCache(ORIGIN)
    cache.logits(alone["input_ids"], alone["attention_mask"], lambda rows: asked(model, alone, rows))
    served = cache.logits(among["input_ids"], among["attention_mask"], lambda rows: asked(model, among, rows))
    online = asked(model, among, slice(None))
    assert cache.taught == 2
    assert float((served - online).abs().max() / online.abs().max()) < 1e-6


def test_online_and_cached_train_the_same_student_to_the_bit() -> None:
    """Twelve steps, three epochs of fixed batches, dropout on: every weight."""
    made = {}
    for name, stack in (("online", raw_torch), ("cached", cached_teacher)):
        given = work()
        run = stack.prepare(given)
        torch.manual_seed(4)
        for _ in range(12):
            run.step()
        made[name] = weights(given.student)
    assert torch.equal(made["online"], made["cached"])


# --- stacks


STACKS = pytest.mark.parametrize(("stack", "rows"), [(cached_teacher, 0), (mixed_refresh, 1)])


@STACKS
def test_a_full_caches_step_asks_for_its_share(stack: ModuleType, rows: int) -> None:
    """None when cached, a tenth of eight rows when mixed; the student moves, the teacher does not."""
    given = work(shuffle=True)
    run, before = stack.prepare(given), weights(given.teacher)
    student, seen = weights(given.student), []
    given.teacher.register_forward_hook(lambda *told: seen.append(len(told[-1].logits)))
    assert len(run.cache) == 32
    for _ in range(5):
        run.step()
    assert seen == [rows] * 5 * bool(rows)
    assert torch.equal(before, weights(given.teacher))
    assert not torch.equal(student, weights(given.student))
    run.close()


@STACKS
def test_a_stacks_loss_is_the_references(stack: ModuleType, rows: int) -> None:
    """On batches that were never together before, dropout off."""
    given = work(shuffle=True)
    run = stack.prepare(given)
    given.student.eval()
    for batch in given.loader:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        expected = distillation_loss(
            given.student(**inputs).logits,
            asked(given.teacher, inputs, slice(None)),
            batch["labels"],
            temperature=given.temperature,
            alpha=given.alpha,
        )
        assert float(run.loss(batch).detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


@STACKS
def test_preparing_moves_no_random_state(stack: ModuleType, rows: int) -> None:
    """The loader's order and dropout's masks are those of a stack that fills no cache."""

    def drawn(prepare: Callable[[Work], object]) -> Iterable[torch.Tensor]:
        given = work(shuffle=True)
        prepare(given)
        return [torch.rand(3), *(batch["input_ids"] for batch in given.loader)]

    pairs = zip(drawn(raw_torch.prepare), drawn(stack.prepare), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


# --- a teacher's digest, and the file


def test_a_teachers_digest_is_of_all_that_decides_its_logits(tmp_path: Path) -> None:
    """Its weights and configuration; not where it was read from."""
    model = teacher()
    model.save_pretrained(tmp_path)
    known = teacher_digest(model)
    assert teacher_digest(type(model).from_pretrained(tmp_path)) == known
    model.config.activation = "relu"
    assert teacher_digest(model) != known
    model.config.activation = "gelu"
    assert teacher_digest(model) == known
    with torch.no_grad():
        bias = model.classifier.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(1.0))
    assert teacher_digest(model) != known


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file of three entries, the last of which is the oldest."""
    cache, path = TeacherCache(ORIGIN), tmp_path / "cache" / "teacher.logits"
    ask(cache, ids_of(12))
    ask(cache, ids_of(10, 11, 12))
    cache.save(path)
    return path


def test_a_file_holds_the_cache(kept: Path) -> None:
    """Logits to the bit, and ages: what was oldest is asked first; 3 x (40 + 4 x 2) bytes and two lines."""
    cache = TeacherCache.read(kept, ORIGIN, share=0.3)
    calls, answer = ask(cache, ids_of(10, 11, 12))
    assert calls == [[2]]
    assert answer.tolist() == [[1, 10], [1, 11], [1, 12]]
    assert ask(cache, ids_of(10, 11, 12))[0] == [[0]]
    assert len(kept.read_bytes().split(b"\n", 2)[2]) == 144


def test_an_empty_cache_and_one_that_grows_are_files_too(tmp_path: Path) -> None:
    """Read back, asked for more, and written again over the first."""
    path = tmp_path / "cache"
    TeacherCache(ORIGIN).save(path)
    for size in (1, 3, 40):
        cache = TeacherCache.read(path, ORIGIN)
        ask(cache, ids_of(*range(size)))
        cache.save(path)
    assert len(TeacherCache.read(path, ORIGIN)) == 40


def test_another_teachers_file_is_refused(kept: Path) -> None:
    """So is another precision's; another tokenizer's entries are never hit."""
    for other in (Origin("other", "float32", "tokenizer"), Origin("teacher", "bfloat16", "tokenizer")):
        message = f"holds the logits of another teacher: teacher in float32; the one asked for is {other.teacher} in"
        with pytest.raises(DataError, match=message):
            TeacherCache.read(kept, other)
    cache = TeacherCache.read(kept, Origin("teacher", "float32", "another"))
    assert ask(cache, ids_of(10, 11, 12))[0] == [[0, 1, 2]]


def test_a_damaged_file_is_refused_and_left(kept: Path) -> None:
    """Every bit of every seventh byte, every length, nothing at all: an error that says what to do, and the bytes as they were."""
    whole = kept.read_bytes()
    flips = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        for at in range(0, len(whole), 7)
        for bit in range(8)
    ]
    for damaged in (*flips, *(whole[:length] for length in range(0, len(whole), 5)), whole + b"\0"):
        kept.write_bytes(damaged)
        with pytest.raises(DataError, match=r"is damaged: .*; move it away and begin with an empty cache"):
            TeacherCache.read(kept, ORIGIN)
        assert kept.read_bytes() == damaged
    kept.write_bytes(whole)
    assert len(TeacherCache.read(kept, ORIGIN)) == 3


def test_a_file_of_other_sizes_than_it_says_is_refused(kept: Path) -> None:
    """Whole by its digest, and yet not what this program writes."""
    line, body = kept.read_bytes().split(b"\n", 1)
    body = body.replace(b'"entries":3', b'"entries":4')
    kept.write_bytes(line.rsplit(b" ", 1)[0] + f" {hashlib.sha256(body).hexdigest()}\n".encode() + body)
    with pytest.raises(DataError, match="holds 144 bytes for 4 entries of 2 classes; it was not written by"):
        TeacherCache.read(kept, ORIGIN)


def test_no_file_is_no_cache(tmp_path: Path) -> None:
    """Said so: an empty cache in its place would regenerate everything in silence."""
    with pytest.raises(
        DataError, match=r"^no teacher cache is at .*nothing; begin with an empty one, and save it there"
    ):
        TeacherCache.read(tmp_path / "nothing", ORIGIN)


def test_a_save_that_fails_leaves_the_file_before_it(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits that are not finite, and a disk that is full."""
    before, cache, ids = kept.read_bytes(), TeacherCache(ORIGIN), ids_of(10)
    cache.logits(ids, torch.ones_like(ids), lambda _: torch.tensor([[float("nan"), 0.0]]))
    with pytest.raises(DataError, match=r"^the teacher's logits are not all finite, and are not written"):
        cache.save(kept)
    good = TeacherCache.read(kept, ORIGIN)
    ask(good, ids_of(50))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        good.save(kept)
    assert kept.read_bytes() == before
