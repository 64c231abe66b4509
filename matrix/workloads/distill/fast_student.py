"""The student as the fast path computes it: transformers' BERT classifier to rounding, with less to multiply and to optimise.

Exact, so no switch turns it off:

- query, key and value are one product;
- of the last layer only what the classifier looks at is computed: the first token's row. Its one query is multiplied with
  the key's weights, and its attention with the tokens, before either meets the other: no token is projected to a key or a
  value. A key's bias adds the same to every score, which softmax does not see, so it is not read;
- of the embeddings only the rows that occur in the data are trained. AdamW moves a row without gradient by its weight decay
  alone: `p * prod(1 - lr_t * decay)`, in closed form at the end;
- heads may be padded with zero rows to a width that a GPU's kernels take. Zeros stay zeros: their gradients are products
  with zeros, and nothing decays from zero.

What is trained is a selection of the student's parameters, so the way back is the selection's transpose, which autograd has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from transformers import BertForSequenceClassification, PreTrainedModel

from matrix.errors import DataError

Weights = Mapping[str, torch.Tensor]


def _joined(linears: Sequence[torch.nn.Linear], heads: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Several projections as one: weight `(n * heads * width) x hidden` and its bias, each head padded to `width` with zeros."""

    def join(parts: Sequence[torch.Tensor]) -> torch.Tensor:
        stacked = torch.stack(tuple(parts))
        split = stacked.view(len(parts), heads, -1, *stacked.shape[2:])
        room = width - split.shape[2]
        padded = F.pad(split, (0, 0) * (split.dim() - 3) + (0, room)) if room else split
        return padded.reshape(-1, *stacked.shape[2:])

    return join([one.weight for one in linears]), join([one.bias for one in linears])


