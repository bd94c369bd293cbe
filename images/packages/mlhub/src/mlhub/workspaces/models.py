"""What the API takes and answers."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from mlhub.workspaces.directory import LONGEST_ATTRIBUTE
from mlhub.workspaces.paths import LONGEST, confined
from mlhub.workspaces.settings import LARGEST_GIB


def _line(text: str) -> str:
    stripped = text.strip()
    if not stripped or not stripped.isprintable():
        raise ValueError("one line of printable characters is required")
    return stripped


def _text(text: str) -> str:
    if not text.replace("\n", " ").isprintable():
        raise ValueError("printable characters are required")
    return text.strip()


class Role(StrEnum):
    """In a workspace, the strongest first."""

    OWNER = "owner"
    EDITOR = "editor"
    VIEWER = "viewer"


Line = Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_line)]
Who = Annotated[
    str,
    Field(
        min_length=1, max_length=255, description="a user name or an e-mail address",
        examples=["alice"],
    ),
    AfterValidator(_line),
]  # fmt: skip


class Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class CreateRequest(Asked):
    name: Line = Field(description="what people read; the id is made of it", examples=["Churn"])
    description: Annotated[str, AfterValidator(_text)] = Field(
        default="", max_length=LONGEST_ATTRIBUTE
    )
    owner: Who | None = Field(default=None, description="without it: whoever asks")
    size_gib: int | None = Field(default=None, ge=1, le=LARGEST_GIB, description="of its volume")


class MemberRequest(Asked):
    user: Who
    role: Literal["owner", "editor", "viewer"] = Field(examples=["viewer"])


class ShareRequest(Asked):
    resource_type: Literal["notebook", "folder"] = Field(examples=["notebook"])
    resource_path: Annotated[str, AfterValidator(confined)] = Field(
        max_length=LONGEST,
        description="relative to the workspace's folder",
        examples=["reports/churn.ipynb"],
    )
    shared_by: Who | None = Field(default=None, description="without it: whoever asks")


class Workspace(BaseModel):
    id: str = Field(description="the slug: of its groups, its volume and its MLflow workspace")
    name: str
    description: str
    role: Role | None = Field(description="the caller's; null for an administrator without one")
    created_by: str = Field(description="empty for a workspace of the stack file")
    created: datetime | None
    size: str = Field(description="of its volume, such as 10Gi")
    deleted: datetime | None
    restorable_until: datetime | None


class Member(BaseModel):
    user: str
    email: str
    role: Role


class Resource(BaseModel):
    id: str
    resource_type: Literal["notebook", "folder"]
    resource_path: str
    shared_by: str
    shared: datetime


class Workspaces(BaseModel):
    workspaces: list[Workspace]


class Members(BaseModel):
    members: list[Member]


class Resources(BaseModel):
    resources: list[Resource]


class Service(BaseModel):
    service: str
    docs: str
    endpoints: list[str]


class Health(BaseModel):
    status: Literal["healthy", "degraded"]
    database: bool
    keycloak: bool
    kubernetes: bool
