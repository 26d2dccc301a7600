"""A run as the stages leave it, made in a second from real records: charts, executed calls, errors, tokens, logs."""

import io
import json
import math
import random
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from thinkimg.evaluation.metrics import relaxed_match
from thinkimg.evaluation.summary import row_of, summarise
from thinkimg.image import Image
from thinkimg.jsonfile import write
from thinkimg.message import ImageBlock, Message, TextBlock, ToolCallBlock, ToolResultBlock
from thinkimg.results import AnswerRow, RunResults, ToolErrors, ToolFigures
from thinkimg.trajectory import Trajectory, Turn, write_trajectories

HOSTILE = '<script>window.hacked = true</script><img src=x onerror="window.hacked=1"></script><!-- ‮'
MODELS = {"base": 0.02, "text-sft": 0.16, "text-rl": 0.19, "sft": 0.55, "sft-long": 0.6, "v-toolrl": 0.8}
WITH_TOOLS = {"sft", "sft-long", "v-toolrl", "cold-start"}
PALETTE = ("#4c78a8", "#f58518", "#54a24b", "#b279a2")
LABELS = ("Fox", "Hen", "Bee", "Yak", "Cat", "Egg")
IMAGE_PAD = 400


@lru_cache
def chart(seed: int) -> tuple[Image, list[tuple[str, int, tuple[float, float, float, float]]]]:
    """A bar chart with printed values, and where each label stands, in percent."""
    chance = random.Random(seed)
    picture = Pillow.new("RGB", (256, 256), "white")
    pencil = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    pencil.text((88, 6), "Farm census", fill="black", font=font)
    found = []
    for number, label in enumerate(chance.sample(LABELS, 4)):
        value, left = chance.randint(12, 98), 24 + number * 56
        top = 220 - value * 1.8
        pencil.rectangle((left, top, left + 36, 220), fill=PALETTE[number])
        pencil.text((left + 9, top - 17), str(value), fill="black", font=font)
        pencil.text((left + 5, 224), label, fill="black", font=font)
        found.append((label, value, tuple(round(x / 2.56, 1) for x in (left, top - 18, left + 36, 242))))
    pencil.line((16, 220, 248, 220), fill="#444")
    return Image.from_pixels(picture), found


def crop(image: Image, box: tuple[float, ...]) -> Image:
    with Pillow.open(io.BytesIO(image.data)) as picture:
        return Image.from_pixels(picture.crop(tuple(round(x * 2.56) for x in box)).resize((108, 180)))


