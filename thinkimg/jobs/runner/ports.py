"""A free port on this machine."""

import socket


def free_port() -> int:
    """Free a moment ago: the caller must expect to lose the race, rarely."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
