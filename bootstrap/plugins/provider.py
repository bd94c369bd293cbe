"""The provider side of the plug-in protocol for a set of resource types.

Everything that the engine asks is answered from the types' schemas; only create, read, update and
delete reach the types themselves, and previews never do.
"""

# ruff: noqa: N802 - the protocol names the methods

import json
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
from google.protobuf import empty_pb2, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from bootstrap.plugins.process import EngineLog, engine_address, serve
from bootstrap.plugins.schema import (
    Call,
    Change,
    Failure,
    Function,
    PluginError,
    Property,
    ResourceType,
)
from bootstrap.plugins.values import (
    as_secret,
    decode_map,
    encode,
    encode_map,
    secret_keys,
)

Kind = provider_pb2.PropertyDiff
T = TypeVar("T")


class Package(ABC):
    """A provider: its name, its configuration and its resource types."""

    name: str
    version: str
    """The version of the official plug-in whose schema this one follows."""

    config: tuple[Property, ...] = ()
    types: Mapping[str, ResourceType]
    functions: Mapping[str, Function] = MappingProxyType({})

    @abstractmethod
    def configure(self, config: dict[str, Any], log: EngineLog) -> None:
        """`config` may hold unknowns in a preview. Must not reach any server."""

    def cancel(self) -> None:  # noqa: B027 - a package that never waits has nothing to do
        """The user gave up: whatever waits has to end."""

    def type_of(self, urn: str) -> ResourceType:
        token = urn.split("::")[2].rsplit("$", 1)[-1]
        if token not in self.types:
            raise self.lacks(token, "types", self.types)
        return self.types[token]

    def function_of(self, token: str) -> Function:
        if token not in self.functions:
            raise self.lacks(token, "functions", self.functions)
        return self.functions[token]

    def lacks(self, token: str, kind: str, known: Iterable[str]) -> PluginError:
        return PluginError(
            f"{token} is not among the {kind} of this plug-in, which knows "
            f"{', '.join(sorted(known)) or 'none'}; install the official one with "
            f"`pulumi plugin install resource {self.name} {self.version}`"
        )


def detailed(change: Change) -> int:
    kinds = {
        ("add", False): Kind.ADD,
        ("add", True): Kind.ADD_REPLACE,
        ("delete", False): Kind.DELETE,
        ("delete", True): Kind.DELETE_REPLACE,
        ("update", False): Kind.UPDATE,
        ("update", True): Kind.UPDATE_REPLACE,
    }
    return kinds[change.kind, change.replace]


def inputs_of(
    resource: ResourceType, known: Mapping[str, Any], state: Mapping[str, Any]
) -> dict[str, Any]:
    """The inputs that describe `state`: on a refresh those that the program gave (`known`).

    On import everything that is set counts, so that generated code and the next preview are whole.
    """
    if known:
        return {name: state.get(name, value) for name, value in known.items()}
    return {
        p.name: state[p.name]
        for p in resource.inputs.values()
        if p.name in state and not p.equal(None, state[p.name])
    }


def failures_pb(failures: Iterable[Failure]) -> list[provider_pb2.CheckFailure]:
    return [provider_pb2.CheckFailure(property=f.property, reason=f.reason) for f in failures]


