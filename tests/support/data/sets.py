"""Small data sets as their users have them: JSON lines, a folder laid out as the hub's, Parquet."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets

from thinkimg import jsonl
from thinkimg.trajectory import Task


def write_questions(tasks: Iterable[Task], folder: Path) -> Path:
    """`questions.jsonl` in `folder`, and each picture once below `images/`."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for task in tasks:
        (image,) = task.images
        name = f"images/{hashlib.sha256(image.data).hexdigest()[:16]}{image.suffix}"
        (folder / name).write_bytes(image.data)
        meta = {key: value for key, value in task.meta.items() if key not in ("answer", "kind", "question_id")}
        lines.append(
            {
                "id": task.id,
                "image_path": name,
                "question": task.question,
                "answer": task.reference,
                "kind": task.meta["kind"],
                "meta": meta,
            }
        )
    jsonl.write(lines, folder / "questions.jsonl")
    return folder / "questions.jsonl"


def table(rows: list[dict[str, Any]], *pictures: str) -> datasets.Dataset:
    """With `pictures` as columns of pictures, or of lists of pictures."""
    features = datasets.Dataset.from_list(rows).features
    for name in pictures:
        several = isinstance(rows[0][name], list)
        features[name] = datasets.List(datasets.Image()) if several else datasets.Image()
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


def on_the_hub(folder: Path, rows: list[dict[str, Any]], split: str, *pictures: str) -> str:
    """A folder as a hub repository is: Parquet below data/, splits in the card."""
    (folder / "data").mkdir(parents=True)
    table(rows, *pictures).to_parquet(folder / "data" / f"{split}-00000-of-00001.parquet")
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: {split}\n    path: data/{split}-*\n---\n"
    (folder / "README.md").write_text(card)
    return str(folder)


def as_struct(content: bytes | None) -> dict[str, Any] | None:
    """A picture as the `datasets` library keeps it."""
    return None if content is None else {"bytes": content, "path": None}
