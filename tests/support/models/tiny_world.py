"""A tiny Qwen3-VL from scratch with its family, and conversations to put to it."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from PIL import Image as Pillow

from thinkimg.cache import BoundedCache
from thinkimg.image import Image
from thinkimg.message import ImageBlock, TextBlock, ToolResultBlock
from thinkimg.models import tiny
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.transformers_generator import TransformersGenerator
from thinkimg.trajectory import Trajectory

WORDS = ["what", "is", "the", "value", "of", "bar", "user", "assistant", "system", "tool", "actions", "thought"]
PHRASES = ['{"thought": "', '", "actions": [{"name": "']


@cache
def processor() -> Any:
    return tiny.build_processor(tiny.build_tokenizer(WORDS, PHRASES))


@cache
def family() -> QwenVL:
    return QwenVL(processor())


@cache
def untrained(seed: int = 0) -> Any:
    torch.set_num_threads(1)
    return tiny.build_model(processor().tokenizer, seed).eval()


@cache
def trained() -> Any:
    """Far from where it began: after some steps on noise, so that its distributions are sharp and uneven."""
    model = tiny.build_model(processor().tokenizer, 1)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(0)
    for _ in range(12):
        ids = torch.randint(300, (4, 24), generator=draw) % 40 + 20
        model(input_ids=ids, mm_token_type_ids=torch.zeros_like(ids), labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def generator(model: Any = None, **options: Any) -> TransformersGenerator:
    features = ImageFeatures(processor().image_processor, BoundedCache(10**9))
    return TransformersGenerator(model or untrained(), family(), features, **options)


def picture(number: int = 0, width: int = 96, height: int = 64) -> Image:
    pixels = Pillow.radial_gradient("L").resize((width, height)).convert("RGB")
    tint = Pillow.new("RGB", (width, height), (number * 37 % 256, number * 91 % 256, number * 53 % 256))
    return Image.from_pixels(Pillow.blend(pixels, tint, 0.6))


def conversation(*pictures: Image, text: str = "what is the value") -> Trajectory:
    made = Trajectory(question=text)
    handles = [made.add_image(image) for image in pictures]
    made.add("user", *(ImageBlock(handle=name) for name in handles), TextBlock(text=text))
    return made


def observe(made: Trajectory, text: str, *pictures: Image) -> None:
    handles = [made.add_image(image) for image in pictures]
    result = ToolResultBlock(call_id="1", name="OCR", text=text)
    made.add("tool", TextBlock(text="OBSERVATION:\n"), result, *(ImageBlock(handle=name) for name in handles))


def logprobs_from_scratch(
    model: Any, tokens: Sequence[int], images: Sequence[Image], temperature: float = 1.0
) -> torch.Tensor:
    """Log-probability of every token but the first, by one plain forward pass; suppressed ids are masked here."""
    ids = torch.tensor([tokens])
    pixels = [image.pixels() for image in images]
    features = processor().image_processor(images=pixels, return_tensors="pt") if pixels else {}
    kinds = (ids == family().image_token_id).int()
    with torch.no_grad():
        logits = model(input_ids=ids, mm_token_type_ids=kinds, **features).logits[0, :-1].float()
    logits = logits / (temperature or 1.0)
    logits[:, list(family().suppressed_ids)] = -torch.inf
    return torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None])[:, 0]


def template_messages(made: Trajectory) -> list[dict[str, Any]]:
    """The conversation as chat templates take it; what tools say, the user says."""
    messages = []
    for turn in made.turns:
        parts: list[dict[str, str]] = [
            {"type": "image"} if block.type == "image" else {"type": "text", "text": getattr(block, "text", "")}
            for block in turn.message.content
        ]
        messages.append({"role": "user" if turn.role == "tool" else turn.role, "content": parts})
    return messages
