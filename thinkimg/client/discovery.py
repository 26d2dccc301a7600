"""Where the servers are: at fixed addresses, or at all addresses of a DNS name, which come and go with the pods."""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from thinkimg.api.server_contract import Variable
from thinkimg.errors import UserError

_DNS = "dns+"
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Host and port -> IP addresses; `OSError` when the name has none just now or nobody can be asked."""


async def resolve(host: str, port: int) -> list[str]:
    """By the system's resolver: /etc/hosts, search domains and the cluster's DNS included."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return sorted({str(address[0]) for *_, address in found})


def keyed(servers: Sequence[str]) -> dict[str, str]:
    """Servers that a user has named, each with the key of the environment, `THINKIMG_TOOL_API_KEY`; empty: none."""
    return dict.fromkeys(servers, os.environ.get(Variable.API_KEY, ""))


@dataclass(frozen=True)
class Endpoint:
    """One entry of a client's list.

    Attributes:
        text: `http://host:port` (or https) is one server; a gateway, or a Service that balances by itself, counts as
            one. `dns+http://name:port` is one server per address of the name, as a headless Service has them.
    """

    text: str

    @property
    def changes(self) -> bool:
        """Whether its servers have to be looked up again."""
        return self.text.startswith(_DNS)

    async def urls(self, resolve: Resolve) -> list[str]:
        """Addresses of its servers, without a trailing slash.

        Raises:
            OSError: the name cannot be resolved now.
            UserError: a `dns+` address that is not of that form.
        """
        if not self.changes:
            return [self.text]
        host, port = self._name()
        return [f"http://{_bracketed(address)}:{port}" for address in await resolve(host, port)]

    def _name(self) -> tuple[str, int]:
        try:
            parts = urlsplit(self.text.removeprefix(_DNS))
            if parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/"):
                return parts.hostname, parts.port
        except ValueError:  # a port that is no number
            pass
        raise UserError(f"{self.text!r} is not of the form dns+http://name:port", "endpoints")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
