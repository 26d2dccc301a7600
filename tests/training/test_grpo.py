"""The GRPO trainer on a tiny Qwen3-VL: what the loss sees, and what it must not see."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from trl.trainer.grpo_trainer import GRPOTrainer

from tests.support import REPOSITORY
from tests.support.training.batches import gradients, prepare
from tests.support.training.scripted_agent import (
    ScriptedAgent,
    World,
    answer_length,
    logprobs_from_scratch,
    picture,
    tasks,
)
from tests.support.training.two_ranks import two_steps
from thinkimg.api import GRPO, Lora
from thinkimg.errors import UserError
from thinkimg.training.checkpoints import CheckpointCallback, complete_checkpoints, newest_checkpoint
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import (
    ToolGRPOTrainer,
    grpo_config,
    spoken,
    train_grpo,
)
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import Task, Trajectory, read_trajectories


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def loss_logprobs(trainer: ToolGRPOTrainer, batch: dict) -> torch.Tensor:
    """(rows, completion) log-probabilities that TRL's loss is made of."""
    inputs = ["pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids"]
    logprobs, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1),
        torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1),
        batch["completion_ids"].shape[1],
        **{name: batch[name] for name in inputs if name in batch},
    )
    return logprobs


def own_logprobs(trainer: ToolGRPOTrainer, world: World, temperature: float = 1.0) -> list[tuple[torch.Tensor, ...]]:
    """Per trajectory the log-probabilities of the model's own tokens: recorded, and from scratch."""
    pairs = []
    for group in trainer.groups:
        for trajectory in group.trajectories:
            mask = torch.tensor(trajectory.mask)
            recorded = torch.tensor(trajectory.logprobs)[mask]
            pairs.append((recorded, logprobs_from_scratch(world, trajectory, temperature)[mask[1:]]))
    return pairs


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_loss_sees_the_log_probabilities_that_were_sampled(
    tmp_path: Path, trained: bool, temperature: float
) -> None:
    world = World()
    agent = ScriptedAgent(world, rounds=lambda task, number: 1 + number % 3)
    trainer = world.trainer(
        agent, tmp_path, num_generations=4, temperature=temperature, max_steps=3, learning_rate=3e-3
    )
    if trained:
        trainer.train()
    batch = prepare(trainer, 2)
    used = loss_logprobs(trainer, batch)
    for number, (recorded, scratch) in enumerate(own_logprobs(trainer, world, temperature)):
        mask = (batch["tool_mask"] * batch["completion_mask"])[number].bool()
        torch.testing.assert_close(recorded, scratch, atol=1e-4, rtol=0)
        torch.testing.assert_close(used[number][mask], scratch, atol=1e-4, rtol=0)
    assert {len(row.images) for row in trainer.rows} == {1, 2, 3}
    trainer.close()


def test_only_the_models_own_tokens_have_a_gradient(tmp_path: Path) -> None:
    world = World()
    trainer = world.trainer(ScriptedAgent(world, rounds=lambda task, number: 3), tmp_path)
    batch = prepare(trainer, 2)
    logprobs = loss_logprobs(trainer, batch)
    own = (batch["tool_mask"] * batch["completion_mask"]).bool()
    trainer._get_per_token_logps_and_entropies = lambda *a, **k: (leaf, torch.zeros_like(leaf), None)
    leaf = logprobs.detach().requires_grad_()
    trainer.current_gradient_accumulation_steps = 1
    GRPOTrainer.compute_loss(trainer, trainer.model, batch).backward()
    assert (leaf.grad[~own] == 0).all()
    assert (leaf.grad[own] != 0).all()
    counts = [sum(trajectory.mask) for group in trainer.groups for trajectory in group.trajectories]
    assert own.sum(1).tolist() == counts
    trainer.close()


