"""TRL's private seams that `thinkimg.training.grpo` stands on. If one fails: read the new TRL before using it."""

import ast
import inspect
import textwrap
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
import torch
import trl
from datasets import Dataset
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from thinkimg.models import tiny
from thinkimg.training.grpo import ToolGRPOTrainer, restore_logits, suppress_logits
from thinkimg.training.grpo.loss import PartwiseGRPOTrainer

GENERATED = [
    "prompt_ids", "completion_ids", "tool_mask", "completions", "logprobs", "extra_fields", "images", "tool_images",
]  # fmt: skip
BATCH = {
    "prompt_ids", "prompt_mask", "completion_ids", "completion_mask", "advantages", "num_items_in_batch",
    "pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images", "tool_mask", "real_rows",
}  # fmt: skip


def tree(function: FunctionType) -> ast.FunctionDef:
    parsed = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(parsed, ast.FunctionDef)
    return parsed


def parameters(function: FunctionType) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_the_one_that_was_read() -> None:
    assert trl.__version__ == "1.16.0"


def test_the_methods_we_override_exist_with_these_parameters() -> None:
    assert parameters(GRPOTrainer._generate) == ["self", "prompts"]
    assert parameters(GRPOTrainer._generate_and_score_completions) == ["self", "inputs"]
    assert parameters(GRPOTrainer.compute_loss) == ["self", "model", "inputs", "return_outputs", "num_items_in_batch"]
    assert parameters(GRPOTrainer.get_high_entropy_mask) == ["self", "entropies", "mask", "threshold"]
    theirs, ours = inspect.signature(GRPOTrainer.compute_loss), inspect.signature(ToolGRPOTrainer.compute_loss)
    assert list(theirs.parameters) == list(ours.parameters)


def test_we_override_nothing_else_of_trl() -> None:
    ours = vars(ToolGRPOTrainer) | vars(PartwiseGRPOTrainer)
    mine = {name for name, value in ours.items() if isinstance(value, FunctionType | property)}
    shared = {name for name in mine if hasattr(GRPOTrainer, name)}
    assert shared == {
        "__init__", "_generate", "_generate_and_score_completions", "_get_train_sampler", "compute_loss",
        "_get_per_token_logps_and_entropies", "get_high_entropy_mask",
    }  # fmt: skip


def test_generate_returns_eight_values_in_this_order() -> None:
    returns = [node for node in ast.walk(tree(GRPOTrainer._generate)) if isinstance(node, ast.Return)]
    assert isinstance(returns[-1].value, ast.Tuple)
    assert [ast.unparse(element) for element in returns[-1].value.elts] == GENERATED


def test_the_caller_unpacks_them_in_this_order() -> None:
    calls = [
        node
        for node in ast.walk(tree(GRPOTrainer._generate_and_score_completions))
        if isinstance(node, ast.Assign) and ast.unparse(node.value) == "self._generate(prompts)"
    ]
    assert len(calls) == 1
    assert isinstance(calls[0].targets[0], ast.Tuple)
    names = [ast.unparse(element).removesuffix("_list") for element in calls[0].targets[0].elts]
    assert names == [name if name != "logprobs" else "sampling_per_token_logps" for name in GENERATED]


def test_the_branch_that_accepts_our_tokens_is_chosen_by_tools_and_tool_images() -> None:
    conditions = [
        ast.unparse(node.test)
        for node in ast.walk(tree(GRPOTrainer._generate_and_score_completions))
        if isinstance(node, ast.If)
    ]
    # Once for the image processor, once for mm_token_type_ids.
    assert conditions.count("self.tools and any((imgs for imgs in tool_images)) and self._is_vlm") == 2


def test_rows_without_a_reward_are_left_out_of_the_baseline() -> None:
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert "unscorable_mask = torch.isnan(rewards_per_func).all(dim=1)" in source
    assert "torch.nanmean(rewards.view(-1, num_generations), dim=1)" in source
    assert "torch.nan_to_num(advantages, nan=0.0)" in source


def test_the_loss_divides_by_what_the_scales_expect() -> None:
    source = inspect.getsource(GRPOTrainer._compute_loss)
    assert 'if self.loss_type in ["grpo", "sapo"]:' in source
    assert "loss = ((per_token_loss * mask).sum(-1) / mask.sum(-1).clamp(min=1.0)).mean()" in source
    assert "loss = (per_token_loss * mask).sum() / mask.sum().clamp(min=1.0)" in source
    assert "loss = (per_token_loss * mask).sum() / (per_token_loss.size(0) * self.max_completion_length)" in source
    assert "loss = (per_token_loss * mask).sum(-1).mean()" in source
    assert "(entropies * effective_mask).sum() / effective_mask.sum().clamp(min=1.0) / accumulation_factor" in source
    assert 'self.loss_type in ["cispo", "dapo", "vespo"]' in source
    assert "loss = (per_token_loss * mask).sum() / normalizer" in source
    assert 'mask = completion_mask if "tool_mask" not in inputs else completion_mask * inputs["tool_mask"]' in source


def test_old_log_probabilities_are_not_computed_on_policy() -> None:
    source = inspect.getsource(GRPOTrainer._generate_and_score_completions)
    assert "self.args.gradient_accumulation_steps % generate_every != 0" in source


