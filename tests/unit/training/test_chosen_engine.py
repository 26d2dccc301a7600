"""Which engine makes the rollouts, and what is refused without one. The engine itself: tests/engine."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.training.scripted_agent import World
from thinkimg.api import GRPO
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.models.generator import GenerationRequest
from thinkimg.models.vllm.generator import VLLMGenerator, check_prompt
from thinkimg.training import colocated
from thinkimg.training.colocated import check_vllm, chosen_engine
from thinkimg.training.grpo import grpo_config
from thinkimg.training.session import Session
from thinkimg.trajectory import InvariantError


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends about vLLM and a GPU, which this machine may or may not have."""

    def pretend(vllm: bool, gpu: bool, wish: str | None = None) -> None:
        found = importlib.util.find_spec("json") if vllm else None
        monkeypatch.setattr(colocated.importlib.util, "find_spec", lambda name: found)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        if wish is None:
            monkeypatch.delenv("THINKIMG_ENGINE", raising=False)
        else:
            monkeypatch.setenv("THINKIMG_ENGINE", wish)

    return pretend


@pytest.mark.parametrize(
    ("vllm", "gpu", "wish", "used"),
    [
        (True, True, None, True),
        (True, False, None, False),  # a CPU is faster without it
        (False, True, None, False),
        (True, False, "vllm", True),
        (True, True, "transformers", False),
        (False, False, "transformers", False),
    ],
)
def test_vllm_where_there_is_one_else_transformers(
    installed: Any, vllm: bool, gpu: bool, wish: str | None, used: bool
) -> None:
    model = World().model
    installed(vllm, gpu, wish)
    options = chosen_engine(model)
    assert bool(options) == used
    if used:
        assert options["vllm_enable_sleep_mode"] == gpu
        assert options["vllm_max_model_length"] == model.config.text_config.max_position_embeddings


def test_a_wish_that_cannot_be_granted_is_refused(installed: Any) -> None:
    installed(False, True, "vllm")
    with pytest.raises(UserError, match=r"THINKIMG_ENGINE: vLLM is not installed: pip install"):
        chosen_engine(World().model)
    installed(True, True, "sglang")
    with pytest.raises(UserError, match="'sglang' is no engine"):
        chosen_engine(World().model)


def test_trl_is_not_asked_for_an_engine_that_is_not_there(installed: Any, tmp_path: Path) -> None:
    args = grpo_config(GRPO(max_steps=1), Session(tmp_path, engine={"use_vllm": True}))
    installed(False, False)
    with pytest.raises(UserError, match="vLLM is not installed"):
        check_vllm(args, VLLMGenerator(World().family))
    with pytest.raises(UserError, match="go together"):
        check_vllm(args, None)


@pytest.mark.parametrize("used", [[1, 2, 3, 4], [1, 2], [1, 9, 3], None])
def test_an_engine_that_saw_other_tokens_is_refused(used: list[int] | None) -> None:
    request = GenerationRequest([1, 2, 3], [], 5, 1.0, 0)
    check_prompt([1, 2, 3], request)
    with pytest.raises(InvariantError, match="the engine saw"):
        check_prompt(used, request)


def test_a_generator_without_an_engine_is_infrastructure() -> None:
    import asyncio

    with pytest.raises(InfrastructureError, match="no engine"):
        asyncio.run(VLLMGenerator(World().family).generate(GenerationRequest([1], [], 5, 1.0, 0)))
