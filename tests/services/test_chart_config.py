"""The chart's own configuration file, executed, on the real classes it configures."""

import asyncio
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from jsonschema import ValidationError, validate
from jupyterhub.orm import Role
from jupyterhub_idle_culler import IdleCuller
from kubernetes_asyncio.client import ApiClient
from traitlets.config import Config

from mlhub.hub import KeycloakAuthenticator, MlhubSpawner
from tests.services.hub import (
    CHART,
    PROFILES,
    SECRETS,
    VALUES,
    chart_values,
    initialized,
    merged,
    mount,
)
from tests.services.test_hub_profiles import node
from tests.unit.recorder import platform

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsUser": 1000,
}


async def pod_of(app: Any, name: str = "alice", **user_options: str) -> tuple[Any, Any]:
    """The pod and the claim that `name` would get, as the API would be sent them."""
    user = SimpleNamespace(name=name, id=1, url=f"/user/{name}/", escaped_name=name, settings={})
    hub = app.hub
    user.orm_user = SimpleNamespace(id=1, name=name, new_api_token=lambda **given: "x")
    user.groups = [SimpleNamespace(name=name) for name in ("mlhub--users", "mlhub--gpu")]
    spawner = MlhubSpawner(
        config=app.config, user=user, hub=hub, authenticator=app.authenticator, _mock=True
    )
    spawner.user_options = user_options
    spawner.server = SimpleNamespace(base_url=f"/user/{name}/")
    spawner.api_token = spawner.oauth_client_id = "x"
    await spawner.load_user_options()
    plain = ApiClient().sanitize_for_serialization
    return plain(await spawner.get_pod_manifest()), plain(spawner.get_pvc_manifest())


@pytest.fixture
async def app(hub_pod: Path, kubernetes: Any) -> Any:
    """JupyterHub as the chart's defaults configure it."""
    async with initialized(hub_pod, chart_values({"singleuser": {"profileList": PROFILES}})) as app:
        yield app


async def test_T3_keycloak_is_the_only_authenticator_and_kubernetes_the_only_spawner(app):
    assert app.authenticator_class is KeycloakAuthenticator
    assert app.spawner_class is MlhubSpawner
    assert app.authenticator.allowed_groups == {"mlhub--users", "mlhub--admins"}
    assert app.authenticator.admin_groups == {"mlhub--admins"}
    assert not app.authenticator.allow_all
    assert app.authenticator.auth_refresh_strict
    assert app.authenticator.enable_auth_state


async def test_V9_secrets_come_from_the_existing_secret_alone(app):
    assert app.cookie_secret == bytes.fromhex(SECRETS["hub.config.JupyterHub.cookie_secret"])
    assert app.config.CryptKeeper["keys"] == [SECRETS["hub.config.CryptKeeper.keys"]]
    assert app.proxy.auth_token == SECRETS["hub.config.ConfigurableHTTPProxy.auth_token"]
    assert os.environ["PGPASSWORD"] == SECRETS["hub.db.password"]
    assert app.config.JupyterHub.db_url == "sqlite://"


async def test_the_proxy_and_the_servers_outlive_the_hub(app):
    assert not app.proxy.should_start
    assert not app.cleanup_servers
    assert (app.proxy.api_url, app.hub.url) == ("http://proxy-api:8001", "http://hub:8081/hub/")


async def test_V4_the_culler_may_do_what_it_needs_and_no_more(app):
    (service,) = app.services
    assert service["command"][1:3] == ["-m", "jupyterhub_idle_culler"]
    assert {"--timeout=3600", "--cull-every=600", "--cull-users=False"} <= set(service["command"])
    role = app.db.query(Role).filter_by(name="jupyterhub-idle-culler").one()
    assert set(role.scopes) == {
        "list:users",
        "read:users:activity",
        "read:servers",
        "delete:servers",
    }
    assert [owner.name for owner in role.services] == ["jupyterhub-idle-culler"]


