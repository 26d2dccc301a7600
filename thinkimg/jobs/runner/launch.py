"""The processes of one pod: `thinkimg stage` starts itself again under torchrun when PET_* variables say so.

torchrun itself ends with 1 whatever its workers ended with. Whether a failure is the user's, the infrastructure's or an
interruption decides about restarts, so the workers' code is passed on.
"""

import os
from collections.abc import Iterable, Mapping, Sequence

from thinkimg.api.pod_contract import ExitCode, Variable
from thinkimg.jobs.cores import available_cores


def wants_torchrun(environment: Mapping[str, str]) -> bool:
    """Whether this process is to start the ranks of its node: it is told how many, and is none itself."""
    return Variable.PROCESSES in environment and "RANK" not in environment


def launch(arguments: Sequence[str]) -> int:
    """Run `thinkimg` with `arguments` once per rank of this node. Returns the exit code.

    Nodes, processes, this node's rank and the master are read from PET_* (torchrun's own names). After SIGTERM the
    ranks get theirs, and time to save.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // _processes())))
    try:
        options = parse_args(["--max-restarts", "0", "--module", "thinkimg.cli"])
        options.training_script_args = list(arguments)  # its parser would take some of them for its own
        run(options)
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return exit_code(first.exitcode, (failure.exitcode for failure in error.failures.values()))
    except SignalException:
        return ExitCode.INTERRUPTED
    return 0


def _processes() -> int:
    given = os.environ.get(Variable.PROCESSES, "1")
    return int(given) if given.isdigit() else 1


def exit_code(first: int, all_codes: Iterable[int]) -> int:
    """The code for a node whose ranks failed: the user's error if any says so, otherwise the first failure's; a
    process that a signal ended has 128 and the signal's number."""
    if ExitCode.USER in all_codes:
        return ExitCode.USER
    return first if first > 0 else 128 - first
