"""An index over trajectory files: what lists, filters and curves need, and where each record lies in its file.

One SQLite file in the user's cache, made by one pass over the runs and continued where files have grown. Records stay
in their files and are read by offset when somebody looks at them.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from thinkimg.errors import UserError
from thinkimg.viewer.discovery import RunFolder, TrajectoryFile

VERSION = 2
"""Of the tables below. An index of another version is made anew."""

_SCHEMA = f"""
BEGIN IMMEDIATE;
PRAGMA user_version = {VERSION};
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, path TEXT UNIQUE, run TEXT, stage TEXT, model TEXT, mode TEXT, step INTEGER,
    done INTEGER NOT NULL DEFAULT 0, size INTEGER NOT NULL DEFAULT 0, lines INTEGER NOT NULL DEFAULT 0,
    changed INTEGER NOT NULL DEFAULT 0, last_at INTEGER NOT NULL DEFAULT 0, last_hash TEXT NOT NULL DEFAULT '');
CREATE TABLE IF NOT EXISTS sources (
    id INTEGER PRIMARY KEY, run TEXT, stage TEXT, model TEXT, mode TEXT, UNIQUE (run, stage, model, mode));
CREATE TABLE IF NOT EXISTS trajectories (
    id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT UNIQUE, file INTEGER, at INTEGER, length INTEGER, source INTEGER,
    step INTEGER, subject TEXT, kind TEXT, question TEXT, answer TEXT, reference TEXT, status TEXT, correct INTEGER,
    reward REAL, rounds INTEGER, calls INTEGER, tools TEXT, failed INTEGER, tokens INTEGER, seconds REAL);
