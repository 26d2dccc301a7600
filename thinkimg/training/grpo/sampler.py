"""The order in which questions are asked, and where in it a run may be interrupted."""

from collections.abc import Callable, Iterator
from typing import Any

from transformers import TrainerCallback
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """TRL's order of rows, but that of an epoch follows from the seed and the epoch's number alone. TRL's own goes on
    from the epoch before, which a resumed run does not draw: it would train on other questions than it would have."""

    def __init__(self, *args: Any, epoch: Callable[[], int], **options: Any) -> None:
        super().__init__(*args, **options)
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        if self.shuffle:
            self.generator.manual_seed((self.seed or 0) + self.epoch())
        yield from super().__iter__()


class WholeGenerations(TrainerCallback):
    """Where a generation is used for several steps (`num_iterations`), checkpoints are written after its last one only:
    a resumed run samples anew, and would take the steps that are left on other rollouts. Must come after all callbacks
    that ask for checkpoints."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.put_off = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        wanted = control.should_save or self.put_off
        self.put_off = wanted and bool(state.global_step % self.steps) and state.global_step < state.max_steps
        control.should_save = wanted and not self.put_off
        if self.put_off:
            control.should_training_stop = False  # who asked to end after a checkpoint asks again
        return control
