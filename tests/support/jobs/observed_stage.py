"""What a stage makes of its block, without training.

The real stages of a real manifest run, with a tiny model, up to the call of TRL's `train`. The model's words are
scripted and follow from the request's seed alone; tools answer at once. `observe` returns plain values: two blocks that
differ in a field which is read somewhere are observed differently.
"""

import asyncio
import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
import yaml

from tests.support.training.scripted_agent import World
from thinkimg.agent.formats import Call, OpenThinkIMG, Parsed
from thinkimg.api import parse_manifest
from thinkimg.errors import InfrastructureError, ModelError, UserError
from thinkimg.evaluation.origins import origins_of_stages
from thinkimg.evaluation.seeds import write_table
from thinkimg.image import Image
from thinkimg.jobs.environment import environment_of_stage
from thinkimg.jobs.layout import Run
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.stage import _work_of
from thinkimg.jsonfile import write
from thinkimg.models import judge
from thinkimg.models.chat import Reply, TokenModel
from thinkimg.models.generator import Generation, GenerationRequest
from thinkimg.models.pretrained import LoadedModel
from thinkimg.results import EvaluateDone, RunResults, SFTDone, SynthesizeDone, Tokens
from thinkimg.tools.registry import find_tool
from thinkimg.tools.tool import ToolResult
from thinkimg.training import sft
from thinkimg.training.grpo import ToolGRPOTrainer, config
from thinkimg.training.step_log import StepRecord
from thinkimg.trajectory import Task, Trajectory, write_trajectories

TOOLS = ("OCR", "ZoominSubplot", "Point", "DrawHorizontalLineByY")
SECRETS = {"keys/first": "first-key", "keys/second": "second-key", "others/first": "other-key"}
TASKS_OF_A_STEP = 3


def thrift(trajectory: Trajectory) -> float:
    """A reward of somebody's own module."""
    return 1.0 / (1 + len(trajectory.tool_results))


def flat(trajectory: Trajectory) -> float:
    """A reward that tells nothing from anything."""
    return 0.0


def manifest(block: str, settings: Mapping[str, Any]) -> str:
    """A job with an earlier stage of each kind, and the observed one, `it`, with these settings."""
    kind = {"synthesize": "Synthesize", "sft": "SFT", "grpo": "GRPO", "evaluate": "Evaluate"}[block]
    charts = "charts://?questions={}&difficulty=1"
    version = "thinkimg.dev/v1alpha1"
    tools = [
        {"apiVersion": version, "kind": "VisionTool", "metadata": {"name": name.lower()}, "spec": {"tool": name}}
        for name in TOOLS
    ]
    spec = {
        "model": {"uri": "preset://tiny"},
        "tools": [{"name": name.lower()} for name in TOOLS],
        "data": {
            "train": {"uri": charts.format(8)},
            "validation": {"uri": charts.format(5)},
            "test": {"uri": charts.format(16)},
        },
        "stages": [
            {"name": "cold", "type": "Synthesize", "synthesize": {"trajectories": 3}},
            {"name": "later", "type": "Synthesize", "synthesize": {"trajectories": 3}},
            {"name": "earlier", "type": "SFT", "sft": {}},
            {"name": "before", "type": "SFT", "sft": {}},
            {"name": "it", "type": kind, block: settings},
        ],
    }
    job = {"apiVersion": version, "kind": "ToolRLJob", "metadata": {"name": "observed"}, "spec": spec}
    return yaml.safe_dump_all([*tools, job])


class Crowd:
    """Whether more than one were inside at the same time. The first waits a while for a second."""

    def __init__(self) -> None:
        self.inside = self.most = self.came = 0

    async def enter(self) -> None:
        self.inside += 1
        self.came += 1
        self.most = max(self.most, self.inside)
        if self.came == 1:
            for _ in range(50):
                if self.most > 1:
                    break
                await asyncio.sleep(0.01)
        self.inside -= 1


