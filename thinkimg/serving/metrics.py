"""What a tool server tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ServerMetrics:
    """One registry per app, so that several apps live in one process (tests, mostly)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.calls = Counter("thinkimg_tool_calls", "Calls that were answered.", ["tool"], registry=self.registry)
        self.errors = Counter(
            "thinkimg_tool_errors", "Calls answered with a problem.", ["tool", "family", "kind"], registry=self.registry
        )
        self.in_flight = Gauge(
            "thinkimg_tool_calls_in_flight", "Calls that run or wait for a thread.", registry=self.registry
        )
        self.seconds = Histogram(
            "thinkimg_tool_call_seconds",
            "Seconds from the request's body to its answer.",
            ["tool"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.ready = Gauge("thinkimg_tool_server_ready", "1 when the tools are loaded.", registry=self.registry)
        self.store_bytes = Gauge("thinkimg_tool_image_store_bytes", "Bytes of pictures held.", registry=self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)
