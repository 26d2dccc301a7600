"""Mistakes that would be found late: what is changed in a sound job, and what must be said of it before it runs.

A job of every type of stage, without tools, over files of questions. A change is a path below the job's `spec` with a
new value; `files` are written beside the manifest.
"""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from PIL import Image as Pillow

REWARDS = """
import math

def per_batch(prompts, completions, **kwargs):
    return [1.0 for _ in completions]

def a_list(trajectory):
    return [1.0]

def raising(trajectory):
    return trajectory.meta["no such key"]

def not_finite(trajectory):
    return math.nan

def without_answer(trajectory):
    return float(trajectory.answer.strip() == trajectory.reference)

number = 3
"""


def picture(width: int = 64, height: int = 48) -> bytes:
    buffer = io.BytesIO()
    Pillow.new("RGB", (width, height), "white").save(buffer, "PNG")
    return buffer.getvalue()


def rows(count: int, **changes: Any) -> list[dict[str, Any]]:
    row = {"question": "How many?", "answer": "3", "image": "chart.png"}
    return [{"id": f"q{number}", **row} for number in range(count - bool(changes))] + (
        [row | changes] if changes else []
    )


def lines(count: int, **changes: Any) -> bytes:
    """Rows, the last of them with other values."""
    return "".join(json.dumps(row) + "\n" for row in rows(count, **changes)).encode()


def parquet(values: list[dict[str, Any]]) -> bytes:
    import pyarrow
    from pyarrow.parquet import write_table

    buffer = io.BytesIO()
    write_table(pyarrow.Table.from_pylist([row | {"image": picture()} for row in values]), buffer)
    return buffer.getvalue()


FILES = {
    "chart.png": picture(),
    "strip.png": picture(2010, 10),
    "cut.png": picture()[:60],
    "train.jsonl": lines(8),
    "validation.jsonl": lines(2),
    "test.jsonl": lines(4),
    "my_rewards.py": REWARDS.encode(),
}
SPEC: dict[str, Any] = {
    "model": {"uri": "preset://tiny"},
    "data": {split: {"uri": f"{split}.jsonl"} for split in ("train", "validation", "test")},
    "stages": [
        {"name": "cold", "type": "Synthesize", "synthesize": {"trajectories": 4, "toolUse": "Disabled"}},
        {"name": "sft", "type": "SFT", "sft": {"toolUse": "Disabled", "maxSteps": 2, "batchSize": 4}},
        {
            "name": "rl",
            "type": "GRPO",
            "from": "sft",
            "grpo": {"toolUse": "Disabled", "maxSteps": 2, "promptsPerStep": 4, "numGenerations": 2},
        },
        {"name": "table", "type": "Evaluate", "evaluate": {"models": ["sft", "rl"]}},
    ],
}
VERSION = "thinkimg.dev/v1alpha1"


@dataclass(frozen=True)
class Late:
    """One mistake.

    Attributes:
        name: of the case.
        change: path below `spec`, parts joined by dots, to its new value.
        field: where the problem is, as people write it.
        says: what message and remedy must hold, in this order.
        files: beside the manifest, by name.
        tools: the spec of each VisionTool by name.
        passing: it may be gone another time (exit code 70).
        machine: something of the machine that is otherwise: a name that the test knows.
    """

    name: str
    change: Mapping[str, Any]
    field: str
    says: tuple[str, ...]
    files: Mapping[str, Callable[[], bytes]] = field(default_factory=dict)
    tools: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    passing: bool = False
    machine: str = ""


SFT, RL, COLD, TABLE = "stages.1.sft", "stages.2.grpo", "stages.0.synthesize", "stages.3.evaluate"
_SFT, _RL, _COLD = "spec.stages[1].sft", "spec.stages[2].grpo", "spec.stages[0].synthesize"


def reward(name: str, *says: str, where: str = "name") -> Late:
    """A reward of the user's own."""
    change = {f"{RL}.rewards": [{"name": "format"}, {"name": name}]}
    return Late(f"reward {name}", change, f"{_RL}.rewards[1].{where}", says)


def planner(name: str, address: str, *says: str, passing: bool = False) -> Late:
    """A planner at one of the test's endpoints, or where nobody listens."""
    model = {"baseUrl": address or "http://127.0.0.1:9/v1", "name": "planner"}
    change = {f"{COLD}.planner": {"type": "Model", "model": model}}
    return Late(name, change, f"{_COLD}.planner.model", (*says, "Start the endpoint, or correct"), passing=passing)


def judge(**more: Any) -> list[dict[str, Any]]:
    return [{"name": "judge", "judge": {"baseUrl": "http://127.0.0.1:9/v1", "model": "judge", **more}}]


