"""Multi-image trajectories made by a model that was never trained: it says anything, and is shown another picture after
each turn, as a tool would."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from thinkimg.agent.agent import append_reply
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.models import tiny
from thinkimg.models.chat import ContextFull, Family, SamplingParameters, TokenModel
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.generator import Generator
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.pretrained import LoadedModel
from thinkimg.models.transformers_generator import TransformersGenerator
from thinkimg.trajectory import Task, Trajectory

WORDS = ["what", "is", "the", "value", "of", "bar", "user", "assistant", "system", "tool", "observation"]


def save_tiny(folder: Path, seed: int = 0) -> tuple[Any, Any]:
    """A tiny Qwen3-VL, saved to `folder` where an engine finds it: model and processor."""
    tokenizer = tiny.build_tokenizer(WORDS)
    processor = tiny.build_processor(tokenizer)
    model = tiny.build_model(tokenizer, seed)
    tiny.save(folder, model, processor)
    model.name_or_path = str(folder)
    return model, processor


def loaded(model: Any, processor: Any) -> LoadedModel:
    """What the trainer takes; nobody speaks through it, for the engine does."""
    family, features = QwenVL(processor), ImageFeatures(processor.image_processor)
    chat = TokenModel(family, TransformersGenerator(model, family, features))
    return LoadedModel(model, processor, family, features, chat)


def picture(number: int, width: int = 96, height: int = 64) -> Image:
    pixels = Pillow.radial_gradient("L").resize((width, height)).convert("RGB")
    tint = Pillow.new("RGB", (width, height), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    return Image.from_pixels(Pillow.blend(pixels, tint, 0.6))


def task(number: int) -> Task:
    return Task(f"task-{number}", "what is the value of the bar", (picture(number),), reference="7")


class Talker:
    """An `Actor`: `turns` turns of the model, a picture of a size of its own after each but the last."""

    def __init__(self, family: Family, generator: Generator, turns: int = 3, tokens: int = 12) -> None:
        self.model = TokenModel(family, generator)
        self.turns = turns
        self.tokens = tokens

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        made = Trajectory(question=task.question, reference=task.reference, meta={"task": task.id})
        handles = [made.add_image(image) for image in task.images]
        made.add("user", *(ImageBlock(handle=name) for name in handles), TextBlock(text=task.question))
        for turn in range(self.turns):
            try:
                reply = await self.model.reply(made, SamplingParameters(temperature, self.tokens), seed + turn)
            except ContextFull:
                made.status = "tokens"
                return made
            append_reply(made, reply)
            if turn + 1 < self.turns:
                observe(made, [picture(seed % 97 + turn, 64 + 16 * (seed % 5), 48 + 24 * turn)])
        made.status = "answered"
        made.answer = made.turns[-1].message.text
        return made


def observe(made: Trajectory, pictures: Sequence[Image]) -> None:
    handles = [made.add_image(image) for image in pictures]
    result = ToolResultBlock(call_id="1", name="Crop", text="<|image_pad|> is text")
    made.add("tool", TextBlock(text="observation "), result, *(ImageBlock(handle=name) for name in handles))
