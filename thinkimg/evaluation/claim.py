"""A folder of answers belongs to one set of settings: who works in it first writes them down, others are compared."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from thinkimg.errors import UserError
from thinkimg.jsonfile import read, write
from thinkimg.results import Settings

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
_REMEDY = "choose another output, or delete this one"


def claim(folder: Path, settings: Settings, answers: Path | None = None) -> list[str]:
    """Make the folder that of these settings.

    Args:
        answers: a file in which earlier answers may be; None: they count whatever they were asked with.

    Returns:
        Settings of the answers in it that are not known, because nobody wrote them down.

    Raises:
        UserError: it holds answers that were asked with other settings, all of which are named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    if not path.exists() and answers is not None and answers.exists() and answers.stat().st_size:
        return [name for name in type(settings).model_fields if name not in ("kind", "version")]
    partial = folder / f"{SETTINGS}.{os.getpid()}.partial"
    write(partial, settings)
    try:
        path.hardlink_to(partial)  # one of several processes is the first
    except FileExistsError:
        return _compared(read(path, type(settings)), settings, folder)
    finally:
        partial.unlink()
    return []


def _compared(before: Settings, now: Settings, folder: Path) -> list[str]:
    if changed := before.differences(now):
        said = "; ".join(f"{name} = {then!r}, now {value!r}" for name, (then, value) in changed.items())
        raise UserError(f"it was begun with {said}: {_REMEDY}", str(folder))
    return before.unknown()


def check_rest(folder: Path, settings: Settings, rest: int, total: int, unknown: Sequence[str], shared: bool) -> None:
    """What is to be asked must fit what is there; that nothing is to be asked is said.

    Args:
        rest: questions without an answer, of `total`.
        unknown: as `claim` gave them.
        shared: whether other processes may have answered in the folder.

    Raises:
        UserError: some are to be asked, and beside them are answers whose settings are not known.
    """
    named = ", ".join(unknown)
    if rest and unknown and (rest < total or shared):
        raise UserError(
            f"an earlier version began it and did not write down {named}: {rest} of {total} questions are not answered "
            f"yet, and their answers may not be of one kind with the others; {_REMEDY}",
            str(folder),
        )
    if rest and unknown:  # none was ever answered
        write(folder / SETTINGS, settings)
    if total and not rest:
        log.warning("%s: nothing is asked: all %d answers are there", folder, total)
        if unknown:
            log.warning("%s: an earlier version did not write down %s", folder, named)
