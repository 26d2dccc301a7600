"""What the operator and a stage's pod agree on, and every word of it: variables, labels, annotations, the container's
name, paths, ports, the command line, exit codes, the progress line and the termination message.

The operator writes and reads one half, `thinkimg stage` the other half, and both import it from here. It stands beside
the versions of the resources because it changes for other reasons: images of several releases run under one operator.
What holds between the operator and tool servers is in `server_contract`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from thinkimg.api.v1alpha1.meta import GROUP

VERSION = 1
"""Of this contract. A change that a program of the version before would misread makes it one more; a new variable,
member or figure that such a program ignores does not."""
UNDERSTOOD = frozenset({VERSION})
"""Versions that this program can speak. Who says no version speaks 1: versions have been said since then."""


class ExitCode(IntEnum):
    """How a command of ours ends. Every version of the contract keeps these."""

    DONE = 0
    BUG = 1
    """Anything unforeseen: counts as a failure, is tried again."""
    USER = 2
    """Something in the manifest or the data is wrong: never tried again."""
    INFRASTRUCTURE = 70
    """Something around the program failed: counts as a failure, is tried again."""
    INTERRUPTED = 75
    """It was asked to stop: tried again without counting."""


class Variable:
    """Environment variables of a stage's processes."""

    CONTRACT = "THINKIMG_CONTRACT"
    """Version of the contract that whoever started the stage speaks."""
    ATTEMPT = "THINKIMG_ATTEMPT"
    """The attempt's number, counted from 1 by whoever starts the stage. Without it, the one after the last."""
    CLAIMS = "THINKIMG_CLAIMS"
    """Folder that has the claims of `pvc://` URIs, each under its name."""
    TERMINATION_LOG = "THINKIMG_TERMINATION_LOG"
    """File for the termination message."""
    TOOL_ENDPOINTS = "THINKIMG_TOOL_ENDPOINTS"
    """Addresses of tool servers, a comma between two."""
    PLANNER_KEY = "THINKIMG_PLANNER_API_KEY"
    """Key of the planner's endpoint, for the Synthesize stage that asks it."""
    PARENT = "THINKIMG_PARENT"
    """Process that the stage ends with (of a local run)."""
    HUB_TOKEN = "HF_TOKEN"
    """Read by huggingface_hub."""
    HUB_CACHE = "HF_HOME"
    """Read by huggingface_hub."""
    NODES = "PET_NNODES"
    """This and the next four are read by torchrun, which `thinkimg stage` starts where `PROCESSES` is set."""
    PROCESSES = "PET_NPROC_PER_NODE"
    NODE_RANK = "PET_NODE_RANK"
    MASTER_ADDRESS = "PET_MASTER_ADDR"
    MASTER_PORT = "PET_MASTER_PORT"

    @staticmethod
    def tool_key(number: int) -> str:
        """The variable with the key of the `number`-th address (from 0) in `TOOL_ENDPOINTS`."""
        return f"THINKIMG_TOOL_KEY_{number}"


class Label:
    """Labels of a job's objects, its Jobs and pods among them."""

    JOB = f"{GROUP}/job"
    """Name of the ToolRLJob."""
    JOB_UID = f"{GROUP}/job-uid"
    """Its uid: a job that is made again under an old name is another one."""
    STAGE = f"{GROUP}/stage"
    ATTEMPT = f"{GROUP}/attempt"


class Annotation:
    """Annotations of pods, and of objects that the operator writes."""

    COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"
    """A pod's number in its Indexed Job, which is the rank of its node. Kubernetes writes it, as a label too."""
    APPLIED_DIGEST = f"{GROUP}/applied-digest"
    """Digest of the body that the operator applied last."""


CONTROLLER = f"{GROUP}/operator"
"""How the operator names itself in events and in `spec.managedBy`."""
CONTAINER = "stage"
"""Name of the pod's container whose end and log count."""
USER = 65532
"""User of the project's images. Numeric, because `runAsNonRoot` cannot check a name."""
MASTER_PORT = 29400
"""Where rank 0 listens for the others."""


