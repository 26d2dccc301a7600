"""`args` of SFT and GRPO stages: which arguments of TRL may be passed on, with which types.

The lists in trainer_args.json are generated from TRL by hack/generate_trainer_args.py, so that this package needs
no TRL to refuse a wrong name.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from .resource import Violation, refuse_all, suggestion

_BOTH = {
    "Remove it: ThinkIMG writes below the run's folder (`--run`; on a cluster, spec.storage).": "output_dir",
    "Use spec.reportTo.": "report_to",
    "Remove it: ThinkIMG reports progress itself, for all stages alike.": (
        "disable_tqdm run_name project trackio_space_id trackio_bucket_id trackio_static_space_id"
    ),
    "Use sft.batchSize, or grpo.promptsPerStep and grpo.numGenerations.": (
        "per_device_train_batch_size auto_find_batch_size"
    ),
    "Use maxSteps of the stage.": "max_steps",
    "Use sft.epochs, or grpo.maxSteps.": "num_train_epochs",
    "Use learningRate of the stage.": "learning_rate",
    "Use spec.seed, or sft.seed.": "seed data_seed",
    "Use spec.model.trustRemoteCode.": "trust_remote_code",
    "Use spec.checkpoint.": (
        "save_strategy save_steps save_total_limit save_only_model save_on_each_node enable_jit_checkpoint "
        "load_best_model_at_end metric_for_best_model greater_is_better"
    ),
    "Remove it: a stage goes on from its newest complete checkpoint by itself.": (
        "resume_from_checkpoint restore_callback_states_from_checkpoint ignore_data_skip"
    ),
    "Use a stage of type Evaluate.": (
        "eval_strategy eval_steps eval_delay eval_on_start do_eval do_train do_predict per_device_eval_batch_size "
        "eval_accumulation_steps batch_eval_metrics eval_do_concat_batches eval_use_gather_object include_for_metrics "
        "prediction_loss_only num_generations_eval"
    ),
    "Use nodes and procsPerNode of the stage; ThinkIMG launches the processes.": "local_rank ddp_backend ddp_timeout",
    "Remove it: ThinkIMG uses the devices that the stage's processes see.": "use_cpu",
    "Remove it and publish a finished model with `thinkimg export`.": (
        "push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision"
    ),
    "Remove it: trajectories have a collator of their own.": (
        "remove_unused_columns label_names dataloader_drop_last length_column_name pad_to_multiple_of"
    ),
}
_SFT = {
    "Use sft.lengthGrouping; the order follows from the seed.": "shuffle_dataset train_sampling_strategy",
    "Remove it: a trajectory is never cut, because its images would lose their tokens.": "max_length truncation_mode",
    "Remove it: trajectories have a collator of their own.": (
        "dataset_text_field dataset_kwargs dataset_num_proc packing packing_strategy padding_free eval_packing"
    ),
    "Remove it: the loss always sees the model's own tokens only.": "completion_only_loss assistant_only_loss",
    "Remove it: the model's family says it.": "chat_template_path eos_token pad_token",
}
_GRPO = {
    "Remove it: the order of questions follows from spec.seed.": "shuffle_dataset train_sampling_strategy",
    "Use grpo.lossType.": "loss_type",
    "Use grpo.importanceCorrection.": (
        "vllm_importance_sampling_correction vllm_importance_sampling_mode vllm_importance_sampling_cap "
        "vllm_importance_sampling_clip_min vllm_importance_sampling_clip_max"
    ),
    "Use grpo.numGenerations.": "num_generations",
    "Use grpo.temperature.": "temperature",
    "Use grpo.beta.": "beta",
    "Use grpo.maxTokensPerTurn and grpo.maxRounds.": "max_completion_length",
    "Use grpo.maxRounds.": "max_tool_calling_iterations",
    "Use grpo.rewards[].weight.": "reward_weights",
    "Use grpo.promptsPerStep and grpo.numGenerations.": "generation_batch_size",
    "Use grpo.promptsPerStep and grpo.microBatch.": "steps_per_generation",
    "Use grpo.maskTruncated.": "mask_truncated_completions",
    "Remove it: ThinkIMG chooses the engine (vLLM in the trainer's process where there is one, else transformers).": (
        "use_vllm vllm_mode vllm_enable_sleep_mode vllm_structured_outputs_regex vllm_server_base_url vllm_server_host "
        "vllm_server_port vllm_server_timeout vllm_group_port use_transformers_paged cache_implementation "
        "use_transformers_continuous_batching transformers_continuous_batching_config"
    ),
    "Remove it: it does not work with tool calls and images.": "generation_kwargs",
    "Remove it: the model's family says it.": "chat_template_kwargs",
    "Remove it: every trajectory is recorded and can be opened in the report.": (
        "log_completions log_multimodal log_completions_hub_repo num_completions_to_print"
    ),
}


def _by_name(owned: dict[str, str]) -> dict[str, str]:
    return {name: remedy for remedy, names in owned.items() for name in names.split()}


OWNED: dict[str, dict[str, str]] = {"sft": _by_name(_BOTH) | _by_name(_SFT), "grpo": _by_name(_BOTH) | _by_name(_GRPO)}
"""Arguments that ThinkIMG sets itself, by trainer, each with the sentence that says what to do instead."""

_PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "bool": (bool,),
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "list": (list,),
    "dict": (dict,),
    "null": (type(None),),
}


@cache
def known_args() -> dict[str, Any]:
    """trainer_args.json: `{"trl": version, "sft": {name: "int|null"}, "grpo": {…}}`."""
    text = files(__package__).joinpath("trainer_args.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def sft_args(args: dict[str, Any]) -> dict[str, Any]:
    """Check of `sft.args`."""
    return _checked("sft", args)


def grpo_args(args: dict[str, Any]) -> dict[str, Any]:
    """Check of `grpo.args`."""
    return _checked("grpo", args)


def _checked(trainer: str, args: dict[str, Any]) -> dict[str, Any]:
    known = known_args()
    owned = OWNED[trainer]
    free = {name: types for name, types in known[trainer].items() if name not in owned}
    violations = []
    for name, value in args.items():
        if name in owned:
            violations.append(Violation((name,), f'"{name}" is set by ThinkIMG itself', owned[name]))
        elif name not in free:
            config = {"sft": "SFTConfig", "grpo": "GRPOConfig"}[trainer]
            message = f'"{name}" is not an argument of {config} in TRL {known["trl"]}'
            near = suggestion(name, free)
            remedy = near if near.startswith("Did") else f"TRL's documentation of {config} lists them."
            violations.append(Violation((name,), message, remedy))
        elif not _has_type(value, free[name]):
            expected = free[name].replace("|", " or ")
            violations.append(Violation((name,), f"expected {expected}, got {value!r}", "Write a value of that type."))
    refuse_all(violations)
    return args


def _has_type(value: Any, types: str) -> bool:
    names = types.split("|")
    if isinstance(value, bool):  # in Python a bool is an int; in a manifest it is a mistake
        return "bool" in names
    return any(isinstance(value, _PYTHON_TYPES[name]) for name in names)
