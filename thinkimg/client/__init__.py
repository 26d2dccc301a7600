"""Calling tools over HTTP: the wire format, and the client that balances, retries, caches and counts."""

from thinkimg.client.cache import ResultCache
from thinkimg.client.stats import merge_stats
from thinkimg.client.tool_client import PATIENCE, CallOutcome, ToolClient

__all__ = ["PATIENCE", "CallOutcome", "ResultCache", "ToolClient", "merge_stats"]
