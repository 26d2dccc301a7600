"""The order in which questions are asked."""

from collections.abc import Callable, Iterator
from typing import Any

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
