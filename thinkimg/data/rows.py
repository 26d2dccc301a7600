"""The rows of a data set one by one, wherever it is, without holding all of them. Training, evaluation and synthesis
read questions here.

    charts://?questions=1000&difficulty=1     synthetic charts, made on the spot
    hf://owner/name?config=main&revision=…    a data set of the Hugging Face hub, by the `datasets` library
    path/to/folder                            the same from a folder that is laid out as the hub's are
    path/to/questions.parquet                 a row per question
    path/to/questions.jsonl, .json            one object per line, or a list of objects; pictures beside the file

All but charts:// take `question=`, `answer=` and `image=`, columns that are called otherwise, and `limit=`, the
first so many rows. Hub data sets and folders take `config=`, `revision=` and `split=` besides.

Every problem with a source is a ValueError that says where it is and what would be right; one with a row is a `BadRow`.
"""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from thinkimg import jsonl
from thinkimg.data.chart_rows import chart_rows
from thinkimg.data.pictures import PictureReader
from thinkimg.data.uris import given, parse_query, positive
from thinkimg.extras import naming_the_extra
from thinkimg.image import Image

QUESTION_FIELDS = ("question", "query", "problem")
ANSWER_FIELDS = ("answer", "label", "solution")
IMAGE_FIELDS = ("image", "image_path", "images")
_NUMBERED = re.compile(r"(?:image|image_path)_?([0-9]{1,3})")
_ROLES = {"question": QUESTION_FIELDS, "answer": ANSWER_FIELDS, "image": IMAGE_FIELDS}
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class BadRow(ValueError):
    """What is wrong with one row.

    Attributes:
        place: `line 3`, `row 17`.
    """

    def __init__(self, place: str, reason: str, column: str | None = None) -> None:
        super().__init__(f"{place}, column {column}: {reason}" if column else f"{place}: {reason}")
        self.place = place


class Row(dict[str, Any]):
    """One record of a data set, by the names of its columns.

    Attributes:
        number: its place in the data set, from 0.
        place: what messages call it: `line 3`.
        name: the id of its question where it has none of its own.
        reader: makes pictures of what stands in it.
    """

    def __init__(self, values: Mapping[str, Any], number: int, place: str, name: str, pictures: PictureReader) -> None:
        super().__init__(values)
        self.number = number
        self.place = place
        self.name = name
        self.reader = pictures
        self._called: Mapping[str, str] = {}

    def __missing__(self, name: str) -> Any:
        raise BadRow(self.place, f"no {name!r}; there are {', '.join(self)}")

    def renamed(self, names: Mapping[str, str]) -> "Row":
        """With the columns that a URI names under the usual names, in place of what else would be taken for them.

        Args:
            names: of `question`, `answer`, `image`, those that are called otherwise.
        """
        chosen = {role: self[column] for role, column in names.items()}
        for role in names:
            for usual in _ROLES[role]:
                self.pop(usual, None)
            if role == "image":
                for column in [column for column in self if _NUMBERED.fullmatch(column)]:
                    del self[column]
        self.update(chosen)
        self._called = names
        return self

    def first(self, *names: str) -> Any:
        """The first of these columns that is there and not empty."""
        return self[self._find(names)]

    def text(self, *names: str) -> str:
        """The first of these columns that is there and not empty, as a text: a number, a truth value, or of a list of
        such (several right answers) the first, which is the canonical one."""
        name = self._find(names)
        try:
            return text_of(self[name])
        except ValueError as error:
            raise self.bad(str(error), name) from None

    def pictures(self, *names: str) -> tuple[Image, ...]:
        """The pictures in the first of these columns that is there, in order.

        Without names those of the row: `image` or `image_path`, then `images`, then `image_1`, `image_2` …; what is
        also in a later one of these columns counts there.
        """
        if names:
            return self._pictures_in(self._find(names))
        single = next((name for name in IMAGE_FIELDS[:2] if self.get(name) not in _EMPTY), None)
        numbered = sorted((int(found[1]), name) for name in self if (found := _NUMBERED.fullmatch(name)))
        others = [name for name in ("images", *(name for _, name in numbered)) if self.get(name) not in _EMPTY]
        if single is None and not others:
            self._find(IMAGE_FIELDS)
        further = [image for name in others for image in self._pictures_in(name)]
        first = self._pictures_in(single) if single else ()
        known = {image.sha256 for image in further}
        return tuple(further) if all(image.sha256 in known for image in first) else (*first, *further)

    def picture(self, *names: str) -> bytes:
        """The encoded picture in the first of these columns that is there: a picture of a hub data set, bytes, base64,
        or a path beside the file."""
        return self.pictures(*(names or IMAGE_FIELDS))[0].data

    def bad(self, reason: str, column: str | None = None) -> BadRow:
        """To be raised: what is wrong with this row."""
        return BadRow(self.place, reason, self._called.get(column, column) if column else None)

    def _find(self, names: tuple[str, ...]) -> str:
        for name in names:
            if self.get(name) not in _EMPTY:
                return name
        empty = [name for name in names if name in self]
        if empty:
            raise self.bad("it is empty", empty[0])
        raise self.bad(f"no {' or '.join(names)}; there are {', '.join(self)}")

    def _pictures_in(self, name: str) -> tuple[Image, ...]:
        value = self[name]
        found = []
        for number, one in enumerate(value if isinstance(value, list | tuple) else [value], start=1):
            try:
                found.append(self.reader.read(one))
            except ValueError as error:
                place = f"picture {number}: " if isinstance(value, list) and len(value) > 1 else ""
                raise self.bad(f"{place}{error}", name) from None
        return tuple(found)