_DEFAULT = "leave it out for the default"
_ROWS = "Correct the data, or leave these rows out"
WITH_TOOLS = {f"{COLD}.toolUse": "Enabled", "tools": [{"name": "tool"}]}
SAM = {"tool": "SAM", "backend": "transformers", "options": {"weights": "/nowhere/sam"}}

MISTAKES = (
    # what TRL, transformers and torch refuse
    Late("a schedule of SFT", {f"{SFT}.args": {"lr_scheduler_type": "cosin"}}, f"{_SFT}.args.lr_scheduler_type",
         ("cosin is not a valid SchedulerType", "cosine", _DEFAULT)),
    Late("a schedule of RL", {f"{RL}.args": {"lr_scheduler_type": "cosin"}}, f"{_RL}.args.lr_scheduler_type",
         ("cosin is not a valid SchedulerType", _DEFAULT)),
    Late("options of a schedule", {f"{RL}.args": {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"cycle": 1}}},
         f"{_RL}.args.lr_scheduler_kwargs", ("cycle", _DEFAULT)),
    Late("an optimiser that is not there", {f"{SFT}.args": {"optim": "adamw_tourch"}}, f"{_SFT}.args.optim",
         ("adamw_tourch", _DEFAULT)),
    Late("an optimiser whose package is missing", {f"{RL}.args": {"optim": "adamw_bnb_8bit"}}, f"{_RL}.args.optim",
         ("bitsandbytes", _DEFAULT)),
    Late("two precisions at once", {f"{SFT}.args": {"bf16": True, "fp16": True}}, f"{_SFT}.args", ("fp16",)),
    Late("ZeRO without DeepSpeed", {f"{RL}.zeroStage": 2}, f"{_RL}.zeroStage",
         ("DeepSpeed is not installed", "zeroStage: 0"), machine="no deepspeed"),
    Late("curves for a program that is not installed", {"reportTo": ["trackio"]}, "spec.reportTo[0]",
         ("trackio", "pip install trackio")),
    Late("a step of more questions than there are", {f"{RL}.promptsPerStep": 12}, f"{_RL}.promptsPerStep",
         ("a step takes 12 questions, but data.train has 8",)),
    Late("passes that do not divide", {f"{RL}.microBatch": 3}, f"{_RL}.microBatch", ("Use a divisor of 8",)),
    Late("forks without accuracy", {f"{RL}.forkGroups": 1, f"{RL}.rewards": [{"name": "format"}]}, f"{_RL}.forkGroups",
         ("add it",)),
    # rewards
    reward("my_rewards:nosuch", "cannot load the reward my_rewards:nosuch", "importable where the run is started"),
    reward("no_module:score", "No module named 'no_module'", "importable where the run is started"),
    reward("my_rewards:number", "is a int, not a function", "Correct the name"),
    reward("plugin/none", "no installed package has an entry point 'none'", "Correct the name"),
    reward("my_rewards:per_batch", "raises TypeError", "must be a function of one thinkimg.trajectory.Trajectory"),
    reward("my_rewards:a_list", "gives the list [1.0]", "must be a function of one"),
    reward("my_rewards:raising", "raises KeyError: 'no such key'", "must be a function of one"),
    reward("my_rewards:not_finite", "gives nan, which is not finite", "must be a function of one"),
    reward("my_rewards:without_answer", "raises AttributeError", "trial-unanswered", "must be a function of one"),
    Late("a judge that nobody serves", {f"{RL}.rewards": judge()}, f"{_RL}.rewards[0].judge",
         ("ConnectError", "Start the endpoint"), passing=True),
    Late("a judge without its key", {f"{RL}.rewards": judge(apiKeyVariable="NO_SUCH_KEY")}, f"{_RL}.rewards[0].judge",
         ("NO_SUCH_KEY", "Give the key in spec.env or spec.secretRefs")),
    # adapters
    Late("adapters of the head", {f"{SFT}.lora": {"targetModules": ["lm_head"]}}, f"{_SFT}.lora.targetModules",
         ("no linear layer 'lm_head'", "q_proj", "remove targetModules")),
    Late("adapters of nothing", {f"{RL}.lora": {"targetModules": ["q_porj"]}}, f"{_RL}.lora.targetModules",
         ("no linear layer 'q_porj'", "q_proj", "remove targetModules")),
    # data
    Late("a strip in the test data", {}, "spec.data.test.uri", ("line 4", "too thin", "2010x10", _ROWS),
         files={"test.jsonl": lambda: lines(4, image="strip.png")}),
    Late("a picture that is not there", {}, "spec.data.train.uri", ("line 8", "gone.png", _ROWS),
         files={"train.jsonl": lambda: lines(8, image="gone.png")}),
    Late("a picture that is cut short", {}, "spec.data.validation.uri", ("line 2", "the image data is broken", _ROWS),
         files={"validation.jsonl": lambda: lines(2, image="cut.png")}),
    Late("an answer that is null", {"data.test.uri": "test.parquet"}, "spec.data.test.uri",
         ("row 3, column answer: it is empty", _ROWS), files={"test.parquet": lambda: parquet(rows(4, answer=None))}),
    Late("a question that is null", {"data.test.uri": "test.parquet"}, "spec.data.test.uri",
         ("row 3, column question: it is empty", _ROWS),
         files={"test.parquet": lambda: parquet(rows(4, question=None))}),
    Late("no picture in a list of them", {}, "spec.data.test.uri", ("line 4", "it is empty", _ROWS),
         files={"test.jsonl": lambda: lines(4, image=[])}),
    Late("a column that is not there", {"data.train.uri": "train.jsonl?answer=solution"}, "spec.data.train.uri",
         ("line 1", "no 'solution'; there are", _ROWS)),
    Late("no data to measure on", {"data.test": None}, "spec.stages[3].evaluate.split", ("Add spec.data.test",)),
    # models, planners, tools
    Late("a model that cannot be had", {"model.uri": "hf://nobody/no-such-model"}, "spec.model.uri",
         ("no model can be loaded from hub model nobody/no-such-model", "a folder with the model's files needs none"),
         passing=True),
    Late("a model without its processor", {"model.uri": "bare"}, "spec.model.uri", ("the folder lacks", "copy it from"),
         files={"bare/config.json": lambda: b'{"model_type": "qwen3_vl"}'}),
    Late("a model of a later stage", {f"{TABLE}.models": ["rl"], "stages.1.from": "rl"}, "spec.stages[1].from",
         ('"rl" is a later stage', "Name an earlier stage")),
    planner("a planner that nobody serves", "", "ConnectError", passing=True),
    planner("a planner whose key is refused", "http://refuses/v1", "answers 401", "Give a key"),
    planner("a planner of another name", "http://unknown/v1", "answers 404", "Check the model's name ('planner')"),
    Late("a chain that nobody knows", {f"{COLD}.planner": {"chains": {"orc": 1.0}}}, f"{_COLD}.planner.chains.orc",
         ('no chain "orc"', "ocr")),
    Late("a chain that calls a tool which the job lacks", {**WITH_TOOLS, f"{COLD}.planner": {"chains": {"ocr": 1.0}}},
         f"{_COLD}.planner.chains.ocr", ("calls OCR", "Add the tool to spec.tools"), tools={"tool": {"tool": "Crop"}}),
    Late("weights of a tool that are not there", WITH_TOOLS, "spec.options.weights",
         ("/nowhere/sam", "A server of it would not start"), tools={"tool": SAM}),
    Late("an option that a tool does not know", WITH_TOOLS, "spec.options.nonsense",
         ("options of OCR", "A server of it would not start"),
         tools={"tool": {"tool": "OCR", "options": {"nonsense": 1}}}),
    # the machine
    Late("a disk without room", {}, "spec.checkpoint.keep", ("are needed in", "are free", "Make room"), passing=True,
         machine="full disk"),
)  # fmt: skip


def write_job(folder: Path, *mistakes: Late, endpoints: Mapping[str, str] | None = None) -> Path:
    """The job with these mistakes, and its files. `endpoints`: what stands in place of an address in the table."""
    changes = {path: value for late in mistakes for path, value in late.change.items()}
    tools = {name: tool for late in mistakes for name, tool in late.tools.items()}
    files = {name: data for late in mistakes for name, data in late.files.items()}
    for name, data in {**FILES, **{name: make() for name, make in files.items()}}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    spec = json.loads(json.dumps(SPEC))
    for path, value in changes.items():
        *above, last = path.split(".")
        block = spec
        for part in above:
            block = block[int(part)] if isinstance(block, list) else block.setdefault(part, {})
        text = json.dumps(value)
        for written, address in (endpoints or {}).items():
            text = text.replace(written, address)
        block[last] = json.loads(text)
        if value is None:
            del block[last]
    documents = [
        {"apiVersion": VERSION, "kind": "VisionTool", "metadata": {"name": name}, "spec": tool}
        for name, tool in tools.items()
    ]
    documents.append({"apiVersion": VERSION, "kind": "ToolRLJob", "metadata": {"name": "job"}, "spec": spec})
    manifest = folder / "job.yaml"
    manifest.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return manifest
