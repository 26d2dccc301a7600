"""Rollouts with a slow tool: TRL's own tool loop and ours, on the same scripted generations, in one process.

    python bench/rollout.py [--rollouts 8,32] [--calls 2] [--seconds 0.5] [--repeats 3] [--engine PYTHON]

Both make one generation batch of a GRPO step (rollouts, rewards, the features of all pictures) with the same tiny
Qwen3-VL, whose generations are given: each rollout calls `crop` `--calls` times, one call a turn, and answers. The tool
is one synchronous function that sleeps and cuts a piece out of a picture; no two results are equal, so no cache helps.
The last line is one JSON object: per number of rollouts the seconds of both (medians) and `ratio_N`; and how often the
image processor ran per different picture. With `--engine`, the Python of an environment that has vLLM, the object also
holds what `bench/engine/rollouts.py` measures: 64 rollouts on a real engine.
"""

import argparse
import asyncio
import itertools
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import trl
from datasets import Dataset
from PIL import Image as Pillow
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import Hermes
from thinkimg.api import GRPO
from thinkimg.image import Image
from thinkimg.models import tiny
from thinkimg.models.chat import TokenModel
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.pretrained import LoadedModel
from thinkimg.tools.tool import ToolResult, ToolSchema
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import Task

GENERATIONS = 4
QUESTION = "what is the value of the bar"
SOURCE = Pillow.radial_gradient("L").resize((1024, 256)).convert("RGB")


@dataclass(frozen=True)
class Case:
    """What is measured: `rollouts` trajectories, each with `calls` calls of `seconds`."""

    rollouts: int
    calls: int
    seconds: float

    @property
    def pictures(self) -> int:
        """Different pictures: one per prompt and one per call."""
        return self.rollouts // GENERATIONS + self.rollouts * self.calls


@dataclass(frozen=True)
class Measured:
    seconds: float
    image_runs: int


def slow_crop(left: int, seconds: float) -> Pillow.Image:
    """The tool of both sides."""
    time.sleep(seconds)
    return SOURCE.crop((left, 0, left + 128, 96))


def prompt_picture(number: int) -> Pillow.Image:
    return SOURCE.crop((0, number, 128, number + 96))


class Script:
    """The generations: calls with an argument that never repeats, then the answer."""

    def __init__(self, tokenizer: Any, calls: int) -> None:
        self.tokenizer = tokenizer
        self.calls = calls
        self.lefts = itertools.count(1)  # 0 would be the first prompt's picture

    def turn(self, number: int) -> list[int]:
        """Tokens of a rollout's `number`-th turn, from 0."""
        if number >= self.calls:
            return self._encode("red")
        arguments = json.dumps({"image": "img_1", "left": next(self.lefts)})
        return self._encode(f'<tool_call>\n{{"name": "crop", "arguments": {arguments}}}\n</tool_call>')

    def _encode(self, text: str) -> list[int]:
        return [*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.tokenizer.eos_token_id]


class CountedProcessor:
    """Counts the pictures that an image processor works on."""

    def __init__(self, image_processor: Any) -> None:
        self.runs = 0
        work = image_processor._preprocess

        def counted(images: list[Any], *args: Any, **options: Any) -> Any:
            self.runs += len(images)
            return work(images, *args, **options)

        image_processor._preprocess = counted


def new_processor(template: str | None = None) -> Any:
    processor = tiny.build_processor(tiny.build_tokenizer(QUESTION.split()))
    if template is not None:
        processor.chat_template = processor.tokenizer.chat_template = template
    return processor


def timed(work: Callable[[], Any], counter: CountedProcessor) -> Measured:
    began = time.perf_counter()
    work()
    return Measured(time.perf_counter() - began, counter.runs)


# ---- TRL's own loop -------------------------------------------------------------------------------------------------


