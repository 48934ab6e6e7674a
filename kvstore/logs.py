"""How a node speaks of itself: one line per transition, key=value, or the same as JSON.

May know the standard logging module and nothing of the system. Messages are written as key=value pairs where
they are logged; the JSON form takes them apart again, so that each place that logs is written once.
"""

from __future__ import annotations

import json
import logging
import re
import time

_PAIR = re.compile(r"(\w+)=(\"[^\"]*\"|\S+)")


class KeyValueFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO n1 replication role=leader term=3`; times are UTC."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        name = record.name.removeprefix("assent.")
        line = f"{_timestamp(record)} {record.levelname} {self._node} {name} {record.getMessage()}"
        if record.exc_info:
            line = f"{line}\n{self.formatException(record.exc_info)}"
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with the pairs of the message as fields of their own."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        fields: dict[str, str] = {key: value.strip('"') for key, value in _PAIR.findall(message)}
        fields.update(
            time=_timestamp(record),
            level=record.levelname,
            node=self._node,
            logger=record.name.removeprefix("assent."),
            message=message,
        )
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, sort_keys=True)


def configure(node: str, level: str, format_name: str) -> None:
    """Send all log lines of this process to standard error; `format_name` is text or json."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(node) if format_name == "json" else KeyValueFormatter(node))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _timestamp(record: logging.LogRecord) -> str:
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{seconds}.{int(record.msecs):03d}Z"
