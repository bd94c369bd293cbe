"""The log of every service: one line of JSON for each record, on standard error.

The audit trail is apart from it, on standard output (`mlhub.audit`).
"""

import json
import logging
import logging.config
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """`time`, `level`, `logger`, `message` and, where there is one, `exception`.

    Takes what any formatter takes, for JupyterHub hands over a format of its own.
    """

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure() -> None:
    """For a service that has no logging of its own."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # A line for each request to the hub, to Keycloak and to Kubernetes.
    logging.getLogger("httpx").setLevel(logging.WARNING)
