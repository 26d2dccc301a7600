"""`Generator` on a Hugging Face model in this process: a micro-batcher with a KV cache and exact log-probabilities.

Requests that wait together are generated together; one that comes later joins the next batch. The model may be the one
being trained: weights are read at each call, so there is nothing to synchronise.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from thinkimg.errors import InfrastructureError
from thinkimg.image import Image
from thinkimg.models.chat import Family
from thinkimg.models.generator import Generation, GenerationRequest

Features = Callable[[Sequence[Image]], dict[str, torch.Tensor]]
"""Images to the model's inputs (`thinkimg.models.image_features`)."""


class TransformersGenerator:
    """Args:
    model: a `ForConditionalGeneration` of the family; put into eval mode while generating, its mode restored after.
    features: preprocesses images; give one that caches (`thinkimg.models.image_features`).
    max_batch: most requests of one batch.
    gather_seconds: how long a first request waits for others, as long as others keep coming.
    """

    def __init__(
        self, model: Any, family: Family, features: Features, max_batch: int = 128, gather_seconds: float = 0.004
    ) -> None:
        self.model = model
        self.family = family
        self.features = features
        self.max_batch = max_batch
        self.gather_seconds = gather_seconds
        self._waiting: list[tuple[GenerationRequest, asyncio.Future[Generation]]] = []
        self._worker: asyncio.Task[None] | None = None
        # Grad mode and autocast are thread-local: this one thread sets them.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="generator")
        self._lock = threading.Lock()

    async def generate(self, request: GenerationRequest) -> Generation:
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        while self._waiting:
            count = -1
            while count != len(self._waiting) < self.max_batch:
                count = len(self._waiting)
                await asyncio.sleep(self.gather_seconds)
            self._waiting = [item for item in self._waiting if not item[1].done()]  # some gave up waiting
            if not self._waiting:
                return
            # Like lengths together: less padding.
            self._waiting.sort(key=lambda item: len(item[0].tokens))
            batch, self._waiting = self._waiting[: self.max_batch], self._waiting[self.max_batch :]
            await self._serve(batch)

    async def _serve(self, batch: list[tuple[GenerationRequest, asyncio.Future[Generation]]]) -> None:
        """Every future of `batch` gets its result or its exception."""
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._thread, self.generate_batch, [request for request, _ in batch]
            )
        except (RuntimeError, MemoryError) as error:  # CUDA out of memory and its kin
            for _, future in batch:
                if not future.done():
                    future.set_exception(InfrastructureError(f"generation failed: {error}"))
        except Exception as error:
            if len(batch) > 1:  # what is wrong with one request (a broken picture) is not the others' fault
                for item in batch:
                    await self._serve([item])
            elif not batch[0][1].done():
                batch[0][1].set_exception(error)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)

    def generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Generate for all `requests`, left-padded into one batch."""
        with self._lock, torch.no_grad():
            training = self.model.training
            self.model.eval()
            try:
                return self._generate_batch(requests)
            finally:
                self.model.train(training)

    def _generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        device = self.model.device
        inputs = self._prefill_inputs(requests, device)
        attention = inputs["attention_mask"]
        position_ids, following = self._positions(inputs)
        output = self.model(**inputs, position_ids=position_ids, use_cache=True, logits_to_keep=1)
        sampler = _Sampler(requests, self.family, device)
        for step in range(max(request.max_tokens for request in requests)):
            tokens = sampler.step(output.logits[:, -1].float(), step)
            if sampler.finished:
                break
            attention = torch.cat([attention, attention.new_ones((len(requests), 1))], 1)
            output = self.model(
                input_ids=tokens[:, None],
                attention_mask=attention,
                position_ids=following + step,
                past_key_values=output.past_key_values,
                use_cache=True,
            )
        return sampler.results()

    def _positions(self, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Position ids of the left-padded prompts, and those of the first new tokens: (3, batch, length) and
        (3, batch, 1) under M-RoPE, else (batch, length) and (batch, 1)."""
        attention = inputs["attention_mask"]
        lengths = attention.sum(1)
        if not hasattr(self.model.model, "get_rope_index"):
            return (attention.cumsum(1) - 1).clamp(min=0), lengths[:, None]
        positions, deltas = self.model.model.get_rope_index(
            inputs["input_ids"],
            mm_token_type_ids=inputs["mm_token_type_ids"],
            image_grid_thw=inputs.get("image_grid_thw"),
            attention_mask=attention,
        )
        return positions, (lengths + deltas[:, 0]).expand(3, -1)[..., None]

    def _prefill_inputs(self, requests: Sequence[GenerationRequest], device: torch.device) -> dict[str, torch.Tensor]:
        width = max(len(request.tokens) for request in requests)
        pad = self.family.stop_ids[-1]
        rows = [[pad] * (width - len(request.tokens)) + request.tokens for request in requests]
        masks = [[0] * (width - len(request.tokens)) + [1] * len(request.tokens) for request in requests]
        inputs = {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}
        inputs.update(self.family.model_inputs(inputs["input_ids"]))
        images = [image for request in requests for image in request.images]
        if images:
            inputs.update(self.features(images))
        return {name: tensor.to(device) for name, tensor in inputs.items()}


