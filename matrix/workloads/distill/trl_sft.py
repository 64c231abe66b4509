"""Response distillation in trl's `SFTTrainer`, on prompt-completion data (seed, section 2.7, for trl 1.16.0).

Where its defaults are not the work of the matrix: `bf16=True` and `gradient_checkpointing=True` are refused by a host without a
GPU or trade time for memory, and `max_length` (the seed's `max_seq_length` is gone) cuts at 1,024. The data is prompt-completion,
whose loss looks at answers alone: on whole texts transformers 4.57.6 counts a token a row too many and the loss is too small.
"""

from __future__ import annotations

from datasets import Dataset, disable_progress_bars
from trl import SFTConfig, SFTTrainer

from matrix.workloads.conversations import messages
from matrix.workloads.distill.halted_trainer import HaltCallback, HaltedTrainer, arguments
from matrix.workloads.distill.response import AnswersRun, ResponseWork


class TrlSft(HaltedTrainer, AnswersRun):
    """A trainer at work in a coroutine."""

    def __init__(self, work: ResponseWork) -> None:
        super().__init__(work)
        disable_progress_bars()  # of tokenising, which is over before the first step
        said = [messages(example) for example in work.conversations]
        self.trainer = SFTTrainer(
            model=work.student,
            args=SFTConfig(
                **arguments(work, self.folder),
                max_length=work.shape.length,
                completion_only_loss=True,
                gradient_checkpointing=False,
            ),
            train_dataset=Dataset.from_list([{"prompt": one[:1], "completion": one[1:]} for one in said]),
            processing_class=work.tokenizer,
            optimizers=(self.optimizer, None),
            callbacks=[HaltCallback()],
        )


def prepare(work: ResponseWork) -> TrlSft:
    """The trainer, ready to step."""
    return TrlSft(work)
