"""The organization's limits, one set for each stack: `policies/limits.yaml`.

They are the pack's own, so that who changes a stack file cannot loosen them in the same breath, and
a stack that the file does not know is refused whole.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from mlhub_policies.quantities import kubernetes

FILE = Path(__file__).resolve().parents[1] / "limits.yaml"
SHOWN = "policies/limits.yaml"

Amount = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(Mi|Gi|Ti)$")]
"""Bytes such as `64Gi`."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Server(Section):
    """The largest that one server may be."""

    cpu: int = Field(gt=0, description="a whole number of cores")
    memory: Amount = Field(description="an amount such as 64Gi")
    gpu: int = Field(ge=0, description="a whole number of GPUs")


class Namespace(Section):
    """The most that a ResourceQuota may grant to one namespace."""

    cpu: int = Field(gt=0, description="a whole number of cores")
    memory: Amount = Field(description="an amount such as 256Gi")
    gpu: int = Field(ge=0, description="a whole number of GPUs")
    storage: Amount = Field(description="an amount such as 2Ti")
    pods: int = Field(gt=0, description="a whole number of pods")


class Chart(Section):
    """A chart that the hub's Release may install: a folder, or a name in a repository."""

    chart: str = Field(min_length=1, description="a chart's name or folder")
    repository: str | None = Field(default=None, pattern="^https://", description="an https URL")
    version: str | None = Field(
        default=None,
        pattern=r"^[0-9]+(\.[0-9]+){1,2}$",
        description="a version or its beginning, such as 4.4",
    )


class StackLimits(Section):
    """What one stack must stay within."""

    at_least: str | None = Field(
        default=None, description="the stack than which this one may not be less safe"
    )
    server: Server
    user_servers: int = Field(gt=0, description="how many servers a person may run at once")
    namespace: Namespace
    registries: tuple[str, ...] = Field(
        min_length=1, description="a list of host[:port]/project that images may come from"
    )
    charts: tuple[Chart, ...] = Field(min_length=1, description="a list of charts")
    idle_timeout: int = Field(
        gt=0, description="a whole number of seconds after which an idle server must be stopped"
    )
    plain_http: bool = Field(description="whether browsers may come without TLS")
    demo_users: bool = Field(description="whether people may be made up")

    @model_validator(mode="after")
    def _a_server_fits(self) -> "StackLimits":
        beyond = [
            name
            for name in ("cpu", "memory", "gpu")
            if amount(getattr(self.server, name)) > amount(getattr(self.namespace, name))
        ]
        if beyond:
            raise ValueError(f"allows a server more {' and '.join(beyond)} than its namespace")
        return self


class Limits(Section):
    """The file, whole."""

    stacks: dict[str, StackLimits] = Field(min_length=1, description="limits by stack name")

    @model_validator(mode="after")
    def _order_of_safety(self) -> "Limits":
        wrong = [sentence for name in self.stacks for sentence in self._less_safe(name)]
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _less_safe(self, name: str) -> Iterator[str]:
        own = self.stacks[name]
        if own.at_least is None:
            return
        other = self.stacks.get(own.at_least)
        if other is None:
            yield f"stacks.{name}.at_least is {own.at_least}, which stacks lacks"
            return
        looser = {
            f"idle_timeout is {own.idle_timeout}, there {other.idle_timeout}": (
                own.idle_timeout > other.idle_timeout
            ),
            "plain_http is true, there false": own.plain_http and not other.plain_http,
            "demo_users is true, there false": own.demo_users and not other.demo_users,
            "charts names one that is not there": not set(own.charts) <= set(other.charts),
        }
        for what, less in looser.items():
            if less:
                yield (
                    f"stacks.{name} has to be at least as safe as {own.at_least}, and its {what}; "
                    f"tighten it, or loosen {own.at_least} first"
                )


class LimitsError(Exception):
    """The file is wrong, or does not know a stack."""


def amount(value: str | int) -> float:
    read = kubernetes(value)
    assert read is not None  # noqa: S101 - the model has checked the pattern
    return read


def load(file: Path = FILE) -> Limits:
    """The file, checked; a LimitsError says all that is wrong with it."""
    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8"))
        return Limits.model_validate_json(json.dumps(document))
    except (OSError, yaml.YAMLError) as error:
        raise LimitsError(f"{SHOWN} cannot be read: {error}") from error
    except ValidationError as error:
        sentences = [
            f"{SHOWN}: {'.'.join(str(part) for part in each['loc']) or 'the file'}: "
            f"{each['msg'].removeprefix('Value error, ')}"
            for each in error.errors()
        ]
        raise LimitsError("\n".join(sentences)) from error


def of_stack(limits: Limits, stack: str) -> StackLimits:
    """The limits of a stack; a LimitsError says what to do where there are none."""
    found = limits.stacks.get(stack)
    if found is None:
        known = ", ".join(limits.stacks)
        raise LimitsError(
            f"{SHOWN} knows no stack {stack}; it knows {known}. Add stacks.{stack} there, in a "
            "change of its own that the owners of the limits review"
        )
    return found
