"""One GRPO training, from its block to the trained model."""

from transformers import PrinterCallback, ProgressCallback

from thinkimg.api import GRPO
from thinkimg.models.pretrained import LoadedModel
from thinkimg.training.checkpoints import go_on
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo.config import grpo_config
from thinkimg.training.grpo.sampler import WholeGenerations
from thinkimg.training.grpo.trainer import ToolGRPOTrainer
from thinkimg.training.session import Session
from thinkimg.training.soundness import Soundness
from thinkimg.training.step_log import StepLog
from thinkimg.training.whole import make_whole


def train_grpo(model: LoadedModel, episodes: Episodes, spec: GRPO, session: Session) -> ToolGRPOTrainer:
    """Train `model` in place with GRPO; the trainer is returned, closed, with its last rollouts.

    Writes `log.jsonl` (one line per step, see `StepLog`), `trajectories/step-*.jsonl` and, if `session.save_every` is
    set, TRL's checkpoints into the session's folder.

    Raises:
        UserError: see `grpo_config`, `ToolGRPOTrainer`, `Soundness` and `thinkimg.training.rewards.RewardError`.
    """
    log = StepLog(session.log, session.folder / "trajectories")
    sound = Soundness("grpo", spec.allow_no_learning, log.total.without_gradient)
    callbacks = [sound, *session.callbacks, log]
    trainer = ToolGRPOTrainer(model, episodes, spec, grpo_config(spec, session), callbacks=callbacks)
    trainer.step_log = log
    trainer.add_callback(WholeGenerations(trainer.num_iterations))
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    try:
        if episodes.connect is not None:
            trainer.engine.call(episodes.connect())
        go_on(trainer, session.resume_from)
        sound.conclude(trainer)
        if episodes.disconnect is not None:
            trainer.engine.call(episodes.disconnect())
    finally:
        trainer.close()
    make_whole(trainer, model)
    return trainer
