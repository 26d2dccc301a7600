"""One question to a trained model, about the user's own pictures, with live tools."""

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from thinkimg.agent.tools import NoTools
from thinkimg.api import load_manifest
from thinkimg.errors import UserError
from thinkimg.image import Image, ImageDecodeError
from thinkimg.jobs.export import find_model
from thinkimg.jobs.runner.run import job_of, servers_of
from thinkimg.jobs.stages.context import Context, call_seconds_of
from thinkimg.jobs.stages.stage import trained_with_tools
from thinkimg.serving import Supervisor
from thinkimg.tools.registry import own_tools
from thinkimg.trajectory import Task, Trajectory, write_trajectories


def ask_model(
    path: Path, images: Sequence[Path], question: str, out: Path | None, secrets: Path | None = None
) -> Trajectory:
    """Run the agent greedily; what it said, with the answer.

    Raises:
        UserError: no such model; a picture that cannot be read.
    """
    run, name = find_model(path)
    manifest = load_manifest(run.manifest, own_tools())
    job = job_of(manifest, run)
    task = Task("question", question, tuple(_read(image) for image in images))
    with tempfile.TemporaryDirectory() as logs:
        tools = trained_with_tools(job, name)
        with Supervisor(servers_of(manifest, job, secrets) if tools else [], Path(logs)) as servers:
            context = Context(
                job,
                run,
                endpoints=servers.endpoints,
                call_seconds=call_seconds_of(manifest, job),
                data_folder=manifest.folder,
            )
            trajectory = asyncio.run(_answer(context, name, task, tools))
    if out is not None:
        write_trajectories([trajectory], out)
    return trajectory


def _read(path: Path) -> Image:
    try:
        image = Image.from_file(path)
        image.pixels()  # broken data behind a good header is refused before anything starts
        return image
    except (OSError, ImageDecodeError) as error:
        raise UserError(str(error), f"--image {path}") from error


async def _answer(context: Context, name: str, task: Task, tools: bool) -> Trajectory:
    model = context.load(name).chat
    async with context.client() as client:
        return await context.agent(model, client if tools else NoTools()).run(task, temperature=0.0)
