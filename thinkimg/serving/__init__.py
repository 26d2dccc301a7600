"""Tool servers: one process (`python -m thinkimg.serving`), and the supervisor of several."""

from thinkimg.serving.config import ServerConfig, ToolEntry
from thinkimg.serving.supervisor import ServerSpec, Supervisor

__all__ = ["ServerConfig", "ServerSpec", "Supervisor", "ToolEntry"]
