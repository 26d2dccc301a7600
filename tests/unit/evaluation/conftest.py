import pytest


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run, not to be changed except for its reports."""
    from tests.support.viewer.fabricated_run import write_run

    return write_run(tmp_path_factory.mktemp("evaluation") / "run")
