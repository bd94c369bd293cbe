"""Classes, shared volumes and what servers mount of them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from components import config, names, volume_specs
from components.config import SharedVolume, Twin
from components.storage import Storage, StorageArgs
from components.volumes import Volumes, VolumesArgs
from tests.unit.recorder import ROOT, STACKS, Monitor, platform, registered, run, stack_file
from tools.report import compare

CLAIM = "kubernetes:core/v1:PersistentVolumeClaim"
VOLUME = "kubernetes:core/v1:PersistentVolume"
JOB = "kubernetes:batch/v1:Job"

PIPELINES = "financial-mlops-pytorch"
DATA = SharedVolume(
    name="shared-data-pvc",
    size="500Gi",
    mount="/mnt/shared-data",
    folders=("raw", "processed"),
    twin=Twin(namespace=PIPELINES),
)
ARTIFACTS = SharedVolume(
    name="shared-artifacts-pvc",
    size="100Gi",
    mount="/mnt/shared-artifacts",
    folders=("scalers",),
    twin=Twin(namespace=PIPELINES),
)
DATASETS = SharedVolume(name="datasets", size="200Gi", mount="/datasets", read_only=True)
ALL = (DATA, ARTIFACTS, DATASETS)


def shared(*volumes: SharedVolume, provisioner: str = names.SEAWEEDFS_CSI, **parameters: str):
    return run(
        lambda: Volumes(
            "volumes",
            VolumesArgs(
                namespace="jupyterhub",
                volumes=volumes,
                provisioner=provisioner,
                parameters=parameters,
                class_name="jupyterhub-homes",
                image="registry.example.com/mlhub/base@sha256:0",
            ),
        )
    )


def claims(monitor: Monitor) -> dict[tuple[str, str], dict[str, Any]]:
    """Claims by namespace and name."""
    return {
        (r.plain["metadata"]["namespace"], r.plain["metadata"]["name"]): r.plain["spec"]
        for r in monitor.of_type(CLAIM)
    }


def volumes(monitor: Monitor) -> dict[str, dict[str, Any]]:
    return {r.plain["metadata"]["name"]: r.plain["spec"] for r in monitor.of_type(VOLUME)}


def test_T13_the_class_keeps_what_is_on_a_deleted_claim_and_takes_the_drivers_parameters():
    monitor = run(
        lambda: Storage(
            "storage",
            StorageArgs(
                class_name="jupyterhub-homes",
                provisioner="seaweedfs-csi-driver",
                parameters={"replication": "001"},
                labels={},
                grows=True,
            ),
        )
    )
    made = monitor.one("kubernetes:storage.k8s.io/v1:StorageClass", "storage-homes").plain
    assert made["reclaimPolicy"] == "Retain"
    assert made["provisioner"] == "seaweedfs-csi-driver"
    assert made["parameters"] == {"replication": "001"}
    assert made["allowVolumeExpansion"] is True


def test_J9_shared_claims_have_the_documented_names_sizes_and_namespaces():
    found = claims(shared(DATA, ARTIFACTS))
    assert {place: spec["resources"]["requests"]["storage"] for place, spec in found.items()} == {
        ("jupyterhub", "shared-data-pvc"): "500Gi",
        ("jupyterhub", "shared-artifacts-pvc"): "100Gi",
        (PIPELINES, "shared-data-pvc"): "500Gi",
        (PIPELINES, "shared-artifacts-pvc"): "100Gi",
    }
    assert all(spec["accessModes"] == ["ReadWriteMany"] for spec in found.values())


def test_J4_a_claim_and_its_twin_have_one_path_behind_two_volumes():
    monitor = shared(*ALL)
    behind = volumes(monitor)
    for (namespace, name), spec in claims(monitor).items():
        volume = behind[spec["volumeName"]]
        assert volume["claimRef"]["namespace"] == namespace
        assert volume["claimRef"]["name"] == name
        assert spec["storageClassName"] == volume["storageClassName"] == ""
    here = behind["jupyterhub.shared-data-pvc"]["csi"]
    twin = behind[f"{PIPELINES}.shared-data-pvc"]["csi"]
    assert here["volumeAttributes"] == twin["volumeAttributes"]
    assert here["volumeAttributes"]["path"] == "/buckets/jupyterhub.shared-data-pvc"
    assert len({volume["csi"]["volumeHandle"] for volume in behind.values()}) == len(behind) == 5
    paths = [volume["csi"]["volumeAttributes"]["path"] for volume in behind.values()]
    assert len(set(paths)) == 3


def test_M8_the_driver_is_told_the_size_and_that_it_is_of_this_volume_alone():
    behind = volumes(shared(*ALL, replication="001", collection="one-for-all", path="/elsewhere"))
    attributes = behind["jupyterhub.shared-data-pvc"]["csi"]["volumeAttributes"]
    assert attributes == {
        "path": "/buckets/jupyterhub.shared-data-pvc",
        "collection": "jupyterhub.shared-data-pvc",
        "volumeCapacity": str(500 * 2**30),
        "replication": "001",
    }


def test_two_stacks_on_one_seaweedfs_are_kept_apart_by_a_parent_folder():
    behind = volumes(shared(DATASETS, parentDir="/buckets/staging"))
    attributes = behind["jupyterhub.datasets"]["csi"]["volumeAttributes"]
    assert attributes["path"] == "/buckets/staging/jupyterhub.datasets"
    assert "parentDir" not in attributes


def test_T13_shared_volumes_are_protected_and_outlive_a_destroy():
    monitor = shared(*ALL)
    held = [*monitor.of_type(CLAIM), *monitor.of_type(VOLUME)]
    assert len(held) == 10
    assert all(r.protect and r.retain_on_delete for r in held)
    assert {r.plain["spec"]["persistentVolumeReclaimPolicy"] for r in monitor.of_type(VOLUME)} == {
        "Retain"
    }


def test_J4_the_pipelines_namespace_is_theirs():
    monitor = shared(*ALL)
    assert not monitor.of_type("kubernetes:core/v1:Namespace")


def test_other_provisioners_make_the_volume_themselves():
    monitor = shared(DATASETS, provisioner="rancher.io/local-path")
    assert claims(monitor) == {
        ("jupyterhub", "datasets"): {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "200Gi"}},
            "storageClassName": "jupyterhub-homes",
        }
    }
    assert not monitor.of_type(VOLUME)


# The job that makes folders


def the_job(monitor: Monitor) -> dict[str, Any]:
    (job,) = monitor.of_type(JOB)
    return job.plain


def test_T7_one_job_makes_the_folders_as_the_user_of_the_servers():
    job = the_job(shared(*ALL))
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"][4:] == [
        "/volumes/shared-data-pvc/raw",
        "/volumes/shared-data-pvc/processed",
        "/volumes/shared-artifacts-pvc/scalers",
    ]
    assert (pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]) == (
        1000,
        100,
    )
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["image"] == "registry.example.com/mlhub/base@sha256:0"
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    mounted = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert {
        mounted[v["name"]]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"]
    } == {
        "/volumes/shared-data-pvc": "shared-data-pvc",
        "/volumes/shared-artifacts-pvc": "shared-artifacts-pvc",
    }


def test_T7_there_is_no_shell_in_it():
    command = the_job(shared(*ALL))["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command[0] == "python3"
    assert not {"sh", "bash", "-ec"} & set(command)


def test_T7_other_folders_are_another_job():
    more = DATA.model_copy(update={"folders": ("raw", "processed", "features")})
    before, after = shared(DATA), shared(more)
    (one,), (other,) = before.of_type(JOB), after.of_type(JOB)
    assert one.name != other.name
    assert one.name == the_job(before)["metadata"]["name"]
    assert the_job(shared(DATA))["metadata"]["name"] == one.name
    assert len(other.name) <= 63


def test_without_folders_there_is_no_job():
    assert not shared(DATASETS).of_type(JOB)


def make_folders(*paths: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-I", "-c", volume_specs.MAKE_FOLDERS, *paths],
        capture_output=True,
        text=True,
        check=False,
    )


def test_T7_the_jobs_program_makes_folders_once_and_leaves_what_is_in_them(tmp_path: Path):
    paths = [str(tmp_path / "data" / "raw"), str(tmp_path / "data" / "deep" / "er")]
    assert make_folders(*paths).stdout.split() == paths
    kept = Path(paths[0]) / "kept.csv"
    kept.write_text("1")
    assert make_folders(*paths).returncode == 0
    assert kept.read_text() == "1"


def test_T7_a_folder_of_somebody_else_is_said_and_not_passed_over(tmp_path: Path):
    theirs = Path("/usr")
    if os.getuid() == 0:
        theirs = tmp_path / "theirs"
        theirs.mkdir()
        os.chown(theirs, 4242, 4242)
    done = make_folders(str(theirs))
    assert done.returncode == 1
    assert str(theirs) in done.stderr
    assert "chown" in done.stderr


# What servers mount


def test_M8_read_only_volumes_are_read_only_as_claim_and_as_mount():
    made = volume_specs.user_volumes(ALL, None, "1Gi")
    (claim,) = [v for v in made["extraVolumes"] if v["name"] == "shared-datasets"]
    (mount,) = [m for m in made["extraVolumeMounts"] if m["name"] == "shared-datasets"]
    assert claim["persistentVolumeClaim"] == {"claimName": "datasets", "readOnly": True}
    assert mount == {"name": "shared-datasets", "mountPath": "/datasets", "readOnly": True}


def test_M8_the_same_files_are_writable_at_one_place_and_read_only_at_another():
    twice = DATASETS.model_copy(
        update={
            "mount": "/home/jovyan/datasets",
            "read_only": False,
            "read_only_mount": "/datasets",
        }
    )
    made = volume_specs.user_volumes((twice,), None, "1Gi")
    (claim,) = [v for v in made["extraVolumes"] if v["name"] == "shared-datasets"]
    assert claim["persistentVolumeClaim"] == {"claimName": "datasets"}
    assert [m for m in made["extraVolumeMounts"] if m["name"] == "shared-datasets"] == [
        {"name": "shared-datasets", "mountPath": "/home/jovyan/datasets"},
        {"name": "shared-datasets", "mountPath": "/datasets", "readOnly": True},
    ]


@pytest.mark.parametrize("stack", STACKS)
def test_M8_every_stack_has_datasets_that_a_notebook_can_only_read(stack: str):
    storage = stack_file(stack).storage
    made = volume_specs.user_volumes(storage.volumes, storage.scratch, storage.tmp)
    (mount,) = [m for m in made["extraVolumeMounts"] if m["mountPath"] == "/datasets"]
    assert mount["readOnly"] is True
    assert "/datasets" in volume_specs.fuse_mounts(storage)


def test_J4_servers_see_the_shared_volumes_where_the_pipelines_documentation_says():
    made = volume_specs.user_volumes((DATA, ARTIFACTS), None, "1Gi")
    assert {m["mountPath"] for m in made["extraVolumeMounts"]} == {
        "/mnt/shared-data",
        "/mnt/shared-artifacts",
        *names.TMP_MOUNTS,
    }
    assert not any("readOnly" in m for m in made["extraVolumeMounts"])


def test_T7_scratch_has_a_limit_and_ends_with_its_server():
    made = volume_specs.user_volumes((), "50Gi", "1Gi")
    assert {"name": "scratch", "emptyDir": {"sizeLimit": "50Gi"}} in made["extraVolumes"]
    mount = {"name": "scratch", "mountPath": "/home/jovyan/scratch"}
    assert mount in made["extraVolumeMounts"]


def test_T7_what_programs_write_to_beside_the_home_is_one_folder_with_a_limit():
    assert volume_specs.user_volumes((), None, "1Gi") == {
        "extraVolumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}}],
        "extraVolumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
            {"name": "tmp", "mountPath": "/var/tmp"},  # noqa: S108
        ],
    }


def test_T9_servers_mount_claims_that_the_stack_makes_and_no_folders_of_a_node():
    mounted = volume_specs.user_volumes(ALL, "50Gi", "1Gi")["extraVolumes"]
    made = {name for namespace, name in claims(shared(*ALL)) if namespace == "jupyterhub"}
    for volume in mounted:
        assert "hostPath" not in volume
        if claim := volume.get("persistentVolumeClaim"):
            assert claim["claimName"] in made


def test_both_names_of_a_volume_are_labels_however_long_the_claims_is():
    long = DATASETS.model_copy(update={"name": "d" * 63})
    volume, _ = volume_specs.user_volumes((long,), None, "1Gi")["extraVolumes"]
    assert len(volume["name"]) == 63


def test_T4_the_chart_takes_them_where_they_are():
    schema = json.loads((ROOT / "charts/jupyterhub-lite/values.schema.json").read_text())
    storage = schema["properties"]["singleuser"]["properties"]["storage"]
    jsonschema.validate(
        volume_specs.user_volumes(ALL, "50Gi", "1Gi"),
        storage | {"definitions": schema["definitions"]},
    )


@pytest.mark.parametrize("folder", ["raw", "a/b"])
def test_folder_names_with_a_slash_are_folders_in_folders(folder):
    volume = DATASETS.model_copy(update={"folders": (folder,)})
    assert volume_specs.folder_paths([volume]) == [f"/volumes/datasets/{folder}"]


# In the stacks


def classes(monitor: Monitor) -> dict[str, dict[str, Any]]:
    """The stack's classes by name."""
    found = [r.plain for r in monitor.of_type("kubernetes:storage.k8s.io/v1:StorageClass")]
    return {made["metadata"]["name"]: made for made in found}


