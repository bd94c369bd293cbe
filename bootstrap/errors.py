"""The one error that a person reads."""


class BootstrapError(Exception):
    """What was found, what was expected and what to do next, in one sentence each."""