async def test_a_service_has_the_token_of_the_secret_and_the_scopes_of_its_role(
    hub_pod, kubernetes
):
    role = {"scopes": ["read:users:name"], "services": ["execution"]}
    given = {"services": {"execution": {}}, "loadRoles": {"execution": role}}
    async with initialized(
        hub_pod, chart_values({"hub": given, "cull": {"enabled": False}})
    ) as app:
        (service,) = app.services
        role = app.db.query(Role).filter_by(name="execution").one()
    assert service == {
        "name": "execution",
        "api_token": SECRETS["hub.services.execution.apiToken"],
    }
    assert (role.scopes, [owner.name for owner in role.services]) == (
        ["read:users:name"],
        ["execution"],
    )


async def test_V4_the_culler_understands_its_options(hub_pod, kubernetes):
    given = {"timeout": 60, "every": 30, "concurrency": 3, "maxAge": 86400, "users": True}
    async with initialized(hub_pod, chart_values({"cull": given | {"adminUsers": False}})) as app:
        command = app.services[0]["command"][3:]
        role = app.db.query(Role).filter_by(name="jupyterhub-idle-culler").one()
    culler = IdleCuller()
    culler.parse_command_line(command)
    assert not culler.extra_args
    assert culler.config.IdleCuller == {
        "url": "http://127.0.0.1:8081/hub/api",
        "timeout": 60,
        "cull_every": 30,
        "concurrency": 3,
        "max_age": 86400,
        "cull_users": True,
        "cull_admin_users": False,
        "remove_named_servers": False,
    }
    assert "admin:users" in role.scopes


@pytest.fixture(scope="module", params=["local", "dev"])
def program_values(request: pytest.FixtureRequest) -> Any:
    """The values with which the program registers a stack's Release."""
    # Pulumi's mocks want a loop in the thread; pytest-asyncio leaves none behind.
    asyncio.set_event_loop(loop := asyncio.new_event_loop())
    monitor = platform(request.param)
    loop.close()
    asyncio.set_event_loop(None)
    return monitor.one("kubernetes:helm.sh/v3:Release", "jupyterhub").plain["values"]


async def test_the_programs_own_values_make_a_hub_and_the_pods_of_its_profiles(
    hub_pod, kubernetes, program_values
):
    given = program_values
    kubernetes.put("nodes", node("node-a", 2))
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    release = {"Chart": {"Name": "x", "Version": "1"}, "Release": {"Name": "jupyterhub"}}
    async with initialized(hub_pod, merged(defaults, given) | release) as app:
        for profile in given["singleuser"]["profileList"]:
            each_node = (
                given["custom"]["mlhub"]["profiles"].get(profile["slug"], {}).get("each_node")
            )
            slug = f"{profile['slug']}--node-a" if each_node else profile["slug"]
            pod, claim = await pod_of(app, profile=slug)
            assert ("nodeAffinity" in pod["spec"].get("affinity", {})) == bool(each_node)
            container = pod["spec"]["containers"][0]
            override = profile["kubespawner_override"]
            assert container["image"] == override["image"]
            limits, requests = (container["resources"][key] for key in ("limits", "requests"))
            assert limits["cpu"] == override["cpu_limit"]
            assert limits["nvidia.com/gpu"] == override["extra_resource_limits"]["nvidia.com/gpu"]
            assert 0 < requests["memory"] < limits["memory"]
            assert 0 < requests["cpu"] < limits["cpu"]
            assert claim["metadata"]["name"] == "claim-alice"
            bounded = {
                volume["name"]
                for volume in pod["spec"]["volumes"]
                if "persistentVolumeClaim" in volume or volume["emptyDir"]["sizeLimit"]
            }
            mounts = container["volumeMounts"]
            paths = {mount["mountPath"] for mount in mounts if mount["name"] in bounded}
            assert {"/home/jovyan", "/tmp", "/var/tmp"} <= paths  # noqa: S108
            assert RESTRICTED.items() <= container["securityContext"].items()


async def test_V8_T5_the_pod_has_limits_and_guarantee(app):
    pod, _ = await pod_of(app, profile="other")
    assert pod["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": 2, "memory": 8 * 2**30},
        "requests": {"cpu": 1, "memory": 2 * 2**30},
    }


