"""What published judges are asked, read from their own source: none of it is part of ThinkIMG.

The file is fetched once, at its commit, or put in its place by hand; it must be the very file that ThinkIMG was held
against (`hack/record_verdicts.py`), and of it only constants are read: nothing in it is run.
"""

import ast
import hashlib
import warnings
from pathlib import Path
from typing import Any

import httpx

from thinkimg.errors import UserError
from thinkimg.evaluation.official import PublishedJudge

FOLDER = Path("~/.cache/thinkimg/published")
_SECONDS = 30


def constants_of(judge: PublishedJudge, folder: Path = FOLDER) -> dict[str, Any]:
    """The file's constants, by their names.

    Args:
        folder: where the file is, or is written.

    Raises:
        UserError: it is not there and cannot be fetched, or is another one.
    """
    return read_constants(_text(judge, folder.expanduser() / judge.path))


def read_constants(text: str) -> dict[str, Any]:
    """Of Python's source, the module's literals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # backslashes in texts of others
        tree = ast.parse(text)
    found = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(name := node.targets[0], ast.Name):
            try:
                found[name.id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # no literal
    return found


def _text(judge: PublishedJudge, path: Path) -> str:
    data = path.read_bytes() if path.is_file() else _fetched(judge, path)
    if hashlib.sha256(data).hexdigest() != judge.sha256:
        raise UserError(f"{path} is not {judge.url}, whose SHA-256 is {judge.sha256}: {_remedy(path)}", "--judge")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_bytes(data)
        partial.replace(path)
    return data.decode()


def _fetched(judge: PublishedJudge, path: Path) -> bytes:
    try:
        return httpx.get(judge.url, timeout=_SECONDS, follow_redirects=True).raise_for_status().content
    except httpx.HTTPError as error:
        said = f"{type(error).__name__}: {error}"
        raise UserError(
            f"the benchmark's judge is asked in its own words, which stand in {judge.url}, and that cannot be read "
            f"({said}): {_remedy(path)}",
            "--judge",
        ) from error


def _remedy(path: Path) -> str:
    return f"save it as {path}, or ask the judge in our words: --scorer judge"
