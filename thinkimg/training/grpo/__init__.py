"""GRPO with live tools on TRL's trainer."""

from thinkimg.training.grpo.batches import by_length, select_rows, without_empty_images
from thinkimg.training.grpo.config import grpo_config
from thinkimg.training.grpo.logits import SUPPRESSED_LOGIT, restore_logits, suppress_logits
from thinkimg.training.grpo.rows import TRUNCATED, Group, Row, spoken
from thinkimg.training.grpo.run import train_grpo
from thinkimg.training.grpo.sampler import EpochSampler
from thinkimg.training.grpo.trainer import ToolGRPOTrainer

__all__ = [
    "SUPPRESSED_LOGIT",
    "TRUNCATED",
    "EpochSampler",
    "Group",
    "Row",
    "ToolGRPOTrainer",
    "by_length",
    "grpo_config",
    "restore_logits",
    "select_rows",
    "spoken",
    "suppress_logits",
    "train_grpo",
    "without_empty_images",
]
