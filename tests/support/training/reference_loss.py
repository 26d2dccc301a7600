"""Gradients of GRPO's losses, written from the papers: one trajectory at a time in float64, nothing padded or cut."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tests.support.training.scripted_agent import World, answer_length
from thinkimg.trajectory import Trajectory

KINDS = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo")
MAX_COMPLETION = 64


def drift(tokens: torch.Tensor, first: int) -> torch.Tensor:
    """What log-probabilities have gone up by since the tokens were sampled; `first` is the prompt's end."""
    places = torch.arange(len(tokens), dtype=torch.float64) - first
    return 0.4 * torch.sin(1.7 * tokens.double() + places)


@dataclass
class Scored:
    """A trajectory's own tokens: log-probability now and when sampled, entropy; and its advantage."""

    now: torch.Tensor
    then: torch.Tensor
    entropy: torch.Tensor
    advantage: float


def scored(world: World, trajectory: Trajectory, advantage: float) -> Scored:
    ids = torch.tensor([trajectory.tokens])
    pictures = [image.pixels() for image in trajectory.ordered_images]
    features = world.processor.image_processor(images=pictures, return_tensors="pt") if pictures else {}
    kinds = (ids == world.family.image_token_id).int()
    logits = world.model(input_ids=ids, mm_token_type_ids=kinds, **features).logits[0, :-1]
    impossible = torch.zeros(logits.shape[1], dtype=torch.bool)
    impossible[list(world.family.suppressed_ids)] = True
    logs = torch.log_softmax(logits.masked_fill(impossible, -1e4), -1)
    anew = trajectory.meta.get("anew", 0)
    own = [n for n, mine in enumerate(trajectory.mask) if mine and n >= anew]
    first = sum(len(turn.tokens or ()) for turn in trajectory.turns[: trajectory.prompt_turns])
    places = torch.tensor(own)
    now = logs[places - 1].gather(1, ids[0, places, None])[:, 0]
    entropy = -(logs.exp() * logs).sum(-1)[places - 1]
    return Scored(now, now.detach() - drift(ids[0], first)[places], entropy, advantage)


def scored_groups(world: World, groups: Sequence[Sequence[Trajectory]]) -> list[Scored]:
    """Rows that are trained on, with advantages of GRPO: what failed is in no baseline."""
    rows = []
    for group in groups:
        kept = [one for one in group if one.status == "answered"]
        rewards = torch.tensor([answer_length(one) for one in kept], dtype=torch.float64)
        spread = rewards.std() if len(kept) > 1 else torch.ones(())
        advantages = (rewards - rewards.mean()) / (spread + 1e-4)
        rows += [scored(world, one, float(a)) for one, a in zip(kept, advantages, strict=True)]
    return rows


def of_tokens(kind: str, row: Scored) -> torch.Tensor:
    """Loss of each token: arXiv 2402.03300 (grpo and its kin), 2510.13786 (cispo), 2511.20347 (sapo), 2602.05261
    (luspo), 2602.10693 (vespo), with TRL's default limits."""
    log_ratio, a = row.now - row.then, row.advantage
    ratio = log_ratio.exp()
    if kind == "cispo":
        return -ratio.detach().clamp(max=5.0) * a * row.now
    if kind == "sapo":
        heat = 1.0 if a > 0 else 1.05
        return -torch.sigmoid(heat * (ratio - 1)) * 4 / heat * a
    if kind == "vespo":
        k, lam = (2.0, 3.0) if a >= 0 else (3.0, 2.0)
        w = log_ratio.detach().sum().clamp(math.log(1e-8), 20.0).exp()
        return -(math.e**lam * w**k * torch.exp(-lam * w)) * a * row.now
    if kind == "luspo":
        ratio = log_ratio.mean().exp().expand(len(log_ratio))
    return -torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a)


def loss(kind: str, rows: Sequence[Scored], quantile: float = 1.0, bonus: float = 0.0) -> torch.Tensor:
    """Loss of a step of `rows`: only tokens of the highest entropies count with `quantile`, all in the divisors."""
    least = np.quantile(torch.cat([row.entropy.detach() for row in rows]).numpy(), 1 - quantile)
    kept = [(row.entropy >= least).double() for row in rows]
    losses = [of_tokens(kind, row) * mask for row, mask in zip(rows, kept, strict=True)]
    sums = torch.stack([one.sum() for one in losses])
    lengths = torch.tensor([float(len(one)) for one in losses])
    entropies = sum((row.entropy * mask).sum() for row, mask in zip(rows, kept, strict=True))
    extra = -bonus * entropies / sum(float(mask.sum()) for mask in kept)
    if kind in ("grpo", "sapo"):
        return (sums / lengths).mean() + extra
    if kind == "luspo":
        return sums.mean() + extra
    if kind == "dr_grpo":
        return sums.sum() / (len(rows) * MAX_COMPLETION) + extra
    return sums.sum() / lengths.sum() + extra


def reference_gradients(
    world: World, groups: Sequence[Sequence[Trajectory]], **options: Any
) -> dict[str, dict[str, torch.Tensor]]:
    """The loss's gradient for each kind, by name of the parameter."""
    named = {name: p for name, p in world.model.named_parameters() if p.requires_grad}
    rows = scored_groups(world, groups)
    found = {}
    for kind in KINDS:
        grads = torch.autograd.grad(
            loss(kind, rows, **options), list(named.values()), retain_graph=True, allow_unused=True
        )
        found[kind] = {name: g for name, g in zip(named, grads, strict=True) if g is not None}
    return found
