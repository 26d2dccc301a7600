"""What a training stage says of its progress."""

from types import SimpleNamespace
from typing import Any

import pytest

from thinkimg.jobs.stages.saving import Progress, Saving
from thinkimg.training.sft import LONGER_THAN_ANY_BUDGET

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("max_steps", "tokens", "seen", "told"),
    [
        (400, None, 9_000, 400),
        (LONGER_THAN_ANY_BUDGET, 50_000, 10_000, 100),
        (LONGER_THAN_ANY_BUDGET, 50_000, 0, None),
        (LONGER_THAN_ANY_BUDGET, 50_000, 60_000, 20),
        (LONGER_THAN_ANY_BUDGET, None, 9_000, None),
    ],
    ids=["steps", "tokens", "tokens, none counted yet", "tokens, the last step", "time"],
)
def test_how_many_steps_there_are_to_do(max_steps: int, tokens: int | None, seen: int, told: int | None) -> None:
    lines: list[tuple[int, int | None]] = []

    def progress(name: str, step: int, total: int | None, **_: Any) -> None:
        lines.append((step, total))

    state = SimpleNamespace(global_step=20, max_steps=max_steps, num_input_tokens_seen=seen)
    context: Any = SimpleNamespace(progress=progress)
    Progress(context, "sft", Saving(every=50, tokens=tokens)).on_save(None, state, None)
    assert lines == [(20, told)]
