"""The limits, as `custom.mlhub.quotas` states them."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mlhub.admission.sizes import quantity


def _memory(given: str) -> str:
    quantity(given)
    return given


Memory = Annotated[str, AfterValidator(_memory)]
"""A Kubernetes quantity of bytes, e.g. `64Gi`."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Section):
    """What somebody may hold at once, all servers and runs together; None is no limit."""

    servers: int | None = Field(default=None, ge=0)
    cpu: float | None = Field(default=None, ge=0)
    memory: Memory | None = None
    gpu: int | None = Field(default=None, ge=0)
    gpu_hours: float | None = Field(
        default=None, ge=0, description="GPUs times hours, from Monday 00:00 UTC"
    )

    def amounts(self) -> dict[str, float]:
        """The limits that are set, by dimension, in cores, bytes and whole numbers."""
        given = self.model_dump(exclude_none=True, exclude={"gpu_hours", "memory"})
        if self.memory is not None:
            given["memory"] = quantity(self.memory)
        return given


class ServerLimits(Section):
    """The most that one server or one run may take."""

    cpu: float | None = Field(default=None, gt=0)
    memory: Memory | None = None
    gpu: int | None = Field(default=None, ge=0)

    def amounts(self) -> dict[str, float]:
        given = self.model_dump(exclude_none=True, exclude={"memory"})
        if self.memory is not None:
            given["memory"] = quantity(self.memory)
        return given


class Quotas(Section):
    """Whose limits are what. Groups are full Keycloak paths; workspaces all have the same."""

    server: ServerLimits = ServerLimits()
    user: Limits = Limits()
    groups: dict[str, Limits] = {}
    workspace: Limits | None = None
