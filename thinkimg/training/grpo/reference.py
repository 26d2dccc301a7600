"""The reference model of the KL term: the weights that the training begins with."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trl.trainer import grpo_trainer


@contextmanager
def own_reference(model: Any) -> Iterator[None]:
    """While TRL's trainer is made: its reference is a copy of `model`. TRL would load what the configuration's name
    says once more: of a hub's repository the newest revision, of merged adapters their base."""
    plain = grpo_trainer.create_model_from_path
    grpo_trainer.create_model_from_path = lambda name, **_: copy.deepcopy(model).eval()
    try:
        yield
    finally:
        grpo_trainer.create_model_from_path = plain
