"""The response workload's data: a teacher's answers, cut to conversations of one length, and the tokenizer that reads them.

A row is one message of the user and one answer. Examples are joined and cut so that, in the chat template, each row has exactly
as many tokens as the profile says: no padding, so every FLOP that is counted is needed. The cut is made where the text reads
back as the same tokens, so a library that tokenises the messages itself trains on the same ids as one that is given ids.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from matrix.canonical import digest
from matrix.errors import DataError
from matrix.profile import Response
from matrix.strict import Strict, parse_json, parse_toml
from matrix.workloads.mangaassist import load_grammar
from matrix.workloads.taught import read_answers

EMBEDDED: Final = "embedded"
FILE: Final = "conversations.jsonl"
SPECIAL: Final = {"pad_token": "<|pad|>", "eos_token": "<|end|>"}
PAD, END = range(len(SPECIAL))
ROLES: Final = ("<|system|>", "<|user|>", "<|assistant|>")
TEMPLATE: Final = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
IGNORED: Final = -100
"""The label of a token that no loss looks at."""

_EXAMPLES = 512
_SEED = 20_261_124
_LEARNT = 8_000
"""Tokens learnt from the texts at most; the models keep their configuration's rows, so that sizes are real."""
_BATCHES = 32
"""Rows are so many whole batches: no library meets a ragged one at an epoch's end."""


class ResponseExample(Strict):
    """One prompt, and what the teacher answered."""

    prompt: str
    answer: str


class Conversation(NamedTuple):
    """One row as token ids, and how many of the first ones are its prompt (with the assistant's header)."""

    ids: list[int]
    prompt: int

    @property
    def labels(self) -> list[int]:
        """The ids of the answer, the prompt ignored."""
        return [IGNORED] * self.prompt + self.ids[self.prompt :]


class _Answers(Strict):
    """`mangaassist_answers.toml`."""

    opener: tuple[str, ...]
    tail: tuple[str, ...]
    intent: dict[str, tuple[str, ...]]


def _embedded() -> list[ResponseExample]:
    """Seeded questions of a manga shop's customers, each with an answer about the same title, order and city."""
    text = resources.files("matrix.workloads").joinpath("mangaassist_answers.toml").read_text(encoding="utf-8")
    answers, grammar = parse_toml(_Answers, text, "mangaassist_answers.toml"), load_grammar()
    rng, found = random.Random(_SEED), []  # noqa: S311 - data, not secrets
    for intent in rng.choices(grammar.labels, k=_EXAMPLES):
        slots = {name: rng.choice(words) for name, words in grammar.slots.items()}
        asked = [
            rng.choice(grammar.shared.opener),
            rng.choice(grammar.shared.context),
            rng.choice(grammar.intent[intent]),
        ]
        said = [rng.choice(answers.opener), *rng.sample(answers.intent[intent], 2), rng.choice(answers.tail)]
        prompt, answer = (" ".join(parts).format_map(slots) for parts in (asked, said))
        found.append(ResponseExample(prompt=prompt, answer=answer))
    return found


def load_answers(source: str) -> list[ResponseExample]:
    """The answered prompts of `source`: "embedded", or a file of `matrix label`, whose messages are joined to one prompt.

    Raises:
        DataError: the file cannot be read, a line is no answer, or none may teach.
    """
    if source == EMBEDDED:
        return _embedded()
    return [
        ResponseExample(prompt="\n".join(message.content for message in one.messages), answer=one.answer)
        for one in read_answers(Path(source).expanduser())
    ]


def answers_digest(examples: Sequence[ResponseExample]) -> str:
    """Digest of the ordered examples."""
    return digest([[example.prompt, example.answer] for example in examples])


