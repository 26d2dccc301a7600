"""The rows of a data set one by one, wherever it is, without holding all of them: what evaluation reads.

    charts://?questions=1000&difficulty=1     synthetic charts, made on the spot
    hf://owner/name?config=main&revision=…    a data set of the Hugging Face hub, by the `datasets` library
    path/to/folder                            the same from a folder that is laid out as the hub's are
    path/to/questions.jsonl, .json            one object per line, or a list of objects; pictures beside the file

Every problem with a source is a ValueError that says where it is and what would be right.
"""

import base64
import binascii
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from PIL import Image as Pillow

from thinkimg.data.datasets import load_questions

_HUB_OPTIONS = ("config", "revision")


class Row(dict[str, Any]):
    """One record of a data set, by the names of its columns.

    Attributes:
        number: its place in the data set, from 0.
        where: what messages call it.
    """

    def __init__(self, values: dict[str, Any], number: int, where: str, folder: Path | None = None) -> None:
        super().__init__(values)
        self.number = number
        self.where = where
        self._folder = folder

    def __missing__(self, name: str) -> Any:
        raise ValueError(f"{self.where}: no {name!r}; there are {', '.join(self)}")

    def first(self, *names: str) -> Any:
        """The first of these columns that is there and not empty."""
        for name in names:
            if self.get(name) not in (None, "", []):
                return self[name]
        raise ValueError(f"{self.where}: no {' or '.join(names)}; there are {', '.join(self)}")

    def picture(self, *names: str) -> bytes:
        """The encoded picture in the first of these columns that is there: a picture of a hub data set, bytes, base64,
        or a path beside the file."""
        value = self.first(*names)
        if isinstance(value, dict):  # as `datasets` has a picture that it does not decode
            value = value.get("bytes") or Path(value["path"])
        if isinstance(value, Pillow.Image):
            buffer = io.BytesIO()
            value.convert("RGB").save(buffer, "PNG")
            return buffer.getvalue()
        if isinstance(value, str):
            return self._picture_of_text(value)
        return value.read_bytes() if isinstance(value, Path) else bytes(value)

    def _picture_of_text(self, text: str) -> bytes:
        file = (self._folder or Path()) / text if len(text) < 1000 else None
        if file is not None and file.is_file():
            return file.read_bytes()
        try:
            return base64.b64decode(text.partition("base64,")[2] or text, validate=True)
        except binascii.Error:
            raise ValueError(f"{self.where}: there is no picture {text[:200]!r}") from None


def read_rows(source: str, split: str, seed: int = 0) -> Iterator[Row]:
    """All rows of a source.

    Args:
        split: of a hub data set or of synthetic charts; a file is one split already.
        seed: of synthetic charts.
    """
    if source.startswith("charts://"):
        for number, example in enumerate(load_questions(source, split, seed)):
            yield Row(vars(example), number, f"{source}, question {number}")
    elif source.endswith((".jsonl", ".json")):
        yield from _file(Path(source))
    elif source.startswith("hf://") or Path(source.partition("?")[0]).is_dir():
        yield from _hub(source, split)
    else:
        raise ValueError(
            f"there is no data at {source!r}: use charts://, hf://owner/name, a folder, or the path of a .jsonl file"
        )


def _file(path: Path) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8") as file:
            records = enumerate(json.load(file), 1) if path.suffix == ".json" else _lines(path, enumerate(file, 1))
            for number, (line, record) in enumerate(records):
                if not isinstance(record, dict):
                    raise ValueError(f"{path}, record {line}: a JSON object is needed")
                yield Row(record, number, f"{path}, record {line}", path.parent)
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"cannot read {path}: {error}") from None


def _lines(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, Any]]:
    for number, line in lines:
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, record {number}: not JSON: {error}") from None


def _hub(source: str, split: str) -> Iterator[Row]:
    address, _, query = source.partition("?")
    options = {name: values[-1] for name, values in parse_qs(query).items()}
    if unknown := options.keys() - set(_HUB_OPTIONS):
        raise ValueError(f"{source}: unknown parameter {min(unknown)!r}; allowed are {', '.join(_HUB_OPTIONS)}")
    parts = urlsplit(address)
    on_hub = parts.scheme == "hf"
    name = parts.netloc + parts.path if on_hub else str(Path(address).resolve())
    try:
        import datasets
    except ImportError:
        raise ValueError(f"{source}: needs the datasets library: install thinkimg[evaluation]") from None
    # A folder is read where it is: the library's cache takes two folders of one name for the same data set.
    cache = None if on_hub else tempfile.mkdtemp(prefix="thinkimg-")
    try:
        table = datasets.load_dataset(
            name,
            options.get("config"),
            split=split,
            revision=options.get("revision"),
            streaming=not on_hub,
            cache_dir=cache,
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"cannot load {source}, split {split!r}: {error}") from error
    finally:
        if cache is not None:
            shutil.rmtree(cache, ignore_errors=True)
    for column, feature in (table.features or {}).items():
        if isinstance(feature, datasets.Image):  # the file's own bytes; decoded once, by whoever looks
            table = table.cast_column(column, datasets.Image(decode=False))
    for number, values in enumerate(table):
        yield Row(values, number, f"{source}, split {split}, row {number}")