@pytest.fixture
def stock(tmp_path: Path) -> GRPOTrainer:
    torch.set_num_threads(1)
    tokenizer = tiny.build_tokenizer(["what", "is", "it", "user", "assistant"])
    args = GRPOConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=2, num_generations=2, max_completion_length=4,
        report_to="none", use_cpu=True, bf16=False, log_multimodal=False, gradient_checkpointing=False,
    )  # fmt: skip
    rows = {"prompt": [[{"role": "user", "content": "what is it"}]] * 2}
    return GRPOTrainer(
        model=tiny.build_model(tokenizer, 0),
        reward_funcs=lambda completions, **_: [float(n) for n in range(len(completions))],
        args=args,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tiny.build_processor(tokenizer),
    )


def test_a_live_run_returns_what_the_source_says(stock: GRPOTrainer) -> None:
    prompts = [[{"role": "user", "content": "what is it"}]] * 2
    result = stock._generate(prompts)
    assert isinstance(result, tuple)
    assert len(result) == len(GENERATED)
    named = dict(zip(GENERATED, result, strict=True))
    assert all(isinstance(token, int) for ids in named["prompt_ids"] + named["completion_ids"] for token in ids)
    assert named["tool_mask"] is None
    assert named["extra_fields"] == {}
    assert named["images"] is None
    assert named["tool_images"] == []


def test_a_live_batch_of_ours_has_the_keys_that_we_cut(tmp_path: Path) -> None:
    batch = our_batch(tmp_path)
    assert set(batch) == BATCH
    rows = len(batch["advantages"])
    assert batch["num_items_in_batch"].ndim == 0
    assert isinstance(batch["num_images"], list)
    assert len(batch["num_images"]) == rows == len(batch["prompt_ids"]) == len(batch["completion_ids"])
    width = batch["prompt_ids"].shape[1] + batch["completion_ids"].shape[1]
    assert batch["mm_token_type_ids"].shape == (rows, width)
    assert batch["tool_mask"].shape == batch["completion_mask"].shape == batch["completion_ids"].shape
    assert len(batch["image_grid_thw"]) == sum(batch["num_images"])
    assert len(batch["pixel_values"]) == int(batch["image_grid_thw"].prod(-1).sum())


def test_the_fused_lm_head_honours_a_bias(stock: GRPOTrainer) -> None:
    """What makes tokens impossible in the loss: TRL passes `lm_head.bias` to its kernel."""
    model: Any = stock.model
    ids = torch.arange(20, 30)[None]
    plain = model(input_ids=ids).logits.log_softmax(-1)
    suppress_logits(model, [25])
    fused = model(input_ids=ids, labels=ids, fused_lm_head=True)
    masked = model(input_ids=ids).logits
    restore_logits(model)
    assert fused.log_probs[0, 4] < -5000  # the label at this place is 25
    torch.testing.assert_close(fused.log_probs[0, 0], masked.log_softmax(-1)[0, 0, 21])
    assert torch.isfinite(fused.entropy).all()
    torch.testing.assert_close(model(input_ids=ids).logits.log_softmax(-1), plain)


def our_batch(folder: Path) -> dict[str, Any]:
    """A batch of `ToolGRPOTrainer` with one picture per prompt and one per observation."""
    from PIL import Image as Pillow

    from thinkimg.api import GRPO
    from thinkimg.image import Image
    from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
    from thinkimg.models.chat import TokenModel
    from thinkimg.models.families.qwen_vl import QwenVL
    from thinkimg.models.image_features import ImageFeatures
    from thinkimg.models.pretrained import LoadedModel
    from thinkimg.models.transformers_generator import TransformersGenerator
    from thinkimg.training.episodes import Episodes
    from thinkimg.training.grpo import grpo_config
    from thinkimg.training.rewards import BoundReward
    from thinkimg.training.session import Session
    from thinkimg.trajectory import Task, Trajectory

    tokenizer = tiny.build_tokenizer(["what", "is", "it", "user", "assistant"])
    processor = tiny.build_processor(tokenizer)
    family = QwenVL(processor)
    image = Image.from_pixels(Pillow.new("RGB", (64, 64), "red"))

    class Agent:
        async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
            trajectory = Trajectory(question=task.question, status="answered", answer=str(seed))
            trajectory.add_image(image)
            trajectory.add("user", ImageBlock(handle="img_1"), TextBlock(text=task.question))
            trajectory.add("assistant", TextBlock(text="it"))
            trajectory.add("tool", ToolResultBlock(call_id="1", name="t", text="is"), ImageBlock(handle="img_1"))
            trajectory.add("assistant", TextBlock(text="what"))
            first, _, third, _ = trajectory.turns
            first.tokens = family.encode_start([first.message], trajectory.images)[0]
            third.tokens = family.encode_tail(third.message, trajectory.images)
            for turn in trajectory.turns:
                turn.tokens = family.encode_reply(turn.message.text) if turn.tokens is None else turn.tokens
                turn.mask = [turn.role == "assistant"] * len(turn.tokens)
            return trajectory

    spec = GRPO(max_steps=1, prompts_per_step=1, num_generations=2)
    features = ImageFeatures(processor.image_processor)
    weights = tiny.build_model(tokenizer, 0)
    chat = TokenModel(family, TransformersGenerator(weights, family, features))
    model = LoadedModel(weights, processor, family, features, chat)
    parity = BoundReward("parity", lambda trajectory: float(int(trajectory.answer or 0) % 97))
    episodes = Episodes(Agent(), [Task("t", "what is it", (image,))], [parity])
    trainer = ToolGRPOTrainer(model, episodes, spec, grpo_config(spec, Session(folder)))
    trainer.model.train()
    batch = trainer._generate_and_score_completions([trainer.train_dataset[0]] * 2)
    trainer.close()
    return batch