class Words:
    """The model: calls OCR, answers wrongly or rightly, or says what cannot be parsed, as the request's seed has it."""

    def __init__(self, world: World, references: Mapping[str, str], luck: float, fates: Sequence[str]) -> None:
        self.family = world.family
        self.references, self.luck, self.fates = references, luck, fates
        self.crowd = Crowd()
        self.asked: set[tuple[float, int]] = set()
        self.prompts: set[str] = set()

    async def generate(self, request: GenerationRequest) -> Generation:
        await self.crowd.enter()
        self.asked.add((request.temperature, request.max_tokens))
        stop = self.family.stop_ids[0]
        last = len(request.tokens) - request.tokens[::-1].index(stop)
        first = request.tokens.index(stop)
        self.prompts.add(hashlib.sha256(str(request.tokens[:first]).encode()).hexdigest()[:8])
        begun = self.family.decode(request.tokens[last:])
        tokens = self.family.encode_reply(self._text(random.Random(request.seed), request, begun))
        return Generation(tokens, [-1.0] * len(tokens), "stop")

    def _text(self, chance: random.Random, request: GenerationRequest, begun: str) -> str:
        called = "DrawHor" if chance.random() < 0.5 else "OCR"
        fate = chance.choice(self.fates)
        call = {"name": "OCR", "arguments": {"image": "img_1", "fate": fate, "for": called}}
        if '"actions": [' in begun:
            return json.dumps(call) + "]}"
        turns = request.tokens.count(self.family.stop_ids[0])
        draw = chance.random()
        if (turns <= 2 and draw < 0.7) or draw < 0.2:
            return json.dumps({"thought": "let me see", "actions": [call]})
        if draw > 1 - self.luck:
            said = self.family.decode(request.tokens)
            right = next(answer for question, answer in self.references.items() if question in said)
            return OpenThinkIMG().write(Parsed("", answer=right))
        if draw < 0.75:
            return OpenThinkIMG().write(Parsed("", answer=chance.choice(["12 [0, 0, 9, 9]", "nothing", "3"])))
        return "no syntax at all"


