"""What is missing is said before anything is made, in one sentence each."""

import base64
import datetime
import http.server
import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from components import preflight
from components.config import Cluster, Ingress, Monitoring, StackFile
from tests.unit.recorder import ROOT, stack_file

FILE = "stacks/Pulumi.local.yaml"


@dataclass(frozen=True)
class ApiServer:
    port: int
    authority: str
    """PEM."""


def certificate() -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM).decode(), private.decode()


class Forbidden(http.server.BaseHTTPRequestHandler):
    """An API server that knows nobody."""

    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def api_server(tmp_path: Path) -> Iterator[ApiServer]:
    authority, key = certificate()
    pem = tmp_path / "server.pem"
    pem.write_text(authority + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbidden) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield ApiServer(server.server_port, authority)
        server.shutdown()
        thread.join()


@pytest.fixture
def checkout(tmp_path: Path, api_server: ApiServer) -> Path:
    """A checkout with all that `local` relies on."""
    for image in ("base", "ml-cpu", "ml-gpu"):
        (tmp_path / "images" / image).mkdir(parents=True)
        (tmp_path / "images" / image / "Dockerfile").touch()
    chart = tmp_path / "charts" / "jupyterhub-lite"
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").touch()
    (tmp_path / ".mlhub/programs/seaweedfs").mkdir(parents=True)
    write_kubeconfig(
        tmp_path / ".mlhub/cluster/kubeconfig",
        "mlhub-local",
        api_server.port,
        **{"certificate-authority-data": encoded(api_server.authority)},
    )
    return tmp_path


def write_kubeconfig(file: Path, context: str, port: int, **cluster: Any) -> None:
    details = {"server": f"https://127.0.0.1:{port}"} | cluster
    content = {
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": details}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def local() -> StackFile:
    return stack_file("local")


def with_context(stack: StackFile, context: str) -> StackFile:
    return stack.model_copy(update={"cluster": Cluster(context=context)})


def test_nothing_is_said_where_nothing_is_missing(local, checkout):
    assert preflight.problems("local", local, checkout) == []


def test_an_embedded_node_that_was_never_started_is_said_with_what_to_do(local, checkout):
    (checkout / ".mlhub/cluster/kubeconfig").unlink()
    assert preflight.problems("local", local, checkout) == [
        f"no Kubernetes context mlhub-local in {checkout}/.mlhub/cluster/kubeconfig (no such "
        "file); start the embedded node with `make up`, or set cluster.context to one of yours"
    ]


def test_a_kubeconfig_without_a_context_is_no_missing_file(local, checkout, monkeypatch):
    (checkout / "empty").touch()
    monkeypatch.setenv("KUBECONFIG", str(checkout / "empty"))
    (sentence,) = preflight.problems("local", with_context(local, "mine"), checkout)
    assert sentence.startswith(f"no Kubernetes context mine in {checkout}/empty (it has none); ")


def test_an_unreachable_cluster_is_said_before_anything_is_made(local, checkout):
    port = closed_port()
    write_kubeconfig(checkout / ".mlhub/cluster/kubeconfig", "mlhub-local", port)
    (sentence,) = preflight.problems("local", local, checkout)
    assert sentence == (
        f"the cluster of context mlhub-local does not answer at https://127.0.0.1:{port} "
        "(Connection refused); start it or connect to its network, then run the same command "
        "again (a preview compares with the cluster, so it needs it, too)"
    )


def test_another_cluster_at_the_address_is_said(local, checkout, api_server):
    write_kubeconfig(
        checkout / ".mlhub/cluster/kubeconfig",
        "mlhub-local",
        api_server.port,
        **{"certificate-authority-data": encoded(certificate()[0])},
    )
    (sentence,) = preflight.problems("local", local, checkout)
    assert sentence == (
        f"what answers at https://127.0.0.1:{api_server.port} is not the cluster of context "
        "mlhub-local (self-signed certificate); another cluster may have taken its address, so "
        f"start the right one again or renew {checkout}/.mlhub/cluster/kubeconfig"
    )


def test_a_context_of_ones_own_is_found_in_any_file_of_kubeconfig(
    local, checkout, api_server, monkeypatch
):
    write_kubeconfig(checkout / "one", "other", closed_port())
    (checkout / "ca.pem").write_text(api_server.authority)
    authority = {"certificate-authority": "ca.pem"}
    write_kubeconfig(checkout / "two", "mine", api_server.port, **authority)
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join(map(str, [checkout / "one", checkout / "two"]))
    )
    assert preflight.problems("local", with_context(local, "mine"), checkout) == []
    (sentence,) = preflight.problems("local", with_context(local, "prod"), checkout)
    assert sentence == (
        f"no Kubernetes context prod in {checkout}/one, {checkout}/two (it has other, mine); "
        "`kubectl config rename-context` gives the cluster's that name, or point KUBECONFIG at the "
        "file that has it (cluster.context itself may change before the first `up` alone)"
    )


