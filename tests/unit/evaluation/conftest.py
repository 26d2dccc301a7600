import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "viewer"))  # fabricated_run: one writer for three folders of tests


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run, not to be changed except for its reports."""
    from fabricated_run import write_run

    return write_run(tmp_path_factory.mktemp("evaluation") / "run")
