"""What goes wrong between a person and their hub, as sentences that say what to do.

`sentence` is for people; a refusal also has the service's word for it (`type`) and the HTTP status.
"""
# ruff: noqa: N818 -- a refusal is named for what it is


class NotebooksError(Exception):
    """Whatever the package's own functions raise; `str()` of it is the sentence."""

    type = "failed"

    def __init__(self, sentence: str):
        super().__init__(sentence)
        self.sentence = sentence

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback (IPython, `showtraceback`)."""
        return [self.sentence]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {"type": self.type, "sentence": self.sentence}


class NotLoggedIn(NotebooksError):
    """There is no connection to any hub: neither in a server of it, nor logged in."""

    type = "login"


class Unreachable(NotebooksError):
    """The hub, or a service of it, does not answer."""

    type = "unreachable"


class Refused(NotebooksError):
    """The hub, or a service of it, says no. `type` is its word for programs, e.g. `quota`."""

    def __init__(self, status: int, type: str, sentence: str):
        super().__init__(sentence)
        self.status = status
        self.type = type

    def plain(self) -> dict[str, object]:
        return {**super().plain(), "status": self.status}
