"""What goes wrong between a person and their hub, as sentences that say what to do.

`sentence` is for people; a refusal also has the service's word for it (`type`) and the HTTP status.
"""
# ruff: noqa: N818 -- a refusal is named for what it is

from typing import Self


def missing(error: ImportError) -> str:
    """The sentence for a library that pip does not bring with the package alone."""
    return (
        f"This needs {error.name}, which the package does not bring to a laptop by itself. In a "
        "checkout of mlhub: pip install 'images/packages/notebooks[mlflow]'"
    )


class NotebooksError(Exception):
    """Whatever the package's own functions raise; `str()` of it is the sentence."""

    type = "failed"

    after: float = 0
    """Seconds until it is worth asking again, as far as that was said (`Retry-After`)."""

    def __init__(self, sentence: str):
        super().__init__(sentence)
        self.sentence = sentence
        self.about: dict[str, object] = {}

    def within(self, what: str, **about: object) -> Self:
        """The same error, with what it came in between; `about` is told to programs."""
        self.sentence = f"{what}: {self.sentence}"
        self.args = (self.sentence,)
        self.about |= about
        return self

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows instead of a traceback (IPython, `showtraceback`)."""
        return [self.sentence]

    def plain(self) -> dict[str, object]:
        """For JSON."""
        return {"type": self.type, "sentence": self.sentence, **self.about}


class NotLoggedIn(NotebooksError):
    """There is no connection to any hub: neither in a server of it, nor logged in."""

    type = "login"


class Unreachable(NotebooksError):
    """The hub, or a service of it, does not answer."""

    type = "unreachable"


class Refused(NotebooksError):
    """The hub, or a service of it, says no. `type` is its word for programs, e.g. `quota`."""

    def __init__(self, status: int, type: str, sentence: str, after: float = 0):
        super().__init__(sentence)
        self.status = status
        self.type = type
        self.after = after

    def plain(self) -> dict[str, object]:
        return {**super().plain(), "status": self.status}