@pytest.mark.parametrize(
    "option", [{"proxy-url": "http://p:1"}, {"insecure-skip-tls-verify": True}]
)
def test_what_a_plain_connection_cannot_tell_is_left_to_the_provider(
    local, checkout, monkeypatch, option
):
    write_kubeconfig(checkout / "one", "mine", closed_port(), **option)
    monkeypatch.setenv("KUBECONFIG", str(checkout / "one"))
    assert preflight.problems("local", with_context(local, "mine"), checkout) == []


def test_a_full_disk_is_said_before_it_breaks_a_build(local, checkout, monkeypatch):
    monkeypatch.setattr(preflight, "FREE_BYTES", 2**60)
    (sentence,) = preflight.problems("local", local, checkout)
    assert sentence.startswith(f"{checkout} has ")
    assert "make room and run the same command again" in sentence


def test_a_profile_whose_image_has_no_folder_is_said_with_those_there_are(local, checkout):
    (checkout / "images/ml-cpu/Dockerfile").unlink()
    assert preflight.problems("local", local, checkout)[0] == (
        f"{FILE}: profiles[0].image is ml-cpu; one of ml-gpu is required, the folders of "
        "images/ with a Dockerfile for people's servers or images.build.projects"
    )


def test_a_key_that_pulumi_alone_would_take_is_said(local, checkout):
    (checkout / "stacks").mkdir()
    (checkout / FILE).write_text("config:\n  domain: example.com\n  mlhub:verify: {}\n")
    assert preflight.problems("local", local, checkout) == [
        f"{FILE}: domain is a key without its prefix; write mlhub:domain"
    ]


def test_a_seaweedfs_that_cannot_be_built_here_is_said(local, checkout):
    (checkout / ".mlhub/programs/seaweedfs").rmdir()
    assert preflight.problems("local", local, checkout) == [
        f"{FILE}: foundation.seaweedfs is built from .mlhub/programs/seaweedfs, which is not "
        "there; build on a machine where `make up` has run, or promote what another stack has built"
    ]


def test_a_chart_that_is_not_there_is_said(local, checkout):
    (checkout / "charts/jupyterhub-lite/Chart.yaml").unlink()
    assert preflight.problems("local", local, checkout) == [
        f"{FILE}: hub.chart.path is charts/jupyterhub-lite, where no Chart.yaml is; give the "
        "folder of a chart, relative to the project"
    ]


