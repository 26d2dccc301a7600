"""TRL's loss, its gradient taken one part of a pass at a time, and divided by what the whole step holds.

Only log-probabilities, entropies and the load-balancing loss of experts come from the model. So the model runs on a
part of the rows, TRL's own loss of all rows says how it changes with this part's numbers, and the part's backward pass
runs at once: the graph of one part lives at a time. That is exact because no row's numbers are in another row's
gradient; the one exception, the quantile of `top_entropy_quantile`, is computed beforehand.

TRL divides by what one pass in one process holds: by rows, masked ones among them (grpo, sapo, dr_grpo, luspo), or by
tokens (bnpo, the entropy bonus). Here all are divided by the rows or tokens that the step trains on, over passes and
processes.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType, gather_object
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from thinkimg.training.grpo.batches import by_length, own_tokens, picture_inputs, select_rows, without_empty_images

LENGTH_BUCKETS = 4
"""The rows of a pass are cut into at least so many parts of like length: less padding."""

MEANS_OF_ROWS = ("grpo", "sapo", "dr_grpo", "luspo")


@dataclass
class Scores:
    """What TRL's loss is made of: (rows, completion) log-probabilities and entropies; the load-balancing loss."""

    logprobs: torch.Tensor
    entropies: torch.Tensor | None = None
    aux: torch.Tensor | None = None

    @classmethod
    def none_yet(cls, batch: dict[str, Any], entropies: bool, aux: bool) -> "Scores":
        shape, device = batch["completion_ids"].shape, batch["completion_ids"].device
        return cls(
            batch.get("old_per_token_logps", torch.zeros(shape, device=device)).to(torch.float32, copy=True),
            torch.zeros(shape, device=device) if entropies else None,
            torch.zeros((), device=device) if aux else None,
        )

    def put(self, rows: Sequence[int], part: "Scores", share: float) -> None:
        """Numbers of some rows, which hold `share` of all tokens; rows and columns as `select_rows` cuts them."""
        width = part.logprobs.shape[1]
        self.logprobs[rows, :width] = part.logprobs
        if self.entropies is not None and part.entropies is not None:
            self.entropies[rows, :width] = part.entropies
        if self.aux is not None and part.aux is not None:
            self.aux = self.aux + share * part.aux

    def times(self, weights: "Scores", rows: Sequence[int], share: float) -> torch.Tensor:
        """Sum of these numbers of `rows`, weighted; its gradient is the loss's."""
        width = self.logprobs.shape[1]
        total = (self.logprobs * weights.logprobs[rows, :width]).sum()
        if self.entropies is not None and weights.entropies is not None:
            total = total + (self.entropies * weights.entropies[rows, :width]).sum()
        if self.aux is not None and weights.aux is not None:
            total = total + share * self.aux * weights.aux
        return total

    def leaves(self) -> "Scores":
        """The same numbers, to be differentiated by."""
        given = (None if one is None else one.detach().clone().requires_grad_() for one in vars(self).values())
        return Scores(*given)  # type: ignore[arg-type]


