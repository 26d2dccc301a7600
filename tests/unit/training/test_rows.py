"""Which trajectories the loss leaves out, before anything is looked at in them."""

from typing import Any

import pytest

from thinkimg.training.grpo.rows import RowMaker
from thinkimg.trajectory import Trajectory


@pytest.mark.parametrize(
    ("status", "reason"),
    [("infrastructure", "infrastructure"), ("refused", "refused"), ("rounds", "truncated"), ("tokens", "truncated")],
)
def test_what_is_nobodys_or_not_taken_is_neither_rewarded_nor_punished(status: Any, reason: str) -> None:
    unasked: Any = None
    maker = RowMaker(unasked, unasked, pad_id=0, video_pad_id=None, mask_truncated=True)
    row = maker.row(Trajectory(question="?", status=status))
    assert (row.masked, row.mask, row.completion) == (reason, [0], [0])
