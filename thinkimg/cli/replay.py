"""`thinkimg replay`: are the calls in files of trajectories what the tools answer today?"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thinkimg.cli.command import EVALUATE, Command
from thinkimg.cli.options import AsJson
from thinkimg.cli.screen import print_json, stdout_kept
from thinkimg.errors import UserError

if TYPE_CHECKING:
    from thinkimg.trajectory import Trajectory

DIFFERENT = 3
"""Exit code: the calls were run, and a result was another than the recorded one."""


def replay(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="JSON lines of trajectories.")],
    server: Annotated[list[str], typer.Option(help="A tool server or gateway; may be given several times.")],
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many trajectories of each file.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Trajectories under way at once.")] = 16,
    as_json: AsJson = False,
) -> None:
    """Run the tool calls of trajectories again and compare results.

    Exit code 3 if a text, data, an error or a picture is not the recorded one. The key of the servers is read from
    THINKIMG_TOOL_API_KEY.
    """
    read = [(file, _read(file, limit)) for file in files]
    with stdout_kept(as_json):
        found = asyncio.run(_replay_all(read, server, concurrency))
    if as_json:
        print_json(found)
    else:
        _show(found)
    if found["differences"]:
        raise typer.Exit(DIFFERENT)


def _read(file: Path, limit: int | None) -> "list[Trajectory]":
    from thinkimg.trajectory import read_trajectories

    try:
        return list(islice(read_trajectories(file), limit))
    except OSError as error:
        raise UserError(f"it cannot be read: {error.strerror or error}", str(file)) from error
    except ValueError as error:
        raise UserError(str(error)) from error


async def _replay_all(
    read: "Sequence[tuple[Path, Sequence[Trajectory]]]", servers: Sequence[str], concurrency: int
) -> dict[str, Any]:
    from thinkimg.agent.replay import Replayed
    from thinkimg.agent.replay import replay as run_again
    from thinkimg.client import ToolClient
    from thinkimg.client.discovery import keyed

    free = asyncio.Semaphore(concurrency)

    async with ToolClient(servers, keyed(servers)) as client:

        async def one(trajectory: "Trajectory") -> Replayed:
            async with free:
                return await run_again(trajectory, client)

        of = [(file, trajectory) for file, trajectories in read for trajectory in trajectories]
        results = await asyncio.gather(*(one(trajectory) for _, trajectory in of))
    return {
        "trajectories": len(of),
        "calls": sum(result.calls for result in results),
        "differences": [
            {"file": str(file), "trajectory": trajectory.id, **asdict(difference)}
            for (file, trajectory), result in zip(of, results, strict=True)
            for difference in result.differences
        ],
    }


def _show(found: dict[str, Any]) -> None:
    for one in found["differences"]:
        print(f"{one['file']}, {one['trajectory']}, turn {one['turn']}, {one['tool']}: {one['what']}")
    different = len(found["differences"])
    verdict = f"{different} came back differently" if different else "all came back as they are recorded"
    print(f"{found['calls']} calls of {found['trajectories']} trajectories: {verdict}")


COMMANDS = (
    Command(
        "replay", replay, EVALUATE,
        (
            "thinkimg replay runs/demo/stages/eval/trajectories.jsonl --server http://127.0.0.1:8801",
            "thinkimg replay cold-start/attempts.jsonl --server http://127.0.0.1:8801 --limit 50 --json",
        ),
    ),
)  # fmt: skip
