"""What the shell offers when Tab is pressed. Cheap, and silent about what cannot be read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import typer


def tools(incomplete: str) -> list[str]:
    """Names of the tools that are installed."""
    from thinkimg.tools.registry import installed_tools

    return _beginning(incomplete, installed_tools())


def tasks(incomplete: str) -> list[str]:
    """Names of the built-in benchmarks."""
    from thinkimg.evaluation.tasks import TASKS

    return _beginning(incomplete, TASKS)


def scorers(incomplete: str) -> list[str]:
    """Names of the rules, of the judges, and of a benchmark's two."""
    from thinkimg.evaluation.scorers import JUDGES, RULES
    from thinkimg.results import ROLES

    return _beginning(incomplete, [*ROLES, *RULES, *JUDGES])


def formats(incomplete: str) -> list[str]:
    """Names of the syntaxes of calls."""
    from thinkimg.agent.formats import FORMATS

    return _beginning(incomplete, FORMATS)


def prompts(incomplete: str) -> list[str]:
    """How much a prompt says of each tool."""
    return _beginning(incomplete, ("full", "compact"))


def stages(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the stages of the manifest that stands before."""
    from thinkimg.api import ManifestError, load_manifest

    try:
        jobs = load_manifest(Path(context.params["manifest"])).jobs
    except (KeyError, TypeError, OSError, ManifestError):
        return []
    return _beginning(incomplete, ["base", *(stage.name for job in jobs for stage in job.spec.stages)])


def models(incomplete: str) -> list[str]:
    """Trained stages of runs, as RUN/STAGE: of `runs/`, and below what is typed."""
    folders = {Path("runs"), Path(incomplete).parent, Path(incomplete).parent.parent}
    return _beginning(incomplete, sorted({name for folder in folders for name in _trained(folder)}))


def keys(context: typer.Context, incomplete: str) -> list[str]:
    """Names of the keys in the file that stands before."""
    from thinkimg.errors import UserError
    from thinkimg.gateway.keys import read_keys

    try:
        return _beginning(incomplete, [key.name for key in read_keys(Path(context.params["file"]))])
    except (KeyError, TypeError, OSError, UserError):
        return []


def _trained(folder: Path) -> Iterator[str]:
    for depth in ("stages", "*/stages"):
        for config in folder.glob(f"{depth}/*/model/config.json"):
            stage = config.parent.parent
            yield str(stage.parent.parent / stage.name)


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
