"""After a step the engine speaks with the trainer's newest weights, adapters merged, masters cast; and it narrows its
distribution as the other engine does."""

import asyncio
from collections.abc import Iterator

import pytest
import torch

from tests.support.engine.colocated import ENGINE, differences, request, rollouts
from tests.support.engine.talkers import Talker, loaded, picture, save_tiny, task
from thinkimg.api import GRPO, Lora
from thinkimg.models.generator import Filters, Generation, GenerationRequest
from thinkimg.models.sampler import Narrowing
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session

SPEC = {"max_steps": 1, "prompts_per_step": 8, "num_generations": 8, "learning_rate": 1e-2}


@pytest.fixture(scope="module", params=["adapters", "masters"])
def trainer(
    own_port: int, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ToolGRPOTrainer]:
    """With adapters in float32; and with all weights, computing in bfloat16 of float32 masters."""
    torch.set_num_threads(2)
    model = loaded(*save_tiny(tmp_path_factory.mktemp("tiny")))
    generator = VLLMGenerator(model.family)
    tasks, reward = (
        [task(number) for number in range(8)],
        BoundReward("length", lambda made: float(len(made.answer or ""))),
    )
    episodes = Episodes(Talker(model.family, generator), tasks, [reward], vllm=generator)
    spec = GRPO(**SPEC, **({"lora": Lora(rank=8)} if request.param == "adapters" else {"args": {"bf16": True}}))
    made = ToolGRPOTrainer(
        model, episodes, spec, grpo_config(spec, Session(tmp_path_factory.mktemp("out"), engine=ENGINE))
    )
    made.generator = generator  # type: ignore[attr-defined]
    yield made
    made.close()


def test_the_engine_speaks_with_the_weights_of_the_last_step(trainer: ToolGRPOTrainer) -> None:
    """The control: what the engine said before the step, scored after it, is far off."""
    exact = not trainer.args.bf16
    rollouts(trainer)
    old = list(trainer.groups)
    trainer.train()
    batch = rollouts(trainer)
    after = differences(trainer.rows, batch)
    trainer.groups = old
    inputs = [{"prompt": group.task.question, "task": 0} for group in old for _ in group.rows]
    scored = super(ToolGRPOTrainer, trainer)._generate_and_score_completions(inputs)
    control = float(differences(trainer.rows, scored).mean())
    mean, largest = float(after.mean()), float(after.max())
    name = "adapters, float32" if exact else "masters, bfloat16"
    print(f"\n{name}: {after.numel()} tokens, mean {mean:.1e}, largest {largest:.1e}; before the step {control:.1e}")
    assert mean <= (1e-5 if exact else 3e-2)
    assert control > 5 * mean


@pytest.mark.parametrize(
    "filters", [Filters(top_p=0.7), Filters(top_k=12), Filters(min_p=0.3), Filters(repetition_penalty=1.7)]
)
def test_the_engine_records_what_it_drew_from(trainer: ToolGRPOTrainer, filters: Filters) -> None:
    if trainer.args.bf16:
        pytest.skip("one type of weights is enough")
    asked = [request(trainer, picture(1), seed=seed, filters=filters) for seed in range(6)]

    async def run() -> list[Generation]:
        return await asyncio.gather(*(trainer.generator.generate(one) for one in asked))  # type: ignore[attr-defined]

    for one, said in zip(asked, asyncio.run(run()), strict=True):
        shares = expected(trainer, one, said)
        torch.testing.assert_close(torch.tensor(said.logprobs), shares, atol=1e-4, rtol=0)


def expected(trainer: ToolGRPOTrainer, asked: GenerationRequest, said: Generation) -> torch.Tensor:
    """By a forward pass of the trainer's model and the filters of the other engine."""
    ids = torch.tensor([asked.tokens + said.tokens])
    features = trainer.rollouts.rows.image_processor.cached_features(asked.images)
    with torch.no_grad():
        output = trainer.model.eval()(input_ids=ids, **trainer.family.model_inputs(ids), **features)
    logits = output.logits[0, len(asked.tokens) - 1 : -1].float()
    narrowing = Narrowing([asked], logits.device)
    shares = []
    for number, token in enumerate(said.tokens):
        drawn = [torch.tensor([said.tokens[number - 1]])] if number else []
        narrowed = narrowing.narrowed(narrowing.penalised(logits[number][None], drawn))
        shares.append(torch.log_softmax(narrowed, -1)[0, token])
    return torch.stack(shares)
