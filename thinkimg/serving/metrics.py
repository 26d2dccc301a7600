"""What a tool server tells Prometheus. Every name is documented in docs/reference/metrics.md; a test compares."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from thinkimg.api.server_contract import IN_FLIGHT_METRIC

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BATCH_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128)


class ServerMetrics:
    """One registry per app, so that several apps live in one process (tests, mostly)."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.calls = Counter("thinkimg_tool_calls", "Calls that were answered.", ["tool"], registry=registry)
        self.errors = Counter(
            "thinkimg_tool_errors", "Calls answered with a problem.", ["tool", "family", "kind"], registry=registry
        )
        self.abandoned = Counter(
            "thinkimg_tool_calls_abandoned",
            "Calls that ended before their answer: the client left, or the deadline passed.",
            ["tool", "reason"],
            registry=registry,
        )
        self.in_flight = Gauge(IN_FLIGHT_METRIC, "Calls that run or wait for a thread or a batch.", registry=registry)
        self.queue_length = Gauge(
            "thinkimg_tool_queue_length", "Calls that wait for a thread or a batch.", registry=registry
        )
        self.seconds = Histogram(
            "thinkimg_tool_call_seconds",
            "Seconds from the request's arrival to its answer.",
            ["tool"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_seconds = Histogram(
            "thinkimg_tool_queue_seconds",
            "Seconds that a call waited for a thread or a batch.",
            ["tool"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "thinkimg_tool_batch_size",
            "Calls that were computed together, of tools that compute in batches.",
            ["tool"],
            buckets=_BATCH_SIZES,
            registry=registry,
        )
        self.ready = Gauge("thinkimg_tool_server_ready", "1 when the tools are loaded.", registry=registry)
        self.store_bytes = Gauge("thinkimg_tool_image_store_bytes", "Bytes of pictures held.", registry=registry)
        self.body_bytes = Gauge("thinkimg_tool_body_bytes", "Bytes of requests being read or run.", registry=registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)
