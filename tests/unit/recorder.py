"""Runs the program against mocks that keep each raw registration.

Pulumi's own mocks hand over inputs alone: parent, protect, provider and secrecy are lost, and a
second resource of one URN replaces the first without a word.
"""

import asyncio
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import yaml
from google.protobuf import json_format
from pulumi.runtime import mocks

from components.config import SECRET_KEYS, StackFile
from components.platform import Platform
from components.stackfile import PREFIX, load

ROOT = Path(__file__).resolve().parents[2]

os.environ["PULUMI_ERROR_OUTPUT_STRING"] = "true"
"""An Output in an f-string raises, where otherwise a memory address would be deployed."""

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"
"""How a secret looks on the wire: an object whose SIGNATURE key is SECRET."""

LOOP = asyncio.new_event_loop()
"""Pulumi takes the thread's event loop, and keeps to it; pytest-asyncio closes those it finds."""

MADE_UP = "the-mock-made-this-secret"

GIVEN = "a-person-gave-this-secret"
"""What stands for the secrets that a stack asks a person for."""

STACKS = ["dev", "local", "prod", "staging"]
"""Those that mlhub brings. Further ones are held by test_config and tests/policies/test_stacks."""


@dataclass(frozen=True)
class Registration:
    """One RegisterResource request, as the engine would get it."""

    urn: str
    type: str
    name: str
    custom: bool
    parent: str
    provider: str
    protect: bool
    retain_on_delete: bool
    dependencies: frozenset[str]
    inputs: dict[str, Any]

    @property
    def plain(self) -> dict[str, Any]:
        """The inputs without the wrappers of secrets."""
        return unwrapped(self.inputs)


def is_secret(value: Any) -> bool:
    return isinstance(value, dict) and value.get(SIGNATURE) == SECRET


def unwrapped(value: Any) -> Any:
    if is_secret(value):
        return unwrapped(value["value"])
    if isinstance(value, dict):
        return {key: unwrapped(part) for key, part in value.items()}
    if isinstance(value, list):
        return [unwrapped(part) for part in value]
    return value


def readable(value: Any) -> Iterator[str]:
    """Every string that is not inside a secret, keys included."""
    if is_secret(value):
        return
    if isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from readable(part)
    elif isinstance(value, list):
        for part in value:
            yield from readable(part)
    elif isinstance(value, str):
        yield value


class Monitor(mocks.MockMonitor):
    """Keeps raw requests and refuses what the engine would refuse."""

    def __init__(self) -> None:
        super().__init__(_Outputs())
        self.registrations: list[Registration] = []
        self.outputs: dict[str, dict[str, Any]] = {}

    def RegisterResource(self, request: Any) -> Any:
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == "pulumi:pulumi:Stack":
            return super().RegisterResource(request)
        if any(known.urn == urn for known in self.registrations):
            raise AssertionError(f"two resources have the URN {urn}")
        self.registrations.append(
            Registration(
                urn=urn,
                type=request.type,
                name=request.name,
                custom=request.custom,
                parent=request.parent,
                provider=request.provider,
                protect=request.protect,
                retain_on_delete=request.retainOnDelete,
                dependencies=frozenset(request.dependencies),
                inputs=json_format.MessageToDict(request.object),
            )
        )
        response = super().RegisterResource(request)
        for name in request.additionalSecretOutputs:
            if name in response.object.fields:
                value = response.object.fields[name].string_value
                wrapper = response.object.fields[name].struct_value
                wrapper.update({SIGNATURE: SECRET, "value": value})
        return response

    def RegisterResourceOutputs(self, request: Any) -> Any:
        self.outputs[request.urn] = json_format.MessageToDict(request.outputs)
        return super().RegisterResourceOutputs(request)

    def of_type(self, token: str) -> list[Registration]:
        return [r for r in self.registrations if r.type == token]

    def one(self, token: str, name: str) -> Registration:
        found = [r for r in self.of_type(token) if r.name == name]
        assert len(found) == 1, f"{len(found)} resources are {token} {name}"
        return found[0]


class _Outputs(mocks.Mocks):
    """What the providers would answer, as far as the program reads it."""

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        answers: dict[str, dict[str, Any]] = {
            "random:index/randomPassword:RandomPassword": {"result": f"{MADE_UP}-{args.name}"},
            "docker-build:index:Image": {"digest": f"sha256:{args.name.encode().hex():0<64}"},
            "kubernetes:helm.sh/v3:Release": {"status": {"status": "deployed"}},
            "harbor:index/robotAccount:RobotAccount": {"fullName": f"robot${args.name}"},
            "keycloak:openid/client:Client": {"serviceAccountUserId": f"account-of-{args.name}"},
        }
        return f"{args.name}-id", args.inputs | answers.get(args.typ, {})

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        if args.token == "docker:index/getRegistryImage:getRegistryImage":
            digest = hashlib.sha256(args.args["name"].encode()).hexdigest()
            return args.args | {"id": digest, "sha256Digest": f"sha256:{digest}"}
        if args.token == "keycloak:openid/getClient:getClient":
            return args.args | {"id": f"id-of-{args.args['clientId']}"}
        raise AssertionError(f"the program calls {args.token}, for which no answer is made up")


def run(program: Callable[[], Any], stack: str = "local") -> Monitor:
    """Run `program` to the end of all that it registers."""
    asyncio.set_event_loop(LOOP)
    monitor = Monitor()
    mocks.set_mocks(monitor.mocks, project="mlhub", stack=stack, monitor=monitor)
    result = []
    pulumi.runtime.test(lambda: result.append(program()))()
    return monitor


@functools.cache
def platform(stack: str) -> Monitor:
    """A whole stack as its file describes it, registered once for all tests."""
    return registered(stack_file(stack), stack)


def registered(file: StackFile, stack: str) -> Monitor:
    """A whole stack, with the secrets that it asks a person for."""
    secrets = given_secrets()
    pulumi.runtime.set_all_config(secrets, list(secrets))
    return run(lambda: Platform(file), stack)


def given_secrets() -> dict[str, str]:
    return {PREFIX + key: f"{GIVEN}-{key}" for key in SECRET_KEYS}


def raw_config(stack: str) -> dict[str, str]:
    """The stack file as Pulumi hands it to the program, without what is encrypted in it."""
    return raw(yaml.safe_load((ROOT / "stacks" / f"Pulumi.{stack}.yaml").read_text()))


def raw(document: dict[str, Any]) -> dict[str, str]:
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in document["config"].items()
        if not (isinstance(value, dict) and "secure" in value)
    }


def stack_file(stack: str) -> StackFile:
    secrets = given_secrets()
    return load(stack, raw_config(stack) | secrets, secrets)
