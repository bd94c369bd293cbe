"""SeaweedFS as the foundation's: who reaches which of its parts, and who holds keys to what."""

import importlib.util
import json
import types
from typing import Any

import pytest

from components import names, seaweedfs
from components.config import FoundationSeaweedFS, Mlflow, StateBucket
from components.platform import Platform
from tests.unit.recorder import ROOT, Monitor, platform, run, stack_file


@pytest.fixture(scope="module")
def local() -> Monitor:
    stack = stack_file("local").model_copy(update={"mlflow": Mlflow()})
    return run(lambda: Platform(stack))


def pod(monitor: Monitor) -> dict[str, Any]:
    made = monitor.one("kubernetes:apps/v1:StatefulSet", "seaweedfs").plain
    spec: dict[str, Any] = made["spec"]["template"]["spec"]
    return spec


def program() -> types.ModuleType:
    """What the image starts its parts with."""
    found = importlib.util.spec_from_file_location(
        "mlhub_seaweedfs", ROOT / "images/seaweedfs/mlhub_seaweedfs.py"
    )
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_each_part_is_a_container_of_its_own_so_that_one_can_die_alone(local: Monitor):
    containers = {c["name"]: c for c in pod(local)["containers"]}
    assert list(containers) == ["master", "volume", "filer", "s3"]
    for name, container in containers.items():
        assert container["args"] == [name]
        assert (
            container["readinessProbe"]["tcpSocket"]["port"]
            == container["ports"][0]["containerPort"]
        )
        assert program().arguments(name, "x")


def test_the_volume_server_is_known_by_a_name_that_outlives_its_pod(local: Monitor):
    (volume,) = [c for c in pod(local)["containers"] if c["name"] == "volume"]
    address = {e["name"]: e["value"] for e in volume["env"]}["SEAWEEDFS_ADDRESS"]
    assert address == "seaweedfs.foundation.svc.cluster.local"
    assert f"-ip={address}" in program().arguments("volume", address)
    service = local.one("kubernetes:core/v1:Service", "seaweedfs").plain["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True


def test_mlflows_key_opens_mlflows_bucket_and_nothing_else(local: Monitor):
    held = local.one("kubernetes:core/v1:Secret", "seaweedfs-s3").plain["stringData"]
    (identity,) = json.loads(held["identities.json"])["identities"]
    assert identity["actions"] == ["Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"]
    mlflow = local.one("kubernetes:core/v1:Secret", "mlflow-s3").plain["stringData"]
    assert identity["credentials"] == [
        {"accessKey": mlflow["access_key_id"], "secretKey": mlflow["secret_access_key"]}
    ]


@pytest.fixture(scope="module")
def keeping() -> Monitor:
    """`local`, where other stacks keep their state."""
    stack = stack_file("local")
    files = FoundationSeaweedFS(volume="20Gi", state=StateBucket(node_port=30833))
    foundation = stack.foundation.model_copy(update={"seaweedfs": files})
    return run(lambda: Platform(stack.model_copy(update={"foundation": foundation})))


def test_the_bucket_of_pulumis_state_has_keys_of_its_own_that_open_nothing_else(keeping: Monitor):
    held = keeping.one("kubernetes:core/v1:Secret", "seaweedfs-s3").plain["stringData"]
    mlflow, state = json.loads(held["identities.json"])["identities"]
    assert {action.partition(":")[2] for action in mlflow["actions"]} == {"mlflow"}
    assert {action.partition(":")[2] for action in state["actions"]} == {"pulumi-state"}
    assert state["credentials"] != mlflow["credentials"]
    given = keeping.one("kubernetes:core/v1:Secret", "seaweedfs-state").plain["stringData"]
    assert state["credentials"] == [
        {"accessKey": given["access_key_id"], "secretKey": given["secret_access_key"]}
    ]
    (s3,) = [c for c in pod(keeping)["containers"] if c["name"] == "s3"]
    buckets = {e["name"]: e["value"] for e in s3["env"]}["SEAWEEDFS_BUCKETS"]
    assert buckets == "mlflow,pulumi-state"


def test_pulumis_state_is_reached_by_the_nodes_port_and_files_are_not(keeping: Monitor):
    service = keeping.one("kubernetes:core/v1:Service", "seaweedfs-state").plain["spec"]
    assert service["ports"] == [{"name": "s3", "port": 8333, "nodePort": 30833}]
    policy = keeping.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", "seaweedfs").plain
    anybody = [rule for rule in policy["spec"]["ingress"] if "from" not in rule]
    assert anybody == [{"ports": [{"port": 8333, "protocol": "TCP"}]}]


def test_nobody_keeps_state_where_it_is_not_asked_for(local: Monitor):
    assert not any("seaweedfs-state" in r.name for r in local.registrations)


def test_mlflow_on_the_foundations_gateway_needs_no_artifacts_in_the_stack_file(local: Monitor):
    deployment = local.one("kubernetes:apps/v1:Deployment", "mlflow").plain
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {e["name"]: e.get("value") for e in container["env"]}
    gateway = "http://seaweedfs-s3.foundation.svc.cluster.local:8333"
    assert environment["MLFLOW_S3_ENDPOINT_URL"] == gateway
    assert environment["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"
    assert environment["AWS_RESPONSE_CHECKSUM_VALIDATION"] == "when_required"
    assert any("s3://mlflow/mlflow" in part for part in container["args"])


def test_T11_files_are_reached_by_the_driver_alone_and_the_gateway_by_mlflow(local: Monitor):
    policy = local.one("kubernetes:networking.k8s.io/v1:NetworkPolicy", "seaweedfs").plain["spec"]
    driver, mlflow = policy["ingress"]
    (peer,) = driver["from"]
    assert peer["podSelector"]["matchLabels"] == {"app": names.SEAWEEDFS_CSI}
    space = peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert space == names.SEAWEEDFS_CSI
    assert {port["port"] for port in driver["ports"]} == set(seaweedfs.mount_ports())
    assert names.SEAWEEDFS_S3_PORT not in seaweedfs.mount_ports()
    (peer,) = mlflow["from"]
    assert peer["podSelector"]["matchLabels"] == names.selector(names.MLFLOW)
    assert [port["port"] for port in mlflow["ports"]] == [8333]


def test_a_stack_with_a_seaweedfs_elsewhere_makes_none():
    assert not platform("prod").of_type("mlhub:seaweedfs:SeaweedFS")


def test_homes_are_on_the_nodes_disk_and_what_is_shared_is_on_seaweedfs(local: Monitor):
    classes = {
        r.plain["metadata"]["name"]: r.plain
        for r in local.of_type("kubernetes:storage.k8s.io/v1:StorageClass")
    }
    assert {name: one["provisioner"] for name, one in classes.items()} == {
        "jupyterhub-homes": names.LOCAL_PATH,
        "jupyterhub-shared": names.SEAWEEDFS_CSI,
        "foundation-data": names.LOCAL_PATH,
    }
    # The embedded cluster's driver makes nothing larger.
    assert not any(one["allowVolumeExpansion"] for one in classes.values())
    values = local.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]
    fuse = values["singleuser"]["extraEnv"]["MLHUB_FUSE"].split()
    assert "/home/jovyan" not in fuse
    assert {"/mnt/shared-data", "/home/jovyan/workspaces/"} <= set(fuse)


def test_folders_are_made_once_seaweedfs_runs(local: Monitor):
    (job,) = local.of_type("kubernetes:batch/v1:Job")
    assert local.one("kubernetes:apps/v1:StatefulSet", "seaweedfs").urn in job.dependencies
