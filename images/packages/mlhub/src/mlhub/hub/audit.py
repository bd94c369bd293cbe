"""The hub's audit trail, which is that of every service (`mlhub.audit`)."""

from mlhub.audit import LONGEST, configure, log, note

__all__ = ["LONGEST", "configure", "log", "note"]
