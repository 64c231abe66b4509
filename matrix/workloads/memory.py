"""The most memory that this process held of its device since it was last asked to forget."""

from __future__ import annotations

import torch

from matrix.load import peak_memory, reset_peak_memory, trim_memory


class PeakMemory:
    """A high-water mark: of resident memory on the CPU, of torch's own blocks on CUDA."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._can_reset = False

    def forget(self) -> None:
        """Restart the mark; memory that was freed meanwhile is given back first."""
        trim_memory()
        self._can_reset = reset_peak_memory()
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def bytes(self) -> int | None:
        """The mark since then; None where not told."""
        if self.device == "cuda":
            return int(torch.cuda.max_memory_allocated())
        # torch 2.13 tells no peak of MPS, and its driver's memory holds earlier cells' blocks
        return peak_memory() if self.device == "cpu" and self._can_reset else None
