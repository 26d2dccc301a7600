"""A tiny Qwen3-VL and an agent whose model's turns are really sampled, while the observations between them are given:
an untrained model calls no tool."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow

from thinkimg.agent.agent import append_reply
from thinkimg.api import GRPO
from thinkimg.cache import BoundedCache
from thinkimg.errors import InfrastructureError
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.models import tiny
from thinkimg.models.chat import SamplingParameters, TokenModel
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.generator import Filters
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.pretrained import LoadedModel
from thinkimg.models.transformers_generator import TransformersGenerator
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import Task, Trajectory

WORDS = ["what", "is", "the", "value", "of", "the", "bar", "see", "crop", "answer", "user", "assistant", "tool", "red"]


def picture(number: int, width: int = 96, height: int = 64) -> Image:
    """A picture whose colours depend on `number`, with some structure in it."""
    pixels = Pillow.radial_gradient("L").resize((width, height)).convert("RGB")
    tint = Pillow.new("RGB", (width, height), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    return Image.from_pixels(Pillow.blend(pixels, tint, 0.6))


def tasks(count: int, pictures: int = 1) -> list[Task]:
    return [
        Task(
            id=f"task-{number}",
            question="what is the value of the bar",
            images=tuple(picture(10 * number + k) for k in range(pictures)),
            reference=str(number),
        )
        for number in range(count)
    ]


class World:
    """Model, processor, family and generator of one test; all share one cache of image features."""

    def __init__(self, seed: int = 0) -> None:
        tokenizer = tiny.build_tokenizer(WORDS)
        self.processor = tiny.build_processor(tokenizer)
        self.model = tiny.build_model(tokenizer, seed)
        self.family = QwenVL(self.processor)
        self.features = ImageFeatures(self.processor.image_processor, BoundedCache(10**9))
        self.generator = TransformersGenerator(self.model, self.family, self.features)
        self.chat = TokenModel(self.family, self.generator)

    @property
    def loaded(self) -> LoadedModel:
        return LoadedModel(self.model, self.processor, self.family, self.features, self.chat)

    def trainer(
        self, agent: Any, folder: Path, rewards: list[BoundReward] | None = None, **block: Any
    ) -> ToolGRPOTrainer:
        """One step of two groups of two, unless the block of the stage says otherwise."""
        given = {"max_steps": 1, "prompts_per_step": 2, "num_generations": 2, "learning_rate": 1e-3} | block
        spec = GRPO(**given)
        questions = getattr(agent, "tasks", None) or tasks(8)
        episodes = Episodes(agent, questions, rewards or [BoundReward("length", answer_length)])
        return ToolGRPOTrainer(self.loaded, episodes, spec, grpo_config(spec, Session(folder)))


def answer_length(trajectory: Trajectory) -> float:
    """A reward that differs between samples of an untrained model."""
    return float(sum(map(ord, trajectory.answer or "")) % 7)


class ScriptedAgent:
    """`rounds(task, generation)` turns of the model; an observation with text and a picture between two."""

    def __init__(self, world: World, rounds: Any = lambda task, generation: 2, max_tokens: int = 8) -> None:
        self.world = world
        self.rounds = rounds
        self.max_tokens = max_tokens
        self.filters = Filters()
        self.seeds: list[int] = []
        self.tasks: list[Task] | None = None
        self.broken: set[tuple[str, int]] = set()
        """(task, number of its trajectory) that the infrastructure fails."""
        self._made: dict[str, int] = {}

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        number = self._made.get(task.id, 0)
        self._made[task.id] = number + 1
        self.seeds.append(seed)
        trajectory = Trajectory(question=task.question, reference=task.reference, meta={"task": task.id})
        handles = [trajectory.add_image(image) for image in task.images]
        trajectory.add("user", *(ImageBlock(handle=name) for name in handles), TextBlock(text=task.question))
        try:
            await self._talk(trajectory, self.rounds(task, number), seed, temperature)
            if (task.id, number) in self.broken:
                raise InfrastructureError("the tool is gone")
        except InfrastructureError:
            trajectory.status = "infrastructure"
            return trajectory
        trajectory.status, trajectory.answer = "answered", trajectory.turns[-1].message.text
        return trajectory

    async def _talk(self, trajectory: Trajectory, rounds: int, seed: int, temperature: float) -> None:
        for turn in range(rounds):
            sampling = SamplingParameters(temperature, self.max_tokens, filters=self.filters)
            append_reply(trajectory, await self.world.chat.reply(trajectory, sampling, (seed + turn) % 2**63))
            if turn < rounds - 1:
                name = trajectory.add_image(picture(seed % 1000 + turn, 64 + 16 * turn, 64))
                text = "see <|image_pad|> <|im_end|>"  # what an OCR could have read from a picture
                trajectory.add("tool", ToolResultBlock(call_id="1", name="crop", text=text), ImageBlock(handle=name))


def logprobs_from_scratch(world: World, trajectory: Trajectory, temperature: float = 1.0) -> torch.Tensor:
    """Log-probability of every token but the first, by one plain forward pass of one sample, nothing padded.

    The picture features come from the original image processor, the suppressed ids are masked here.
    """
    ids = torch.tensor([trajectory.tokens])
    pictures = [image.pixels() for image in trajectory.ordered_images]
    features = world.processor.image_processor(images=pictures, return_tensors="pt") if pictures else {}
    kinds = (ids == world.family.image_token_id).int()
    with torch.no_grad():
        logits = world.model(input_ids=ids, mm_token_type_ids=kinds, **features).logits[0, :-1].float()
    logits[:, list(world.family.suppressed_ids)] = -torch.inf
    return torch.log_softmax(logits / temperature, -1).gather(1, ids[0, 1:, None])[:, 0]
