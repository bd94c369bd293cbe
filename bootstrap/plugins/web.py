"""What the plug-ins that speak HTTP share: whom to trust, and why something did not answer."""

import os
from typing import Any


def trust(verify: bool) -> bool | str:
    """What requests is to verify with: the bundle that Go programs take, where one is set."""
    return verify and (os.environ.get("SSL_CERT_FILE") or True)


def root_cause(error: BaseException) -> str:
    """The innermost reason, without what requests and urllib3 wrap around it."""
    reason: Any = error
    while getattr(reason, "args", None):
        inner = getattr(reason, "reason", None) or reason.args[0]
        if not isinstance(inner, BaseException):
            break
        reason = inner
    while reason.__cause__ or reason.__context__:
        reason = reason.__cause__ or reason.__context__
    text = getattr(reason, "strerror", None) or str(reason).rsplit(": ", 1)[-1]
    return text or type(reason).__name__
