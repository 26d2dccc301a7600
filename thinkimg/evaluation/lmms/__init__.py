"""lmms-eval's own tasks (`lmms:NAME`): its data, pictures, prompts and scoring, with our agent and tools in between."""

from thinkimg.evaluation.lmms.task import PREFIX, LmmsTask

__all__ = ["PREFIX", "LmmsTask"]