class PartwiseGRPOTrainer(GRPOTrainer):
    """`trl.GRPOTrainer`, its loss computed in parts.

    Attributes:
        tokens_per_pass: most tokens of one part, padding included; a longer row is a part of its own.
    """

    model: Any
    args: GRPOConfig
    tokens_per_pass: int = 16_384
    _given: Scores | None = None
    """While TRL's loss is computed: the numbers that it gets for the model's."""
    _high_entropy: Sequence[torch.Tensor] = ()
    """For each pass of the step, (rows, completion): which tokens `top_entropy_quantile` keeps."""
    _kept: torch.Tensor | None = None
    """The same of the pass under way."""
    _kept_tokens: float = 0.0
    """How many they are, in all passes and processes."""

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """The loss of all rows. All parts but the last have had their backward pass when it returns; the last part's is
        that of the returned tensor."""
        if not torch.is_grad_enabled():
            self._kept = None
            whole: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return whole
        self._kept = self._high_entropy_of(model, inputs)
        live = self._live_rows(inputs)
        batch = _only(without_empty_images(inputs), live)
        scores = Scores.none_yet(batch, entropies=True, aux=self.aux_loss_enabled)
        parts = self._parts(batch, live)
        for rows in parts[:-1]:
            with self._unsynchronised(model):
                self._backward(self._part_loss(model, batch, rows, live, scores))
        last = self._part_loss(model, batch, parts[-1], live, scores)
        value, _ = self._differentiated(batch, scores)
        return last + (value - last).detach()

    # ---- rows and parts -------------------------------------------------------------------------------------------

    def _live_rows(self, batch: dict[str, Any]) -> list[int]:
        """Rows with a gradient: neither masked nor, unless the loss has terms beside the advantages, flat."""
        live = own_tokens(batch).any(1)
        if not (self.beta or self._entropy_bonus_enabled or self.aux_loss_enabled):
            live = live & (batch["advantages"] != 0)
        rows: list[int] = live.nonzero()[:, 0].tolist()
        return rows

    def _parts(self, batch: dict[str, Any], rows: Sequence[int]) -> list[list[int]]:
        """Rows of each part, equally many parts in all processes, which go through the model together; a part without
        rows only keeps the others company. The last part, after which gradients are synchronised, has pictures where
        any has: a vision tower without gradients is not waited for."""
        parts = by_length(batch, rows, LENGTH_BUCKETS, self.tokens_per_pass)[::-1]
        images = batch.get("num_images") or [1] * len(batch["prompt_ids"])
        parts.sort(key=lambda part: any(images[row] for row in part))
        number = torch.tensor([max(len(parts), 1)], device=batch["prompt_ids"].device)
        most = int(self.accelerator.gather(number).max())
        return [[]] * (most - len(parts)) + parts

    # ---- the model ------------------------------------------------------------------------------------------------

    def _scored(self, model: Any, batch: dict[str, Any], rows: Sequence[int], **wanted: bool) -> Scores:
        part = select_rows(batch, rows)
        scores = super()._get_per_token_logps_and_entropies(
            model,
            torch.cat([part["prompt_ids"], part["completion_ids"]], 1),
            torch.cat([part["prompt_mask"], part["completion_mask"]], 1),
            part["completion_ids"].shape[1],
            **wanted,
            **picture_inputs(part),
        )
        return Scores(*scores)

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **pictures: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """For TRL: the numbers that its loss is to see, or those of any batch, computed part by part: `batch_size`, a
        number of rows, decides nothing."""
        if self._given is None:
            begin = input_ids.shape[1] - logits_to_keep
            batch: dict[str, Any] = {
                "prompt_ids": input_ids[:, :begin],
                "prompt_mask": attention_mask[:, :begin],
                "completion_ids": input_ids[:, begin:],
                "completion_mask": attention_mask[:, begin:],
            }
            batch |= {name: value for name, value in pictures.items() if value is not None}
            given = self._scored_in_parts(model, without_empty_images(batch), compute_entropy, compute_aux_loss)
        else:
            given = self._given
        return given.logprobs, given.entropies, given.aux

    def _scored_in_parts(self, model: Any, batch: dict[str, Any], entropy: bool, aux: bool) -> Scores:
        rows = range(len(batch["prompt_ids"]))
        scores = Scores.none_yet(batch, entropy, aux)
        for part in self._parts(batch, rows):
            found = self._scored(model, batch, part or rows[:1], compute_entropy=entropy, compute_aux_loss=aux)
            if part:
                scores.put(part, found, _share(batch, part, rows))
        return scores

    # ---- the gradient ---------------------------------------------------------------------------------------------

    def _part_loss(
        self, model: Any, batch: dict[str, Any], rows: list[int], live: Sequence[int], scores: Scores
    ) -> torch.Tensor:
        """What has the part's gradient of the loss; its numbers are added to `scores`."""
        used, share = rows or [0], _share(batch, rows, live)
        found = self._scored(model, batch, used, compute_entropy=True, compute_aux_loss=self.aux_loss_enabled)
        if rows:
            with torch.no_grad():
                scores.put(rows, found, share)
        with self._unlogged():  # also without rows: TRL's metrics are the work of all processes together
            _, weights = self._differentiated(batch, scores)
        # Of a part without rows the same, times 0: ZeRO-3 wants all processes to go through the same modules.
        return found.times(weights, used, share) * float(bool(rows))

    def _differentiated(self, batch: dict[str, Any], scores: Scores) -> tuple[torch.Tensor, Scores]:
        """TRL's loss of `scores` and its derivatives, each term divided as the step wants it. The entropy bonus and the
        load-balancing loss are linear in what they are made of: so they are told from the rest."""
        self._given = leaves = scores.leaves()
        try:
            loss = super().compute_loss(self.model, batch)
        finally:
            self._given = None
        given = [one for one in vars(leaves).values() if one is not None]
        found = Scores(*torch.autograd.grad(loss, given, allow_unused=True, materialize_grads=True))
        assert scores.entropies is not None
        assert found.entropies is not None
        bonus = (scores.entropies * found.entropies).sum()
        balance = scores.aux * found.aux if scores.aux is not None and found.aux is not None else 0.0
        policy_scale, bonus_scale = self._scales(batch)
        found.logprobs *= policy_scale
        found.entropies *= bonus_scale
        return policy_scale * (loss.detach() - bonus - balance) + bonus_scale * bonus + balance, found

    def _scales(self, batch: dict[str, Any]) -> tuple[float, float]:
        """What TRL's policy loss and its entropy bonus are multiplied by, so that they are divided by all that the step
        trains on (TRL's processes are averaged over, its passes added up)."""
        own = own_tokens(batch)
        step = self.current_gradient_accumulation_steps * self.accelerator.num_processes
        tokens = max(float(batch["num_items_in_batch"]), 1.0)
        policy = 1.0
        if self.loss_type in MEANS_OF_ROWS:
            policy = len(own) * step / max(float(batch["real_rows"]), 1.0)
        elif self.loss_type == "bnpo":
            policy = float(own.sum()) * step / tokens
        if not self._entropy_bonus_enabled:
            return policy, 1.0
        if self._kept is not None:
            own, tokens = own * self._kept, max(self._kept_tokens, 1.0)
        return policy, float(own.sum()) * step / tokens

    def _backward(self, loss: torch.Tensor) -> None:
        """The backward pass of a part that is not the last: gradients are added up, and nothing else happens yet."""
        options = {"scale_wrt_gas": False} if self.accelerator.distributed_type == DistributedType.DEEPSPEED else {}
        with torch.autocast(self.accelerator.device.type, enabled=False):
            self.accelerator.backward(loss, **options)

    @contextmanager
    def _unsynchronised(self, model: Any) -> Iterator[None]:
        """Forward and backward passes in here are followed by others before the gradients are whole."""
        state = self.accelerator.gradient_state
        before = state.sync_gradients
        state._set_sync_gradients(False)
        deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        try:
            with nullcontext() if deepspeed else self.accelerator.no_sync(model):
                yield
        finally:
            state._set_sync_gradients(before)

    @contextmanager
    def _unlogged(self) -> Iterator[None]:
        """TRL's loss in here leaves no trace in its metrics and in the control of the entropy bonus."""
        names = ("_metrics", "entropy_coef", "_entropy_window_stats", "_last_world_entropy")
        before = {name: getattr(self, name) for name in names}
        self._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
        try:
            yield
        finally:
            vars(self).update(before)

    # ---- top_entropy_quantile -------------------------------------------------------------------------------------

    def get_high_entropy_mask(self, entropies: torch.Tensor, mask: torch.Tensor, threshold: float) -> torch.Tensor:
        """For TRL: the tokens whose entropy is in the upper quantile of the whole step's, not of one pass's."""
        return super().get_high_entropy_mask(entropies, mask, threshold) if self._kept is None else self._kept

    def _high_entropy_of(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor | None:
        """(rows, completion) of a pass; all passes of the step are computed when its first one comes."""
        if self.top_entropy_quantile >= 1.0:
            return None
        passes: Sequence[dict[str, Any]] = self._buffered_inputs or []
        number = next((number for number, one in enumerate(passes) if one is inputs), None)
        if number is None:
            passes, number = [inputs], 0
        if number == 0:
            self._high_entropy = self._highest(model, passes)
        return self._high_entropy[number]

    @torch.no_grad()
    def _highest(self, model: Any, passes: Sequence[dict[str, Any]]) -> list[torch.Tensor]:
        own = [own_tokens(one).bool() for one in passes]
        found = [self._scored_in_parts(model, without_empty_images(one), True, False).entropies for one in passes]
        pairs = [(one, mask) for one, mask in zip(found, own, strict=True) if one is not None]
        mine = np.concatenate([one[mask].float().cpu().numpy() for one, mask in pairs])
        every = np.concatenate(gather_object([mine]))
        least = float(np.quantile(every, 1.0 - self.top_entropy_quantile)) if len(every) else 0.0
        self._kept_tokens = float((every >= least).sum())
        return [(one >= least) & mask for one, mask in pairs]


def _only(batch: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
    """The same batch, other rows masked: they have no gradient, and nothing is computed of them to be logged."""
    chosen = torch.zeros(len(batch["prompt_ids"]), 1, dtype=torch.long, device=batch["prompt_ids"].device)
    chosen[list(rows)] = 1
    return batch | {"tool_mask": batch.get("tool_mask", batch["completion_mask"]) * chosen}


def _share(batch: dict[str, Any], rows: Sequence[int], of: Sequence[int]) -> float:
    """How much of the tokens of some rows these are."""
    tokens = batch["prompt_mask"].sum(1) + batch["completion_mask"].sum(1)
    return float(tokens[list(rows)].sum() / tokens[list(of)].sum()) if rows else 0.0
