"""What can be evaluated on, with what is known of it here: nothing is stated that no package and no file says."""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from thinkimg.evaluation.lmms import PREFIX
from thinkimg.evaluation.lmms.process import tasks_of_lmms_eval
from thinkimg.evaluation.tasks import TASKS


@dataclass(frozen=True)
class Benchmark:
    """Attributes:
    metrics: the one that decides; of lmms-eval's tasks also how many more the task's file names.
    size: questions, or rows of the data, where the data are on this machine; None where they are not.
    source: data set, configuration, split, and the paper where ours names one.
    """

    name: str
    metrics: str
    size: int | None
    source: str


Rows = dict[tuple[str, str, str], int]
"""(data set, configuration, split) to rows; also without the configuration."""


def ours(rows: Rows) -> Iterator[Benchmark]:
    for task in TASKS.values():
        parts = urlsplit(task.data)
        asked = parse_qs(parts.query).get("questions")
        size = int(asked[0]) if asked else rows.get((_letters(parts.netloc + parts.path), "", task.split))
        yield Benchmark(task.name, task.scorer, size, f"{task.data} {task.split}; {task.source}".rstrip("; "))


def lmms_evals(rows: Rows) -> Iterator[Benchmark]:
    """Raises `UserError`: there is no environment with lmms-eval."""
    for task in tasks_of_lmms_eval():
        path, name, split = task["source"]
        source = " ".join(part for part in task["source"] if part)
        size = rows.get((_letters(path), name, split))
        first, *others = task["metrics"] or [""]
        yield Benchmark(PREFIX + task["name"], f"{first} +{len(others)}" if others else first, size, source)


def cached_rows() -> Rows:
    """Of what the library `datasets` has loaded on this machine before, as it wrote it down."""
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or "~/.cache/huggingface/datasets").expanduser()
    found: Rows = {}
    for info in sorted(folder.glob("*/*/*/*/dataset_info.json")):
        repository, configuration = info.relative_to(folder).parts[:2]
        for split, told in (json.loads(info.read_text(encoding="utf-8")).get("splits") or {}).items():
            for name in ("", configuration):
                found[_letters(repository), name, split] = int(told["num_examples"])
    return found


def _letters(name: str) -> str:
    """The library writes `HuggingFaceM4/ChartQA` as `HuggingFaceM4___chart_qa`."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def lines(found: list[Benchmark]) -> Iterator[str]:
    """A table for the terminal; `-` is not known."""
    rows = [("BENCHMARK", "METRIC", "SIZE", "SOURCE")]
    rows += [(one.name, one.metrics or "-", str(one.size or "-"), one.source) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)]
        yield "  ".join([*cells, row[3]]).rstrip()
