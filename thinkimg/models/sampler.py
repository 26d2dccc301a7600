"""Draws a batch's next tokens from its logits, each request by its own seed, temperature and filters."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from thinkimg.models.chat import Family
from thinkimg.models.generator import NO_FILTERS, Generation, GenerationRequest


class Sampler:
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
        self.narrowing = Narrowing(requests, device)
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
        logits = self.narrowing.penalised(logits, self.tokens) / self.temperature
        logits[:, self.suppressed] = -torch.inf
        logprobs = torch.log_softmax(self.narrowing.narrowed(logits), -1)
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


class Narrowing:
    """The filters of a batch's requests (see `thinkimg.models.generator.Filters`). What no request asks for costs
    nothing, and a request without filters keeps its distribution to the last bit."""

    def __init__(self, requests: Sequence[GenerationRequest], device: torch.device) -> None:
        self.contexts = [request.tokens for request in requests]

        def column(values: Iterable[float]) -> torch.Tensor:
            return torch.tensor(list(values), dtype=torch.float64, device=device)[:, None]

        self.penalty = column(request.filters.repetition_penalty for request in requests)
        self.frequency = column(request.filters.frequency_penalty for request in requests)
        self.presence = column(request.filters.presence_penalty for request in requests)
        drawing = [request.filters if request.temperature > 0 else NO_FILTERS for request in requests]
        self.top_k = column(each.top_k if each.top_k > 0 else torch.inf for each in drawing)
        self.top_p = column(each.top_p if each.top_p < 1 else torch.inf for each in drawing)
        self.min_p = column(each.min_p for each in drawing)
        self.penalises = bool((self.penalty != 1).any())
        self.counts = bool((self.frequency != 0).any() or (self.presence != 0).any())
        self.sorts = bool((self.top_k.isfinite() | self.top_p.isfinite()).any())
        self.cuts = bool((self.min_p > 0).any())
        self.seen: torch.Tensor | None = None
        self.times: torch.Tensor | None = None

    def penalised(self, logits: torch.Tensor, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        """Args:
        logits: (batch, vocabulary).
        tokens: drawn so far, each (batch,).
        """
        if self.penalises:
            logits = self._repetition(logits, tokens)
        return self._counted(logits, tokens) if self.counts else logits

    def _repetition(self, logits: torch.Tensor, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        if self.seen is None:
            self.seen = torch.zeros_like(logits, dtype=torch.bool)
            for row, context in enumerate(self.contexts):
                self.seen[row, context] = True
        if tokens:
            self.seen.scatter_(1, tokens[-1][:, None], True)
        penalty = self.penalty.to(logits.dtype)
        return torch.where(self.seen, torch.where(logits > 0, logits / penalty, logits * penalty), logits)

    def _counted(self, logits: torch.Tensor, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        """Less what the turn's own tokens cost: what the context has is free, as in OpenAI's API and vLLM."""
        if self.times is None:
            self.times = torch.zeros_like(logits)
        if tokens:
            self.times.scatter_add_(1, tokens[-1][:, None], torch.ones_like(self.times[:, :1]))
        cost = self.frequency * self.times + self.presence * (self.times > 0)
        return logits - cost.to(logits.dtype)

    def narrowed(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits at their temperature, -inf for what is left out."""
        if self.sorts:
            ordered, order = logits.sort(dim=-1, descending=True, stable=True)
            last = (self.top_k.clamp(max=logits.shape[-1]).long() - 1).clamp(min=0)
            ordered = ordered.masked_fill(ordered < ordered.gather(1, last), -torch.inf)
            shares = ordered.double().softmax(-1)
            # A token is needed while those before it do not add up to top_p.
            ordered = ordered.masked_fill(shares.cumsum(-1) - shares >= self.top_p, -torch.inf)
            logits = logits.scatter(1, order, ordered)
        if self.cuts:
            least = logits.amax(-1, keepdim=True) + self.min_p.log()
            logits = logits.masked_fill(logits < least, -torch.inf)
        return logits
