"""What is missing is said before anything is made, in one sentence each."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components import preflight
from components.config import Cluster, StackFile
from tests.unit.recorder import stack_file

FILE = "stacks/Pulumi.local.yaml"


@pytest.fixture
def api_server() -> Iterator[int]:
    """A port that answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def checkout(tmp_path: Path, api_server: int) -> Path:
    """A checkout with all that `local` relies on."""
    for image in ("base", "ml-cpu"):
        (tmp_path / "images" / image).mkdir(parents=True)
        (tmp_path / "images" / image / "Dockerfile").touch()
    chart = tmp_path / "charts" / "jupyterhub-lite"
    chart.mkdir(parents=True)
    (chart / "Chart.yaml").touch()
    write_kubeconfig(tmp_path / ".mlhub" / "cluster" / "kubeconfig", "mlhub-local", api_server)
    return tmp_path


def write_kubeconfig(file: Path, context: str, port: int, **cluster: Any) -> None:
    details = {"server": f"https://127.0.0.1:{port}"} | cluster
    content = {
        "contexts": [{"name": context, "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": details}],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(content))


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
        f"no Kubernetes context mlhub-local in {checkout}/.mlhub/cluster/kubeconfig (there is "
        "none); start the embedded node with `make up`, or set cluster.context to one of yours"
    ]


def test_an_unreachable_cluster_is_said_before_anything_is_made(local, checkout):
    port = closed_port()
    write_kubeconfig(checkout / ".mlhub/cluster/kubeconfig", "mlhub-local", port)
    (sentence,) = preflight.problems("local", local, checkout)
    assert sentence == (
        f"the cluster of context mlhub-local does not answer at https://127.0.0.1:{port} "
        "(Connection refused); start it or connect to its network, then run the same command "
        "again (a preview compares with the cluster, so it needs it, too)"
    )


def test_a_context_of_ones_own_is_found_in_any_file_of_kubeconfig(
    local, checkout, api_server, monkeypatch
):
    write_kubeconfig(checkout / "one", "other", closed_port())
    write_kubeconfig(checkout / "two", "mine", api_server)
    monkeypatch.setenv(
        "KUBECONFIG", os.pathsep.join(map(str, [checkout / "one", checkout / "two"]))
    )
    assert preflight.problems("local", with_context(local, "mine"), checkout) == []
    (sentence,) = preflight.problems("local", with_context(local, "prod"), checkout)
    assert sentence == (
        f"no Kubernetes context prod in {checkout}/one, {checkout}/two (it has other, mine); "
        "correct cluster.context, or point KUBECONFIG at the file that has it"
    )


def test_a_cluster_behind_a_proxy_is_left_to_the_provider(local, checkout, monkeypatch):
    write_kubeconfig(checkout / "one", "mine", closed_port(), **{"proxy-url": "http://p:1"})
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
        f"{FILE}: profiles[0].image is ml-cpu; one of base is required, the folders of images/ "
        "with a Dockerfile"
    )


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
