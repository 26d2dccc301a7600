"""Runs in the image (`make images-test`): the tiny model is made and computes a gradient."""

import os

import torch
import transformers
import trl

from thinkimg.training import grpo, sft

assert grpo.ToolGRPOTrainer
assert sft
layer = torch.nn.Linear(8, 8)
layer(torch.ones(2, 8)).sum().backward()
assert layer.weight.grad is not None
assert os.getuid() != 0
print(f"ok: torch {torch.__version__}, transformers {transformers.__version__}, trl {trl.__version__}")