def with_tokens(turn: Turn, chance: random.Random) -> Turn:
    """Ids, mask and log-probabilities as a token model records them."""
    length = max(4, len(turn.message.text) // 6)
    own = turn.role == "assistant"
    turn.tokens = [chance.randrange(300) for _ in range(length)] + [IMAGE_PAD] * 9 * len(turn.message.images)
    turn.mask = [own] * len(turn.tokens)
    if own:
        turn.tokens.append(2)
        turn.mask.append(False)
    turn.logprobs = [-chance.expovariate(6) if flag else 0.0 for flag in turn.mask]
    turn.finish = "stop" if own else None
    turn.seconds = chance.uniform(0.01, 0.4)
    return turn


def trajectory(model: str, question_id: str, skill: float, chance: random.Random, **meta: Any) -> Trajectory:
    number = int(question_id.rpartition("-")[2])
    image, found = chart(number % 12)
    label, value, box = found[number % 4]
    kind = ("value", "count", "compare")[number % 3]
    question = {
        "value": f"What is the value of {label}?",
        "count": "How many bars are there?",
        "compare": f"Is {label} higher than {found[0][0]}?",
    }[kind]
    reference = {"value": str(value), "count": "4", "compare": "yes" if value > found[0][1] else "no"}[kind]
    wrong = {"value": str(value + 37), "count": "7", "compare": "yes" if reference == "no" else "no"}[kind]
    answer = reference if chance.random() < skill else wrong
    one = Trajectory(
        id=f"{model}-{question_id}-{chance.randrange(16**8):08x}",
        question=question,
        reference=reference,
        meta={"kind": kind, "model": model, "question_id": question_id, **meta},
    )
    one.add("system", TextBlock(text="Answer questions about charts. Tools: OCR, ZoominSubplot, Point, Crop."))
    one.add("user", ImageBlock(handle=one.add_image(image)), TextBlock(text=question))
    if model in WITH_TOOLS and kind != "count":
        use_tools(one, label, box, found, number, chance)
    if number % 17 == 5:
        one.status = "rounds"
    else:
        one.answer, one.status = answer, "answered"
        text = json.dumps({"thought": f"So it is {answer}.", "actions": [{"name": "Terminate", "answer": answer}]})
        one.add("assistant", TextBlock(text=text))
    one.turns = [with_tokens(turn, chance) for turn in one.turns]
    one.correct = relaxed_match(one.answer, reference)
    one.rewards = {"accuracy": float(one.correct), "format": 0.1, "total": float(one.correct) + 0.1}
    one.seconds = sum(turn.seconds for turn in one.turns)
    return one


def use_tools(one: Trajectory, label: str, box: tuple, found: list, number: int, chance: random.Random) -> None:
    say(one, f"I need to see {label} from near.", "ZoominSubplot", {"image": "img_1", "description": label})
    zoomed = crop(one.images["img_1"], box)
    data = {"boxes": [list(box)], "titles": [label]}
    observe(one, ToolResultBlock(call_id="c0", name="ZoominSubplot", text="img_2", data=data, seconds=0.012), zoomed)
    if number % 7 == 3:
        say(one, "Read it.", "OCR", {"image": "img_9"})
        text = "There is no image img_9; there are img_1 and img_2."
        observe(one, ToolResultBlock(call_id="c1", name="OCR", text=text, error="bad_arguments"))
    say(one, "Now read the numbers.", "OCR", {"image": "img_1"})
    strings = [f"{name} {value}" for name, value, _ in found]
    if number % 11 == 4:
        strings[0] = HOSTILE
    data = {"boxes": [list(where) for *_, where in found], "strings": strings, "confidences": [0.98] * 4}
    cached = chance.random() < 0.5
    text = "\n".join(strings)
    observe(one, ToolResultBlock(call_id="c2", name="OCR", text=text, data=data, seconds=0.19, cached=cached))
    if number % 5 == 0:
        say(one, "Point at it.", "Point", {"image": "img_1", "description": label})
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        data = {"points": [{"x": x, "y": y, "label": label}]}
        observe(one, ToolResultBlock(call_id="c3", name="Point", text=f"({x:.1f}, {y:.1f})", data=data, seconds=0.05))


def say(one: Trajectory, thought: str, name: str, arguments: dict[str, Any]) -> None:
    text = json.dumps({"thought": thought, "actions": [{"name": name, "arguments": arguments}]})
    call_id = f"c{len(one.tool_results)}" if name != "Point" else "c3"
    call = ToolCallBlock(id={"ZoominSubplot": "c0"}.get(name, call_id), name=name, arguments=arguments)
    if name == "OCR":
        call.id = "c1" if arguments["image"] == "img_9" else "c2"
    one.turns.append(Turn(message=Message(role="assistant", content=[TextBlock(text=text), call])))


def observe(one: Trajectory, result: ToolResultBlock, *images: Image) -> None:
    one.add("tool", result, *(ImageBlock(handle=one.add_image(image)) for image in images))


def rows(answers: list[Trajectory]) -> list[AnswerRow]:
    return [row_of(one.model_dump()) for one in answers]


def write_run(
    run: Path, seed: int = 0, questions: int = 24, steps: int = 40, models: dict[str, float] = MODELS
) -> Path:
    """Everything the stages of a small job would leave below `run`."""
    chance = random.Random(seed)
    run.mkdir(parents=True)
    (run / "manifest.yaml").write_text(
        "apiVersion: thinkimg.dev/v1alpha1\nkind: VisionTool\nmetadata: {name: ocr}\n---\n"
        "apiVersion: thinkimg.dev/v1alpha1\nkind: ToolRLJob\nmetadata: {name: charts-on-a-laptop}\nspec: {}\n"
    )
    entries = {}
    for model, skill in models.items():
        answers = {
            mode: [
                trajectory(model, f"q{seed}-{n}", skill - drop, chance, stage="table", mode=mode)
                for n in range(questions)
            ]
            for mode, drop in (("greedy", 0.0), ("sampled", 0.08))
        }
        for mode, found in answers.items():
            write_trajectories(found, run / "stages" / "table" / model / f"{mode}.jsonl")
        entries[model] = summarise(rows(answers["greedy"]), rows(answers["sampled"]), seconds=chance.uniform(8, 20))
    for stage in ("text-rl", "v-toolrl"):
        write_training(run / "stages" / stage, stage, steps, chance)
    write_sft_log(run / "stages" / "sft")
    examples = [trajectory("cold-start", f"t{seed}-{n}", 1.0, chance) for n in range(12)]
    write_trajectories(examples, run / "stages" / "cold-start" / "trajectories" / "cold-start.jsonl")
    tools = {
        name: ToolFigures(
            http_calls=calls, errors=ToolErrors(model=calls // 90), cache_hits=calls * 9, p50_ms=p50, p95_ms=3 * p50
        )
        for name, calls, p50 in (("OCR", 1873, 184.0), ("ZoominSubplot", 912, 12.4), ("Point", 204, 8.3))
    }
    stages = ("setup", "cold-start", "text-sft", "sft", "sft-long", "text-rl", "v-toolrl", "table")
    seconds = {stage: chance.uniform(15, 190) for stage in stages}
    write(run / "results.json", RunResults(models=entries, tools=tools, seconds=seconds, seed=seed))
    return run


def write_training(folder: Path, stage: str, steps: int, chance: random.Random) -> None:
    lines = []
    for step in range(1, steps + 1):
        learned = 1 / (1 + math.exp(6 - 10 * step / steps)) if stage == "v-toolrl" else 0.0
        accuracy = 0.18 + 0.6 * learned + chance.uniform(-0.06, 0.06)
        ocr, zoom = 0.5 + 0.45 * learned, 0.3 + 0.6 * learned
        with_tools = stage == "v-toolrl"
        record = {
            "step": step,
            "reward": accuracy + 0.08,
            "accuracy": accuracy,
            "tool_calls": ocr + zoom if with_tools else 0.0,
            "tools": {"OCR": ocr, "ZoominSubplot": zoom, "Point": 0.1 - 0.08 * learned} if with_tools else {},
            "chains": {"ZoominSubplot>OCR": zoom * 0.9, "OCR": 0.4 * (1 - learned), "none": 0.3 * (1 - learned)}
            if with_tools
            else {"none": 1.0},
            "loss": -0.01 * learned,
            "masked": 0,
            "seconds": 1.9,
        }
        lines.append(json.dumps(record))
    for step in range(10, steps + 1, 10):
        group = [
            trajectory(stage, f"t{step}-{question}", 0.3 + 0.5 * step / steps, chance, stage=stage, step=step)
            for question in range(3)
            for _ in range(4)
        ]
        group[-1].status, group[-1].correct, group[-1].answer = "infrastructure", None, None
        write_trajectories(group, folder / "trajectories" / f"step-{step:06d}.jsonl")
    (folder / "log.jsonl").write_text("\n".join(lines) + "\n")


def write_sft_log(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("\n".join(json.dumps({"step": n, "loss": 3 / n}) for n in range(1, 20)) + "\n")
