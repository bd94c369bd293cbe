"""The execution component: what it registers and may do, and settings that the service takes."""

import json
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pulumi_random as random
import pytest

from components import execution_server, names
from components.execution import Execution, ExecutionArgs
from components.values import BuiltImage, hub_values
from mlhub.execution.jobs import run_job
from mlhub.execution.settings import Settings
from mlhub.execution.store import Run
from tests.unit.recorder import Monitor, is_secret, readable, run, stack_file

STACKS = ["dev", "staging", "prod"]
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"


def values(stack: Any) -> dict[str, Any]:
    wanted = ["hub", "proxy", *stack.user_images]
    images = {n: BuiltImage(f"registry/{n}", f"1@sha256:{n}") for n in wanted}
    return hub_values(stack, images)


def deployed(stack: str) -> Monitor:
    def program() -> Execution:
        config = stack_file(stack)
        providers = [k8s.Provider("kubernetes"), random.Provider("random")]
        return Execution(
            "execution",
            ExecutionArgs(
                namespace=config.hub.namespace,
                foundation_namespace=config.foundation.namespace,
                settings=execution_server.settings(config, values(config)),
                image="registry/execution:1@sha256:0",
                pull_secrets=[],
                database_password=pulumi.Output.secret("the-database-password"),
                keycloak_secret=pulumi.Output.secret("the-keycloak-secret"),
                kubernetes_api={
                    "to": [{"ip_block": {"cidr": "10.0.0.1/32"}}],
                    "ports": [{"port": 6443}],
                },
                keycloak={"to": [{"ip_block": {"cidr": "10.0.8.10/32"}}]},
                mlflow_namespace="mlflow",
            ),
            pulumi.ResourceOptions(providers=providers),
        )

    return run(program)


@pytest.fixture(scope="module")
def dev() -> Monitor:
    return deployed("dev")


def settings_of(monitor: Monitor) -> Settings:
    config = monitor.one("kubernetes:core/v1:ConfigMap", "execution").plain
    return Settings.model_validate_json(config["data"]["execution.json"])


@pytest.mark.parametrize("stack", STACKS)
def test_P5_the_settings_of_every_stack_are_those_that_the_service_takes(stack):
    config, monitor = stack_file(stack), deployed(stack)
    settings = settings_of(monitor)
    assert [p.slug for p in settings.profiles] == [p.slug for p in config.profiles]
    assert settings.limits.run_seconds == config.execution.run_seconds
    assert settings.base_path == "/services/execution"
    assert settings.keycloak.issuer == f"{config.keycloak_url}/realms/{config.identity.realm}"


