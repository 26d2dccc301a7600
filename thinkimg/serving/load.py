"""How much work a fleet's servers have, read from their metrics."""

import contextlib
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import httpx
from prometheus_client.parser import text_string_to_metric_families

from thinkimg.api.server_contract import IN_FLIGHT_METRIC, HttpPath
from thinkimg.serving.supervisor import ServerSpec, ServerStatus, Supervisor

_READ_SECONDS = 2.0
_READ_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True)
class Load:
    """What a server's metrics say of its work."""

    calls: int = 0
    errors: int = 0
    in_flight: int = 0


class Readings:
    """Reads every ready server's metrics again and again, in a thread of its own: a server that hangs must not stop the
    table."""

    def __init__(self, specs: Sequence[ServerSpec], supervisor: Supervisor) -> None:
        self.loads: dict[str, Load] = {}
        self._keys = {spec.name: spec.api_key for spec in specs}
        self._supervisor = supervisor
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name="readings", daemon=True)

    def __enter__(self) -> "Readings":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()

    def _read_all(self) -> None:
        with httpx.Client(trust_env=False, timeout=_READ_TIMEOUT_SECONDS) as http:
            while not self._ending.wait(_READ_SECONDS):
                for status in self._supervisor.statuses():
                    if status.state == "ready":
                        with contextlib.suppress(httpx.HTTPError, ValueError):
                            self.loads[status.name] = self._read(http, status)

    def _read(self, http: httpx.Client, status: ServerStatus) -> Load:
        secret = self._keys[status.name]
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        return load_of(http.get(f"{status.url}{HttpPath.METRICS}", headers=headers).raise_for_status().text)


def load_of(metrics: str) -> Load:
    """Sums over the tools of one server, or of a gateway, from the text of its `/metrics`."""
    totals: Counter[str] = Counter()
    failed = 0
    for family in text_string_to_metric_families(metrics):
        for sample in family.samples:
            totals[sample.name] += int(sample.value)
            if sample.name == "thinkimg_gateway_tool_calls_total" and sample.labels["outcome"] != "ok":
                failed += int(sample.value)
    return Load(
        totals["thinkimg_tool_calls_total"] + totals["thinkimg_gateway_tool_calls_total"],
        totals["thinkimg_tool_errors_total"] + failed,
        totals[IN_FLIGHT_METRIC] + totals["thinkimg_gateway_requests_in_flight"],
    )