def text_of(value: Any) -> str:
    """A text, number or truth value as a text; of a list of such the first. Raises `ValueError`: it is something else,
    empty, or no number."""
    texts = [_text(one) for one in (value if isinstance(value, list | tuple) and value else [value])]
    return texts[0]


def _text(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is no answer")
    if not isinstance(value, str | int | float):
        raise ValueError(f"it must be a text or a number, or a list of them, not {json.dumps(value, default=str)[:60]}")
    text = str(value)
    if not text.strip():
        raise ValueError("it is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair, which is no text") from None
    return text


# ---- sources ---------------------------------------------------------------------------------------------------------


def read_rows(source: str, split: str, seed: int = 0) -> Iterator[Row | BadRow]:
    """All rows of a source; what cannot be read as a row is given as a `BadRow`, and reading goes on.

    Args:
        split: of a hub data set or of synthetic charts; a file is one split already.
        seed: of synthetic charts.

    Raises:
        ValueError: the source is wrong, or cannot be read.
    """
    if source.startswith("charts://"):
        for number, values in enumerate(chart_rows(source, split, seed)):
            yield Row(values, number, f"question {number}", values["id"], PictureReader(None))
        return
    address = source.partition("?")[0]
    if source.startswith("hf://") or Path(address).is_dir():
        options = parse_query(source, _HUB_OPTIONS)
        rows: Iterable[Row | BadRow] = _hub(source, options, split)
    elif "://" in source or not (Path(address).is_file() or address.endswith((".jsonl", ".json", ".parquet"))):
        raise ValueError(
            f"there is no data at {source!r}: use charts://, hf://owner/name, a folder, or the path of a .jsonl, .json "
            "or .parquet file"
        )
    else:
        options = parse_query(source, _FILE_OPTIONS)
        rows = _parquet(Path(address), options) if address.endswith(".parquet") else _json(Path(address))
    names = {role: options[role] for role in _ROLES if role in options}
    for row in islice(rows, options.get("limit")):
        try:
            yield row.renamed(names) if names and isinstance(row, Row) else row
        except BadRow as bad:
            yield bad


_FILE_OPTIONS = {"question": given, "answer": given, "image": given, "limit": positive}
_HUB_OPTIONS = {**_FILE_OPTIONS, "config": given, "revision": given, "split": given}


def _json(path: Path) -> Iterator[Row | BadRow]:
    """JSON lines, or a JSON list: what stands first decides, whatever the file is called."""
    pictures = PictureReader(path.parent)
    for number, (place, line, record) in enumerate(_list(path) if _begins_with_bracket(path) else _lines(path)):
        if isinstance(record, BadRow):
            yield record
        elif not isinstance(record, dict):
            yield BadRow(place, "a JSON object is needed")
        else:
            yield Row(record, number, place, f"{path.stem}-{line}", pictures)


def _begins_with_bracket(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as file:
            while (character := file.read(1)).isspace():
                pass
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read questions from {path}: {error}") from None
    return character == "["


def _list(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read questions from {path}: not JSON: {error}") from None
    return ((f"record {number}", number, record) for number, record in enumerate(records, start=1))


def _lines(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        for line in jsonl.lines(path):
            place = f"line {line.number}"
            try:
                yield place, line.number, jsonl.parse(line.text)
            except ValueError as error:
                yield place, line.number, BadRow(place, f"not JSON: {error}")
    except (OSError, jsonl.BadLine) as error:
        raise ValueError(f"cannot read questions from {path}: {error}") from None


def _parquet(path: Path, options: Mapping[str, Any]) -> Iterator[Row]:
    with naming_the_extra(str(path)):
        from pyarrow.parquet import ParquetFile
    try:
        with ParquetFile(path) as file:
            _check_columns(str(path), file.schema_arrow.names, options)
            rows = (row for batch in file.iter_batches(batch_size=16) for row in batch.to_pylist())
            yield from _numbered(rows, path.stem, PictureReader(path.parent))
    except OSError as error:
        raise ValueError(f"cannot read questions from {path}: {error}") from None


def _hub(source: str, options: Mapping[str, Any], split: str) -> Iterator[Row]:
    """From the hub, or from a folder that is laid out so. Pictures stay the bytes of their files."""
    address = source.partition("?")[0]
    on_hub, split = address.startswith("hf://"), options.get("split", split)
    name = address.removeprefix("hf://").rstrip("/") if on_hub else str(Path(address).resolve())
    if not name:
        raise ValueError(f"{source}: hf:// needs the name of a data set, as in hf://owner/name")
    if on_hub and not Path(name).is_absolute() and Path(name).exists():  # huggingface/datasets#5228
        raise ValueError(
            f"{source}: the datasets library would take the folder {name} for the hub's data set: start in another "
            f"folder, or leave hf:// out if the folder is meant"
        )
    with naming_the_extra(source):
        import datasets
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
    _check_columns(source, table.column_names, options)
    if table.features:
        table = table.cast(datasets.Features({name: _encoded(kind) for name, kind in table.features.items()}))
    folder = None if on_hub else Path(name)
    yield from _numbered(table, f"{name if on_hub else Path(name).name}-{split}", PictureReader(folder))


def _encoded(feature: Any) -> Any:
    """The feature with its pictures, however deep, as the bytes of their files: who looks at them decodes them."""
    import datasets

    if isinstance(feature, datasets.Image):
        return datasets.Image(decode=False)
    if isinstance(feature, datasets.List | datasets.LargeList):
        return type(feature)(_encoded(feature.feature))
    if isinstance(feature, dict):
        return {name: _encoded(inner) for name, inner in feature.items()}
    return feature


def _numbered(rows: Iterable[Mapping[str, Any]], name: str, pictures: PictureReader) -> Iterator[Row]:
    for number, values in enumerate(rows):
        yield Row(values, number, f"row {number}", f"{name}-{number}", pictures)


def _check_columns(source: str, present: list[str] | None, options: Mapping[str, Any]) -> None:
    """Once for all rows: a column that a URI names and the data set does not have."""
    for role in _ROLES:
        if present is not None and role in options and options[role] not in present:
            raise ValueError(f"{source}: no column {options[role]}; the data set has {', '.join(present)}")
