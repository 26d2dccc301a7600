"""What the model says in the rehearsal's rollouts: a script's replies, drawn by the generator's own code.

Each random number that decides a token is put into the middle of that token's share of the distribution. So the
in-process generator draws the token and records its log-probability as ever; only chance is replaced.
"""

import random
from typing import Any

import torch

from thinkimg.agent.formats import Call, Parsed, get_format
from thinkimg.models import transformers_generator
from thinkimg.models.generator import GenerationRequest
from thinkimg.models.sampler import Sampler

FORMAT = "hermes"
TURNS = 3


def scripted(turn: int, seed: int) -> str:
    """What is said in a turn, from 1: zoom into a sub-plot, crop what came back, answer. The numbers are the seed's, so
    that two rollouts say different things."""
    chance = random.Random(seed)
    if turn == 1:
        parsed = Parsed(calls=(Call("ZoominSubplot", {"image": "img_1", "description": "first"}),))
    elif turn < TURNS:
        box = [chance.randint(0, 9), chance.randint(0, 9), 10 * chance.randint(4, 9), 10 * chance.randint(4, 9)]
        parsed = Parsed(calls=(Call("Crop", {"image": f"img_{turn}", "box": box}),))
    else:
        parsed = Parsed(answer=str(chance.randint(10, 99)))
    return get_format(FORMAT).write(parsed)


def turn_of(tokens: list[int], start: int) -> int:
    """Which turn of the model's comes next: a system's and a user's message, its own, and for each turn before two."""
    return (tokens.count(start) - 1) // 2


class ScriptedSampler(Sampler):
    """The generator's sampler, whose chance is the script's."""

    def __init__(self, requests: list[GenerationRequest], family: Any, *others: Any) -> None:
        super().__init__(requests, family, *others)
        start = family.tokenizer.convert_tokens_to_ids("<|im_start|>")
        self.replies = [
            family.encode_reply(scripted(turn_of(request.tokens, start), request.seed)) for request in requests
        ]
        for reply, request in zip(self.replies, requests, strict=True):
            if len(reply) > request.max_tokens:
                raise ValueError(f"a scripted reply has {len(reply)} tokens, a turn at most {request.max_tokens}")

    def step(self, logits: torch.Tensor, number: int) -> torch.Tensor:
        wanted = [reply[min(number, len(reply) - 1)] for reply in self.replies]
        tokens = torch.tensor(wanted, device=logits.device)[:, None]
        scaled = logits / self.temperature
        scaled[:, self.suppressed] = -torch.inf
        shares = torch.log_softmax(scaled, -1).double().exp()
        below = shares.cumsum(-1)
        middle = below.gather(1, tokens) - shares.gather(1, tokens) / 2
        self.uniform[:, number] = (middle / below[:, -1:])[:, 0]
        drawn = super().step(logits, number)
        if drawn.tolist() != wanted:
            raise ValueError(f"the generator drew {drawn.tolist()}, the script says {wanted}: its sampling has changed")
        return drawn


def force() -> None:
    """Let every generator of this process say what the script says."""
    transformers_generator.Sampler = ScriptedSampler  # type: ignore[misc]