class Place:
    """Paths in a pod."""

    STORAGE = "/storage"
    """The storage root: relative data, the hub's cache, and `runs/` with a folder for each job."""
    CLAIMS = "/claims"
    MANIFEST = "/etc/thinkimg/manifest.yaml"
    CODE = "/etc/thinkimg-code"
    """Modules of the user's own, importable."""
    TERMINATION_LOG = "/dev/termination-log"
    TEMPORARY = "/tmp"
    SHARED_MEMORY = "/dev/shm"


PROGRAM = "thinkimg"


def stage_arguments(manifest: str, stage: str, run: str, data_folder: str | None = None) -> list[str]:
    """Arguments of `PROGRAM` that run one stage.

    Args:
        stage: its name, or `base` for the model before any stage.
        run: the run's folder.
        data_folder: root of the data's relative paths; None: the manifest's folder.
    """
    arguments = ["stage", manifest, stage, "--run", run]
    return arguments if data_folder is None else [*arguments, "--data-folder", data_folder]


# ---- versions --------------------------------------------------------------------------------------------------------


def misunderstanding(speaker: str, listener: str, version: object) -> str:
    """What is wrong when `speaker` says that it speaks `version`, in words for people; empty when it is understood.

    Args:
        version: as it was said; None or an empty text for somebody that says none, and so speaks 1.
    """
    said = "1" if version in (None, "") else str(version)
    if said in {str(known) for known in UNDERSTOOD}:
        return ""
    ours = " and ".join(str(known) for known in sorted(UNDERSTOOD))
    return (
        f"{speaker} speaks version {said} of the contract between operator and stages, and {listener} understands "
        f"version {ours}. Use an image and an operator of the same release: correct spec.image, or install the "
        "operator's chart in the version of the image."
    )


# ---- the progress line -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SavedCheckpoint:
    """The newest complete checkpoint of a stage."""

    step: int
    """Optimiser step that it holds."""
    path: str
    """Where it is, below the data folder."""
    time: datetime | None = None
    """When it was complete."""


@dataclass(frozen=True)
class ProgressLine:
    """How far a stage is: one JSON object in one line of rank 0's standard output. For people; nothing is decided by
    it. Each line says all that is known, because whoever reads the log may see the last one only."""

    stage: str
    step: int | None = None
    """What is done, of `total_steps`."""
    total_steps: int | None = None
    message: str = ""
    """A sentence for people."""
    checkpoint: SavedCheckpoint | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """Latest figures, as in `{"loss": 0.31}`; each is a member of its own in the line."""

    def format(self) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {"stage": self.stage}
        if self.step is not None:
            line["step"] = self.step
        if self.total_steps is not None:
            line["total_steps"] = self.total_steps
        if self.message:
            line["message"] = self.message
        line |= self.figures
        if self.checkpoint is not None:
            time = self.checkpoint.time
            line["checkpoint"] = {
                "step": self.checkpoint.step,
                "path": self.checkpoint.path,
                **({"time": time.isoformat(timespec="seconds")} if time else {}),
            }
        return json.dumps(line)

    @classmethod
    def parse(cls, text: str) -> ProgressLine | None:
        """None for a line that is none. Members that are not as expected are left out."""
        record = object_of(text)
        stage = record.get("stage")
        if not isinstance(stage, str):
            return None
        message = record.get("message")
        return cls(
            stage,
            _whole(record.get("step")),
            _whole(record.get("total_steps")),
            message if isinstance(message, str) else "",
            _checkpoint(record.get("checkpoint")),
            {name: value for name, value in record.items() if name not in _WORDS and _is_figure(value)},
        )


_WORDS = frozenset({"stage", "step", "total_steps", "message", "checkpoint"})