def stock(case: Case, folder: Path) -> Measured:
    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_vl.jinja").read_text()
    processor = new_processor(template)
    tokenizer = processor.tokenizer
    script = Script(tokenizer, case.calls)
    called = itertools.count()

    def crop(image: str, left: int) -> list:
        """Cut a piece out of a picture.

        Args:
            image: the picture.
            left: where to cut.
        """
        next(called)
        return [{"type": "image", "image": slow_crop(left, case.seconds)}, {"type": "text", "text": "cropped"}]

    args = GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=case.rollouts, num_generations=GENERATIONS,
        max_completion_length=4096, report_to="none", use_cpu=True, bf16=False, log_multimodal=False,
        gradient_checkpointing=False,
    )  # fmt: skip
    prompt = [{"role": "user", "content": QUESTION}]
    trainer = GRPOTrainer(
        model=tiny.build_model(tokenizer, 0),
        reward_funcs=lambda completions, **_: [float(n) for n in range(len(completions))],
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [prompt] * case.rollouts}),
        processing_class=processor,
        tools=[crop],
    )
    turns: Iterator[int] = itertools.count()

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        number = next(turns)
        new = [torch.tensor(script.turn(number)) for _ in input_ids]
        padded = torch.nn.utils.rnn.pad_sequence(new, batch_first=True, padding_value=tokenizer.pad_token_id)
        return torch.cat([input_ids, padded], 1)

    trainer.model.generate = generate
    trainer.model.train()
    inputs = [{"prompt": prompt, "image": prompt_picture(n // GENERATIONS)} for n in range(case.rollouts)]
    counter = CountedProcessor(processor.image_processor)
    measured = timed(lambda: trainer._generate_and_score_completions(inputs), counter)
    check_calls(case, next(called))
    return measured


# ---- ours -----------------------------------------------------------------------------------------------------------


class ScriptedGenerator:
    def __init__(self, script: Script) -> None:
        self.script = script

    async def generate(self, request: GenerationRequest) -> Generation:
        tokens = self.script.turn(len(request.images) - 1)  # one picture in the prompt, one more per call
        return Generation(tokens, [0.0] * len(tokens), "stop")


@dataclass(frozen=True)
class Outcome:
    result: ToolResult
    cached: bool = False


class SlowTools:
    """The same function, off the event loop."""

    def __init__(self, seconds: float) -> None:
        parameters = {"properties": {"image": {"type": "string"}, "left": {"type": "integer"}}, "type": "object"}
        crop = ToolSchema(
            name="crop", version="1", description="Cut a piece out of a picture.", parameters=parameters,
            image_parameters=("image",),
        )  # fmt: skip
        self.schemas: Mapping[str, ToolSchema] = {"crop": crop}
        self.seconds = seconds
        self.called = 0
        self.threads = ThreadPoolExecutor(64)

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        self.called += 1
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.threads, self._crop, arguments["left"])

    def _crop(self, left: int) -> Outcome:
        return Outcome(ToolResult("cropped", images=(Image.from_pixels(slow_crop(left, self.seconds)),)))


def ours(case: Case, folder: Path) -> Measured:
    processor = new_processor()
    family = QwenVL(processor)
    tools = SlowTools(case.seconds)
    model = TokenModel(family, ScriptedGenerator(Script(processor.tokenizer, case.calls)))
    agent = Agent(model, tools, Limits(rounds=case.calls + 1), Hermes())
    prompts = case.rollouts // GENERATIONS
    spec = GRPO(max_steps=1, prompts_per_step=prompts, num_generations=GENERATIONS)
    counter = CountedProcessor(processor.image_processor)
    tasks = [Task(str(n), QUESTION, (Image.from_pixels(prompt_picture(n)),)) for n in range(prompts)]
    features = ImageFeatures(processor.image_processor)
    trained = LoadedModel(tiny.build_model(processor.tokenizer, 0), processor, family, features, model)
    row = BoundReward("row", lambda trajectory: float(trajectory.meta["generation"]))
    trainer = ToolGRPOTrainer(trained, Episodes(agent, tasks, [row]), spec, grpo_config(spec, Session(folder)))
    trainer.model.train()
    inputs = [trainer.train_dataset[n // GENERATIONS] for n in range(case.rollouts)]
    measured = timed(lambda: trainer._generate_and_score_completions(inputs), counter)
    check_calls(case, tools.called)
    if any(row.masked for row in trainer.rows):
        sys.exit("a trajectory was masked: the comparison would not be fair")
    trainer.close()
    return measured


# ---- the comparison -------------------------------------------------------------------------------------------------


def check_calls(case: Case, made: int) -> None:
    if made != case.rollouts * case.calls:
        sys.exit(f"{made} calls were made instead of {case.rollouts * case.calls}: the comparison would not be fair")


def compare(case: Case, repeats: int, folder: Path) -> dict[str, float]:
    """Medians over `repeats`, the two sides in turn."""
    runs: dict[str, list[Measured]] = {"stock": [], "ours": []}
    for number in range(repeats):
        runs["stock"].append(stock(case, folder))
        runs["ours"].append(ours(case, folder))
        seconds = ", ".join(f"{side} {made[-1].seconds:.2f} s" for side, made in runs.items())
        print(f"{case.rollouts} rollouts, run {number + 1} of {repeats}: {seconds}", flush=True)
    median = {side: statistics.median(run.seconds for run in made) for side, made in runs.items()}
    return {
        f"stock_seconds_{case.rollouts}": round(median["stock"], 3),
        f"seconds_{case.rollouts}": round(median["ours"], 3),
        f"ratio_{case.rollouts}": round(median["stock"] / median["ours"], 2),
        "image_runs_per_image": round(runs["ours"][-1].image_runs / case.pictures, 3),
        "image_runs_per_image_stock": round(runs["stock"][-1].image_runs / case.pictures, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Rollouts with a slow tool: TRL's loop and ours.")
    parser.add_argument("--rollouts", default="8,32", help="numbers of rollouts, multiples of 4")
    parser.add_argument("--calls", type=int, default=2, help="calls per rollout, one a turn")
    parser.add_argument("--seconds", type=float, default=0.5, help="time of one call")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", help="a Python with vLLM; then 64 rollouts are compared on its engine, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    result: dict[str, Any] = {"calls": options.calls, "tool_seconds": options.seconds}
    with tempfile.TemporaryDirectory() as folder:
        for rollouts in map(int, options.rollouts.split(",")):
            result |= compare(Case(rollouts, options.calls, options.seconds), options.repeats, Path(folder))
    if options.engine:
        result |= on_an_engine(options.engine)
    print(json.dumps(result))


def on_an_engine(python: str) -> dict[str, Any]:
    """What `bench/engine/rollouts.py` prints last; what it prints before is passed on."""
    command = [python, "-P", str(Path(__file__).with_name("engine") / "rollouts.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        last = ""
        for line in process.stdout:
            last = line
            if not line.startswith("{"):
                print(line, end="", flush=True)
    if process.returncode:
        sys.exit(f"bench/engine/rollouts.py ended with {process.returncode}")
    return json.loads(last)


if __name__ == "__main__":
    main()
