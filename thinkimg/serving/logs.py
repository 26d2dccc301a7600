"""Logs of server processes: one JSON object a line."""

import json
import logging
import sys
from typing import Any

from thinkimg.errors import without_passwords


class JsonLines(logging.Formatter):
    """One JSON object a line; members given as `extra` are members of it."""

    _KNOWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname,
            "event": without_passwords(record.getMessage()),
        }
        line.update({name: value for name, value in record.__dict__.items() if name not in self._KNOWN})
        if record.exc_info:
            line["traceback"] = without_passwords(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def configure_logging() -> None:
    """Everything to standard error; uvicorn only from warnings on, Pillow not at all."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it says of a caller's broken picture is no error of ours
    logging.captureWarnings(True)