def progress_lines(log: str, stage: str) -> Iterator[ProgressLine]:
    """Lines of a log that tell the step of `stage`, the last one first."""
    for text in reversed(log.split("\n")):
        line = ProgressLine.parse(text)
        if line is not None and line.stage == stage and line.step is not None:
            yield line


def _checkpoint(value: Any) -> SavedCheckpoint | None:
    if not isinstance(value, dict):
        return None
    step, path, time = _whole(value.get("step")), value.get("path"), value.get("time")
    if step is None or not isinstance(path, str):
        return None
    try:
        return SavedCheckpoint(step, path, datetime.fromisoformat(time) if time else None)
    except (TypeError, ValueError):
        return None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _is_figure(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


# ---- the termination message -----------------------------------------------------------------------------------------

MOST_BYTES = 4096
"""What Kubernetes keeps of a termination message."""
MOST_ROWS = 20
_MOST_CHARACTERS = 300  # of a reason: at most 3,600 bytes, were every character escaped


class ResultRow(BaseModel):
    """One row of a job's table. Figures are texts, as the API server wants them."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, strict=True)

    model: str
    """Stage name, or `base`."""
    accuracy: str
    """Greedy accuracy, 0 to 1, as in "0.778"; empty where answers were lost to the infrastructure."""
    ci95: Annotated[list[str], Field(max_length=2)] = Field(default_factory=list)
    """Lower and upper end of the 95 % interval; where answers were lost, what the accuracy is at least and at most."""
    tool_calls_per_answer: str = ""
    """Mean number of calls, as in "1.4"."""


State = Literal["Succeeded", "Interrupted", "Failed"]


@dataclass(frozen=True)
class TerminationMessage:
    """How a stage ended: one line of JSON, which rank 0 leaves as the container's termination message."""

    stage: str = ""
    state: State | Literal[""] = ""
    seconds: float = 0.0
    message: str = ""
    """Why it did not succeed."""
    results: Sequence[ResultRow] = ()
    """The table, as far as this stage made it."""
    contract: object = VERSION
    """Version of the contract that the stage speaks; None when it says none, as stages did before there were two."""

    def format(self) -> str:
        """The line with its end, at most 4,096 bytes; rows that do not fit are left out, the last ones first."""
        record: dict[str, Any] = {"stage": self.stage, "state": self.state, "seconds": self.seconds}
        record["contract"] = self.contract
        if self.message:
            record["message"] = self.message[:_MOST_CHARACTERS]
        rows = [row.model_dump(by_alias=True) for row in self.results[:MOST_ROWS]]
        if rows:
            record["results"] = rows
        while len(line := json.dumps(record) + "\n") > MOST_BYTES:
            record["results"] = record["results"][:-1]
        return line

    @classmethod
    def parse(cls, text: str) -> TerminationMessage | None:
        """The last line of `text` (which is the end of a log where a container left no message); None when it is no
        JSON object. Members that are not as expected, and rows that are none, are left out."""
        record = object_of(last_line(text))
        if not record:
            return None
        given = cls(contract=record.get("contract"), message=str(record.get("message", "")))
        if isinstance(record.get("stage"), str):
            given = replace(given, stage=record["stage"])
        if record.get("state") in ("Succeeded", "Interrupted", "Failed"):
            given = replace(given, state=record["state"])
        if _is_figure(record.get("seconds")):
            given = replace(given, seconds=record["seconds"])
        return replace(given, results=tuple(_rows(record.get("results"))))


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return text.strip().rpartition("\n")[2]


def _rows(values: Any) -> Iterator[ResultRow]:
    for value in values if isinstance(values, list) else []:
        try:
            yield ResultRow.model_validate(value, by_alias=True, by_name=False)
        except ValidationError:
            continue


def object_of(text: str) -> dict[str, Any]:
    """The JSON object that `text` is; empty when it is none."""
    if not text.startswith("{"):
        return {}
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