async def test_T14_user_pods_have_no_token_and_no_privilege(app):
    pod, _ = await pod_of(app)
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec
    (container,) = spec["containers"]
    assert RESTRICTED.items() <= container["securityContext"].items()
    assert not container["securityContext"].get("privileged")
    assert spec["securityContext"] == {
        "fsGroup": 100,
        "fsGroupChangePolicy": "OnRootMismatch",
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & spec.keys()


async def test_T7_the_home_is_the_persons_own_volume_and_is_never_deleted(app):
    pod, claim = await pod_of(app)
    assert claim["metadata"]["name"] == "claim-alice"
    assert claim["spec"]["storageClassName"] == "local-path"
    assert claim["spec"]["resources"]["requests"]["storage"] == "10Gi"
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == "claim-alice"
    (mount,) = pod["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/home/jovyan"
    assert not MlhubSpawner(config=app.config, _mock=True).delete_pvc


def beside(user: str) -> dict[str, Any]:
    """What a pod of that person is told where homes are disks."""
    own = {"component": "singleuser-server", "hub.jupyter.org/username": user}
    term = {"labelSelector": {"matchLabels": own}, "topologyKey": "kubernetes.io/hostname"}
    return {"requiredDuringSchedulingIgnoredDuringExecution": [term]}


async def test_T7_a_home_that_is_a_disk_is_asked_for_on_one_node_alone(hub_pod, kubernetes):
    """On another, the second server of a person waited for its home in vain."""
    given = chart_values({"singleuser": {"profileList": PROFILES}})
    async with initialized(hub_pod, given) as app:
        pod, _ = await pod_of(app)
    assert pod["spec"]["affinity"] == {"podAffinity": beside("alice")}
    # Without its own labels among those it looks for, a person's first server found no node.
    assert {
        "component": "singleuser-server",
        "hub.jupyter.org/username": "alice",
    }.items() <= pod["metadata"]["labels"].items()


async def test_T8_a_home_of_many_nodes_leaves_its_person_all_of_them(hub_pod, kubernetes):
    many = {"dynamic": {"storageAccessModes": ["ReadWriteMany"]}}
    async with initialized(hub_pod, chart_values({"singleuser": {"storage": many}})) as app:
        pod, _ = await pod_of(app)
    assert "affinity" not in pod["spec"]


async def test_M3_two_names_are_never_one_pod(app):
    names = ["alice", "alice@example.com", "alice-example-com", "a.lice", "alice--x", "ä"]
    pods = [(await pod_of(app, name))[0]["metadata"]["name"] for name in names]
    assert len(set(pods)) == len(names)
    assert pods[0] == "jupyter-alice"


async def test_M3_two_servers_are_never_one_pod_and_two_people_never_one_home(app):
    """Every short name of characters that slugs treat apart."""
    names = ["".join(name) for n in (1, 2, 3) for name in itertools.product("a-.", repeat=n)]
    pods, homes = {}, {}
    for user, server in itertools.product(names, ["", "a", "a-a", "--a"]):
        who = SimpleNamespace(name=user, id=1, escaped_name=user, settings={})
        record = SimpleNamespace(name=server, state={}, server=None)
        spawner = MlhubSpawner(config=app.config, user=who, orm_spawner=record, _mock=True)
        pods[user, server] = spawner.pod_name
        homes[user, server] = spawner.pvc_name
    assert len(set(pods.values())) == len(pods)
    assert len(set(homes.values())) == len(names)


async def test_T11_the_network_policies_find_the_pods_by_these_labels(app):
    pod, _ = await pod_of(app)
    assert {
        "app": "jupyterhub",
        "release": "jupyterhub",
        "component": "singleuser-server",
        "hub.jupyter.org/network-access-hub": "true",
    }.items() <= pod["metadata"]["labels"].items()


async def test_values_reach_the_traits_that_they_name(hub_pod, kubernetes):
    given = {
        "hub": {"baseUrl": "/team/", "config": {"JupyterHub": {"shutdown_on_logout": True}}},
        "debug": {"enabled": True},
        "imagePullSecrets": ["registry"],
        "singleuser": {
            "image": {"pullPolicy": "Always"},
            "defaultUrl": "/lab",
            "startTimeout": 60,
            "extraEnv": {"A": "b"},
            "storage": {
                "extraVolumes": [{"name": "data", "emptyDir": {}}],
                "extraVolumeMounts": {"data": {"name": "data", "mountPath": "/data"}},
            },
        },
    }
    async with initialized(hub_pod, chart_values(given)) as app:
        assert (app.base_url, app.shutdown_on_logout) == ("/team/", True)
        assert app.config.JupyterHub.log_level == "DEBUG"
        assert "--url=http://127.0.0.1:8081/team/hub/api" in app.services[0]["command"]
        pod, _ = await pod_of(app)
        spawner = MlhubSpawner(config=app.config, _mock=True)
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "registry"}]
    assert container["imagePullPolicy"] == "Always"
    assert {"name": "A", "value": "b"} in container["env"]
    assert {"name": "JUPYTERHUB_DEFAULT_URL", "value": "/lab"} in container["env"]
    assert [v["name"] for v in pod["spec"]["volumes"]] == ["volume-alice", "data"]
    assert [m["mountPath"] for m in container["volumeMounts"]] == ["/home/jovyan", "/data"]
    assert spawner.start_timeout == 60


