"""A start that is refused or cannot succeed, and says why."""

from jupyterhub.spawner import SpawnException  # type: ignore[import-untyped]


class Refusal(SpawnException):  # type: ignore[misc]
    """Not the hub's fault, so not counted among its failures; its sentence reaches the person.

    The pages that wait for a start show the one attribute, the REST API shows the message.
    """

    def __init__(self, sentence: str, *, reason: str, status: int):
        super().__init__(sentence, reason=reason, status_code=status)
        self.jupyterhub_message = sentence
