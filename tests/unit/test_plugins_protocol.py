"""The plug-ins as the engine meets them: processes that print a port and speak gRPC."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import struct_pb2
from pulumi.runtime import rpc
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from bootstrap.plugins import starter
from bootstrap.plugins.values import as_secret, decode, encode, encode_map, holds_secret

Stub = provider_pb2_grpc.ResourceProviderStub
PASSWORD = "random:index/randomPassword:RandomPassword"
GROUP = "keycloak:index/group:Group"


def urn(token: str) -> str:
    return f"urn:pulumi:local::mlhub::mlhub:identity:Identity${token}::thing"


def laid(folder: Path, name: str) -> Path:
    path = folder / f"pulumi-resource-{name}"
    path.write_text(starter(Path(sys.executable), name))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stub]]:
    """`start("random")`: a running plug-in that is configured, with nothing behind it.

    One process a plug-in serves the whole module; configuring again is what an engine may do too.
    """
    folder = tmp_path_factory.mktemp("bin")
    running: dict[str, tuple[subprocess.Popen[str], Stub]] = {}

    def started(name: str, **config: str) -> Stub:
        if name not in running:
            process = subprocess.Popen([laid(folder, name)], stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            port = int(process.stdout.readline())
            running[name] = process, Stub(grpc.insecure_channel(f"127.0.0.1:{port}"))
        stub = running[name][1]
        stub.Configure(provider_pb2.ConfigureRequest(args=encode_map(config), acceptSecrets=True))
        return stub

    yield started
    for process, _ in running.values():
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 0, "a plug-in must end cleanly when it is told to"


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    assert refusal.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    return str(refusal.value.details())


def test_check_fills_in_defaults_and_keeps_secrets_secret(start: Callable[[str], Stub]) -> None:
    request = provider_pb2.CheckRequest(
        urn=urn(PASSWORD), news=encode_map({"length": 8, "overrideSpecial": "x"}, ["length"])
    )
    inputs = start("random").Check(request).inputs.fields
    assert holds_secret(inputs["length"])
    assert decode(inputs["minLower"]) == 0


def test_what_is_generated_is_secret_on_the_wire(start: Callable[[str], Stub]) -> None:
    stub = start("random")
    inputs = stub.Check(
        provider_pb2.CheckRequest(urn=urn(PASSWORD), news=encode_map({"length": 8}))
    ).inputs
    created = stub.Create(provider_pb2.CreateRequest(urn=urn(PASSWORD), properties=inputs))
    assert {k for k, v in created.properties.fields.items() if holds_secret(v)} == {
        "result",
        "bcryptHash",
    }


def test_a_preview_leaves_results_unknown(start: Callable[[str], Stub]) -> None:
    request = provider_pb2.CreateRequest(
        urn=urn(PASSWORD), properties=encode_map({"length": 8}), preview=True
    )
    created = start("random").Create(request)
    assert created.id == ""
    assert decode(created.properties.fields["length"]) == 8
    result = created.properties.fields["result"].struct_value.fields["value"]
    assert result.string_value == rpc.UNKNOWN


def test_a_preview_of_keycloak_needs_no_server(start: Callable[..., Stub]) -> None:
    """Not even an address: the server may be part of the same stack."""
    stub = start("keycloak", url=rpc.UNKNOWN)
    request = provider_pb2.CreateRequest(
        urn=urn(GROUP),
        properties=encode_map({"realmId": "mlhub", "name": "users"}),
        preview=True,
    )
    assert decode(stub.Create(request).properties.fields["name"]) == "users"


def test_the_providers_password_is_secret_in_the_state(start: Callable[[str], Stub]) -> None:
    news = encode_map({"url": "http://localhost:1", "password": "x"})
    inputs = start("keycloak").CheckConfig(provider_pb2.CheckRequest(news=news)).inputs.fields
    assert {name for name, value in inputs.items() if holds_secret(value)} == {"password"}


def test_an_unknown_provider_setting_is_refused_by_name(start: Callable[[str], Stub]) -> None:
    news = encode_map({"ulr": "http://localhost:1"})
    failures = start("keycloak").CheckConfig(provider_pb2.CheckRequest(news=news)).failures
    assert [failure.property for failure in failures] == ["ulr"]


def test_a_type_that_is_not_ours_names_the_official_plug_in(start: Callable[[str], Stub]) -> None:
    stub = start("keycloak")
    request = provider_pb2.CheckRequest(urn=urn("keycloak:saml/client:Client"))
    message = refused(lambda: stub.Check(request))
    assert "keycloak:saml/client:Client" in message
    assert "pulumi plugin install resource keycloak 6.14.1" in message


def test_a_setting_that_is_not_known_yet_is_an_error_only_where_it_is_needed(
    start: Callable[..., Stub],
) -> None:
    stub = start("keycloak", url=rpc.UNKNOWN)
    request = provider_pb2.CreateRequest(
        urn=urn(GROUP), properties=encode_map({"realmId": "mlhub", "name": "users"})
    )
    assert "url will be known only after" in refused(lambda: stub.Create(request))


def test_a_defect_says_where_and_none_of_the_values(start: Callable[[str], Stub]) -> None:
    stub = start("random")
    request = provider_pb2.CreateRequest(
        urn=urn(PASSWORD), properties=encode_map({"length": "hunter2"})
    )
    message = refused(lambda: stub.Create(request))
    assert "this is a defect of the plug-in" in message
    assert "hunter2" not in message


def test_a_replaced_name_is_freed_first_and_a_replaced_password_is_kept_until_the_new_one_is_used(
    start: Callable[[str], Stub],
) -> None:
    def freed_first(name: str, token: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
        request = provider_pb2.DiffRequest(
            urn=urn(token), olds=encode_map(old), news=encode_map(new)
        )
        answer = start(name).Diff(request)
        assert list(answer.replaces)
        return bool(answer.deleteBeforeReplace)

    group = {"realmId": "old", "name": "users"}
    assert freed_first("keycloak", GROUP, group, {**group, "realmId": "new"})
    assert not freed_first("random", PASSWORD, {"length": 8}, {"length": 9})


def test_the_schema_serves_import(start: Callable[[str], Stub]) -> None:
    schema = start("keycloak").GetSchema(provider_pb2.GetSchemaRequest()).schema
    assert '"keycloak:index/realm:Realm"' in schema


def test_a_plug_in_leaves_when_its_engine_is_killed(tmp_path: Path) -> None:
    """The engine cannot end its plug-ins when it is killed itself."""
    engine = subprocess.Popen(
        [sys.executable, "-c",
         "import subprocess, sys\n"
         "p = subprocess.Popen(sys.argv[1], stdout=subprocess.PIPE, text=True)\n"
         "p.stdout.readline(); print(p.pid, flush=True); p.wait()",
         str(laid(tmp_path, "random"))],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert engine.stdout is not None
    plug_in = int(engine.stdout.readline())
    engine.kill()
    engine.wait()
    deadline = time.monotonic() + 60
    while alive(plug_in):
        assert time.monotonic() < deadline, "the plug-in outlived its engine"
        time.sleep(0.1)


def test_a_plug_in_whose_engine_was_killed_before_python_started_leaves(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    text = laid(tmp_path, "random").read_text().replace("$PPID", str(gone.pid))
    (tmp_path / "late").write_text(text)
    (tmp_path / "late").chmod(0o755)
    assert subprocess.run([tmp_path / "late"], timeout=120, check=False).returncode == 0


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z" and os.path.exists(f"/proc/{pid}")


@pytest.mark.parametrize(
    "value", [None, True, 3, 2.5, "x", ["a", {"b": [1]}], {"a": {"b": "c"}}, {}]
)
def test_values_come_back_as_they_went(value: object) -> None:
    assert decode(encode(value)) == value
    assert decode(as_secret(encode(value))) == value


def test_a_secret_deep_inside_is_found_and_not_wrapped_twice() -> None:
    inner = as_secret(encode("x"))
    outer = struct_pb2.Value(struct_value=struct_pb2.Struct(fields={"value": inner}))
    assert holds_secret(outer)
    assert as_secret(outer) is outer
