"""The engine in the trainer's process: the tokens and the distribution of the loss, the newest weights, no rounds.

One trainer with one engine serves all tests: making it takes half a minute.
"""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.engine.colocated import ENGINE, GENERATIONS, TASKS, differences, request, rollouts, scored
from tests.support.engine.talkers import Talker, loaded, picture, save_tiny, task
from thinkimg.api import GRPO
from thinkimg.errors import InfrastructureError, UserError
from thinkimg.image import Image
from thinkimg.models.chat import ContextFull
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.transformers_generator import TransformersGenerator
from thinkimg.models.vllm import generator as vllm_generator
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import Row, ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import InvariantError

SPEC = GRPO(max_steps=2, prompts_per_step=TASKS, num_generations=GENERATIONS, learning_rate=3e-3)


@pytest.fixture(scope="module")
def trainer(own_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ToolGRPOTrainer]:
    torch.set_num_threads(2)
    folder = tmp_path_factory.mktemp("tiny")
    model = loaded(*save_tiny(folder))
    generator = VLLMGenerator(model.family)
    episodes = Episodes(
        Talker(model.family, generator),
        [task(number) for number in range(TASKS)],
        [BoundReward("length", lambda trajectory: float(len(trajectory.answer or "")))],
        vllm=generator,
    )
    args = grpo_config(SPEC, Session(tmp_path_factory.mktemp("out"), engine=ENGINE))
    made = ToolGRPOTrainer(model, episodes, SPEC, args)
    made.generator = generator  # type: ignore[attr-defined]
    yield made
    made.close()


def test_log_probabilities_are_the_trainers_and_a_swapped_picture_shows(trainer: ToolGRPOTrainer) -> None:
    batch = rollouts(trainer)
    rows = trainer.rows
    assert min(len(row.images) for row in rows) == 3
    found = differences(rows, batch)
    mean, tail = float(found.mean()), float(found.quantile(0.999))
    # The control: the same tokens, the first picture of each trajectory replaced by the next one's.
    swapped = [Row(r.prompt, r.completion, r.mask, [other, *r.images[1:]], logprobs=r.logprobs)
               for r, other in zip(rows, _next_task_pictures(rows), strict=True)]  # fmt: skip
    for group, start in zip(trainer.groups, range(0, len(swapped), GENERATIONS), strict=True):
        group.rows = swapped[start : start + GENERATIONS]
    control = float(differences(swapped, scored(trainer)).mean())
    print(f"\nengine against trainer, fp32, {found.numel()} tokens: mean {mean:.2e}, p99.9 {tail:.2e}, "
          f"one picture swapped {control:.2e} ({control / mean:.0f} times)")  # fmt: skip
    assert mean <= 1e-3
    assert tail <= 1e-2
    assert control >= 10 * mean


def _next_task_pictures(rows: Sequence[Row]) -> list[Image]:
    first = [row.images[0] for row in rows]
    return first[GENERATIONS:] + first[:GENERATIONS]


def test_training_moves_the_engine_with_it(trainer: ToolGRPOTrainer) -> None:
    """After two steps of a high learning rate the engine still samples from the trainer's distribution; pictures that
    it encoded with the old weights are encoded again."""
    before = {name: weight.clone() for name, weight in trainer.model.named_parameters()}
    trainer.train()
    assert trainer.state.global_step == 2
    moved = max(float((weight - before[name]).abs().max()) for name, weight in trainer.model.named_parameters())
    assert moved > 1e-3
    assert trainer.colocated is not None
    batch = rollouts(trainer)
    assert float(differences(trainer.rows, batch).mean()) <= 1e-3
    vision = [name for name in before if "visual" in name]
    assert any(float((dict(trainer.model.named_parameters())[n] - before[n]).abs().max()) > 1e-4 for n in vision)


def generate(trainer: ToolGRPOTrainer, *asked: GenerationRequest, generator: Any = None) -> list[Any]:
    async def run() -> list[Any]:
        made = ((generator or trainer.generator).generate(one) for one in asked)  # type: ignore[attr-defined]
        return await asyncio.gather(*made, return_exceptions=True)

    return asyncio.run(run())


def test_the_seed_decides_and_not_the_company(trainer: ToolGRPOTrainer) -> None:
    asked = [request(trainer, picture(n % 3), seed=2**62 + n) for n in range(12)]
    together = generate(trainer, *asked)
    alone = [generate(trainer, one)[0] for one in asked]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    assert len({tuple(one.tokens) for one in together}) == 12


def test_greedy_is_what_transformers_says(trainer: ToolGRPOTrainer) -> None:
    features = trainer.rollouts.rows.image_processor.cached_features
    reference = TransformersGenerator(trainer.model, trainer.family, features)
    asked = [request(trainer, picture(n), picture(n + 1), temperature=0.0) for n in range(6)]
    engine, plain = generate(trainer, *asked), reference.generate_batch(asked)
    assert [one.tokens for one in engine] == [one.tokens for one in plain]


def test_suppressed_tokens_are_never_said(trainer: ToolGRPOTrainer) -> None:
    made = generate(trainer, *(request(trainer, picture(1), seed=n, max_tokens=40) for n in range(24)))
    said = {token for one in made for token in one.tokens}
    assert len(said) > 100
    assert not said & set(trainer.family.suppressed_ids)