@pytest.fixture(scope="module")
def drivers() -> dict[str, dict[str, Any]]:
    """The classes of a stack whose homes, shared files and databases each have another driver."""
    stack = stack_file("dev")
    storage = stack.storage.model_copy(
        update={
            "provisioner": "nfs.csi.k8s.io",
            "parameters": {"server": "nfs.example.com", "share": "/mlhub"},
            "home_provisioner": "rbd.csi.ceph.com",
            "home_parameters": {"clusterID": "one", "pool": "homes"},
        }
    )
    foundation = stack.foundation.model_copy(
        update={"provisioner": "rbd.csi.ceph.com", "parameters": {"pool": "databases"}}
    )
    changed = stack.model_copy(update={"storage": storage, "foundation": foundation})
    return classes(registered(changed, "dev"))


def test_each_class_has_the_parameters_of_its_own_driver(drivers: dict[str, dict[str, Any]]):
    assert {name: made["parameters"] for name, made in drivers.items()} == {
        "jupyterhub-homes": {"clusterID": "one", "pool": "homes"},
        "jupyterhub-shared": {"server": "nfs.example.com", "share": "/mlhub"},
        "foundation-data": {"pool": "databases"},
    }


def test_volumes_grow_on_every_driver_but_those_that_make_none_larger(
    drivers: dict[str, dict[str, Any]],
):
    assert all(made["allowVolumeExpansion"] for made in drivers.values())
    assert all(made["allowVolumeExpansion"] for made in classes(platform("prod")).values())
    # local-path and the embedded cluster's own
    assert not any(made["allowVolumeExpansion"] for made in classes(platform("local")).values())


