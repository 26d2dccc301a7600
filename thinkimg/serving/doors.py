"""Who may come in: one rule for every server of ours, and what a page in somebody's browser may not do."""

import ipaddress
from collections.abc import Collection, Mapping

LOOPBACK = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address. A name other than `localhost` counts as public."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def open_door(host: str, guarded: bool, remedy: str) -> str | None:
    """Why a server must not listen at an address; None: it may.

    Args:
        guarded: calls need a key, or the user said that everybody may call.
        remedy: what the user can do, after "no keys are set: ".
    """
    if guarded or is_loopback(host):
        return None
    return f"{host} can be reached from other machines, and no keys are set: {remedy}"


def page_refusal(
    headers: Mapping[bytes, bytes], local_only: bool, origins: Collection[str] = ()
) -> tuple[str, str] | None:
    """Kind and words of the refusal, where a page in a browser may have sent the request; None: it may pass.

    A page must not use what only that browser can reach. Its requests name its origin, or, after its name was pointed
    at this machine, a host that is not ours.

    Args:
        headers: names in lower case.
        local_only: the server serves this machine only.
        origins: whose pages may call.
    """
    host, origin = headers.get(b"host", b"").decode("latin-1"), headers.get(b"origin", b"").decode("latin-1")
    if local_only and not is_loopback(_host_name(host)):
        return "wrong_host", f"this server serves its own machine only, not {host[:100]!r}"
    if origin and origin not in (f"http://{host}", f"https://{host}", *origins):
        return "wrong_origin", f"pages of {origin[:100]!r} may not call"
    return None


def _host_name(header: str) -> str:
    """Without the port."""
    if header.startswith("["):
        return header.partition("]")[0].removeprefix("[")
    return header.rpartition(":")[0] if ":" in header else header
