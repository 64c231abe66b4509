"""A step's examples in two halves, each on a thread of its own: on a CPU both cores then work at all of a step.

Torch spreads one product over its threads and waits for the slowest, op by op; attention's kernel, of many small products, gains
nothing from that (torch 2.13: 1.36 ms on two threads, 1.08 on one). Two halves, because the sum of two gradients does not depend
on which comes first: with more, a resumed training would end at other bits.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Final

import torch

LEAST: Final = 16
"""Examples that a step must have to be halved: smaller products do not fill a core."""


class Halves:
    """Two threads that share the cores of the one that makes them, which has one thread itself until `close`.

    Were it to keep its own pool of OpenMP threads, they would spin beside the halves after each optimizer step: 115 ms a step
    instead of 98, and 105 without halves (2 cores, 32 examples of 15 tokens).
    """

    def __init__(self) -> None:
        self._before = torch.get_num_threads()
        both = Barrier(2)
        self._threads = ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(max(1, self._before // 2),))
        list(self._threads.map(lambda _: both.wait(), range(2)))
        torch.set_num_threads(1)

    def backward(self, loss: Callable[[torch.Tensor], torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
        """Add to the leaves the gradient of the mean loss of the examples `rows`; that loss. `loss` is a mean over its examples."""

        def half(part: torch.Tensor) -> torch.Tensor:
            found = loss(part) * (len(part) / len(rows))
            found.backward()
            return found.detach()

        first, second = self._threads.map(half, rows.tensor_split(2))
        return first + second

    def close(self) -> None:
        """End both threads; this one has all cores again."""
        self._threads.shutdown()
        torch.set_num_threads(self._before)
