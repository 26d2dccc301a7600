"""A stage of type GRPO: V-ToolRL with live tools, or text-only RL."""

import asyncio
import re
from typing import Any

from thinkimg.agent.tools import LimitedTools, NoTools
from thinkimg.api import GRPO, Reward
from thinkimg.client import ToolClient
from thinkimg.evaluation.metrics import relaxed_match
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.saving import Progress, checkpoints
from thinkimg.jobs.stages.sft import lora_settings
from thinkimg.jsonfile import write
from thinkimg.models.chat import TokenModel
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.results import GRPODone, ToolCalls
from thinkimg.training.adapters import lora_config
from thinkimg.training.colocated import chosen_engine
from thinkimg.training.configs import zero_config
from thinkimg.training.grpo import GRPOSettings, ImportanceCorrection, train_grpo
from thinkimg.training.rewards import RewardSpec, make_rewards


def run_grpo(context: Context, name: str) -> GRPODone:
    stage = context.job.spec.stage(name)
    grpo = stage.grpo
    assert grpo is not None
    loaded = context.load(stage.from_)
    client = context.client() if grpo.tool_use == "Enabled" else None
    if client is not None:
        asyncio.run(_read_schemas(client))
    engine = chosen_engine(loaded.model)
    vllm = VLLMGenerator(loaded.family) if engine else None
    chat = TokenModel(loaded.family, vllm) if vllm else loaded.chat
    agent = context.agent(
        chat, LimitedTools(client, grpo.tool_concurrency) if client else NoTools(), rounds=grpo.max_rounds, 
        tokens_per_turn=grpo.max_tokens_per_turn, seconds=grpo.max_seconds_per_trajectory,
    )  # fmt: skip
    args = dict(grpo.args)
    passes = args.pop("gradient_accumulation_steps", 1)
    known = {key: args.pop(key) for key in list(args) if key in GRPOSettings.model_fields}
    settings = GRPOSettings(
        steps=grpo.max_steps,
        prompts_per_step=grpo.prompts_per_step,
        generations=grpo.num_generations,
        learning_rate=grpo.learning_rate,
        temperature=grpo.temperature,
        beta=grpo.beta,
        seed=context.job.spec.seed,
        attempts=grpo.resample_limit + 1,
        refill=grpo.refill,
        fork_groups=grpo.fork_groups,
        loss_type=grpo.loss_type,
        importance_correction=_correction(grpo),
        longest_completion=grpo.max_tokens_per_turn * grpo.max_rounds,
        report_to=list(context.job.spec.report_to),
        mask_truncated=grpo.mask_truncated,
        micro_batch=grpo.rollouts_per_process(context.world_size) if passes > 1 else None,
        save_total_limit=None,
        trl=engine | args | ({"deepspeed": zero_config(grpo.zero_stage)} if grpo.zero_stage else {}),
        **known,
    )
    rewards = make_rewards({reward.name: _reward(reward) for reward in grpo.rewards}, _score)
    folder = context.run.stage(name)
    try:
        with checkpoints(context, name, folder) as saving:
            train_grpo(
                loaded.model, loaded.processor, loaded.family, agent, context.tasks("train"), rewards,
                settings.model_copy(update={"save_steps": saving.every}), folder,
                image_features=loaded.features, resume_from=saving.resume_from, world_size=context.world_size,
                callbacks=[*saving.callbacks, Progress(context, name, saving, 5)],
                connect=client.connect if client else None, disconnect=client.close if client else None,
                vllm=vllm,
                peft_config=lora_config(loaded.model, lora_settings(grpo.lora)),
            )  # fmt: skip
    finally:
        if client is not None and context.rank == 0:
            write(folder / "tools.json", ToolCalls(tools=client.stats()))
    context.save(name, loaded)
    return GRPODone()


async def _read_schemas(client: ToolClient) -> None:
    """The prompt needs the schemas now; connections belong to the loop that uses them, so these are closed again."""
    await client.connect()
    await client.close()


def _correction(grpo: GRPO) -> ImportanceCorrection | None:
    given = grpo.importance_correction
    if given is None:
        return None
    mode = re.sub(r"(?<!^)(?=[A-Z])", "_", given.mode).lower()
    return ImportanceCorrection.model_validate({"mode": mode, "clip_min": given.clip_min, "clip_max": given.clip_max})


def _reward(reward: Reward) -> RewardSpec:
    options: dict[str, Any] = {}
    if reward.max_tokens is not None:
        options["max_tokens"] = reward.max_tokens
    if reward.judge is not None:
        options |= reward.judge.model_dump()
    return RewardSpec(reward.weight, reward.target_rate, options)


def _score(answer: str | None, reference: str) -> float:
    return float(relaxed_match(answer, reference))
