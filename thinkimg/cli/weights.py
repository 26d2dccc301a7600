"""`thinkimg weights`: which weights of tools are here, bring them here, export them, see that they are still whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thinkimg.cli.command import TOOLS, Command
from thinkimg.cli.options import AsJson
from thinkimg.cli.screen import notes, print_json
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.tools.weights.fetch import Fetched
    from thinkimg.tools.weights.repository import Repository

Folder = Annotated[
    Path | None, typer.Option("--folder", help="Of weights. Default: THINKIMG_WEIGHTS, or ~/.cache/thinkimg/weights.")
]


def list_weights(folder: Folder = None, as_json: AsJson = False) -> None:
    """Show the weights that our tools take by default, and what else was fetched: address, licence, whether they are
    here."""
    found = _listed(folder)
    if as_json:
        print_json(found)
        return
    from thinkimg.figures import size

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    for heading in ("weights", "for", "licence", "here", "size", "SHA-256"):
        table.add_column(heading, no_wrap=heading in ("weights", "size"), overflow="fold")
    for one in found:
        measured = size(one["size"]) if one["size"] else ""
        where = one["here"] or "[dim]no[/]"
        name = "\n  ".join(one["source"].split("/", 2)).replace("\n  ", "/", 1)  # a file below its repository
        table.add_row(escape(name), escape(one["for"]), one["licence"], where, measured, one["digests"])
    Console().print(table)


def fetch_weights(
    weights: Annotated[list[str], typer.Argument(help="ORG/NAME of the hub, or a file of it; `list` shows them.")],
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch. Default: main.")] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Also the repository's Python code, for trustRemoteCode.")
    ] = False,
    folder: Folder = None,
    as_json: AsJson = False,
) -> None:
    """Download weights into the folder of weights.

    What was interrupted goes on where it stopped. A file with a wrong SHA-256 is refused; where nobody states one, it
    is recorded and must be the same from then on. The folder can be copied to a machine without a network.
    """
    from thinkimg.tools.weights import store
    from thinkimg.tools.weights.repository import read_repository

    wanted = [read_repository(one, revision, "WEIGHTS") for one in weights]
    done = []
    for repository in wanted:
        fetched = _fetched(repository, folder or store.folder(), code)
        done.append({"source": str(repository), **asdict(fetched), "folder": str(fetched.folder)})
        if not as_json:
            _say(repository, fetched)
    if as_json:
        print_json(done)


def verify_weights(folder: Folder = None, as_json: AsJson = False) -> None:
    """Read every file that was fetched and compare it with its recorded SHA-256."""
    from thinkimg.tools.weights import store
    from thinkimg.tools.weights.fetch import verify

    root = folder or store.folder()
    found = {f"{place.relative_to(root)}": verify(place, record) for place, record in store.records(root)}
    wrong = [f"{name}/{path} {fault}" for name, files in found.items() for path, fault in files.items() if fault]
    if as_json:
        print_json(found)
    else:
        for name, files in found.items():
            print(f"{name}: {sum(not fault for fault in files.values())} of {len(files)} files are whole")
        if not found:
            print(f"nothing was fetched into {root}")
    if wrong:
        listed = "\n".join(wrong)
        raise UserError(
            f"not as they were fetched; bring them again with `thinkimg weights fetch`:\n{listed}", str(root)
        )


def export_weights(
    weights: Annotated[str, typer.Argument(help="ORG/NAME of the hub, fetched before, or a folder: a first SAM.")],
    folder: Annotated[Path, typer.Argument(help="To write to; not there yet, or empty.")],
    revision: Annotated[str | None, typer.Option(help="Commit, tag or branch. Default: main.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a model of SAM as files of ONNX, for the backend onnx, which runs without torch.

    Models of transformers' SamModel, such as facebook/sam-vit-base. What was written is compared with what torch
    computes; a difference above a thousandth is refused.
    """
    from thinkimg.tools.backends.neural.onnx_export import export_sam

    record = export_sam(weights, revision, folder)
    if as_json:
        print_json({"folder": str(folder), **record.model_dump()})
        return
    print(
        f"{weights}: exported to {folder}; it differs from torch by at most {record.differs:.1e} of the largest value"
    )