def train_tokenizer(examples: Sequence[ResponseExample], rows: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `rows` tokens with a chat template; equal texts give an equal tokenizer.

    tokenizers 0.22.2 orders merges by count and then by pair: four trainings in each of five processes, with and without its
    threads, gave one vocabulary. (Its WordPieceTrainer does not: `matrix.workloads.models.vocabulary`.)
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(rows, _LEARNT),
        min_frequency=2,
        special_tokens=[*SPECIAL.values(), *ROLES],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for one in examples for text in (one.prompt, one.answer)], trainer)
    if tokenizer.get_vocab_size() > rows:
        raise DataError(
            f"a vocabulary of {rows} cannot read every text",
            remedy=f"give the profile's response models at least {tokenizer.get_vocab_size()} rows",
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,  # decoding must give the text back
        model_input_names=["input_ids", "attention_mask"],
        **SPECIAL,
    )


def messages(example: ResponseExample) -> list[dict[str, str]]:
    """The example as a conversation of two messages."""
    return [{"role": "user", "content": example.prompt}, {"role": "assistant", "content": example.answer}]


def encode(tokenizer: PreTrainedTokenizerBase, example: ResponseExample) -> Conversation:
    """The example in the tokenizer's chat template."""
    said = messages(example)
    prompt = tokenizer.apply_chat_template(said[:1], add_generation_prompt=True)
    return Conversation(tokenizer.apply_chat_template(said), len(prompt))


def _window(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], part: slice, count: int) -> str | None:
    """Exactly `count` tokens of `texts` in a row, their first or their last; None where the cut reads back as other tokens."""
    found: list[int] = []
    joined: list[str] = []
    for text in itertools.cycle(texts if part.start is None else list(reversed(texts))):
        joined = [*joined, text] if part.start is None else [text, *joined]
        found = tokenizer.encode(" ".join(joined), add_special_tokens=False)
        if len(found) >= count:
            break
    cut = tokenizer.decode(found[part])
    return cut if tokenizer.encode(cut, add_special_tokens=False) == found[part] else None


def cut(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[ResponseExample], shape: Response
) -> list[ResponseExample]:
    """Conversations of exactly `shape.length` tokens, the last `shape.answer` of them the answer; whole batches of them.

    A prompt holds the last tokens of what was asked up to its own question, an answer the first of its own and of those
    that follow.

    Raises:
        DataError: no conversation of that length can be cut from the texts.
    """
    bare = encode(tokenizer, ResponseExample(prompt="", answer=""))
    asked, said = shape.length - shape.answer - bare.prompt, shape.answer - (len(bare.ids) - bare.prompt)
    if asked < 1 or said < 1:
        raise DataError(
            f"{shape.length} tokens with an answer of {shape.answer} hold no text",
            remedy=f"the chat template alone takes {len(bare.ids)}: lengthen the profile's response",
        )
    found: list[ResponseExample] = []
    for at in range(len(examples)):
        if len(found) == shape.batch * _BATCHES:
            break
        turned = [*examples[at:], *examples[:at]]
        prompt = _window(tokenizer, [*(one.prompt for one in turned[1:]), turned[0].prompt], slice(-asked, None), asked)
        answer = _window(tokenizer, [one.answer for one in turned], slice(None, said), said)
        if prompt is None or answer is None:
            continue
        row = ResponseExample(prompt=prompt, answer=answer)
        ids = encode(tokenizer, row)
        if (len(ids.ids), ids.prompt) == (shape.length, shape.length - shape.answer):
            found.append(row)
    if not found:
        raise DataError(
            f"no conversation of {shape.length} tokens can be cut from the answers",
            remedy="give answers whose texts read back as they were tokenised",
        )
    return list(itertools.islice(itertools.cycle(found), shape.batch * _BATCHES))


def write(folder: Path, tokenizer: PreTrainedTokenizerBase, rows: Sequence[ResponseExample]) -> None:
    """Write what `read` reads."""
    tokenizer.save_pretrained(folder)
    (folder / FILE).write_text("".join(f"{row.model_dump_json()}\n" for row in rows), encoding="utf-8")


def read(folder: Path) -> tuple[PreTrainedTokenizerBase, list[ResponseExample]]:
    """The tokenizer and the conversations that `prepare` left in `folder`."""
    with (folder / FILE).open("rb") as lines:  # bytes: a text's own separators (U+2028) end no line
        return AutoTokenizer.from_pretrained(str(folder)), [parse_json(ResponseExample, line, FILE) for line in lines]
