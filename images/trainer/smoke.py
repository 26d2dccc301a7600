"""Runs in the image (`make images-test`): a gradient is computed; what manifests may ask for is there."""

import os

import deepspeed
import torch
import torch.utils.tensorboard
import transformers
import trl
import wandb

from thinkimg.training import grpo, sft

assert grpo.ToolGRPOTrainer
assert sft
torch.utils.tensorboard.SummaryWriter("/tmp/tensorboard").close()
layer = torch.nn.Linear(8, 8)
layer(torch.ones(2, 8)).sum().backward()
assert layer.weight.grad is not None
assert os.getuid() != 0
print(f"ok: torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}", end=", ")
print(f"deepspeed {deepspeed.__version__}, wandb {wandb.__version__}")