class Tools:
    """What `Context.client` gives: the schemas of real tools, and results that the arguments decide."""

    def __init__(self) -> None:
        self.schemas = {name: find_tool(name).schema for name in TOOLS}
        self.crowd = Crowd()
        self.called: list[str] = []

    async def connect(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def stats(self) -> dict[str, Any]:
        return {}

    async def call(self, name: str, arguments: dict[str, Any], images: Mapping[str, Image]) -> Any:
        await self.crowd.enter()
        await asyncio.sleep(0.002)
        self.called.append(name)
        key = json.dumps([name, arguments, images[arguments["image"]].sha256])
        fate = arguments.get("fate") or ("refused" if hashlib.sha256(key.encode()).digest()[0] % 4 == 0 else "fine")
        if fate == "refused":
            raise ModelError("it is too small", kind="refused")
        if fate == "lost":
            raise InfrastructureError("the server is gone")
        data = {"points": [{"x": 10.0, "y": 20.0}]}
        return SimpleNamespace(result=ToolResult("Fig 12 [0, 0, 9, 9]", data=data), cached=False)


class Endpoint:
    """Stands for `ApiModel`: notes whom it was made for and what it was asked."""

    made: list[Any]

    def __init__(self, base_url: str, model: str, key: str | None = None, **options: Any) -> None:
        self.made.append((base_url, model, key))
        self.model = model

    async def reply(self, trajectory: Trajectory, sampling: Any, seed: int) -> Reply:
        text = trajectory.turns[-1].message.text
        if "<answer>" in text:
            self.made.append(text.rpartition("</answer>")[2])
            return Reply("0.5", "stop")
        if self.model == "repeats" and trajectory.rounds < 2:
            return Reply(OpenThinkIMG().write(Parsed("", (Call("Point", {"image": "img_1"}),))), "stop")
        wrong = self.model == "sometimes-wrong" and seed % 2
        answer = "nothing" if wrong else trajectory.reference or ""
        return Reply(OpenThinkIMG().write(Parsed("", answer=answer)), "stop")


class Trained(Exception):
    """TRL's configuration is all that can be looked at here: DeepSpeed wants processes, a reference model a folder."""


def told(trajectory: Trajectory) -> tuple[Any, ...]:
    """A trajectory in short."""
    calls = [result.error or "fine" for result in trajectory.tool_results]
    rewards = {name: round(value, 4) for name, value in sorted(trajectory.rewards.items())}
    kept = (trajectory.meta.get("attempt"), trajectory.meta.get("masked"), "fork_of" in trajectory.meta)
    return trajectory.status, trajectory.answer, trajectory.rounds, calls, rewards, trajectory.correct, *kept


class Observed:
    """One run of the stage `it`."""

    def __init__(self, block: str, settings: Mapping[str, Any], folder: Path) -> None:
        self.seen: dict[str, Any] = {}
        self.world = World()
        self.made: list[Any] = []
        self.folder = folder
        self.loads: list[str] = []
        self.done: Any = None
        parsed = parse_manifest(manifest(block, settings))
        self.context = Context(parsed.job(), Run(folder / "run"), TOOLS, ["http://tools"], data_folder=folder)
        asked = [task for split in ("train", "validation", "test") for task in self.context.tasks(split)]
        references = {task.question: task.reference or "" for task in asked}
        # An evaluation that lost answers has no figures to look at.
        luck, lost = (0.4, "fine") if block == "evaluate" else (0.07, "lost")
        self.words = Words(self.world, references, luck, ("fine", "fine", lost, "refused"))
        self.tools = Tools()

    def run(self) -> dict[str, Any]:
        self._earlier_stages()
        with self._patched():
            try:
                self.done = _work_of(self.context, "it")(self.context, "it")
            except Trained:
                pass
            except UserError as error:
                self.seen["refused"] = str(error)
        self._written()
        self.seen |= {
            "sampling": sorted(self.words.asked),
            "prompts": sorted(self.words.prompts),
            "turns": self.words.crowd.came,
            "rollouts side by side": self.words.crowd.most > 1,
            "calls side by side": self.tools.crowd.most > 1,
            "endpoints": sorted({str(made) for made in self.made}),
            "models": self.loads,
        }
        return self.seen

    def _earlier_stages(self) -> None:
        for file, text in SECRETS.items():
            path = self.folder / "secrets" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        run = self.context.run
        for number, name in enumerate(("cold", "later", "earlier", "before", "it"), start=1):
            run.stage(name).mkdir(parents=True, exist_ok=True)
            if name in ("earlier", "before"):
                run.finish(name, SFTDone(seconds=10.0 * number, tokens=Tokens(trained=1000 * number)))
            elif name != "it":
                run.finish(name, SynthesizeDone(seconds=10.0 * number))
        agent = self.context.agent(TokenModel(self.world.family, self.words), self.tools)
        for name, count in (("cold", 2), ("later", 3)):
            trajectories = []
            for task in self.context.tasks("train", count):
                trajectory = agent.start(task)
                for text in (
                    json.dumps({"thought": "", "actions": [{"name": "OCR", "arguments": {"image": "img_1"}}]}),
                    OpenThinkIMG().write(Parsed("", answer=task.reference)),
                ):
                    parsed = OpenThinkIMG().parse(text)
                    _say(trajectory, text, called=bool(parsed.calls))
                trajectories.append(trajectory)
            write_trajectories(trajectories, run.stage(name) / "trajectories" / "cold-start.jsonl")

    @contextmanager
    def _patched(self) -> Iterator[None]:
        environment = environment_of_stage(self.context.job.spec, "it", self.folder / "secrets")
        with (
            patch.dict("os.environ", {"JUDGE_KEY": "judge-key", **environment}),
            patch.object(Endpoint, "made", self.made, create=True),
            patch("thinkimg.models.api.ApiModel", Endpoint),
            patch.object(judge, "ApiModel", Endpoint),
            patch.object(Context, "load", lambda _, name: self._load(name)),
            patch.object(Context, "save", lambda *_: None),
            patch.object(Context, "client", lambda _: self.tools),
            patch.object(Context, "progress", lambda *_, **__: None),
            patch.object(ToolGRPOTrainer, "train", self._grpo(ToolGRPOTrainer)),
            patch.object(sft.SFTTrainer, "train", self._sft()),
            patch.object(config, "GRPOConfig", self._config(config.GRPOConfig)),
            patch.object(sft, "SFTConfig", self._config(sft.SFTConfig)),
        ):
            yield

    def _load(self, name: str) -> LoadedModel:
        self.loads.append(name)
        world = self.world
        chat = TokenModel(world.family, self.words)
        return LoadedModel(world.model, world.processor, world.family, world.features, chat)

    def _config(self, theirs: Any) -> Any:
        """TRL's class, told on: every argument but where files are."""

        def made(**options: Any) -> Any:
            self.seen.setdefault("trl", []).append({n: v for n, v in options.items() if n != "output_dir"})
            if options.get("deepspeed") or options.get("beta"):
                raise Trained
            return theirs(**options)

        return made

    def _grpo(self, trainer_class: Any) -> Any:
        def train(trainer: Any, resume_from_checkpoint: str | None = None) -> None:
            trainer.engine.backoff_seconds = 0.0
            trainer.model.train()
            record = StepRecord()
            groups = trainer.rollouts.train(trainer.tasks[:TASKS_OF_A_STEP], trainer.num_generations, 0, record)
            self.seen["groups"] = [
                (group.task.id, [told(one) for one in group.trajectories], [_rounded(r) for r in group.rewards])
                for group in groups
            ]
            self.seen["counts"] = (record.refilled, record.flat, record.fork_attempts, record.forked)
            self.seen["weights"] = list(trainer.args.reward_weights)
            self.seen["adapters"] = _adapters(trainer.model)
            self.seen["tokens of a pass"] = trainer.tokens_per_pass
            self.seen["corrected"] = trainer.use_vllm

        return train

    def _sft(self) -> Any:
        def train(trainer: Any, resume_from_checkpoint: str | None = None) -> Any:
            rows = list(trainer.train_dataset)
            batch = trainer.data_collator(rows)
            self.seen.setdefault("trainings", []).append(
                {
                    "samples": len(rows),
                    "tokens": hashlib.sha256(batch["input_ids"].numpy().tobytes()).hexdigest()[:8],
                    "learnt": int((batch["labels"] >= 0).sum()),
                    "seconds": [
                        getattr(callback, "max_seconds", None) for callback in trainer.callback_handler.callbacks
                    ],
                    "tokens limit": [getattr(one, "limit", None) for one in trainer.callback_handler.callbacks],
                    "adapters": _adapters(trainer.model),
                }
            )
            return SimpleNamespace(training_loss=0.5)

        return train

    def _written(self) -> None:
        """What an evaluation and a synthesis leave, and the table over seeds that is made of the first."""
        folder = self.context.run.stage("it")
        files = sorted(folder.rglob("*.jsonl"))
        self.seen["files"] = {
            str(file.relative_to(folder)): [_record(json.loads(line)) for line in file.read_text().splitlines()]
            for file in files
        }
        if isinstance(self.done, EvaluateDone):
            for figures in self.done.models.values():
                figures.seconds = None
            run = self.context.run
            stages = origins_of_stages(self.context.job.spec.stages)
            write(run.results, RunResults(job="observed", seed=0, models=self.done.models, stages=stages))
            resamples = self.context.job.spec.resamples
            table = write_table([run.path], self.folder / "table", resamples=resamples)
            self.seen["table"] = table.mean.model_dump_json()
        if self.done is not None:
            self.seen["done"] = self.done.model_dump(mode="json")


def _say(trajectory: Trajectory, text: str, called: bool) -> None:
    from thinkimg.message import TextBlock, ToolResultBlock

    trajectory.add("assistant", TextBlock(text=text))
    if called:
        trajectory.add("tool", ToolResultBlock(call_id="1", name="OCR", text="Fig 12"))


def _record(line: dict[str, Any]) -> tuple[Any, ...]:
    turns = [turn["message"]["role"] for turn in line["turns"]]
    return line["question"], line["answer"], line["status"], turns, line["meta"].get("chain")


def _adapters(model: Any) -> Any:
    config = getattr(model, "peft_config", None)
    if config is None:
        return None
    one = config["default"]
    return one.r, one.lora_alpha, one.lora_dropout, sorted(one.target_modules)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def observe(block: str, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """What a stage with these settings makes of them; the same each time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)  # adapters begin at random
    return Observed(block, settings, folder).run()


__all__ = ["Task", "observe", "thrift"]
