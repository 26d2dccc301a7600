"""Trajectories as files: JSON lines with the pictures beside them in `images/`, each picture once."""

import hashlib
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from thinkimg import jsonl
from thinkimg.image import Image
from thinkimg.trajectory.record import Trajectory


def write_trajectories(trajectories: Iterable[Trajectory], path: Path) -> None:
    """Write JSON lines at `path` and pictures beside it in `images/<sha256>.<ending>`; each picture once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        for trajectory in trajectories:
            save_images(trajectory.images.values(), path.parent / "images")
            file.write(jsonl.as_line(trajectory.model_dump_json()))
    partial.replace(path)  # a reader never sees half a file


def read_trajectories(path: Path) -> Iterator[Trajectory]:
    """The inverse of `write_trajectories`.

    Raises:
        ValueError: a line that does not parse, with its number; a picture that is missing or not the one written.
    """
    folder = path.parent / "images"
    for line in jsonl.lines(path):
        try:
            record = jsonl.parse(line.text)
            record["images"] = {name: _read_image(folder, reference) for name, reference in record["images"].items()}
            yield Trajectory.model_validate(record)
        except (ValueError, LookupError, TypeError, AttributeError, OSError) as error:
            raise ValueError(f"{path}, line {line.number}: {error}") from error


def save_images(images: Iterable[Image], folder: Path) -> None:
    """Write each picture once, as `<sha256>.<ending>`; what exists is whole, whoever was killed meanwhile. A picture
    that is only a reference, without bytes, is left out."""
    folder.mkdir(exist_ok=True)
    for image in images:
        target = folder / (image.sha256 + image.suffix)
        if image.data and not target.exists():
            partial = folder / f"{image.sha256}.{uuid.uuid4().hex}.partial"
            partial.write_bytes(image.data)
            partial.replace(target)


def own_file(folder: Path, name: str) -> Path | None:
    """A file of a folder of pictures; None if it is not there, or if it or the folder is a link: what a run of somebody
    else's shows is to be its own."""
    path = folder / name
    return None if folder.is_symlink() or path.is_symlink() or not path.is_file() else path


def _read_image(folder: Path, reference: dict[str, Any]) -> Image:
    image = Image.from_reference(reference)
    file = folder / (image.sha256 + image.suffix)
    data = file.read_bytes()
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise ValueError(f"{file} is not the picture that was written: its hash differs")
    return Image.from_reference(reference, data)