def test_P5_a_runs_pod_has_its_profiles_image_and_limits(dev):
    settings = settings_of(dev)
    profile = settings.profile(None)
    task = Run(
        "0" * 16,
        "alice@example.com",
        "alice@example.com",
        "a.ipynb",
        "b.ipynb",
        False,
        {},
        profile.slug,
        60,
        None,
        0.0,
    )
    pod = run_job(settings, task, labels={}, annotations={})["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == profile.image
    assert "@sha256:" in container["image"]
    assert container["resources"]["limits"]["memory"] == str(profile.mem_limit)
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert claim == "claim-alice-example-com---ff8d9819"


def test_T14_the_service_may_make_jobs_in_one_namespace_and_reads_no_secret(dev):
    roles = [r for r in dev.registrations if "rbac.authorization.k8s.io" in r.type]
    assert sorted(r.type.rpartition(":")[2] for r in roles) == ["Role", "RoleBinding"]
    (role,) = [r.plain for r in roles if r.type.endswith(":Role")]
    allowed = {
        (resource, verb)
        for rule in role["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {
        *(
            (kind, verb)
            for kind in ("jobs", "cronjobs")
            for verb in ("create", "get", "list", "patch", "delete")
        ),
        # Its own to give; it reads none, for there are the hub's.
        ("secrets", "create"),
        ("pods", "list"),
        ("pods/log", "get"),
        ("persistentvolumeclaims", "get"),
    }


def test_T2_no_secret_is_readable_and_the_pod_names_only_the_secret(dev):
    (secret,) = dev.of_type("kubernetes:core/v1:Secret")
    assert secret.name == "mlhub-execution"
    data = secret.inputs["stringData"]
    assert is_secret(data) or all(is_secret(value) for value in data.values())
    for registration in dev.registrations:
        for text in readable(registration.inputs):
            assert "the-database-password" not in text
            assert "the-keycloak-secret" not in text
            assert "the-mock-made-this-secret" not in text
    deployment = dev.one("kubernetes:apps/v1:Deployment", "execution").plain
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    from_secrets = {
        e["name"]: e["valueFrom"]["secretKeyRef"]["name"]
        for e in container["env"]
        if "valueFrom" in e
    }
    assert from_secrets == {
        "JUPYTERHUB_API_TOKEN": "mlhub-execution",
        "PGPASSWORD": "mlhub-execution",
        "KEYCLOAK_CLIENT_SECRET": "mlhub-execution",
    }


def test_P9_the_pod_is_restricted_and_asked_for_its_health(dev):
    deployment = dev.one("kubernetes:apps/v1:Deployment", "execution").plain["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert (security["readOnlyRootFilesystem"], security["allowPrivilegeEscalation"]) == (
        True,
        False,
    )
    assert security["capabilities"] == {"drop": ["ALL"]}
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": 8002}
    assert deployment["selector"]["matchLabels"].items() <= (
        deployment["template"]["metadata"]["labels"].items()
    )
    service = dev.one("kubernetes:core/v1:Service", "execution").plain["spec"]
    assert service["ports"][0]["port"] == 8002


def test_T11_only_the_proxy_and_schedules_reach_the_service_and_it_reaches_what_it_asks(dev):
    policy = dev.one(POLICY, "execution").plain["spec"]
    (way_in,) = policy["ingress"]
    assert way_in["from"] == [
        {"podSelector": {"matchLabels": {"app": "jupyterhub", "component": "proxy"}}},
        {"podSelector": {"matchLabels": names.selector("execution-trigger")}},
    ]
    assert [p["port"] for p in way_in["ports"]] == [8002]
    ports = [[p["port"] for p in rule.get("ports", [])] for rule in policy["egress"]]
    assert ports == [[8081], [5432], [6443], [], [5000], [53, 53]]
    assert dev.one(POLICY, "proxy-to-execution").plain["spec"]["policyTypes"] == ["Egress"]
    trigger = dev.one(POLICY, "execution-trigger").plain["spec"]
    assert "ingress" not in trigger
    assert [[p["port"] for p in rule["ports"]] for rule in trigger["egress"]] == [[8002], [53, 53]]
    postgres = dev.one(POLICY, "execution-to-postgres").plain
    assert postgres["metadata"]["namespace"] == stack_file("dev").foundation.namespace


def test_a_changed_setting_starts_the_service_anew(dev):
    marks = dev.one("kubernetes:apps/v1:Deployment", "execution").plain["spec"]["template"][
        "metadata"
    ]["annotations"]
    assert all(len(mark) >= 16 for mark in marks.values())


def test_the_components_outputs_are_registered(dev):
    (component,) = dev.of_type("mlhub:execution:Execution")
    assert is_secret(dev.outputs[component.urn]["hub_token"])


def test_a_profile_that_a_run_could_not_follow_is_refused_by_name():
    given = {"slug": "odd", "kubespawner_override": {"image": "i", "lifecycle_hooks": {}}}
    with pytest.raises(ValueError, match="profile odd overrides lifecycle_hooks"):
        execution_server.profile(given)


def test_T6_a_run_tolerates_the_taints_that_a_server_of_its_profile_does():
    config = stack_file("dev")
    given = values(config)
    made = {one["slug"]: one for one in execution_server.settings(config, given)["profiles"]}
    for stated in given["singleuser"]["profileList"]:
        tolerations = stated["kubespawner_override"]["tolerations"]
        assert made[stated["slug"]]["tolerations"] == tolerations
        gpus = made[stated["slug"]]["extra_resource_limits"]["nvidia.com/gpu"]
        assert ("nvidia.com/gpu" in [one["key"] for one in tolerations]) == (gpus != "0")


def test_the_hub_is_told_of_a_service_that_it_never_waits_for():
    told = execution_server.hub_values("jupyterhub")
    assert "url" not in told["services"]["execution"]
    routes = told["config"]["Proxy"]["extra_routes"]
    assert routes == {"/services/execution/": "http://execution.jupyterhub.svc.cluster.local:8002"}
    assert told["loadRoles"]["execution"]["scopes"] == ["custom:mlhub:admission"]
    json.dumps(told)
    assert names.EXECUTION_PATH in next(iter(routes))