def test_a_masked_row_changes_neither_the_gradient_nor_the_advantages_of_the_others(tmp_path: Path) -> None:
    def batch_of(broken: bool) -> tuple[dict, dict]:
        world = World()
        agent = ScriptedAgent(world, rounds=lambda task, number: 1 + number % 3)
        if broken:  # the last generation of the second task fails at each attempt
            agent.broken = {("task-1", number) for number in range(3, 20)}
        trainer = world.trainer(agent, tmp_path, num_generations=4, resample_limit=1)
        trainer.engine.backoff_seconds = 0.0
        batch = prepare(trainer, 2)
        found = gradients(trainer, batch)
        rewards = [group.rewards for group in trainer.groups]
        trainer.close()
        return {"advantages": batch["advantages"], "rewards": rewards, "rows": trainer.rows}, found

    whole, _ = batch_of(False)
    masked, gradient = batch_of(True)
    assert masked["rows"][7].masked == "infrastructure"
    assert masked["rewards"][1][3] is None
    torch.testing.assert_close(masked["advantages"][:4], whole["advantages"][:4])
    rest = torch.tensor(whole["rewards"][1][:3])
    expected = (rest - rest.mean()) / (rest.std() + 1e-4)
    torch.testing.assert_close(masked["advantages"][4:7], expected, atol=1e-5, rtol=1e-4)
    assert all(torch.isfinite(value).all() for value in gradient.values())


class Unended(ScriptedAgent):
    """Nothing comes to an answer."""

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = await super().run(task, seed, temperature)
        trajectory.status = "rounds"
        return trajectory


def test_a_batch_of_masked_rows_has_a_zero_gradient(tmp_path: Path) -> None:
    world = World()
    trainer = world.trainer(Unended(world), tmp_path, mask_truncated=True)
    found = gradients(trainer, prepare(trainer, 2))
    assert {row.masked for row in trainer.rows} == {"truncated"}
    assert all((value == 0).all() for value in found.values())
    trainer.train()  # and a whole step runs
    trainer.close()


def shorter_tokens(trajectory: Trajectory) -> None:
    trajectory.turns[0].tokens = trajectory.turns[0].tokens[:-1]


def extra_image_token(trajectory: Trajectory) -> None:
    turn = trajectory.turns[0]
    turn.tokens, turn.mask, turn.logprobs = [*turn.tokens, 5], [*turn.mask, False], [*turn.logprobs, 0.0]


def sampled_template_token(trajectory: Trajectory) -> None:
    trajectory.turns[-1].tokens[0] = 1


@pytest.mark.parametrize("damage", [shorter_tokens, extra_image_token, sampled_template_token])
def test_a_contradictory_record_is_masked_and_leaves_the_images_of_the_batch_alone(tmp_path: Path, damage) -> None:
    world = World()
    agent = ScriptedAgent(world, rounds=lambda task, number: 1 + 2 * (number % 2))
    run, damaged = agent.run, []

    async def run_and_damage(task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = await run(task, seed, temperature)
        if not damaged:
            damaged.append(trajectory)
            damage(trajectory)
        return trajectory

    agent.run = run_and_damage
    trainer = world.trainer(agent, tmp_path, num_generations=4, prompts_per_step=2)
    batch = prepare(trainer, 2)
    masked = [row.masked for row in trainer.rows]
    assert masked.count("invariant") == 1
    assert "invariant" in damaged[0].meta
    assert "pixel_values" in batch
    used = loss_logprobs(trainer, batch)
    kept = [n for n, reason in enumerate(masked) if reason is None]
    pairs = own_logprobs_of(trainer, world, kept)
    for row, scratch in zip(kept, pairs, strict=True):
        mask = (batch["tool_mask"] * batch["completion_mask"])[row].bool()
        torch.testing.assert_close(used[row][mask], scratch, atol=1e-4, rtol=0)
    trainer.close()


def own_logprobs_of(trainer: ToolGRPOTrainer, world: World, rows: list[int]) -> list[torch.Tensor]:
    trajectories = [trajectory for group in trainer.groups for trajectory in group.trajectories]
    chosen = [trajectories[row] for row in rows]
    return [logprobs_from_scratch(world, t)[torch.tensor(t.mask)[1:]] for t in chosen]


def test_rows_without_a_gradient_do_not_go_through_the_model_and_the_others_go_in_parts(
    tmp_path: Path, monkeypatch
) -> None:
    world = World()
    agent = ScriptedAgent(world, rounds=lambda task, number: 1 + number % 3)
    flat_first = BoundReward("flat", lambda t: 1.0 if t.meta["task"] == "task-0" else answer_length(t))
    trainer = world.trainer(agent, tmp_path, [flat_first], num_generations=4, tokens_per_pass=1)
    batch = prepare(trainer, 2)
    forward, seen = trainer.model.forward, []

    def watched(*args, **kwargs):
        seen.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    monkeypatch.setattr(trainer.model, "forward", watched)
    parts = gradients(trainer, batch)
    assert seen == [1, 1, 1, 1], "each row of the group that is not flat alone"
    seen.clear()
    trainer.tokens_per_pass = 100_000
    monkeypatch.setattr("thinkimg.training.grpo.loss.LENGTH_BUCKETS", 1)
    whole = gradients(trainer, batch)
    assert seen == [4]
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-4)
    trainer.close()