async def test_T2_a_secret_without_a_key_ends_the_hub_and_names_both(hub_pod, kubernetes):
    services = {key.split(".")[2]: {} for key in SECRETS if key.startswith("hub.services.")}
    del services["jupyterhub-idle-culler"]
    for key in (key for key in SECRETS if key.startswith("hub.")):
        values = chart_values({"hub": {"services": services}})
        mount(hub_pod, values)
        (hub_pod / "existing-secret" / key).unlink()
        with pytest.raises(SystemExit, match=rf"mlhub-hub .* has no key {key}"):
            execute()


def execute() -> None:
    config = Config()
    code = compile((CHART / "files" / "jupyterhub_config.py").read_text(), "config", "exec")
    exec(code, {"get_config": lambda: config})  # noqa: S102


@pytest.mark.parametrize(
    "given",
    [
        {"hub": {"configs": {}}},
        {"hub": {"config": {"jupyterHub": {}}}},
        {"hub": {"existingSecret": None}},
        {"hub": {"db": {"type": "sqlite-pvc"}}},
        {"hub": {"db": {"url": "postgresql+psycopg2://hub:password@host/hub"}}},
        {"hub": {"db": {"url": "postgresql://hub@host/hub"}}},
        {"hub": {"image": {"tag": ""}}},
        {"proxy": {"https": {"enabled": True}}},
        {"proxy": {"secretToken": "x"}},
        {"singleuser": {"extraVolumes": []}},
        {"singleuser": {"allowPrivilegeEscalation": True}},
        {"singleuser": {"uid": 0}},
        {"singleuser": {"cloudMetadata": {"blockWithIptables": True}}},
        {"scheduling": {"userScheduler": {"enabled": True}}},
        {"ingress": {"enabled": True}},
        {"typo": 1},
    ],
    ids=json.dumps,
)
def test_T4_the_schema_refuses_what_the_chart_cannot_do(given):
    with pytest.raises(ValidationError):
        chart_values(given)


def test_T4_every_key_of_the_chart_is_in_its_schema_and_has_a_default():
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())

    def keys(schema_node: dict[str, Any], path: str = "") -> set[str]:
        node = schema_node
        if "$ref" in node:
            node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
        found = {path} if path else set()
        for key, below in node.get("properties", {}).items():
            found |= keys(below, f"{path}.{key}")
        return found

    def given(values: Any, path: str = "") -> set[str]:
        found = {path} if path else set()
        for key, below in values.items() if isinstance(values, dict) else ():
            found |= given(below, f"{path}.{key}")
        return found

    free = (".hub.podSecurityContext.", ".hub.containerSecurityContext.", ".proxy.chp.container")
    declared = {path for path in given(defaults) if not path.startswith(free)}
    unset = {".global", ".hub.resources.limits", ".hub.resources.requests"} | {
        f".proxy.chp.resources.{kind}" for kind in ("limits", "requests")
    }
    assert keys(schema) - {".proxy.chp.containerSecurityContext"} - unset == declared - {
        ".proxy.chp.containerSecurityContext"
    }
    validate(merged(defaults, VALUES), schema)


def test_T4_the_chart_says_the_version_of_the_hub_in_the_image():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    locked = (CHART.parents[1] / "images" / "hub" / "requirements.txt").read_text()
    assert f"jupyterhub=={chart['appVersion']} " in locked
