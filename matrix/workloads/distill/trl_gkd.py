"""Token-level distillation in trl's `GKDTrainer`, off-policy: `lmbda=0` learns on the teacher's answers alone (trl 1.16.0).

`temperature` is GKD's sampling temperature and nothing else: `compute_loss` of trl 1.16.0 does not pass it to the divergence,
which is always at 1. So it is set to 1 here, and the definition has none. Each step tokenises its messages: GKD's own collator
works on text. `empty_cache` after each loss is GKD's own too.
"""

from __future__ import annotations

import warnings

from datasets import Dataset

from matrix.workloads.conversations import messages
from matrix.workloads.distill.halted_trainer import HaltCallback, HaltedTrainer, arguments
from matrix.workloads.distill.response import BETA, ResponseWork, TokenLogitsRun

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # trl 1.16.0 warns of whatever it calls experimental; the version is pinned
    from trl.experimental.gkd import GKDConfig, GKDTrainer


class TrlGkd(HaltedTrainer, TokenLogitsRun):
    """A trainer at work in a coroutine."""

    def __init__(self, work: ResponseWork) -> None:
        super().__init__(work)
        self.trainer = GKDTrainer(
            model=work.student,
            teacher_model=work.teacher,
            args=GKDConfig(
                **arguments(work, self.folder),
                lmbda=0.0,
                beta=BETA,
                temperature=1.0,
                max_length=work.shape.length,
                gradient_checkpointing=False,
            ),
            train_dataset=Dataset.from_list([{"messages": messages(example)} for example in work.conversations]),
            processing_class=work.tokenizer,
            optimizers=(self.optimizer, None),
            callbacks=[HaltCallback()],
        )


def prepare(work: ResponseWork) -> TrlGkd:
    """The trainer, ready to step."""
    return TrlGkd(work)
