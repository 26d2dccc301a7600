"""What a gateway tells Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class GatewayMetrics:
    """One registry per app, so that several apps live in one process (tests, mostly). No key is named: what a key does
    stands in the log."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "thinkimg_gateway_requests", "Requests answered.", ["face", "status"], registry=self.registry
        )
        self.refused = Counter(
            "thinkimg_gateway_refused", "Requests refused before any work.", ["reason"], registry=self.registry
        )
        self.seconds = Histogram(
            "thinkimg_gateway_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ["face"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.calls = Counter(
            "thinkimg_gateway_tool_calls", "Tool calls, by how they ended.", ["face", "tool", "outcome"],
            registry=self.registry,
        )  # fmt: skip
        self.tokens = Counter(
            "thinkimg_gateway_tokens", "Tokens of chat completions.", ["model", "kind"], registry=self.registry
        )
        self.in_flight = Gauge("thinkimg_gateway_requests_in_flight", "Requests under way.", registry=self.registry)
        self.ready = Gauge("thinkimg_gateway_ready", "1 when the tools are known.", registry=self.registry)
        self.held_bytes = Gauge("thinkimg_gateway_held_bytes", "Bytes of pictures held.", registry=self.registry)

    def render(self) -> bytes:
        return generate_latest(self.registry)
