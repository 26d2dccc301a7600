"""The demo's manifest with small numbers, the command line that runs it, and a look at what runs on this machine."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support import REPOSITORY

DEMO = REPOSITORY / "manifests" / "toolrljob-cpu.yaml"


def small_documents() -> list[dict[str, Any]]:
    """All documents of the demo, the job last: the same stages with the same settings, only shorter."""
    documents = list(yaml.safe_load_all(DEMO.read_text()))
    spec = documents[-1]["spec"]
    for split, questions in (("train", 20), ("validation", 6), ("test", 10)):
        spec["data"][split]["uri"] = re.sub(r"questions=\d+", f"questions={questions}", spec["data"][split]["uri"])
    for stage in spec["stages"]:
        sft, grpo = stage.get("sft", {}), stage.get("grpo", {})
        if "synthesize" in stage:
            stage["synthesize"]["trajectories"] = 40
        if "maxSteps" in sft:
            sft["maxSteps"] = 5
        if sft:
            sft["batchSize"] = 8
        if "gate" in sft:
            sft["gate"] |= {"minSampledAccuracy": 0.0, "questions": 4}
        if grpo:
            grpo |= {"maxSteps": 5, "promptsPerStep": 2, "numGenerations": 2, "allowNoLearning": True}
    rl = next(stage["grpo"] for stage in spec["stages"] if stage["name"] == "v-toolrl")
    rl |= {"maxSteps": 8, "refill": True, "toolConcurrency": 2, "args": {"gradient_accumulation_steps": 2}}
    spec["stages"][1]["sft"]["args"] = {"gradient_accumulation_steps": 2}
    return documents


def write_manifest(path: Path, documents: list[dict[str, Any]]) -> Path:
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return path


def environment() -> dict[str, str]:
    """One thread, no network; and bytecode is kept, because every stage imports the same libraries again."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    kept |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    return {name: value for name, value in kept.items() if not name.startswith("THINKIMG_")}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "thinkimg.cli", *map(str, arguments)]


def thinkimg(*arguments: object, seconds: float = 600) -> subprocess.CompletedProcess[str]:
    """The command, to its end."""
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=seconds)


class Started:
    """`thinkimg run` under way, in a process group of its own, as a shell starts it."""

    def __init__(self, log: Path, *arguments: object, **variables: str) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                command(*arguments), env=environment() | variables, stdout=output, stderr=output, start_new_session=True
            )

    def wait_until(self, condition: Callable[[], bool], seconds: float = 1200) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"it did not happen in time:\n{self.log.read_text()}"
            time.sleep(0.05)

    def signal_group(self, number: signal.Signals) -> int:
        """Signal every process of the group; the exit code of the first."""
        os.killpg(self.process.pid, number)
        return self.process.wait(120)

    def finish(self, seconds: float = 600) -> int:
        return self.process.wait(seconds)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.signal_group(signal.SIGKILL)


def command_lines() -> Iterator[list[str]]:
    """Of every process on this machine, but for children that have just been forked: they show their parent's."""
    processes = {process.pid: process for process in psutil.process_iter(["cmdline", "ppid"])}
    for process in processes.values():
        parent = processes.get(process.info["ppid"])
        if process.info["cmdline"] and (parent is None or parent.info["cmdline"] != process.info["cmdline"]):
            yield process.info["cmdline"]


def tool_servers(run: Path) -> list[str]:
    """Tool servers that belong to a run."""
    return [" ".join(line) for line in command_lines() if "thinkimg.serving" in line and str(run) in " ".join(line)]


def stage_processes(run: Path) -> Counter[str]:
    """How many processes each stage of a run has at the moment."""
    return Counter(
        line[line.index("stage") + 2]
        for line in command_lines()
        if "thinkimg.cli" in line and "stage" in line and str(run) in line
    )


def gone(run: Path, seconds: float = 120) -> bool:
    """Whether no process of the run is left, once each has noticed that the others are gone; the limit is for hangs."""
    deadline = time.monotonic() + seconds
    while tool_servers(run) or stage_processes(run):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
