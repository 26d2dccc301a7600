"""Real servers on free ports."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from thinkimg.serving import ServerConfig, ServerSpec, Supervisor

ENVIRONMENT = {"PYTHONPATH": str(REPOSITORY)}
SAMPLE_TOOLS = "tests.support.serving.sample_tools"
Start = Callable[..., Supervisor]


def spec(name: str, *tools: str, env: Mapping[str, str] | None = None, **settings: object) -> ServerSpec:
    """A server of sample tools by attribute, of built-in ones by name."""
    entries = [{"entry_point": f"{SAMPLE_TOOLS}:{tool}"} if tool.islower() else {"name": tool} for tool in tools]
    return ServerSpec(name, ServerConfig.model_validate({"tools": entries, **settings}), {**ENVIRONMENT, **(env or {})})


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a supervisor with these specs; all are stopped at the end."""
    with ExitStack() as stack:
        yield lambda *specs: stack.enter_context(Supervisor(specs, tmp_path / "servers", ready_seconds=300))


@pytest.fixture(scope="session")
def sample_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One server of most sample tools, shared by the tests that do not change it."""
    tools = spec("sample", "echo", "count", "sleep", "size", "fail", "Crop", workers=8)
    with Supervisor([tools], tmp_path_factory.mktemp("sample"), ready_seconds=300) as supervisor:
        yield supervisor.endpoints[0]
