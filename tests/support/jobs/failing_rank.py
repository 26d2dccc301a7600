"""Two processes that work together, and the second one fails; each writes down what it was told."""

import sys
from pathlib import Path

from thinkimg.errors import InfrastructureError, describe
from thinkimg.jobs.layout import Run
from thinkimg.jobs.stages.context import Context
from thinkimg.jobs.stages.stage import join_ranks
from thinkimg.jobs.stages.together import together


def main(folder: Path) -> None:
    with join_ranks() as (rank, world_size):
        context = Context(None, Run(folder), rank=rank, world_size=world_size)  # type: ignore[arg-type]

        def work() -> int:
            if rank == 1:
                raise InfrastructureError("the tools are gone")
            return rank

        assert together(context, lambda: rank * 10) == [0, 10]
        try:
            together(context, work)
        except InfrastructureError as error:
            (folder / f"rank-{rank}").write_text(describe(error))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