CREATE INDEX IF NOT EXISTS by_subject ON trajectories (subject, source);
CREATE INDEX IF NOT EXISTS by_file ON trajectories (file);
CREATE TABLE IF NOT EXISTS calls (
    tool TEXT, trajectory INTEGER, number INTEGER, PRIMARY KEY (tool, trajectory)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS faults (kind TEXT, trajectory INTEGER, PRIMARY KEY (kind, trajectory)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS problems (file INTEGER, line INTEGER, message TEXT);
CREATE VIRTUAL TABLE IF NOT EXISTS words USING fts5 (
    text, content = '', detail = none, tokenize = 'unicode61 remove_diacritics 2');
COMMIT;
"""
_FIRST_COMMIT, _COMMIT_EVERY = 0.1, 0.5  # seconds: something to look at soon, then few commits
_MOST_TEXT = 20_000  # characters of a trajectory that a search sees
_QUESTION, _ANSWER, _TOOLS = 300, 120, 120  # characters kept for lists
_KEEP_UNUSED = 30 * 24 * 3600  # seconds


def cache_path(runs: Sequence[RunFolder], folder: Path | None = None) -> Path:
    """Where the index of these runs is kept: one for each set of paths. Those unused for 30 days are deleted."""
    folder = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "thinkimg" / "viewer"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    name = hashlib.sha256("\0".join(f"{run.name}\0{run.path}" for run in runs).encode()).hexdigest()[:24]
    for old in folder.glob("*.sqlite"):
        if old.stem != name and time.time() - old.stat().st_mtime > _KEEP_UNUSED:
            for path in folder.glob(f"{old.stem}.sqlite*"):
                path.unlink(missing_ok=True)
    return folder / f"{name}.sqlite"


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far the pass is: bytes read of those there are, and whether it is under way."""

    done: int
    total: int
    working: bool


class Index:
    """Reads from any thread; one thread at a time writes (`refresh`), and one process at a time.

    `version` grows whenever rows were added or removed.
    """

    def __init__(self, runs: Sequence[RunFolder], path: Path) -> None:
        self.runs = list(runs)
        self.path = path
        self.progress = Progress(0, 0, False)
        self._lock = threading.Lock()
        self._refreshing = threading.Lock()
        self._stop = threading.Event()
        self._reader = _open(path)
        path.touch()

    # ---- reading ----------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """Changes with the contents, whichever process changed them."""
        return int(self.rows("PRAGMA data_version")[0][0])

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._reader.execute(query, values).fetchall()

    def record(self, key: str) -> tuple[sqlite3.Row, dict[str, Any]] | None:
        """The row and the record of a trajectory, read from its file; None if there is no such key.

        Raises:
            UserError: the file was changed or removed meanwhile.
        """
        found = self.rows(
            "SELECT t.*, f.path, s.run, s.stage, s.model, s.mode FROM trajectories t JOIN files f ON f.id = t.file "
            "JOIN sources s ON s.id = t.source WHERE t.key = ?",
            (key,),
        )
        if not found:
            return None
        row = found[0]
        try:
            with open(row["path"], "rb") as file:
                file.seek(row["at"])
                record = from_json(file.read(row["length"]))
            if not isinstance(record, dict) or "turns" not in record:
                raise ValueError("there is no trajectory where one was")
        except (OSError, ValueError) as error:
            raise UserError(f"it changed while it was shown; reload the page ({error})", row["path"]) from error
        return row, record

    def folder_of_pictures(self, file: int) -> Path | None:
        found = self.rows("SELECT path FROM files WHERE id = ?", (file,))
        return Path(found[0]["path"]).parent / "images" if found else None

    # ---- writing ----------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Bring the index up to date with the files. Returns at once if another thread or process is at it."""
        if not self._refreshing.acquire(blocking=False):
            return
        try:
            with _only_writer(self.path) as alone:
                if alone:
                    self._refresh()
        finally:
            self.progress = dataclasses.replace(self.progress, working=False)
            self._refreshing.release()

    def _refresh(self) -> None:
        known = {row[0] for row in self.rows("SELECT path FROM files")}
        files = [file for run in self.runs for file in run.files(known)]
        database = _open(self.path)
        try:
            writer = _Writer(database)
            writer.forget_all_but(files)
            work = [(file, *state) for file in files if (state := writer.state(file)) is not None]
            done, total = 0, sum(size - start for _, _, start, size in work)
            self.progress = Progress(0, total, bool(work))
            began, wait = time.monotonic(), _FIRST_COMMIT
            for file, number, start, _ in work:
                before = done
                for at in writer.read(file, number, start):
                    done = before + at - start
                    if time.monotonic() - began > wait:
                        writer.commit()
                        self.progress = Progress(done, total, True)
                        began, wait = time.monotonic(), _COMMIT_EVERY
                    if self._stop.is_set():
                        break
                writer.finish(file, number)
                if self._stop.is_set():
                    break
            writer.commit()
        finally:
            database.close()

    def close(self) -> None:
        """Stops a pass under way; what it has read is kept."""
        self._stop.set()
        with self._refreshing, self._lock:
            self._reader.close()


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, check_same_thread=False, timeout=30)
    database.row_factory = sqlite3.Row
    try:
        made = database.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.DatabaseError:
        made = -1
    if made not in (0, VERSION):
        database.close()
        for ending in ("", "-wal", "-shm"):
            path.with_name(path.name + ending).unlink(missing_ok=True)
        return _open(path)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")  # a lost index is made anew
    if made == 0:
        database.executescript(_SCHEMA)
    return database


@contextlib.contextmanager
def _only_writer(path: Path) -> Iterator[bool]:
    """Held by the one process that writes the index. Gives whether it is this one."""
    with path.with_name(path.name + ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except OSError:
            alone = False
        yield alone


class _Writer:
    """Rows of trajectory files. The caller says when to commit."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._sources: dict[tuple[str, str, str, str], int] = {}
        self._place: tuple[int, int, int, str, int] | None = None  # columns of `files` that say how far it was read

    def commit(self) -> None:
        if self._place is not None:
            self._database.execute(
                "UPDATE files SET done = ?, lines = ?, last_at = ?, last_hash = ? WHERE id = ?", self._place
            )
        self._database.commit()

    def forget_all_but(self, files: Sequence[TrajectoryFile]) -> None:
        kept = {str(file.path) for file in files}
        for number, path in self._database.execute("SELECT id, path FROM files").fetchall():
            if path not in kept:
                self._forget(number)
                self._database.execute("DELETE FROM files WHERE id = ?", (number,))

    def _forget(self, file: int) -> None:
        """Its rows. Words of a trajectory that is gone stay: they match no row, since ids are never used again."""
        ids = "(SELECT id FROM trajectories WHERE file = ?)"
        for table in ("calls", "faults"):
            self._database.execute(f"DELETE FROM {table} WHERE trajectory IN {ids}", (file,))
        for table in ("trajectories", "problems"):
            self._database.execute(f"DELETE FROM {table} WHERE file = ?", (file,))

    def state(self, file: TrajectoryFile) -> tuple[int, int, int] | None:
        """The file's number, where to go on reading, and its size; None if there is nothing to read.

        A file that was replaced (its last line is no longer where it was) is forgotten and read from its beginning.
        """
        status = file.path.stat()
        values = (str(file.path), file.run, file.stage, file.model, file.mode, file.step)
        self._database.execute(
            "INSERT OR IGNORE INTO files (path, run, stage, model, mode, step) VALUES (?, ?, ?, ?, ?, ?)", values
        )
        row = self._database.execute("SELECT * FROM files WHERE path = ?", values[:1]).fetchone()
        if status.st_size == row["size"] and status.st_mtime_ns == row["changed"]:
            return None
        start = row["done"]
        if start and not _same_line(file.path, row["last_at"], start, row["last_hash"]):
            self._forget(row["id"])
            start = 0
            self._database.execute("UPDATE files SET done = 0, lines = 0 WHERE id = ?", (row["id"],))
        return row["id"], start, status.st_size

    def read(self, file: TrajectoryFile, number: int, start: int) -> Iterator[int]:
        """Index the lines from `start` on; yields the offset behind each. A last line without an end waits for it,
        unless it is whole already."""
        line_number = self._database.execute("SELECT lines FROM files WHERE id = ?", (number,)).fetchone()[0]
        at = start
        with file.path.open("rb") as opened:
            opened.seek(start)
            for line in opened:
                whole = line.endswith(b"\n")
                line_number += 1
                try:
                    if line.strip():
                        self._add(file, number, at, line, from_json(line))
                except (ValueError, LookupError, TypeError, AttributeError) as error:
                    if not whole:  # half a line: somebody is writing it
                        return
                    self._database.execute(
                        "INSERT INTO problems VALUES (?, ?, ?)", (number, line_number, f"{error}"[:300])
                    )
                at += len(line)
                self._place = (at, line_number, at - len(line), _hash(line), number)
                yield at

    def finish(self, file: TrajectoryFile, number: int) -> None:
        """Remember the size up to which there is nothing more to read."""
        self.commit()
        self._place = None
        status = file.path.stat()
        done = self._database.execute("SELECT done FROM files WHERE id = ?", (number,)).fetchone()[0]
        if done == status.st_size:
            self._database.execute(
                "UPDATE files SET size = ?, changed = ? WHERE id = ?", (done, status.st_mtime_ns, number)
            )

    def _add(self, file: TrajectoryFile, number: int, at: int, line: bytes, record: dict[str, Any]) -> None:
        meta = record.get("meta") or {}
        blocks = [(turn["message"]["role"], block) for turn in record["turns"] for block in turn["message"]["content"]]
        results = [block for _, block in blocks if block["type"] == "tool_result"]
        tools = Counter(block["name"] for block in results)
        faults = {block["error"] for block in results if block.get("error")}
        if record["status"] == "infrastructure":
            faults.add("infrastructure")
        if meta.get("malformed"):  # answered with words, so there is no result that says it
            faults.add("malformed_call")
        model = file.model or str(meta.get("model") or "") or file.stage
        step = file.step if file.step is not None else meta.get("step")
        question, answer = str(record["question"]), record.get("answer")
        row = {
            "file": number,
            "at": at,
            "length": len(line),
            "source": self._source(file.run, file.stage, model, file.mode or str(meta.get("mode") or "")),
            "step": step if isinstance(step, int) else None,
            "subject": subject_of(record),
            "kind": str(meta.get("kind") or ""),
            "question": question[:_QUESTION],
            "answer": None if answer is None else str(answer)[:_ANSWER],
            "reference": None if record.get("reference") is None else str(record["reference"])[:_ANSWER],
            "status": record["status"],
            "correct": record.get("correct"),
            "reward": total_reward(record.get("rewards") or {}),
            "rounds": sum(turn["message"]["role"] == "assistant" for turn in record["turns"]),
            "calls": tools.total(),
            "tools": ", ".join(tools)[:_TOOLS],
            "failed": len(faults),
            "tokens": sum(len(turn.get("tokens") or ()) for turn in record["turns"]) or None,
            "seconds": record.get("seconds") or 0.0,
        }
        trajectory = self._insert(str(record.get("id") or f"{file.path.stem}-{at}"), row)
        self._database.executemany("INSERT INTO calls VALUES (?, ?, ?)", [(t, trajectory, n) for t, n in tools.items()])
        self._database.executemany("INSERT INTO faults VALUES (?, ?)", [(fault, trajectory) for fault in faults])
        self._database.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (trajectory, text_of(record)))

    def _insert(self, key: str, row: dict[str, Any]) -> int:
        """One record may stand in two files: the second gets `~2` behind its id, so that links stay unique."""
        names, places = ", ".join(row), ", ".join("?" * len(row))
        number = 1
        while True:
            cursor = self._database.execute(
                f"INSERT OR IGNORE INTO trajectories (key, {names}) VALUES (?, {places})",
                (key if number == 1 else f"{key}~{number}", *row.values()),
            )
            if cursor.rowcount and cursor.lastrowid is not None:
                return cursor.lastrowid
            number += 1

    def _source(self, *names: str) -> int:
        source = (names[0], names[1], names[2], names[3])
        if source not in self._sources:
            self._database.execute(
                "INSERT OR IGNORE INTO sources (run, stage, model, mode) VALUES (?, ?, ?, ?)", source
            )
            found = self._database.execute(
                "SELECT id FROM sources WHERE run = ? AND stage = ? AND model = ? AND mode = ?", source
            )
            self._sources[source] = int(found.fetchone()[0])
        return self._sources[source]


def subject_of(record: dict[str, Any]) -> str:
    """What is asked about which picture: equal for all models and attempts on one question, under a control too."""
    first: dict[str, Any] = next(iter((record.get("images") or {}).values()), {})
    control = (record.get("meta") or {}).get("control")
    picture = next(iter(control["pictures"]), "") if isinstance(control, dict) else first.get("sha256", "")
    text = f"{record['question']}\0{picture}"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def total_reward(rewards: dict[str, float]) -> float | None:
    """`total` if there is one, else the first, which of an evaluation's scores is the one that decides; None without
    rewards or where it is not a number."""
    value = rewards.get("total", next(iter(rewards.values()), None))
    return float(value) if isinstance(value, int | float) and abs(value) < float("inf") else None


def text_of(record: dict[str, Any]) -> str:
    """What a search sees: question, answers and all that model and tools said; not the instructions, alike in all."""
    parts = [str(record.get(name) or "") for name in ("id", "question", "answer", "reference")]
    for turn in record["turns"]:
        if turn["message"]["role"] in ("assistant", "tool"):
            parts += [str(block.get("text") or "") for block in turn["message"]["content"]]
    return "\n".join(parts)[:_MOST_TEXT]


def _same_line(path: Path, start: int, end: int, digest: str) -> bool:
    with path.open("rb") as file:
        file.seek(start)
        return _hash(file.read(end - start)) == digest


def _hash(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()