@pytest.mark.parametrize("micro_batch", [None, 2])
def test_rows_with_one_and_three_images_and_none_train_together(tmp_path: Path, micro_batch: int | None) -> None:
    world = World()
    agent = ScriptedAgent(world, rounds=lambda task, number: 1 + 2 * (number % 2))
    agent.tasks = [*tasks(3), Task("no-picture", "what is the value", ())]
    before = {name: p.clone() for name, p in world.model.named_parameters()}
    trainer = world.trainer(agent, tmp_path, prompts_per_step=4, micro_batch=micro_batch, max_steps=2)
    trainer.train()
    trainer.close()
    changed = [name for name, p in world.model.named_parameters() if not torch.equal(p, before[name])]
    assert any("visual" in name for name in changed), "gradients reach the vision tower"
    assert any("language_model" in name for name in changed)
    assert {len(row.images) for row in trainer.rows} == {0, 1, 2, 3}
    assert world.features.runs == len(world.features.kept), "each picture is preprocessed once"


def test_the_same_seed_gives_the_same_run(tmp_path: Path) -> None:
    def run() -> list[list[int]]:
        world = World()
        trainer = world.trainer(ScriptedAgent(world), tmp_path, max_steps=2)
        torch.manual_seed(len(runs))  # the global stream must not matter
        trainer.train()
        trainer.close()
        return [trajectory.tokens for group in trainer.groups for trajectory in group.trajectories]

    runs: list[list[list[int]]] = []
    runs.append(run())
    runs.append(run())
    assert runs[0] == runs[1]


def test_what_is_rewarded_becomes_more_frequent(tmp_path: Path) -> None:
    world = World()
    token = world.processor.tokenizer.convert_tokens_to_ids("red")

    def share(trajectory: Trajectory) -> float:
        own = [t for t, mine in zip(trajectory.tokens, trajectory.mask, strict=True) if mine]
        return own.count(token) / len(own)

    trainer = world.trainer(
        ScriptedAgent(world), tmp_path, [BoundReward("share", share)],
        max_steps=15, prompts_per_step=4, num_generations=8, learning_rate=3e-3,
    )  # fmt: skip
    trainer.train()
    trainer.close()
    rewards = [line["reward"] for line in trainer.state.log_history if "reward" in line]
    assert sum(rewards[-3:]) > 5 * sum(rewards[:3]) + 0.1


