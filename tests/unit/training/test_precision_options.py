"""Which type a training computes in: as its arguments say, else as the machine is."""

from pathlib import Path
from typing import Any

import pytest
import torch

from thinkimg.api import GRPO, SFT
from thinkimg.errors import UserError
from thinkimg.training.grpo import grpo_config
from thinkimg.training.precision import compute_dtype, precision_options
from thinkimg.training.session import Session
from thinkimg.training.sft import sft_config


@pytest.mark.parametrize(
    ("args", "dtype"), [({}, torch.float32), ({"bf16": True}, torch.bfloat16), ({"bf16": False}, torch.float32)]
)
def test_both_trainers_compute_in_what_their_arguments_say(
    args: dict[str, Any], dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert compute_dtype(sft_config(SFT(args=args), Session(tmp_path))) == dtype
    assert compute_dtype(grpo_config(GRPO(args=args), Session(tmp_path))) == dtype


@pytest.mark.parametrize(
    ("args", "chosen"),
    [
        ({}, {"bf16": True}),
        ({"fp16": True}, {}),
        ({"bf16": False}, {}),
        ({"deepspeed": {"bf16": {"enabled": True}}}, {}),
        ({"deepspeed": {"fp16": {"enabled": True}}}, {}),
    ],
)
def test_a_gpu_computes_in_bfloat16_unless_the_arguments_say_otherwise(
    args: dict[str, Any], chosen: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert precision_options(args, "grpo.args") == chosen


def test_float16_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="fp16"):
        precision_options({"fp16": True}, "grpo.args")