class TestT2WithoutTheSecretTheDeployFailsClearly:
    @pytest.fixture
    def existing(self, local: StackFile) -> StackFile:
        identity = local.identity.model_copy(update={"existing_secret": "sso-client"})
        return local.model_copy(update={"identity": identity})

    @pytest.fixture
    def kubectl(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A kubectl that does what the test writes into it."""
        bin_dir = tmp_path / "bin"
        bin_dir.mkdir()
        monkeypatch.setenv("PATH", f"{bin_dir}:/usr/bin:/bin")
        return bin_dir / "kubectl"

    @staticmethod
    def does(kubectl: Path, script: str) -> None:
        kubectl.write_text(f"#!/bin/sh\n{script}\n")
        kubectl.chmod(0o755)

    ADVICE = (
        "create it with `kubectl -n jupyterhub create secret generic sso-client "
        "--from-literal=client_id=… --from-file=client_secret=…`, or leave the option out"
    )

    def test_T2_a_whole_secret_is_fine(self, existing, checkout, kubectl):
        self.does(kubectl, "echo 'client_id client_secret '")
        assert preflight.problems("local", existing, checkout) == []

    def test_T2_a_missing_secret_is_said(self, existing, checkout, kubectl):
        self.does(kubectl, "echo 'secrets \"sso-client\" not found' >&2; exit 1")
        assert preflight.problems("local", existing, checkout) == [
            f"{FILE}: identity.existing_secret is sso-client, which cannot be read (secrets "
            f'"sso-client" not found); {self.ADVICE}'
        ]

    def test_T2_a_missing_key_is_said(self, existing, checkout, kubectl):
        self.does(kubectl, "echo 'client_id '")
        assert preflight.problems("local", existing, checkout) == [
            f"{FILE}: identity.existing_secret is sso-client, which lacks the key client_secret; "
            f"{self.ADVICE}"
        ]

    def test_T2_values_of_the_secret_are_never_asked_for(self, existing, checkout, kubectl):
        self.does(kubectl, f'echo "$@" > {checkout}/asked; echo "client_id client_secret"')
        preflight.problems("local", existing, checkout)
        asked = (checkout / "asked").read_text()
        assert "{{range $key, $value := .data}}{{$key}} {{end}}" in asked
        assert asked.count("$value") == 1

    def test_a_machine_without_kubectl_is_said(self, existing, checkout, kubectl, monkeypatch):
        monkeypatch.setenv("PATH", str(kubectl.parent))
        (sentence,) = preflight.problems("local", existing, checkout)
        assert sentence.endswith("is not on PATH; install kubectl")

    def test_a_cluster_without_the_prometheus_operator_is_said(self, local, checkout, kubectl):
        monitoring = Monitoring(docs="https://git.example.com/docs")
        stack = local.model_copy(update={"monitoring": monitoring})
        self.does(kubectl, "echo servicemonitors.monitoring.coreos.com")
        assert preflight.problems("local", stack, checkout) == [
            f"{FILE}: monitoring is there and the cluster has no prometheusrules of the Prometheus "
            "operator; install the operator, or leave the section out"
        ]
        both = "servicemonitors.monitoring.coreos.com\nprometheusrules.monitoring.coreos.com"
        self.does(kubectl, f"printf '{both}'")
        assert preflight.problems("local", stack, checkout) == []

    def test_J8_the_ingress_wants_its_tls_secret(self, local, checkout, kubectl):
        self.does(kubectl, "echo 'secrets \"tls\" not found' >&2; exit 1")
        assert preflight.problems("local", with_ingress(local), checkout) == [
            f'{FILE}: hub.ingress.tls_secret is tls, which cannot be read (secrets "tls" not '
            "found); create it with `kubectl -n jupyterhub create secret tls tls --cert=… "
            "--key=…`, or name an issuer in hub.ingress.annotations"
        ]

    def test_J8_a_secret_that_cert_manager_will_make_is_not_asked_for(self, local, checkout):
        issuer = {"cert-manager.io/cluster-issuer": "internal"}
        assert preflight.problems("local", with_ingress(local, **issuer), checkout) == []


def with_ingress(stack: StackFile, **annotations: str) -> StackFile:
    ingress = Ingress(class_name="nginx", tls_secret="tls", annotations=annotations)
    hub = stack.hub.model_copy(update={"ingress": ingress, "node_port": None})
    return stack.model_copy(update={"hub": hub})


def test_T13_a_restore_to_another_cluster_is_told_of_what_people_made_there():
    """Such Secrets, and namespaces of twins, are in no archive, and without them no `up` begins."""
    stack = stack_file("prod")
    identity = stack.identity.model_copy(update={"existing_secret": "theirs"})
    made = [*preflight.secret_references(stack.model_copy(update={"identity": identity}))]
    keys = {"storage.volumes[].twin.namespace", *(one.key for one in made)}
    assert len(keys) == 3
    page = (ROOT / "docs" / "recovery.md").read_text()
    (told,) = [part for part in page.split("\n\n") if "cluster that never had the stack" in part]
    assert [key for key in sorted(keys) if f"`{key}`" not in told] == []
    assert "`pulumi stack init prod`" in told
