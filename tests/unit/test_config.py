"""A wrong stack file ends in sentences that say where, what was given and what is right."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from components.config import in_bytes
from components.stackfile import StackFileError, load, schema
from tests.unit.recorder import ROOT, raw_config, stack_file
from tools.write_schema import SCHEMA, text

FILE = "stacks/Pulumi.local.yaml"


def sentences(**changes: Any) -> list[str]:
    """What is wrong with `local` when sections are replaced; a section of None is left out.

    `hub__chart={}` replaces the key `chart` of the section `hub`.
    """
    document = {
        key: json.loads(value) if value[0] in "[{" else value
        for key, value in raw_config("local").items()
    }
    for place, value in changes.items():
        section, _, key = place.partition("__")
        if key:
            document[f"mlhub:{section}"][key] = value
        elif value is None:
            del document[f"mlhub:{section}"]
        else:
            document[f"mlhub:{section}"] = value
    raw = {k: v if isinstance(v, str) else json.dumps(v) for k, v in document.items()}
    try:
        load("local", raw)
    except StackFileError as error:
        return error.sentences
    return []


def profile(**changes: Any) -> dict[str, Any]:
    return {
        "slug": "one",
        "name": "One",
        "description": "The one.",
        "default": True,
        "image": "ml-cpu",
        "cpu": {"limit": 1, "guarantee": 1},
        "memory": {"limit": "1G", "guarantee": "1G"},
        "gpu": 0,
    } | changes


def build(**changes: Any) -> dict[str, Any]:
    return {"tag": "1", "builder": "mlhub", "debian": "localhost:5000/debian:bookworm"} | changes


def harbor(**changes: Any) -> dict[str, Any]:
    return {"url": "", "username": "admin", "keep_tags": 5, "storage": "10Gi"} | changes


def volume(**changes: Any) -> dict[str, Any]:
    return {"name": "data", "size": "1Gi", "mount": "/mnt/data"} | changes


def mlflow() -> dict[str, Any]:
    endpoint = "https://s3.example.com"
    return {"artifacts": {"endpoint": endpoint, "bucket": "mlflow", "access_key": "mlflow"}}


def test_the_local_stack_is_right():
    assert sentences() == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"registry": None},
            "registry is missing; give a section with repository",
        ),
        (
            {"hub__node_port": 80},
            "hub.node_port is 80; it must be a free NodePort, 30000 to 32767, for the hub",
        ),
        (
            {"hub__node_port": "30888"},
            'hub.node_port is "30888"; it must be a free NodePort, 30000 to 32767, for the hub',
        ),
        (
            {"hub__chart": {}},
            "hub.chart needs either path, or all of repository, name and version",
        ),
        (
            {
                "hub__chart": {
                    "repository": "https://x.y",
                    "name": "jupyterhub",
                    "version": "latest",
                }
            },
            'hub.chart.version is "latest"; it must be a released version such as 4.4.0, since an '
            "unpinned chart changes under you",
        ),
        (
            {"hub__chart": {"path": "charts/x", "version": "4.4.0"}},
            "hub.chart needs either path, or all of repository, name and version",
        ),
        (
            {"hub__ingress": {"class_name": "nginx", "tls_secret": "tls"}},
            "hub needs exactly one of node_port and ingress",
        ),
        (
            {"images": {}},
            "images needs exactly one of build and promote",
        ),
        (
            {"storage__parameters": {"replication": 1}},
            "storage.parameters.replication is 1; it must be the provisioner's own parameters, "
            "texts by name; put it in quotes, or YAML reads a number",
        ),
        (
            {"hub__node_prot": 30888},
            "hub.node_prot is not an option; did you mean node_port? hub knows namespace, "
            "node_port, ingress, chart, idle_timeout, idle_check, start_timeout, git_hosts",
        ),
        (
            {"gpus": {}},
            "gpus is not an option; did you mean gpu? the stack file knows cluster, domain, "
            "identity, registry, images, storage, hub, profiles, gpu, quotas, mlflow, workspaces, "
            "workspace_service, execution, network, verify, monitoring, foundation",
        ),
        (
            {"images__build": build(tag="latest")},
            'images.build.tag is "latest"; it must be a tag other than latest (it is for people: '
            "images are deployed by digest) (latest names nothing in particular)",
        ),
        (
            {"images__build": build(debian="debian")},
            'images.build.debian is "debian"; it must be a pinned image of Debian bookworm, with a '
            "tag or a digest",
        ),
        (
            {"network__kubernetes_api": ["10.0.0.1/33"]},
            'network.kubernetes_api[0] is "10.0.0.1/33"; network.kubernetes_api must be a list of '
            "the address ranges of the API server behind its Service, such as 10.0.0.1/32 "
            "('10.0.0.1/33' does not appear to be an IPv4 or IPv6 network)",
        ),
        (
            {"network__keycloak": ["10.0.0.1/24"]},
            'network.keycloak[0] is "10.0.0.1/24"; network.keycloak must be a list of the address '
            "ranges of identity.keycloak, such as 10.0.8.10/32 (10.0.0.1/24 has host bits set)",
        ),
        *(
            (
                {f"network__{key}": [70000]},
                f"network.{key}[0] is 70000; network.{key} must be a list of the ports of {whose}, "
                f"such as {example}",
            )
            for key, whose, example in (
                ("kubernetes_api_ports", "the API server itself", "16443 with MicroK8s"),
                ("keycloak_ports", "Keycloak's pods", "8080, where its Service has another"),
                ("s3_ports", "the S3 service's pods", "9000, where its Service has another"),
            )
        ),
        (
            {"network__kubernetes_api_ports": []},
            "network.kubernetes_api_ports is []; it must be a list of the ports of the API server "
            "itself, such as 16443 with MicroK8s",
        ),
        *(
            (
                {"network__mirrors": [{"addresses": [wide]}]},
                f'network.mirrors[0].addresses[0] is "{wide}"; network.mirrors[0].addresses must '
                "be a list of the mirror's own address ranges, at most 256 addresses in those of "
                "all mirrors, such as 10.0.7.5/32 (more than 256 addresses, or link-local ones)",
            )
            for wide in ("10.0.0.0/8", "169.254.169.254/32")
        ),
        (
            {"identity__access_groups": [], "identity__admin_groups": ["users"]},
            "identity.access_groups is []; it must be a list of the groups whose members may log "
            "in, as paths such as /mlhub/users",
        ),
        (
            {"profiles": [profile(cpu="4")]},
            'profiles[0].cpu is "4"; it must be a section with limit',
        ),
        (
            {"profiles": [profile(gpu=True)]},
            "profiles[0].gpu is true; it must be a whole number of GPUs, 0 where there are none",
        ),
        (
            {"profiles": [profile(memory={"limit": "5G", "guarantee": "9G"})]},
            "profiles[0].memory guarantees 9G and limits to 5G; a guarantee within the limit is "
            "required",
        ),
        (
            {"profiles": [profile(cpu={"limit": 1, "guarantee": 1.5})]},
            "profiles[0].cpu guarantees 1.5 cores and limits to 1; a guarantee within the limit is "
            "required",
        ),
        (
            {"profiles": [profile(default=False)]},
            "profiles has 0 with default: true; exactly one is required",
        ),
        (
            {"profiles": [profile(), profile(slug="two", name="Two")]},
            "profiles has 2 with default: true (one, two); exactly one is required",
        ),
        (
            {"profiles": [profile(), profile(default=False, name="Two")]},
            'profiles[].slug is "one" 2 times; each must differ',
        ),
        (
            {"profiles": [profile(cpu={"limit": 17, "guarantee": 1})]},
            "profiles[0].cpu.limit is 17 and quotas.namespace.cpu is 16; a profile within the "
            "quota is required, or its servers could never start",
        ),
        (
            {"profiles": [profile(memory={"limit": "33G", "guarantee": "1G"})]},
            "profiles[0].memory.limit is 33G and quotas.namespace.memory is 32Gi; a profile within "
            "the quota is required, or its servers could never start",
        ),
        (
            {"profiles": [profile(gpu=1)]},
            "profiles[0].gpu is 1 and quotas.namespace.gpu is 0; a profile within the quota is "
            "required, or its servers could never start",
        ),
        (
            {"storage__home": "1Ti"},
            "storage.home is 1Ti and quotas.namespace.storage is 200Gi; a home within the quota is "
            "required, "
            "or no server could start",
        ),
        (
            {"identity__admin_groups": ["/mlhub/kings"]},
            "identity.admin_groups[0] is /mlhub/kings, which identity.access_groups (/mlhub/users, "
            "/mlhub/admins) lacks; add it there, or its members could not log in",
        ),
        (
            {"identity__demo_users": [{"name": "eve", "groups": ["/else"]}]},
            "identity.demo_users[0].groups names /else; one of identity.access_groups "
            "(/mlhub/users, /mlhub/admins) is required",
        ),
        (
            {"hub__node_port": 30880},
            "hub.node_port and foundation.keycloak.node_port are both 30880; two different ports "
            "are required",
        ),
        (
            {"foundation__seaweedfs": {"volume": "1Gi", "state": {"node_port": 30888}}},
            "foundation.seaweedfs.state.node_port and hub.node_port are both 30888; two different "
            "ports are required",
        ),
        (
            {
                "foundation__seaweedfs": {
                    "volume": "1Gi",
                    "state": {"node_port": 30833, "bucket": "mlflow"},
                }
            },
            "foundation.seaweedfs.state.bucket is mlflow, where MLflow's artifacts are; another "
            "is required",
        ),
        *(
            (
                {"foundation__provisioner": given, "storage__home_provisioner": None},
                f"foundation.provisioner is {said}, and on SeaweedFS's mounts a database is not "
                "safe; a driver of block volumes is required, such as ebs.csi.aws.com, or "
                "rancher.io/local-path on a single node (a claim that is there keeps its class: "
                'docs/recovery.md, "Another Postgres", tells how to move what is on it)',
            )
            for given, said in (
                (None, "missing, for which that of homes stands in, seaweedfs-csi-driver"),
                ("seaweedfs-csi-driver", "seaweedfs-csi-driver"),
            )
        ),
        (
            {"hub__namespace": "foundation"},
            "hub.namespace and foundation.namespace are both foundation; two different namespaces "
            "are required, so that user pods and databases stay apart",
        ),
        (
            {"foundation__keycloak": None},
            "identity.keycloak and foundation.keycloak are both missing; exactly one is required, "
            "the first for a Keycloak that is there, the second to have one made",
        ),
        (
            {"identity__keycloak": {"url": "https://key.example.com", "client_id": "pulumi"}},
            "identity.demo_users makes people up in identity.keycloak, where real ones are; "
            "remove it, or use foundation.keycloak",
        ),
        (
            {"identity__keycloak": {"url": "https://key.example.com", "client_id": "pulumi"}},
            "network.keycloak is empty and identity.keycloak.url is https://key.example.com; a "
            "list of its address ranges is required, or hub and services could reach every address",
        ),
        (
            {"registry__harbor": harbor(url="https://harbor.example.com")},
            "registry.repository is localhost:5000/mlhub and registry.harbor.url is "
            "https://harbor.example.com; the same host and one project are required",
        ),
        (
            {"registry__harbor": harbor(url="https://admin:secret@harbor.example.com")},
            'registry.harbor.url is "https://…@harbor.example.com"; it must be its address, such '
            "as https://harbor.example.com (without a password)",
        ),
        (
            {"registry__harbor": harbor(url="https://harbor.example.com/")},
            'registry.harbor.url is "https://harbor.example.com/"; it must be its address, such '
            "as https://harbor.example.com (without a slash at the end)",
        ),
        (
            {"registry__harbor": harbor(url="harbor.example.com")},
            'registry.harbor.url is "harbor.example.com"; it must be its address, such as '
            "https://harbor.example.com (it begins with http:// or https://)",
        ),
        (
            {"verify": ""},
            'verify is ""; it must be a section; {} takes every default',
        ),
        (
            {"execution": ""},
            'execution is ""; it must be a section with run_seconds, keep_days',
        ),
        (
            {"images": {"promote": {"repository": "harbor.example.com/mlhub", "tag": 2026.11}}},
            "images.promote.tag is 2026.11; it must be the tag that it gave them, other than "
            "latest; put it in quotes, or YAML reads a number",
        ),
        (
            {"profiles": [profile(slug=True)]},
            "profiles[0].slug is true; it must be an id of small letters, digits and `-` that "
            "stays, for links hold it; put it in quotes, or YAML reads true or false",
        ),
        (
            {
                "storage__volumes": [
                    volume(name="a", mount="/mnt/a"),
                    volume(name="b", mount="/mnt/b", read_only_mount="/mnt/a/b"),
                ]
            },
            "storage.volumes[].mount is /mnt/a, in which /mnt/a/b is mounted as well and would "
            "hide what is there; two folders apart are required",
        ),
        (
            {"storage__volumes": [volume(mount="/home/jovyan")]},
            "storage.volumes[0].mount is /home/jovyan, where everyone's own home is; a folder in "
            "it or elsewhere is required",
        ),
        (
            {"storage__volumes": [volume(mount="/home/jovyan/.local")]},
            "storage.volumes[0].mount is /home/jovyan/.local, which would hide what people have "
            "installed and set there; a folder without a dot is required",
        ),
        (
            {
                "storage__volumes": [
                    volume(name="a", mount="/mnt/a"),
                    volume(name="b", mount="/mnt/a/b"),
                ]
            },
            "storage.volumes[].mount is /mnt/a, in which /mnt/a/b is mounted as well and would "
            "hide what is there; two folders apart are required",
        ),
        (
            {
                "storage__volumes": [volume(mount="/home/jovyan/scratch")],
                "storage__scratch": "1Gi",
            },
            "storage.volumes[].mount is /home/jovyan/scratch, where storage.scratch is; another "
            "folder is required",
        ),
        (
            {
                "storage__volumes": [volume(twin={"namespace": "pipelines"})],
                "storage__provisioner": "rancher.io/local-path",
            },
            "storage.volumes[0].twin needs the path of the volume, which storage.provisioner "
            "rancher.io/local-path chooses by itself; seaweedfs-csi-driver is required, or no twin",
        ),
        *(
            (
                {"storage__provisioner": driver},
                f"storage.provisioner is {driver}, whose volumes one node mounts at a time, and "
                "storage.volumes, workspaces, workspace_service are for many; a driver of shared "
                "files is required, such as efs.csi.aws.com or seaweedfs-csi-driver, and for homes "
                f"storage.home_provisioner may be {driver}",
            )
            for driver in ("ebs.csi.aws.com", "rook-ceph.rbd.csi.ceph.com")
        ),
        (
            {"storage__home_provisioner": None, "storage__home_parameters": {"type": "gp3"}},
            "storage.home_parameters is given and storage.home_provisioner is missing; name the "
            "driver whose parameters these are",
        ),
        (
            {"foundation__provisioner": None, "foundation__parameters": {"type": "gp3"}},
            "foundation.parameters is given and foundation.provisioner is missing; name the "
            "driver whose parameters these are",
        ),
        *(
            (
                {"workspaces": [{"slug": slug, "name": "A", "size": "1Gi"}]},
                f"workspaces[0].slug is {slug}; 2 to 50 small letters, digits and single `-` are "
                "required, other than MLflow's own ajax-api, api, default, static-files, "
                "workspaces",
            )
            for slug in ("a", "a--b", "default")
        ),
        (
            {"storage__volumes": [volume(name="claim-alice")]},
            "storage.volumes[0].name is claim-alice; claim- begins the names of homes and "
            "workspace- those of workspaces, so another is required",
        ),
        (
            {"storage__volumes": [volume(), volume()]},
            'storage.volumes[].name is "data" 2 times; each must differ',
        ),
        (
            {"workspaces": [{"slug": "a", "name": "A", "size": "101Gi"}]},
            "workspaces[0].size is 101Gi; at most 100Gi is required",
        ),
        (
            {"workspaces": [{"slug": "a", "name": n, "size": "1Gi"} for n in "AB"]},
            'workspaces[].slug is "a" 2 times; each must differ',
        ),
        (
            {"mlflow": mlflow()},
            "network.s3 is empty and mlflow.artifacts.endpoint is https://s3.example.com, outside "
            "the cluster; a list of its address ranges is required, or MLflow could not reach it",
        ),
        (
            {"mlflow": mlflow()},
            "mlhub:s3_secret_key is missing, the secret of the S3 key mlflow; `pulumi config set "
            "--secret mlhub:s3_secret_key --stack local` asks for it",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(changes, expected):
    assert f"{FILE}: {expected}" in sentences(**changes)


def test_a_driver_of_one_node_at_a_time_may_make_all_that_there_is_where_nothing_is_shared():
    alone = {"storage__volumes": [], "workspaces": None, "workspace_service": None}
    assert sentences(storage__provisioner="ebs.csi.aws.com", **alone) == []


def test_a_key_without_its_prefix_is_refused_since_pulumi_alone_would_take_it():
    with pytest.raises(StackFileError) as caught:
        load("local", raw_config("local") | {"domain": "example.com"})
    assert caught.value.sentences == [
        f"{FILE}: domain is a key without its prefix; write mlhub:domain"
    ]


def test_all_that_is_wrong_is_said_at_once():
    found = sentences(registry=None, hub__node_port=80, profiles=[profile(gpu=-1)], gpus={})
    assert len(found) == 4
    assert all(sentence.startswith(f"{FILE}: ") for sentence in found)


def test_a_wrong_item_does_not_make_a_list_short():
    assert len(sentences(profiles=[profile(gpu=-1)])) == 1


def test_an_encrypted_section_is_refused_and_never_shown():
    raw = raw_config("local")
    with pytest.raises(StackFileError) as caught:
        load("local", raw, secret_keys={"mlhub:registry"})
    assert caught.value.sentences == [
        f"{FILE}: registry is encrypted; sections are plain, secrets have keys of their own",
        f"{FILE}: registry is missing; give a section with repository",
    ]


def test_a_secret_of_its_own_key_is_left_to_its_reader():
    raw = raw_config("local") | {"mlhub:harbor_password": "hush", "aws:region": "eu"}
    load("local", raw, secret_keys={"mlhub:harbor_password"})


def test_V9_a_secret_in_plain_text_is_refused_and_never_shown():
    raw = raw_config("local") | {"mlhub:harbor_password": "hush"}
    with pytest.raises(StackFileError) as caught:
        load("local", raw)
    assert caught.value.sentences == [
        f"{FILE}: harbor_password is in plain text; change it where it came from, since it has "
        "been readable, then `pulumi config set --secret mlhub:harbor_password --stack local`"
    ]


def test_J8_a_secret_that_a_stack_needs_is_asked_for_before_anything_exists():
    with pytest.raises(StackFileError) as caught:
        load("prod", raw_config("prod"))
    asked = [sentence.split()[1] for sentence in caught.value.sentences]
    assert asked == [
        "mlhub:keycloak_client_secret",
        "mlhub:harbor_password",
        "mlhub:s3_secret_key",
    ]


def test_a_long_value_is_shown_in_part():
    (sentence,) = sentences(domain=["x" * 500])
    assert len(sentence) < 250


@pytest.mark.parametrize("memory", ["0G", "64", "64Gi", "-1G", "0.0G", "", "1.G"])
def test_an_amount_that_kubespawner_would_read_otherwise_is_refused(memory):
    assert sentences(profiles=[profile(memory={"limit": memory, "guarantee": "1G"})])


@pytest.mark.parametrize("path", ["mlhub/users", "/mlhub/users/", "/a--b", "/", "//users"])
def test_a_group_path_that_the_hub_could_not_name_is_refused(path):
    assert sentences(identity__access_groups=[path])


def test_5G_of_kubespawner_and_5Gi_of_kubernetes_are_the_same():
    assert in_bytes("5G") == in_bytes("5Gi") == 5 * 2**30
    assert in_bytes("2.5G") == 2560 * 2**20


# The schema for editors


def test_the_schema_is_up_to_date():
    assert SCHEMA.read_text() == text(), "run `python -m tools.write_schema`"


def test_every_stack_file_is_right_by_the_schema_and_points_to_it():
    files = sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))
    assert files
    for file in files:
        jsonschema.validate(yaml.safe_load(file.read_text()), schema())
        assert file.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
        stack_file(file.name.split(".")[1])


def test_the_schema_refuses_what_the_model_refuses():
    document = yaml.safe_load((ROOT / FILE).read_text())
    document["config"]["mlhub:hub"]["node_prot"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())
