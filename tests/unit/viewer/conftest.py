import pytest

from tests.support.viewer.fabricated_run import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run, not to be changed."""
    return write_run(tmp_path_factory.mktemp("viewer") / "run")
