"""Families with a full path on the engine: it sees our tokens and speaks from the distribution of transformers."""

import asyncio
import os
from collections.abc import Iterator

import pytest
import torch

from tests.support.engine.talkers import picture
from tests.support.models.family_models import Built, build, from_scratch
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock
from thinkimg.models.chat import encode_context
from thinkimg.models.generator import GenerationRequest
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.engine import EngineThread
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.trajectory import Trajectory


@pytest.fixture(scope="module", params=["internvl", "qwen2_5_vl", "qwen2_vl"])
def speaking(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Built, VLLMGenerator]]:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    prepare_cpu()
    from vllm import LLM

    folder = tmp_path_factory.mktemp(request.param)
    made = build(request.param)
    made.save(folder)
    llm = LLM(
        str(folder), dtype="float32", max_model_len=1024, max_num_batched_tokens=4096, enable_chunked_prefill=False,
        logprobs_mode="processed_logprobs", enforce_eager=True, gpu_memory_utilization=0.2,
        distributed_executor_backend="uni",
    )  # fmt: skip
    thread = EngineThread(llm.llm_engine)
    yield made, VLLMGenerator(made.family, thread, 1024)
    thread.close()


def test_the_engine_sees_our_tokens_and_speaks_from_the_models_distribution(
    speaking: tuple[Built, VLLMGenerator],
) -> None:
    made, generator = speaking
    shown = [[], [picture(1)], [picture(2, 40, 150), picture(3, 150, 40)], [picture(4), picture(4), picture(5, 90, 90)]]
    asked = [request(made, images, seed) for seed, images in enumerate(shown * 4)]

    async def run() -> list:
        return await asyncio.gather(*(generator.generate(one) for one in asked))

    worst = 0.0
    for one, spoken in zip(asked, asyncio.run(run()), strict=True):
        plain = from_scratch(made, one.tokens + spoken.tokens, one.images)[len(one.tokens) - 1 :]
        worst = max(worst, float((torch.tensor(spoken.logprobs) - plain).abs().max()))
        assert not set(spoken.tokens) & set(made.family.suppressed_ids)
    print(f"\n{made.model.config.model_type}: largest difference {worst:.1e}")
    assert worst < 1e-3


def request(made: Built, images: list[Image], seed: int) -> GenerationRequest:
    said = Trajectory(question="what is")
    handles = [said.add_image(image) for image in images]
    said.add("user", *(ImageBlock(handle=name) for name in handles), TextBlock(text="what is the value"))
    (tokens,) = encode_context(made.family, said)
    return GenerationRequest(tokens, images, 8, 1.0, seed)
