from collections.abc import Iterator

import pytest

from tests.support.gateway.gateways import Gateway, run_gateway
from tests.support.serving.sample_servers import spec, start
from thinkimg.gateway.keys import add_key
from thinkimg.serving import Supervisor

__all__ = ["start"]


@pytest.fixture(scope="session")
def tool_urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two servers: drawing tools on both, the rest on the first."""
    drawing = ("Crop", "DrawHorizontalLineByY", "DrawVerticalLineByX")
    first = spec("first", "echo", "sleep", "fail", "size", *drawing, workers=8)
    second = spec("second", *drawing, workers=8)
    with Supervisor([first, second], tmp_path_factory.mktemp("servers"), ready_seconds=240) as supervisor:
        yield supervisor.endpoints


@pytest.fixture(scope="session")
def keyed(tmp_path_factory: pytest.TempPathFactory, tool_urls: list[str]) -> Iterator[tuple[Gateway, str]]:
    """A gateway with keys, and a key that may read its metrics."""
    folder = tmp_path_factory.mktemp("keyed")
    key = add_key(folder / "keys.json", "alice", metrics=True)
    servers = [{"url": url} for url in tool_urls]
    with run_gateway(folder, servers=servers, keys_file="keys.json") as gateway:
        yield gateway, key


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"
