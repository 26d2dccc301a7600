"""The rows of a data set one by one, wherever it is, without holding all of them. Training, evaluation and synthesis
read questions here.

    charts://?questions=1000&difficulty=1     synthetic charts, made on the spot
    hf://owner/name?config=main&revision=…    a data set of the Hugging Face hub, by the `datasets` library
    path/to/folder                            the same from a folder that is laid out as the hub's are
    path/to/questions.parquet                 a row per question
    path/to/questions.jsonl, .json            one object per line, or a list of objects; pictures beside the file

All but charts:// take `question=`, `answer=` and `image=`, columns that are called otherwise, `limit=`, the first so
many rows, and `pictures=`, a folder that paths of pictures may also lead to (from the data's own, if it is relative).
Hub data sets and folders take `config=`, `revision=` and `split=` besides.

Every problem with a source is a ValueError that says where it is and what would be right; one with a row is a `BadRow`.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from thinkimg import jsonl
from thinkimg.data.chart_rows import chart_rows
from thinkimg.data.pictures import PictureReader
from thinkimg.data.row import ROLES, BadRow, Row
from thinkimg.data.uris import given, parse_query, positive
from thinkimg.extras import naming_the_extra


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
            yield Row(values, number, f"question {number}", values["id"], PictureReader())
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
        pictures = PictureReader(*_folders(Path(address).parent, options))
        path = Path(address)
        rows = _parquet(path, options, pictures) if path.suffix == ".parquet" else _json(path, pictures)
    names = {role: options[role] for role in ROLES if role in options}
    for row in islice(rows, options.get("limit")):
        try:
            yield row.renamed(names) if names and isinstance(row, Row) else row
        except BadRow as bad:
            yield bad


_FILE_OPTIONS = {"question": given, "answer": given, "image": given, "limit": positive, "pictures": given}
_HUB_OPTIONS = {**_FILE_OPTIONS, "config": given, "revision": given, "split": given}


def _folders(own: Path, options: Mapping[str, Any]) -> list[Path]:
    """Where paths of pictures may lead: the data's own folder, and the one that the user allows."""
    if "pictures" not in options:
        return [own]
    allowed = own / Path(options["pictures"]).expanduser()
    if not allowed.is_dir():
        raise ValueError(f"pictures={options['pictures']}: there is no folder {allowed}")
    return [own, allowed]


def _json(path: Path, pictures: PictureReader) -> Iterator[Row | BadRow]:
    """JSON lines, or a JSON list: what stands first decides, whatever the file is called."""
    for number, (place, line, record) in enumerate(_list(path) if _begins_with_bracket(path) else _lines(path)):
        if isinstance(record, BadRow):
            yield record
        elif not isinstance(record, dict):
            yield BadRow(place, "a JSON object is needed")
        else:
            yield Row(record, number, place, f"{path.stem}-{line}", pictures)


def _begins_with_bracket(path: Path) -> bool:
    try:
        return jsonl.begins_with(path) == "["
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read questions from {path}: {error}") from None


def _list(path: Path) -> Iterator[tuple[str, int, Any]]:
    try:
        records = jsonl.parse(jsonl.decoded(path.read_bytes()))
    except (OSError, ValueError) as error:
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


def _parquet(path: Path, options: Mapping[str, Any], pictures: PictureReader) -> Iterator[Row]:
    with naming_the_extra(str(path)):
        from pyarrow.parquet import ParquetFile
    try:
        with ParquetFile(path) as file:
            _check_columns(str(path), file.schema_arrow.names, options)
            rows = (row for batch in file.iter_batches(batch_size=16) for row in batch.to_pylist())
            yield from _numbered(rows, path.stem, pictures)
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
    pictures = PictureReader(*_hub_folders(name, on_hub, options))
    yield from _numbered(table, f"{name if on_hub else Path(name).name}-{split}", pictures)


def _hub_folders(name: str, on_hub: bool, options: Mapping[str, Any]) -> list[Path]:
    """A folder's own; of the hub's, where its files are kept on this machine."""
    if Path(name).is_absolute():
        return _folders(Path(name), options)
    import datasets
    from huggingface_hub.constants import HF_HUB_CACHE

    kept = [Path(HF_HUB_CACHE), Path(datasets.config.HF_DATASETS_CACHE)]
    return [*kept, *_folders(Path(), options)[1:]]


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
    for role in ROLES:
        if present is not None and role in options and options[role] not in present:
            raise ValueError(f"{source}: no column {options[role]}; the data set has {', '.join(present)}")
