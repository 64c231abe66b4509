"""Teacher, student and tokenizer: from their configurations, or from a path or a hub id.

Refuses a checkpoint whose classes are not the data's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from matrix.errors import DataError
from matrix.profile import Recipe

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
TRAINED_VOCABULARY = 8_000
"""Word pieces learnt from the training texts; the models keep the seed's 30,522 rows, so that sizes are real."""


def build_teacher(recipe: Recipe, names: Sequence[str]) -> PreTrainedModel:
    """A DistilBERT classifier with random weights, drawn on the CPU: equal for equal recipes, whatever trains it."""
    torch.manual_seed(recipe.seed)
    shape = recipe.teacher
    return DistilBertForSequenceClassification(
        DistilBertConfig(
            vocab_size=recipe.vocabulary,
            n_layers=shape.layers,
            dim=shape.dim,
            n_heads=shape.heads,
            hidden_dim=shape.hidden,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )
    )


def build_student(recipe: Recipe, names: Sequence[str]) -> PreTrainedModel:
    """A TinyBERT classifier with random weights, drawn on the CPU: equal for equal recipes, whatever trains it."""
    torch.manual_seed(recipe.seed + 1)
    shape = recipe.student
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=recipe.vocabulary,
            hidden_size=shape.dim,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.hidden,
            id2label=dict(enumerate(names)),
            label2id={name: index for index, name in enumerate(names)},
        )
    )


def load_model(name: str, names: Sequence[str], family: Literal["distilbert", "bert"]) -> PreTrainedModel:
    """The classifier of this family at a local path or hub id, in fp32.

    Raises:
        DataError: it cannot be had, is of another family, or its classes are not `names`.
    """
    try:
        model = AutoModelForSequenceClassification.from_pretrained(name, torch_dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise DataError(
            f"no classifier is at {name!r}", remedy=f"give a checkpoint's folder or a hub id ({error})"
        ) from error
    if model.config.model_type != family:
        raise DataError(
            f"{name!r} is a {model.config.model_type} model",
            remedy=f"give a {family} one: a teacher is DistilBERT here, a student BERT",
        )
    if model.config.num_labels != len(names):
        raise DataError(
            f"{name!r} has {model.config.num_labels} classes and the data {len(names)}",
            remedy="give a checkpoint that was trained on these classes",
        )
    told = [model.config.id2label[index] for index in range(len(names))]
    if told != list(names) and not all(name.startswith("LABEL_") for name in told):
        raise DataError(
            f"{name!r} orders its classes {told} and the data {list(names)}",
            remedy="give a checkpoint whose id2label is the data's sorted labels",
        )
    return model


def check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a model that lacks rows for some of the tokenizer's ids.

    Raises:
        DataError: on a GPU it would end as a device assertion in some later cell.
    """
    if len(tokenizer) > model.config.vocab_size:
        raise DataError(
            f"the tokenizer has {len(tokenizer)} tokens and the {model.config.model_type} model {model.config.vocab_size} rows",
            remedy="give a teacher and a student of the same vocabulary",
        )


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer saved beside a checkpoint."""
    return AutoTokenizer.from_pretrained(str(name))


def vocabulary(texts: Sequence[str]) -> list[str]:
    """Word pieces of `texts`: every character, alone and as a continuation, and each word seen twice, commonest first.

    Not `tokenizers.trainers.WordPieceTrainer`: version 0.22.2 breaks ties by hash order, so that three trainings on the same
    texts in one process gave three vocabularies (measured, one thread), and no two hosts could share an identity.
    """
    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    letters = sorted({letter for word in words for letter in word})
    common = sorted(
        (word for word, count in words.items() if count > 1 and len(word) > 1), key=lambda w: (-words[w], w)
    )
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    return [*pieces, *common][:TRAINED_VOCABULARY]


def train_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A BERT word-piece tokenizer with the `vocabulary` of `texts`; equal texts give an equal tokenizer."""
    vocab = {piece: index for index, piece in enumerate(vocabulary(texts))}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    names = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=512,
        # transformers 5 leaves token_type_ids out of the default; the exported student takes all three inputs
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **names,
    )