class _Sampler:
    """Draws tokens by inverse transform: each request has its own stream of uniform numbers, made from its seed, so
    that a sample does not depend on who else is in the batch."""

    def __init__(self, requests: Sequence[GenerationRequest], family: Family, device: torch.device) -> None:
        self.requests = requests
        self.family = family
        longest = max(request.max_tokens for request in requests)
        uniform = [np.random.Generator(np.random.Philox(request.seed)).random(longest) for request in requests]
        self.uniform = torch.tensor(np.stack(uniform), dtype=torch.float64, device=device)
        temperature = torch.tensor([request.temperature for request in requests], device=device)
        self.greedy = temperature == 0
        self.temperature = torch.where(self.greedy, torch.ones_like(temperature), temperature)[:, None]
        self.suppressed = torch.tensor(family.suppressed_ids, device=device)
        self.stops = torch.tensor(family.stop_ids, device=device)
        self.limits = torch.tensor([request.max_tokens for request in requests], device=device)
        self.done = torch.zeros(len(requests), dtype=torch.bool, device=device)
        self.tokens: list[torch.Tensor] = []
        self.logprobs: list[torch.Tensor] = []
        self.alive: list[torch.Tensor] = []
        self.by_string: set[int] = set()
        """Rows that a stop string ended."""

    @property
    def finished(self) -> bool:
        return bool(self.done.all())

    def step(self, logits: torch.Tensor, number: int) -> torch.Tensor:
        """logits (batch, vocabulary) to the next tokens (batch,)."""
        logits = logits / self.temperature
        logits[:, self.suppressed] = -torch.inf
        logprobs = torch.log_softmax(logits, -1)
        cumulative = logprobs.double().exp().cumsum(-1)
        threshold = self.uniform[:, number, None] * cumulative[:, -1:]
        drawn = (cumulative <= threshold).sum(-1).clamp(max=logits.shape[-1] - 1)
        tokens = torch.where(self.greedy, logprobs.argmax(-1), drawn)
        self.tokens.append(tokens)
        self.logprobs.append(logprobs.gather(1, tokens[:, None])[:, 0])
        self.alive.append(~self.done)
        self.done = self.done | torch.isin(tokens, self.stops) | (self.limits <= number + 1)
        for row, request in enumerate(self.requests):
            if request.stop and not self.done[row] and self._stopped(row, request.stop):
                self.by_string.add(row)
                self.done[row] = True
        return tokens

    def _stopped(self, row: int, strings: tuple[str, ...]) -> bool:
        """Whether the last token of this row completed one of `strings`."""
        text = self.family.decode([int(tokens[row]) for tokens in self.tokens])
        earlier = len(self.family.decode([int(tokens[row]) for tokens in self.tokens[:-1]]))
        return any(text.find(string, max(0, earlier - len(string) + 1)) >= 0 for string in strings)

    def results(self) -> list[Generation]:
        tokens, logprobs = torch.stack(self.tokens, 1).tolist(), torch.stack(self.logprobs, 1).tolist()
        lengths = torch.stack(self.alive, 1).sum(1).tolist()
        return [
            Generation(
                tokens[row][:length],
                logprobs[row][:length],
                "stop" if row in self.by_string or tokens[row][length - 1] in self.family.stop_ids else "length",
            )
            for row, length in enumerate(lengths)
        ]