class Servicer(provider_pb2_grpc.ResourceProviderServicer):
    def __init__(self, package: Package, log: EngineLog):
        self.package = package
        self.log = log
        self.urn = ""

    # What the plug-in is

    def GetPluginInfo(self, request, context):  # type: ignore[no-untyped-def]
        return plugin_pb2.PluginInfo(version=self.package.version)

    def GetSchema(self, request, context):  # type: ignore[no-untyped-def]
        return provider_pb2.GetSchemaResponse(schema=json.dumps(package_schema(self.package)))

    def Attach(self, request, context):  # type: ignore[no-untyped-def]
        self.log = EngineLog(request.address)
        return empty_pb2.Empty()

    def Cancel(self, request, context):  # type: ignore[no-untyped-def]
        self.package.cancel()
        return empty_pb2.Empty()

    # Configuration

    def CheckConfig(self, request, context):  # type: ignore[no-untyped-def]
        known = {p.name: p for p in self.package.config}
        inputs = dict(request.news.fields)
        failures = []
        for name in inputs:
            # The engine adds settings of its own: version, pluginDownloadURL, __internal.
            if name not in known and not name.startswith(("version", "plugin", "__")):
                reason = (
                    f"the {self.package.name} provider has no setting {name} in this plug-in, "
                    f"which knows {', '.join(sorted(known))}"
                )
                failures.append(Failure(name, reason))
        for name, value in inputs.items():
            if name in known and known[name].secret:
                inputs[name] = as_secret(value)
        return provider_pb2.CheckResponse(
            inputs=struct_pb2.Struct(fields=inputs), failures=failures_pb(failures)
        )

    def DiffConfig(self, request, context):  # type: ignore[no-untyped-def]
        olds, news = decode_map(request.olds), decode_map(request.news)
        diffs = [k for k in {*olds, *news} if k != "version" and olds.get(k) != news.get(k)]
        return provider_pb2.DiffResponse(changes=some(diffs), diffs=diffs)

    def Configure(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            self.log.info(
                f"{self.package.name}: using this project's own plug-in, since the official "
                f"pulumi-resource-{self.package.name} is not installed"
            )
            self.urn = request.urn
            self.package.configure(decode_map(request.args), self.log)
            return provider_pb2.ConfigureResponse(
                acceptSecrets=True, supportsPreview=True, acceptResources=False, acceptOutputs=False
            )

        return self._answer(context, "", answer)

    # Shape alone

    def Check(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            resource = self.package.type_of(request.urn)
            news = decode_map(request.news)
            failures = resource.check(news)
            inputs = {name: request.news.fields[name] for name in news}
            for name, value in resource.defaults(news).items():
                inputs[name] = encode(value)
            for name in resource.secrets & inputs.keys():
                inputs[name] = as_secret(inputs[name])
            return provider_pb2.CheckResponse(
                inputs=struct_pb2.Struct(fields=inputs), failures=failures_pb(failures)
            )

        return self._answer(context, request.urn, answer)

    def Diff(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            resource = self.package.type_of(request.urn)
            changes = resource.diff(
                decode_map(request.olds), decode_map(request.news), request.ignoreChanges
            )
            return provider_pb2.DiffResponse(
                changes=some(changes),
                replaces=[name for name, change in changes.items() if change.replace],
                deleteBeforeReplace=resource.one_at_a_time,
                diffs=list(changes),
                detailedDiff={
                    name: provider_pb2.PropertyDiff(kind=detailed(change))  # type: ignore[arg-type]
                    for name, change in changes.items()
                },
                hasDetailedDiff=True,
            )

        return self._answer(context, request.urn, answer)

    # The real thing

    def Create(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            resource = self.package.type_of(request.urn)
            inputs = decode_map(request.properties)
            secrets = resource.secrets | secret_keys(request.properties)
            if request.preview:
                state = resource.preview(inputs, {})
                return provider_pb2.CreateResponse(properties=encode_map(state, secrets))
            made = resource.create(inputs, self._call(request.urn))
            return provider_pb2.CreateResponse(
                id=made.id, properties=encode_map(made.state, secrets)
            )

        return self._answer(context, request.urn, answer)

    def Read(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            resource = self.package.type_of(request.urn)
            made = resource.read(request.id, decode_map(request.properties))
            if made is None:
                return provider_pb2.ReadResponse()
            hidden = secret_keys(request.properties) | secret_keys(request.inputs)
            secrets = resource.secrets | hidden
            inputs = inputs_of(resource, decode_map(request.inputs), made.state)
            return provider_pb2.ReadResponse(
                id=made.id,
                properties=encode_map(made.state, secrets),
                inputs=encode_map(inputs, secrets),
            )

        return self._answer(context, request.urn, answer)

    def Update(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            resource = self.package.type_of(request.urn)
            state, inputs = decode_map(request.olds), decode_map(request.news)
            for name in request.ignoreChanges:
                if name in state:
                    inputs[name] = state[name]
            secrets = resource.secrets | secret_keys(request.news)
            if request.preview:
                after = resource.preview(inputs, state)
            else:
                after = resource.update(request.id, state, inputs, self._call(request.urn))
            return provider_pb2.UpdateResponse(properties=encode_map(after, secrets))

        return self._answer(context, request.urn, answer)

    def Delete(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            resource = self.package.type_of(request.urn)
            resource.delete(request.id, decode_map(request.properties))
            return empty_pb2.Empty()

        return self._answer(context, request.urn, answer)

    def Invoke(self, request, context):  # type: ignore[no-untyped-def]
        def answer() -> Any:
            function = self.package.function_of(request.tok)
            arguments = decode_map(request.args)
            if failures := function.check(arguments):
                return provider_pb2.InvokeResponse(failures=failures_pb(failures))
            answered: dict[str, Any] = {"return": encode_map(function.call(arguments))}
            return provider_pb2.InvokeResponse(**answered)

        return self._answer(context, "", answer)

    def _call(self, urn: str) -> Call:
        return Call(urn, lambda message: self.log.info(message, urn), provider=self.urn)

    def _answer(self, context: Any, urn: str, answer: Callable[[], T]) -> T:
        """`answer()`, with a person's error as one sentence and a defect with its place."""
        try:
            return answer()
        except PluginError as error:
            message = str(error)
        except Exception as error:  # a defect here: say where, and nothing of the values
            frame = traceback.extract_tb(sys.exc_info()[2])[-1]
            self.log.debug(f"{type(error).__name__} at {frame.filename}:{frame.lineno}", urn)
            message = (
                f"the {self.package.name} plug-in failed with {type(error).__name__} in "
                f"{frame.name}, line {frame.lineno}; this is a defect of the plug-in"
            )
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, message)
        raise AssertionError("abort raises")


def some(changes: Iterable[object]) -> Any:
    some_changes = provider_pb2.DiffResponse.DIFF_SOME
    return some_changes if list(changes) else provider_pb2.DiffResponse.DIFF_NONE


JSON_TYPES: dict[str, dict[str, Any]] = {
    "set": {"type": "array", "items": {"type": "string"}},
    "list": {"type": "array", "items": {"$ref": "pulumi.json#/Any"}},
    "map": {"type": "object", "additionalProperties": {"type": "string"}},
    "object": {"type": "object", "additionalProperties": {"$ref": "pulumi.json#/Any"}},
}


def package_schema(package: Package) -> dict[str, Any]:
    """The package in the form that `pulumi import` and `pulumi package get-schema` read."""

    def shape(p: Property) -> dict[str, Any]:
        described = dict(JSON_TYPES.get(p.type, {"type": p.type}))
        if p.secret:
            described["secret"] = True
        if p.replace:
            described["willReplaceOnChanges"] = True
        return described

    return {
        "name": package.name,
        "version": package.version,
        "provider": {"inputProperties": {p.name: shape(p) for p in package.config}},
        "resources": {
            token: {
                "properties": {p.name: shape(p) for p in resource.properties},
                "inputProperties": {p.name: shape(p) for p in resource.inputs.values()},
                "requiredInputs": [p.name for p in resource.properties if p.required],
            }
            for token, resource in package.types.items()
        },
    }


def main(package: Package) -> None:
    log = EngineLog(engine_address(sys.argv[1:]))
    servicer = Servicer(package, log)

    def add(server: grpc.Server) -> None:
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)

    serve(add, on_stop=lambda: None)