def test_flat_groups_are_refilled_from_other_tasks(tmp_path: Path) -> None:
    world = World()
    flat_first = BoundReward("flat", lambda t: 1.0 if t.meta["task"] in ("task-0", "task-1") else answer_length(t))
    trainer = world.trainer(
        ScriptedAgent(world, max_tokens=12), tmp_path, [flat_first], refill=True, refill_groups=1, num_generations=4
    )
    batch = prepare(trainer, 2)
    used = [group.task.id for group in trainer.groups]
    assert used[1] == "task-1", "no more than refill_groups are replaced"
    assert used[0] not in ("task-0", "task-1")
    assert len(batch["advantages"]) > 0
    trainer.close()


def test_flat_groups_are_refilled_until_none_is_left(tmp_path: Path) -> None:
    world = World()
    useful = {"task-6", "task-7"}
    mostly_flat = BoundReward("flat", lambda t: answer_length(t) if t.meta["task"] in useful else 1.0)
    trainer = world.trainer(
        ScriptedAgent(world, max_tokens=12), tmp_path, [mostly_flat], refill=True, refill_groups=6, num_generations=4
    )
    prepare(trainer, 2)
    assert {group.task.id for group in trainer.groups} == useful, "the first two others were flat again"
    trainer.close()


def test_truncated_trajectories_are_masked_only_if_so_configured(tmp_path: Path) -> None:
    world = World()
    agent = ScriptedAgent(world)
    run = agent.run

    async def run_out_of_rounds(task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        trajectory = await run(task, seed, temperature)
        trajectory.status, trajectory.answer = "rounds", None
        trajectory.add("tool")  # an observation that nobody read has no tokens
        return trajectory

    agent.run = run_out_of_rounds
    for mask in (False, True):
        trainer = world.trainer(agent, tmp_path, mask_truncated=mask)
        prepare(trainer, 2)
        assert {row.masked for row in trainer.rows} == {"truncated" if mask else None}
        trainer.close()


def test_a_trajectory_without_own_tokens_is_masked(tmp_path: Path) -> None:
    world = World()
    trainer = world.trainer(ScriptedAgent(world, rounds=lambda task, number: 0 if number else 1), tmp_path)
    prepare(trainer, 2)
    assert [row.masked for row in trainer.rows] == [None, "empty", None, "empty"]
    trainer.close()


def test_train_grpo_writes_the_log_and_trajectories_and_leaves_a_clean_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    names = set(world.model.state_dict())
    monkeypatch.setattr("thinkimg.training.step_log.TRAJECTORIES_EVERY", 2)
    spec = GRPO(max_steps=3, prompts_per_step=2, num_generations=2)
    rewards = [
        BoundReward("accuracy", lambda t: float(answer_length(t) > 3)),
        BoundReward("format", lambda t: 1.0, 0.1),
    ]
    agent = ScriptedAgent(world)
    train_grpo(world.loaded, Episodes(agent, tasks(4), rewards), spec, Session(tmp_path, save_every=2))
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[0]["tools"] == {"crop": 1.0}
    assert lines[0]["chains"] == {"crop": 1.0}
    assert all(line["seconds"] > line["seconds_rollout"] > 0 for line in lines)
    assert all(line["reward"] == pytest.approx(line["accuracy"] + 0.1, abs=1e-4) for line in lines)
    kept = list(read_trajectories(tmp_path / "trajectories" / "step-000002.jsonl"))
    assert len(kept) == 4
    assert all(t.logprobs and t.rewards["format"] == 1.0 for t in kept)
    assert set(world.model.state_dict()) == names
    assert world.model.get_output_embeddings().bias is None
    assert "forward" not in vars(world.model)

    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    checkpoint = tmp_path / "checkpoint-2"
    Qwen3VLForConditionalGeneration.from_pretrained(checkpoint)
    loaded = AutoProcessor.from_pretrained(checkpoint)
    original = world.processor.image_processor(images=[picture(3).pixels()], return_tensors="pt")
    again = loaded.image_processor(images=[picture(3).pixels()], return_tensors="pt")
    assert torch.equal(original["pixel_values"], again["pixel_values"])


def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    def run(folder: Path, steps: int, resume: Path | None = None) -> tuple[list[list[int]], list[dict]]:
        world = World()
        spec = GRPO(max_steps=steps, prompts_per_step=2, num_generations=2, learning_rate=3e-3)
        episodes = Episodes(ScriptedAgent(world), tasks(6), [BoundReward("length", answer_length)])
        trainer = train_grpo(world.loaded, episodes, spec, Session(folder, save_every=2, resume_from=resume))
        tokens = [trajectory.tokens for group in trainer.groups for trajectory in group.trajectories]
        return tokens, [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]

    whole, log = run(tmp_path / "whole", 4)
    run(tmp_path / "cut", 3)
    resumed, log_resumed = run(tmp_path / "cut", 4, tmp_path / "cut" / "checkpoint-2")
    assert resumed == whole
    assert [line["step"] for line in log_resumed] == [1, 2, 3, 4]
    assert [line["loss"] for line in log_resumed] == pytest.approx([line["loss"] for line in log], abs=1e-5)


def weights_after(folder: Path, steps: int, resume: Path | None = None, ended_at: int | None = None) -> torch.Tensor:
    """All weights after so many steps of which two share a generation; `ended_at`: asked to end after a step."""
    world, looked = World(), iter(range(1, 1 + steps))
    ending = CheckpointCallback(keep=9, asked=lambda: ended_at is not None and next(looked) >= ended_at)
    spec = GRPO(max_steps=steps, prompts_per_step=2, num_generations=2, learning_rate=1e-2, args={"num_iterations": 2})
    episodes = Episodes(ScriptedAgent(world), tasks(6), [BoundReward("length", answer_length)])
    train_grpo(world.loaded, episodes, spec, Session(folder, save_every=3, resume_from=resume, callbacks=[ending]))
    return torch.cat([parameter.detach().flatten() for parameter in world.model.parameters()])


def test_a_run_with_several_steps_for_a_generation_resumes_to_the_last_bit(tmp_path: Path) -> None:
    whole = weights_after(tmp_path / "whole", 8)
    weights_after(tmp_path / "cut", 8, ended_at=5)
    kept = newest_checkpoint(tmp_path / "cut")
    assert kept is not None
    assert kept.name == "checkpoint-6", "asked after the fifth step, it ends with the generation's last one"
    assert {one.name for one in complete_checkpoints(tmp_path / "cut")} == {"checkpoint-4", "checkpoint-6"}
    assert torch.equal(weights_after(tmp_path / "cut", 8, resume=kept), whole)


def test_two_processes_make_the_step_that_one_makes(tmp_path: Path) -> None:
    two_steps(tmp_path / "1", world_size=1)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tests.support.training.two_ranks", tmp_path / "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    weights = [(tmp_path / "2" / f"weights-{rank}").read_text() for rank in range(2)]
    assert weights[0] == weights[1], "all ranks end with the same weights"
    one, two = (
        [json.loads(line) for line in (tmp_path / count / "log.jsonl").read_text().splitlines()] for count in "12"
    )
    for name in ("reward", "loss", "grad_norm", "tool_calls"):
        assert [line[name] for line in two] == pytest.approx([line[name] for line in one], abs=1e-5)


def test_the_reference_is_what_the_training_began_with_whatever_the_configuration_names(tmp_path: Path) -> None:
    world = World()
    world.model.config._name_or_path = "nobody/has-this"  # a hub's repository, of whatever revision
    before = {name: p.detach().clone() for name, p in world.model.named_parameters()}
    trainer = world.trainer(ScriptedAgent(world), tmp_path, beta=0.1, max_steps=2)
    trainer.train()
    reference = dict(trainer.ref_model.named_parameters())
    assert all(torch.equal(reference[name], weight) for name, weight in before.items())
    assert not all(torch.equal(p, before[name]) for name, p in world.model.named_parameters())
    assert trainer.state.log_history[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert trainer.state.log_history[1]["kl"] > 1e-7
    trainer.close()


@pytest.mark.parametrize("how", ["kl", "lora"])
def test_a_reference_model_and_adapters_see_the_same_distribution(tmp_path: Path, how: str) -> None:
    world = World()
    lora = Lora(target_modules=["q_proj", "v_proj"]) if how == "lora" else None
    spec = GRPO(max_steps=2, prompts_per_step=2, num_generations=2, beta=0.1 if how == "kl" else 0.0, lora=lora)
    episodes = Episodes(ScriptedAgent(world), tasks(4), [BoundReward("length", answer_length)])
    before = {name: p.clone() for name, p in world.model.named_parameters()}
    trainer = train_grpo(world.loaded, episodes, spec, Session(tmp_path))
    first = trainer.state.log_history[0]
    assert first["kl"] == pytest.approx(0.0, abs=1e-6) if how == "kl" else "kl" not in first
    adapted = dict(world.model.named_parameters())
    frozen = [name for name in before if name in adapted and torch.equal(before[name], adapted[name])]
    assert adapted.keys() == before.keys(), "adapters are merged at the end"
    changed = {name for name in before if name not in frozen}
    assert all(("q_proj" in name or "v_proj" in name) for name in changed) == (how == "lora")
    assert changed
    assert trainer.accelerator.unwrap_model(trainer.model).get_output_embeddings().bias is None


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"prompts_per_step": 9}, r"grpo\.promptsPerStep"),
        ({"prompts_per_step": 3, "num_generations": 3, "micro_batch": 2}, r"grpo\.microBatch"),
        ({"args": {"lr_scheduler_type": "no such"}}, r"grpo\.args\.lr_scheduler_type: TRL refuses"),
        ({"args": {"top_p": 1.5}}, r"grpo\.args\.top_p: 1\.5 makes no distribution"),
        ({"args": {"top_k": 5}}, "the agent samples with other"),
    ],
)
def test_what_cannot_work_is_refused_before_training(tmp_path: Path, settings: dict, field: str) -> None:
    world = World()
    with pytest.raises(UserError, match=field):
        world.trainer(ScriptedAgent(world), tmp_path, **settings)