def _listed(folder: Path | None) -> list[dict[str, Any]]:
    from thinkimg.tools.weights import store
    from thinkimg.tools.weights.catalogue import CATALOGUE
    from thinkimg.tools.weights.hub import page_of
    from thinkimg.tools.weights.repository import read_repository

    root = folder or store.folder()
    fetched = {f"{record.source}@{record.revision}": (place, record) for place, record in store.records(root)}
    rows: list[dict[str, Any]] = []
    known: set[str] = set()
    for entry in CATALOGUE:
        repository = read_repository(entry.source)
        found = store.find(repository, root)
        _, record = fetched.get(f"{repository.name}@{repository.revision}", (None, None))
        files = {path: one for path, one in record.files.items() if path.startswith(repository.file)} if record else {}
        known.add(f"{repository.name}@{repository.revision}")
        size = sum(one.size for one in files.values()) or sum(one.size for one in entry.files.values())
        rows.append(
            {
                "source": entry.source,
                "for": f"{entry.tool} ({entry.backend})",
                "address": page_of(repository),
                "licence": entry.licence or _unknown(page_of(repository)),
                "licence_from": entry.licence_from,
                "here": found[1] if found else "",
                "path": str(found[0]) if found else "",
                "size": size,
                "digests": _digests(files) if files else "stated" if entry.files else "recorded when fetched",
            }
        )
    for name, (place, record) in fetched.items():
        if name not in known:
            page = page_of(read_repository(record.source))
            rows.append(
                {
                    "source": name,
                    "for": "",
                    "address": page,
                    "licence": _unknown(page),
                    "licence_from": "",
                    "here": "folder",
                    "path": str(place),
                    "size": sum(one.size for one in record.files.values()),
                    "digests": _digests(record.files),
                }
            )
    return rows


def _unknown(page: str) -> str:
    return f"not known here: read {page}"


def _digests(files: Any) -> str:
    """Who states the digests of the files that are here."""
    return ", ".join(sorted({one.said_by for one in files.values()}))


def _fetched(repository: "Repository", root: Path, code: bool) -> "Fetched":
    from thinkimg.tools.weights.fetch import fetch

    with _progress() as progress:
        return fetch(repository, root, code, progress)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar for each file, on standard error."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=notes) as bars:

        def of_file(path: str) -> Any:
            task = bars.add_task(escape(path), total=None)
            return lambda done, whole: bars.update(task, completed=done, total=whole)

        yield of_file


def _say(repository: "Repository", fetched: "Fetched") -> None:
    parts = [f"{len(fetched.brought)} files fetched", f"{len(fetched.kept)} were here"]
    print(f"{repository} at {fetched.commit[:12]}: {', '.join(parts)}; in {fetched.folder}")
    if fetched.recorded:
        print(f"nobody states a SHA-256 of {', '.join(fetched.recorded)}: recorded what came")


WEIGHTS = (
    Command("list", list_weights, TOOLS, ("thinkimg weights list", "thinkimg weights list --json")),
    Command(
        "fetch", fetch_weights, TOOLS,
        (
            "thinkimg weights fetch facebook/sam2.1-hiera-small",
            "thinkimg weights fetch IDEA-Research/grounding-dino-tiny --folder /media/usb/weights",
        ),
    ),
    Command(
        "export", export_weights, TOOLS, ("thinkimg weights export facebook/sam-vit-base exported/sam",),
        extras=("transformers",), needs=("torch", "transformers", "onnxruntime"),
    ),
    Command("verify", verify_weights, TOOLS, ("thinkimg weights verify --folder /media/usb/weights",)),
)  # fmt: skip
