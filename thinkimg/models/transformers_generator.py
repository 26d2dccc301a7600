"""`Generator` on a Hugging Face model in this process: a micro-batcher with a KV cache and exact log-probabilities.

Requests that wait together are generated together; one that comes later joins the next batch. The model may be the one
being trained: weights are read at each call, so there is nothing to synchronise.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from thinkimg.errors import InfrastructureError
from thinkimg.image import Image
from thinkimg.models.chat import Family
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.sampler import Sampler
from thinkimg.pulse import PULSE

Features = Callable[[Sequence[Image]], dict[str, torch.Tensor]]
"""Images to the model's inputs (`thinkimg.models.image_features`)."""


class TransformersGenerator:
    """Args:
    model: a `ForConditionalGeneration` of the family; put into eval mode while generating, its mode restored after.
    features: preprocesses images; give one that caches (`thinkimg.models.image_features`).
    max_batch: most requests of one batch.
    max_batch_tokens: most tokens of one batch's prompts, padding included, unless a single one has more. They bound
        what a batch takes beside the model: features of pictures (about 24 KB a token), keys and values.
    gather_seconds: how long a first request waits for others, as long as others keep coming.

    Attributes:
        compute_dtype: what float32 weights are cast to at each use, as the trainer does while it trains them; None: the
            model computes in the type of its weights.
    """

    def __init__(
        self,
        model: Any,
        family: Family,
        features: Features,
        max_batch: int = 128,
        gather_seconds: float = 0.004,
        max_batch_tokens: int = 65_536,
    ) -> None:
        self.model = model
        self.family = family
        self.features = features
        self.max_batch = max_batch
        self.gather_seconds = gather_seconds
        self.max_batch_tokens = max_batch_tokens
        self.compute_dtype: torch.dtype | None = None
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
            size = self._fitting([len(request.tokens) for request, _ in self._waiting])
            batch, self._waiting = self._waiting[:size], self._waiting[size:]
            await self._serve(batch)

    def _fitting(self, lengths: Sequence[int]) -> int:
        """How many of the next prompts, the shortest first, make a batch."""
        size = min(len(lengths), self.max_batch)
        while size > 1 and size * lengths[size - 1] > self.max_batch_tokens:
            size -= 1
        return size

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
        with self._lock, torch.no_grad(), self._casts(), PULSE.computing():
            training = self.model.training
            self.model.eval()
            try:
                return self._generate_batch(requests)
            finally:
                self.model.train(training)

    def _casts(self) -> AbstractContextManager[Any]:
        if self.compute_dtype is None:
            return nullcontext()
        # Without the cache of casts, which is one for all threads: see `thinkimg.training.precision`.
        return torch.autocast(self.model.device.type, self.compute_dtype, cache_enabled=False)

    def _generate_batch(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        device = self.model.device
        inputs = self._prefill_inputs(requests, device)
        attention = inputs["attention_mask"]
        position_ids, following = self._positions(inputs)
        output = self.model(**inputs, position_ids=position_ids, use_cache=True, logits_to_keep=1)
        sampler = Sampler(requests, self.family, device)
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
