"""What the operator tells Prometheus: controller-runtime's and client-go's names, so that known dashboards fit."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_QUEUE_BUCKETS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60)


class Metrics:
    """All metrics of one operator process, in a registry of their own so that tests can have several."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        by_controller = ["controller"]
        self.reconcile = Counter(
            "controller_runtime_reconcile",
            "Reconciliations by result: success, requeue_after, error.",
            ["controller", "result"],
            registry=registry,
        )
        self.reconcile_errors = Counter(
            "controller_runtime_reconcile_errors", "Reconciliations that failed.", by_controller, registry=registry
        )
        self.reconcile_seconds = Histogram(
            "controller_runtime_reconcile_time_seconds",
            "Seconds of one reconciliation.",
            by_controller,
            buckets=_RECONCILE_BUCKETS,
            registry=registry,
        )
        self.active_workers = Gauge(
            "controller_runtime_active_workers", "Workers that are reconciling.", by_controller, registry=registry
        )
        self.max_workers = Gauge(
            "controller_runtime_max_concurrent_reconciles", "Workers there are.", by_controller, registry=registry
        )
        self.queue_depth = Gauge("workqueue_depth", "Keys that wait.", ["name"], registry=registry)
        self.queue_adds = Counter("workqueue_adds", "Keys added.", ["name"], registry=registry)
        self.queue_retries = Counter(
            "workqueue_retries", "Keys added again after a failure.", ["name"], registry=registry
        )
        self.queue_seconds = Histogram(
            "workqueue_queue_duration_seconds",
            "Seconds a key waited for a worker.",
            ["name"],
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.work_seconds = Histogram(
            "workqueue_work_duration_seconds",
            "Seconds a key was worked on.",
            ["name"],
            buckets=_QUEUE_BUCKETS,
            registry=registry,
        )
        self.unfinished_seconds = Gauge(
            "workqueue_unfinished_work_seconds", "Seconds spent on keys not yet done.", ["name"], registry=registry
        )
        self.longest_running_seconds = Gauge(
            "workqueue_longest_running_processor_seconds",
            "Seconds the oldest running worker has spent on its key.",
            ["name"],
            registry=registry,
        )
        self.requests = Counter(
            "rest_client_requests",
            "Requests to the API server, by method and status code (`timeout`, `refused` where there was no answer).",
            ["code", "method"],
            registry=registry,
        )
        self.leader = Gauge(
            "leader_election_master_status", "1 while this process holds the lease.", ["name"], registry=registry
        )
        self.resync_seconds = Gauge("thinkimg_resync_seconds", "Seconds the last resync took.", registry=registry)
        self.resyncs = Counter("thinkimg_resyncs", "Resyncs done.", registry=registry)
        self.watch_events = Counter(
            "thinkimg_watch_events", "Events that watches delivered.", ["kind"], registry=registry
        )

    def render(self) -> bytes:
        """The page in Prometheus' text format."""
        return generate_latest(self.registry)