class FastStudent:
    """How a BERT classifier is computed from `weights`; see the module.

    Args:
        student: a BERT classifier; it keeps the embedding rows that do not occur.
        rows: ids of the word embeddings that occur, ascending, on the student's device; the first is the padding's, 0.
        longest: tokens of the longest example.
        multiple: what the width of each attention head is padded to a multiple of.

    Raises:
        DataError: the student's attention has relative positions or pruned heads, or `longest` tokens are too many for it.
    """

    def __init__(self, student: PreTrainedModel, rows: torch.Tensor, longest: int, *, multiple: int = 1) -> None:
        _check(student, longest)
        config = student.config
        self.student, self.rows, self.longest = student, rows, longest
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.own_width = config.hidden_size // self.heads
        self.width = -(-self.own_width // multiple) * multiple
        self.eps = config.layer_norm_eps
        self.activation = student.bert.encoder.layer[0].intermediate.intermediate_act_fn
        self.padding = 0 if student.bert.embeddings.word_embeddings.padding_idx == 0 else None
        at_end = config.classifier_dropout
        self.dropout = (
            config.hidden_dropout_prob,
            config.attention_probs_dropout_prob,
            config.hidden_dropout_prob if at_end is None else at_end,
        )

    def weights(self) -> dict[str, torch.Tensor]:
        """All that the forward pass reads, as functions of the student's parameters: gradients reach those."""
        bert, classifier = self.student.bert, self.student.classifier
        tables = bert.embeddings
        found = {
            "words": tables.word_embeddings.weight.index_select(0, self.rows),
            "positions": tables.position_embeddings.weight[: self.longest],
            "type": tables.token_type_embeddings.weight[0],
            **_pair("norm", tables.LayerNorm),
            **_pair("pooler", bert.pooler.dense),
            **_pair("classifier", classifier),
        }
        for index, layer in enumerate(bert.encoder.layer):
            found |= {f"{index}.{name}": tensor for name, tensor in self._layer_weights(layer, index)}
        return found

    def _layer_weights(self, layer: torch.nn.Module, index: int) -> Iterator[tuple[str, torch.Tensor]]:
        own, output = layer.attention.self, layer.attention.output
        parts: dict[str, tuple[torch.nn.Linear, ...]] = {"qkv": (own.query, own.key, own.value)}
        if index == self.layers - 1:
            parts = {"q": (own.query,), "kv": (own.key, own.value)}
        for name, linears in parts.items():
            weight, bias = _joined(linears, self.heads, self.width)
            yield from {f"{name}.weight": weight, f"{name}.bias": bias}.items()
        weight = output.dense.weight
        if self.width > self.own_width:
            columns = weight.view(-1, self.heads, self.own_width)
            weight = F.pad(columns, (0, self.width - self.own_width)).flatten(1)
        yield from {"out.weight": weight, "out.bias": output.dense.bias}.items()
        yield from _pair("middle", output.LayerNorm).items()
        yield from _pair("up", layer.intermediate.dense).items()
        yield from _pair("down", layer.output.dense).items()
        yield from _pair("end", layer.output.LayerNorm).items()

    def leaves(self) -> dict[str, torch.Tensor]:
        """The same as leaves to train. Those that are a parameter as it stands share its storage; `write_back` for the rest."""
        return {name: tensor.detach().requires_grad_() for name, tensor in self.weights().items()}

    def transposed(self, values: Weights) -> list[torch.Tensor]:
        """`values`, in the shapes of `weights`, where the student's parameters have them, in their order; zeros elsewhere."""
        weights = self.weights()
        given = [values[name].detach() for name in weights]
        return list(torch.autograd.grad(list(weights.values()), list(self.student.parameters()), given))

    def write_back(self, leaves: Weights, decay: float) -> None:
        """Give the student what was trained; entries that never occurred are multiplied by `decay`."""
        ones = {name: torch.ones_like(leaf) for name, leaf in leaves.items()}
        found = zip(self.student.parameters(), self.transposed(leaves), self.transposed(ones), strict=True)
        with torch.no_grad():
            for parameter, trained, occurs in found:
                parameter.copy_(torch.where(occurs > 0, trained, parameter * decay))

    def logits(
        self, weights: Weights, ids: torch.Tensor, mask: torch.Tensor | None = None, *, dropout: bool = False
    ) -> torch.Tensor:
        """The classifier's answer, batch x classes.

        Args:
            weights: of `weights` or `leaves`.
            ids: indices into `rows`, int64, batch x length.
            mask: True where a token is no padding, batch x length; None where all are.
            dropout: drop what the student's configuration says, as in its training mode.
        """
        hidden, attention, last = self.dropout if dropout else (0.0, 0.0, 0.0)
        seen = None if mask is None else mask[:, None, None, :]
        x = F.embedding(ids, weights["words"], self.padding) + (weights["positions"][: ids.shape[1]] + weights["type"])
        x = _dropped(self._norm(x, weights, "norm"), hidden)
        for index in range(self.layers):
            x = self._layer(x, weights, index, seen, (hidden, attention))
        pooled = torch.tanh(_linear(x[:, 0], weights, "pooler"))
        return _linear(_dropped(pooled, last), weights, "classifier")

    def _layer(
        self,
        x: torch.Tensor,
        weights: Weights,
        index: int,
        seen: torch.Tensor | None,
        shares: tuple[float, float],
    ) -> torch.Tensor:
        hidden, attention = shares
        if index == self.layers - 1:
            looked = self._first_looks(x, weights, index, seen, attention)
            x = x[:, :1]
        else:
            query, key, value = self._heads(_linear(x, weights, f"{index}.qkv"))
            looked = F.scaled_dot_product_attention(
                query, key, value, attn_mask=seen, dropout_p=attention, scale=self.own_width**-0.5
            )
            looked = looked.transpose(1, 2).flatten(2)
        x = self._norm(x + _dropped(_linear(looked, weights, f"{index}.out"), hidden), weights, f"{index}.middle")
        wide = self.activation(_linear(x, weights, f"{index}.up"))
        return self._norm(x + _dropped(_linear(wide, weights, f"{index}.down"), hidden), weights, f"{index}.end")

    def _heads(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Query, key and value, each batch x heads x length x width, which lie side by side in `x`."""
        return tuple(x.view(*x.shape[:2], 3, self.heads, self.width).permute(2, 0, 3, 1, 4).unbind())

    def _first_looks(
        self, x: torch.Tensor, weights: Weights, index: int, seen: torch.Tensor | None, attention: float
    ) -> torch.Tensor:
        """What the first token's query finds in `x`: batch x 1 x (heads * width)."""
        split = (2, self.heads, self.width)
        to_key, to_value = weights[f"{index}.kv.weight"].view(*split, -1).unbind()
        added = weights[f"{index}.kv.bias"].view(*split)[1]
        query = _linear(x[:, 0], weights, f"{index}.q").view(-1, self.heads, self.width)
        asked = torch.matmul(query.transpose(0, 1), to_key).transpose(0, 1)
        scores = torch.matmul(asked, x.transpose(1, 2)) * self.own_width**-0.5
        if seen is not None:
            scores = scores.masked_fill(~seen[:, 0], -torch.inf)
        shares = _dropped(scores.softmax(-1), attention)
        found = torch.matmul(torch.matmul(shares, x).transpose(0, 1), to_value.transpose(1, 2)).transpose(0, 1)
        return (found + shares.sum(-1, keepdim=True) * added).flatten(1)[:, None]

    def _norm(self, x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], self.eps)


def _pair(name: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {f"{name}.weight": module.weight, f"{name}.bias": module.bias}


def _linear(x: torch.Tensor, weights: Weights, name: str) -> torch.Tensor:
    return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _dropped(x: torch.Tensor, share: float) -> torch.Tensor:
    return F.dropout(x, share) if share else x


def _check(student: PreTrainedModel, longest: int) -> None:
    config = student.config
    plain = isinstance(student, BertForSequenceClassification) and not config.is_decoder
    if not plain or config.position_embedding_type != "absolute" or getattr(config, "pruned_heads", None):
        raise DataError(
            "the fast path does not compute this student",
            remedy="give a BERT classifier with absolute positions and all of its heads",
        )
    if longest > config.max_position_embeddings:
        raise DataError(
            f"an example has {longest} tokens and the student {config.max_position_embeddings} positions",
            remedy="truncate the examples (max_length of the recipe)",
        )
