"""What the kubelet says about a container that it could not start."""

import re

_PASSES = re.compile(
    r"failed to sync \w+ cache"  # just after the node's start, before it has read Secrets again
    r"|context deadline exceeded"  # the container runtime is busy
    r"|failed to reserve container name"  # and goes on with what it was asked for before
)


def tries_again(message: str) -> bool:
    """Whether the cause that the kubelet names passes by itself: it tries again in a moment."""
    return bool(_PASSES.search(message))
