"""Trajectories as rows of TRL's batch.

A trajectory that must not be trained on (the infrastructure failed, the record contradicts itself, nothing was said)
becomes a filler of two tokens with an all-zero mask and no reward: neither its group's baseline nor the rest of the
batch notices it.
"""

import logging
from dataclasses import dataclass, field

from thinkimg.image import Image, ImageDecodeError
from thinkimg.models.chat import Family
from thinkimg.training.image_processor import CachedImageProcessor
from thinkimg.trajectory import LOST, InvariantError, Task, Trajectory

TRUNCATED = ("rounds", "tokens")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A trajectory as TRL takes it: token ids, 1 where the model's own, pictures in order; `masked` says why not.
    `logprobs` are those that were sampled with, one per token of the completion."""

    prompt: list[int]
    completion: list[int]
    mask: list[int]
    images: list[Image] = field(default_factory=list)
    masked: str | None = None
    logprobs: list[float] | None = None


@dataclass
class Group:
    """The generations of one task; `rewards` are there once they are scored."""

    task: Task
    trajectories: list[Trajectory]
    rows: list[Row]
    rewards: list[float | None] = field(default_factory=list)

    @property
    def flat(self) -> bool:
        """No two rewards differ: the group has no advantage to learn from."""
        return len({reward for reward in self.rewards if reward is not None}) < 2

    @property
    def tools_failed(self) -> bool:
        """Tools were called, and no rollout that called one is right."""
        users = [t for t, row in zip(self.trajectories, self.rows, strict=True) if t.tool_results and not row.masked]
        return bool(users) and not any(user.correct for user in users)


def spoken(trajectory: Trajectory) -> Trajectory:
    """`trajectory` up to the model's last word: what a limit cut off behind it has no tokens and no loss."""
    last = max((n for n, turn in enumerate(trajectory.turns) if turn.role == "assistant"), default=-1)
    return trajectory.model_copy(update={"turns": trajectory.turns[: last + 1]})


class MaskedError(Exception):
    """Why a row is masked."""


@dataclass(frozen=True)
class RowMaker:
    """Makes rows of trajectories.

    Attributes:
        image_processor: whose cached features the loss will see.
        pad_id: the token of fillers.
        video_pad_id: of a placeholder that nothing fills; None where the tokenizer has none.
        mask_truncated: trajectories that a limit ended are masked.
    """

    family: Family
    image_processor: CachedImageProcessor
    pad_id: int
    video_pad_id: int | None
    mask_truncated: bool

    def row(self, trajectory: Trajectory) -> Row:
        """The trajectory's row, or a filler that says why it has none."""
        try:
            return self._unmasked(trajectory)
        except MaskedError as reason:
            return self.filler(str(reason))

    def filler(self, reason: str) -> Row:
        return Row([self.pad_id], [self.pad_id], [0], masked=reason, logprobs=[0.0])

    def _unmasked(self, trajectory: Trajectory) -> Row:
        if trajectory.status in LOST:
            raise MaskedError("infrastructure")
        if trajectory.status == "refused":
            raise MaskedError("refused")
        if self.mask_truncated and trajectory.status in TRUNCATED:
            raise MaskedError("truncated")
        said = spoken(trajectory)
        try:
            said.check(self.family.image_token_id, self._image_tokens)
            tokens, mask = said.tokens, said.mask
            self._check_own_tokens(tokens, mask)
        except (InvariantError, ImageDecodeError) as error:
            logger.error("trajectory %s is not trained on: %s", trajectory.id, error)
            trajectory.meta["invariant"] = str(error)
            raise MaskedError("invariant") from error
        first = sum(len(turn.tokens or ()) for turn in said.turns[: said.prompt_turns])
        if not any(mask[first:]):
            raise MaskedError("empty")
        known = all(turn.logprobs is not None for turn in said.turns)
        return Row(
            tokens[:first],
            tokens[first:],
            [int(flag) for flag in mask[first:]],
            said.ordered_images,
            logprobs=said.logprobs[first:] if known else None,
        )

    def _image_tokens(self, image: Image) -> int:
        """How many placeholders the image fills, counted from the features that the loss will see."""
        return self.family.feature_tokens(self.image_processor.cached_features([image]))

    def _check_own_tokens(self, tokens: list[int], mask: list[bool]) -> None:
        if self.video_pad_id in tokens:
            raise InvariantError("a video placeholder without a video")
        suppressed = frozenset(self.family.suppressed_ids)
        for token, own in zip(tokens, mask, strict=True):
            if own and token in suppressed:
                raise InvariantError(f"the model sampled token {token}, which is impossible under the loss")