def test_two_tasks_of_one_id_are_refused(tmp_path: Path) -> None:
    world = World()
    agent = ScriptedAgent(world)
    agent.tasks = tasks(4) + tasks(1)
    with pytest.raises(UserError, match="same id"):
        world.trainer(agent, tmp_path)


def test_groups_that_would_straddle_ranks_are_refused(tmp_path: Path) -> None:
    spec = GRPO(max_steps=1, prompts_per_step=3, num_generations=4)
    with pytest.raises(UserError, match="straddle"):
        grpo_config(spec, Session(tmp_path, world_size=2))
    args = grpo_config(spec, Session(tmp_path))
    args.per_device_train_batch_size = 6  # one group and a half on each of two ranks
    world = World()
    episodes = Episodes(ScriptedAgent(world), tasks(8), [])
    with pytest.raises(UserError, match="straddle"):
        ToolGRPOTrainer(world.loaded, episodes, spec, args)


def test_trls_own_masking_of_what_was_cut_off_is_refused(tmp_path: Path) -> None:
    world, spec = World(), GRPO(max_steps=1, prompts_per_step=2, num_generations=2)
    args = grpo_config(spec, Session(tmp_path))
    args.mask_truncated_completions = True
    with pytest.raises(UserError, match="mask_truncated_completions"):
        ToolGRPOTrainer(world.loaded, Episodes(ScriptedAgent(world), tasks(8), []), spec, args)


def test_spoken_ends_with_the_models_last_word() -> None:
    trajectory = Trajectory(question="?")
    for role in ("user", "assistant", "tool", "assistant", "tool"):
        trajectory.add(role)
    assert [turn.role for turn in spoken(trajectory).turns] == ["user", "assistant", "tool", "assistant"]
    assert len(trajectory.turns) == 5