def test_a_turn_ends_with_a_stop_token_a_stop_string_or_the_limit(trainer: ToolGRPOTrainer) -> None:
    family = trainer.family
    readable = 0
    for seed in range(100):
        (cut,) = generate(trainer, request(trainer, max_tokens=4, seed=seed))
        text = family.decode(cut.tokens[:2])
        first = family.decode(cut.tokens[:1])
        if (cut.finish, len(cut.tokens)) != ("length", 4) or not text.isascii() or text == first:
            continue
        (stopped,) = generate(trainer, request(trainer, max_tokens=4, seed=seed, stop=(text,)))
        assert (stopped.finish, stopped.tokens) == ("stop", cut.tokens[:2])
        readable += 1
    assert readable
    many = generate(trainer, *(request(trainer, max_tokens=60, seed=n) for n in range(40)))
    ended = [one for one in many if one.finish == "stop"]
    assert ended
    assert all(one.tokens[-1] in family.stop_ids and len(one.logprobs) == len(one.tokens) for one in ended)


def test_a_long_prompt_is_the_models_limit_and_nobody_elses(trainer: ToolGRPOTrainer) -> None:
    fits, long = request(trainer, seed=1), request(trainer, tokens=[50] * 1024, seed=2)
    made = generate(trainer, fits, long)
    assert isinstance(made[0], Generation)
    assert isinstance(made[1], ContextFull)


def test_placeholders_that_do_not_fit_are_refused_before_the_engine(trainer: ToolGRPOTrainer) -> None:
    asked = request(trainer, picture(1))
    (made,) = generate(trainer, GenerationRequest(asked.tokens, [], 5, 1.0, 0))
    assert isinstance(made, InvariantError)
    (made,) = generate(trainer, GenerationRequest(asked.tokens, [picture(1), picture(2)], 5, 1.0, 0))
    assert isinstance(made, InvariantError)


def test_an_engine_that_saw_other_tokens_is_found_out(
    trainer: ToolGRPOTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TRL sends them: already expanded, and expanded again by the engine."""
    plain = vllm_generator.engine_prompt
    monkeypatch.setattr(
        vllm_generator, "engine_prompt", lambda family, asked: plain(family, asked) | {"prompt_token_ids": asked.tokens}
    )
    (made,) = generate(trainer, request(trainer, picture(1)))
    assert isinstance(made, InvariantError)
    assert "the engine saw" in str(made)


def test_a_cancelled_request_leaves_the_engine(trainer: ToolGRPOTrainer) -> None:
    async def run() -> None:
        generator = trainer.generator  # type: ignore[attr-defined]
        slow = asyncio.create_task(generator.generate(request(trainer, picture(1), max_tokens=900, seed=4)))
        await asyncio.sleep(0.2)
        slow.cancel()
        await generator.generate(request(trainer, picture(2), max_tokens=2))

    asyncio.run(run())
    assert trainer.colocated is not None
    assert not trainer.colocated.thread.run(lambda engine: engine.has_unfinished_requests())


def test_whoever_still_waits_when_the_rollouts_end_is_dropped(trainer: ToolGRPOTrainer) -> None:
    """As after Ctrl-C: nothing is in the engine when it goes to sleep."""
    colocated = trainer.colocated
    assert colocated is not None

    async def run() -> Any:
        generator = trainer.generator  # type: ignore[attr-defined]
        slow = asyncio.create_task(generator.generate(request(trainer, picture(1), max_tokens=900, seed=4)))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(colocated.thread.run, lambda _: colocated._sleep())
        return (await asyncio.gather(slow, return_exceptions=True))[0]

    made = asyncio.run(run())
    assert isinstance(made, InfrastructureError) or made.finish == "stop"
    assert not colocated.thread.run(lambda engine: engine.has_unfinished_requests())


def test_a_failing_step_fails_its_requests_and_the_next_succeed(
    trainer: ToolGRPOTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trainer.colocated is not None
    engine = trainer.colocated.thread.engine

    def broken() -> Any:
        monkeypatch.undo()
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(engine, "step", broken)
    (made,) = generate(trainer, request(trainer, picture(1)))
    assert isinstance(made, InfrastructureError)
    assert "out of memory" in str(made)
    (made,) = generate(trainer, request(trainer, picture(1)))
    assert isinstance(made, Generation)


def test_a_picture_is_preprocessed_once_however_many_turns_show_it(trainer: ToolGRPOTrainer) -> None:
    assert trainer.colocated is not None
    renderer = trainer.colocated.thread.engine.renderer
    worked: list[int] = []
    processor = renderer.get_mm_processor() if hasattr(renderer, "get_mm_processor") else renderer.mm_processor
    plain = processor.info.ctx.call_hf_processor

    def counted(hf_processor: Any, data: Any, *args: Any, **options: Any) -> Any:
        worked.append(len(data.get("images", ())))
        return plain(hf_processor, data, *args, **options)

    object.__setattr__(processor.info.ctx, "call_hf_processor", counted)
    try:
        for shown in ([picture(200)], [picture(200), picture(201)], [picture(200), picture(201), picture(202)]):
            generate(trainer, request(trainer, *shown, max_tokens=2))
    finally:
        object.__delattr__(processor.info.ctx, "call_hf_processor")
    assert sum(worked) == 3


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"vllm_mode": "server"}, "vllm_mode"),
        ({"vllm_tensor_parallel_size": 2}, "vllm_tensor_parallel_size"),
    ],
)
def test_what_this_engine_cannot_serve_is_refused(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    from thinkimg.training.colocated import check_vllm

    args = grpo_config(SPEC, Session(tmp_path, engine=ENGINE | changes))
    with pytest.raises(UserError, match=field):
        check_vllm(args, VLLMGenerator(None))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="use_vllm"):
        check_vllm(args, None)
