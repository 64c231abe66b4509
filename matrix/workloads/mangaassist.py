"""The embedded data: seeded utterances of a manga shop's customers, 10 intents, hard enough to tell models apart.

Refuses to be perfect: some cores belong to two intents, some labels are wrong, some words are misspelt. `best_accuracy`
is what an all-knowing classifier reaches in expectation, so a student's accuracy can be read against it.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from importlib import resources

from pydantic import Field

from matrix.strict import Strict, parse_toml

_SLOT = re.compile(r"\{(\w+)\}")


class Rates(Strict):
    """How often each part of an utterance appears, as shares of utterances (typo: of words)."""

    opener: float
    context: float
    tail: float
    ambiguous: float
    label_noise: float
    typo: float


class Shared(Strict):
    """Parts that carry no intent."""

    opener: tuple[str, ...]
    tail: tuple[str, ...]
    context: tuple[str, ...]


class Ambiguous(Strict):
    """A core of two intents: `first` is the probability of the first."""

    core: str
    intents: tuple[str, str]
    first: float = Field(ge=0.5, lt=1)


class Grammar(Strict):
    """All that the generator knows; `mangaassist.toml` holds it."""

    rates: Rates
    slots: dict[str, tuple[str, ...]]
    shared: Shared
    intent: dict[str, tuple[str, ...]]
    ambiguous: tuple[Ambiguous, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The intents, in the order of their class indices."""
        return tuple(self.intent)


@dataclass(frozen=True)
class Utterance:
    """One example: its text and the index of its label."""

    text: str
    label: int


def load_grammar() -> Grammar:
    """The grammar that is part of this package."""
    text = resources.files("matrix.workloads").joinpath("mangaassist.toml").read_text(encoding="utf-8")
    return parse_toml(Grammar, text, "mangaassist.toml")


def best_accuracy(grammar: Grammar) -> float:
    """Expected accuracy of the best classifier: it knows the core's posterior but not the coin that was thrown.

    `P(right core label) * P(label not replaced)`: (1 - a) + a * mean(first), times (1 - noise).
    """
    mean_first = sum(item.first for item in grammar.ambiguous) / len(grammar.ambiguous)
    share = grammar.rates.ambiguous
    return ((1 - share) + share * mean_first) * (1 - grammar.rates.label_noise)


def _fill(template: str, grammar: Grammar, rng: random.Random) -> str:
    return _SLOT.sub(lambda match: rng.choice(grammar.slots[match[1]]), template)


def misspell(word: str, rng: random.Random) -> str:
    """`word` with one slip of the fingers; a word of three letters or fewer as it is."""
    if len(word) < 4:  # noqa: PLR2004 - a shorter word would become another word
        return word
    at = rng.randrange(1, len(word) - 1)
    swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return rng.choice((swapped, word[:at] + word[at + 1 :], word[:at] + word[at] + word[at:]))


def _core(grammar: Grammar, rng: random.Random) -> tuple[str, str]:
    if rng.random() < grammar.rates.ambiguous:
        item = rng.choice(grammar.ambiguous)
        return item.core, item.intents[0] if rng.random() < item.first else item.intents[1]
    intent = rng.choice(grammar.labels)
    return rng.choice(grammar.intent[intent]), intent


def _utterance(grammar: Grammar, rng: random.Random) -> Utterance:
    rates, shared = grammar.rates, grammar.shared
    core, intent = _core(grammar, rng)
    parts = [rng.choice(shared.opener)] if rng.random() < rates.opener else []
    context = [rng.choice(shared.context)] if rng.random() < rates.context else []
    parts += [*context, core] if rng.random() < 0.5 else [core, *context]  # noqa: PLR2004 - either order
    if rng.random() < rates.tail:
        parts.append(rng.choice(shared.tail))
    words = _fill(" ".join(parts), grammar, rng).split()
    text = " ".join(misspell(word, rng) if rng.random() < rates.typo else word for word in words)
    if rng.random() < rates.label_noise:
        intent = rng.choice([other for other in grammar.labels if other != intent])
    return Utterance(text, grammar.labels.index(intent))


def generate(count: int, seed: int, *, taken: set[str] | None = None) -> list[Utterance]:
    """`count` utterances with distinct texts, none of them in `taken`; equal arguments give equal utterances."""
    grammar, rng, seen = load_grammar(), random.Random(seed), set(taken or ())  # noqa: S311 - data, not secrets
    found: list[Utterance] = []
    while len(found) < count:
        utterance = _utterance(grammar, rng)
        if utterance.text not in seen:
            seen.add(utterance.text)
            found.append(utterance)
    return found