def test_databases_without_a_driver_of_their_own_are_with_homes_as_the_model_says():
    stack = stack_file("local")
    foundation = stack.foundation.model_copy(update={"provisioner": None})
    storage = stack.storage.model_copy(update={"home_provisioner": "ebs.csi.aws.com"})
    changed = stack.model_copy(update={"foundation": foundation, "storage": storage})
    monitor = registered(changed, "local")
    claim = monitor.one(CLAIM, "postgres-data").plain["spec"]
    of = classes(monitor)[claim["storageClassName"]]["provisioner"]
    assert of == changed.data_provisioner == "ebs.csi.aws.com"


def test_that_a_class_lets_volumes_grow_is_changed_in_place():
    fixed = compare.REPLACES["kubernetes:storage.k8s.io/v1:StorageClass"]
    assert re.match(fixed, "parameters.pool")
    assert not re.match(fixed, "allowVolumeExpansion")


@pytest.mark.parametrize(
    ("stack", "mode"),
    [("local", "ReadWriteOnce"), ("staging", "ReadWriteMany"), ("prod", "ReadWriteMany")],
)
def test_T8_a_home_on_seaweedfs_ties_its_person_to_no_node(stack: str, mode: str):
    """Its driver attaches a volume of the chart's own mode, ReadWriteOnce, to one node alone."""
    release = platform(stack).one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    storage = release.plain["values"]["singleuser"]["storage"]
    assert storage["dynamic"]["storageAccessModes"] == [mode]


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"provisioner": "seaweedfs-csi-driver"}, "ReadWriteMany"),
        ({"provisioner": "ebs.csi.aws.com"}, "ReadWriteOnce"),
        (
            {"provisioner": "seaweedfs-csi-driver", "home_provisioner": "ebs.csi.aws.com"},
            "ReadWriteOnce",
        ),
        (
            {"provisioner": "ebs.csi.aws.com", "home_provisioner": "seaweedfs-csi-driver"},
            "ReadWriteMany",
        ),
    ],
)
def test_T8_a_home_that_may_be_a_disk_is_of_one_node(given: dict[str, str], mode: str):
    storage = config.Storage.model_validate({"home": "1Gi", **given})
    assert volume_specs.home_access_mode(storage) == mode


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_J4_the_stacks_mount_what_they_make_and_wait_for_it(stack: str):
    monitor = platform(stack)
    release = monitor.one("kubernetes:helm.sh/v3:Release", "jupyterhub")
    storage = release.plain["values"]["singleuser"]["storage"]
    mounted = {
        volume["persistentVolumeClaim"]["claimName"]
        for volume in storage["extraVolumes"]
        if "persistentVolumeClaim" in volume
    }
    here = [r for r in monitor.of_type(CLAIM) if r.plain["metadata"]["namespace"] == "jupyterhub"]
    assert mounted == {
        r.plain["metadata"]["name"] for r in here if r.name.startswith("jupyterhub.")
    }
    (job,) = [job for job in monitor.of_type(JOB) if job.name.startswith("shared-folders")]
    assert {job.urn, *(r.urn for r in here)} <= release.dependencies
