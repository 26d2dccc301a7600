"""SFT in two processes, the second of which finds a weight that is not finite in its second step; what each says."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from tests.support.training.scripted_agent import World
from tests.support.training.sft import samples_of
from thinkimg.api import SFT
from thinkimg.errors import UserError
from thinkimg.training.session import Session
from thinkimg.training.sft import train_sft


class Spoil(TrainerCallback):
    def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if args.process_index == 1 and state.global_step == 1:
            next(model.parameters()).data.view(-1)[0] = float("nan")


if __name__ == "__main__":
    folder, rank = Path(sys.argv[1]), os.environ["RANK"]
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    world = World()
    session = Session(folder, world_size=2, save_every=1, callbacks=[Spoil()])
    try:
        train_sft(world.loaded, samples_of(world), SFT(max_steps=3, batch_size=4), session)
    except UserError as error:
        (folder / f"rank-{rank}").write_text(str(error))
    torch.distributed.destroy_process_group()
