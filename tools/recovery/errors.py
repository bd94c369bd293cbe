"""The one error that a person reads."""


class RecoveryError(Exception):
    """What was found, what was expected and what to do next, in one sentence each."""
