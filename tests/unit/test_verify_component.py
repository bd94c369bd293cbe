"""The verification in the cluster: what its Jobs may do, whom they reach, when they begin."""

import json
from typing import Any

import pytest

from components import names
from components.platform import Platform
from mlhub.verify.settings import TEMPORARY, Settings
from tests.unit.recorder import STACKS, Monitor, is_secret, platform, run, stack_file
from tests.unit.test_config import sentences

CRON, JOB = "kubernetes:batch/v1:CronJob", "kubernetes:batch/v1:Job"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"
CLIENT = "keycloak:openid/client:Client"
GRANT = "keycloak:openid/clientServiceAccountRole:ClientServiceAccountRole"
AFTER_UP = [stack for stack in STACKS if stack != "local"]


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest) -> Monitor:
    return platform(request.param)


def cron(monitor: Monitor) -> dict[str, Any]:
    return monitor.one(CRON, "verify").plain


def after_up(monitor: Monitor) -> list[dict[str, Any]]:
    return [r.plain for r in monitor.of_type(JOB) if r.name == "verify-after-up"]


def jobs(monitor: Monitor) -> list[dict[str, Any]]:
    """The specs of every Job that verifies."""
    found = [cron(monitor)["spec"]["jobTemplate"]["spec"], *(j["spec"] for j in after_up(monitor))]
    assert found
    return found


def told(monitor: Monitor) -> Settings:
    data = monitor.one("kubernetes:core/v1:ConfigMap", "verify").plain["data"]
    return Settings(**json.loads(data["verify.json"]))


@pytest.mark.parametrize("name", STACKS)
def test_T12_the_settings_of_every_stack_are_those_that_the_program_takes(name: str) -> None:
    config, settings = stack_file(name), told(platform(name))
    assert (settings.hub_url, settings.keycloak_url) == (config.hub_url, config.keycloak_url)
    assert (settings.realm, settings.login_realm) == (config.identity.realm,) * 2
    assert (settings.mlflow, settings.execution) == (True, True)
    assert settings.groups
    assert not set(settings.groups) & set(config.identity.admin_groups), "no administrator"
    assert set(settings.profiles) <= {profile.slug for profile in config.profiles}
    assert settings.client_id == names.VERIFY_CLIENT
    proxy = "http://proxy-public.jupyterhub.svc.cluster.local:80"
    assert settings.via[config.hub_url] == proxy
    inside = {"http://keycloak.foundation.svc.cluster.local:8080"} if name == "local" else set()
    assert set(settings.via.values()) - {proxy} == inside


def test_T12_a_job_is_tried_once_and_ends_by_itself(stack: Monitor) -> None:
    for job in jobs(stack):
        assert job["backoffLimit"] == 0
        assert "activeDeadlineSeconds" not in job, "its pod and log would go with it"
        pod = job["template"]["spec"]
        assert pod["activeDeadlineSeconds"] == 3600
        assert pod["restartPolicy"] == "Never"
        (container,) = pod["containers"]
        assert container["command"][-2:] == ["mlhub.verify", "/etc/mlhub/verify.json"]
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == "/etc/mlhub"
        assert "/hub:" in container["image"], "the image that has what it imports"


def test_T14_its_pod_has_no_privilege_and_no_token_of_the_cluster(stack: Monitor) -> None:
    account = stack.one("kubernetes:core/v1:ServiceAccount", "verify").plain
    assert account["automountServiceAccountToken"] is False
    bound = [r for r in stack.registrations if r.type.endswith("RoleBinding")]
    assert all(s["name"] != "verify" for r in bound for s in r.plain["subjects"])
    for job in jobs(stack):
        pod = job["template"]["spec"]
        assert pod["serviceAccountName"] == "verify"
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert set(container["resources"]["limits"]) == {"cpu", "memory"}


def test_T11_its_pods_reach_the_proxy_and_keycloak_and_nobody_reaches_them(stack: Monitor) -> None:
    spec = stack.one(POLICY, "verify").plain["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in spec
    proxy, keycloak, dns = spec["egress"]
    labels = {"app": "jupyterhub", "component": "proxy"}
    assert proxy["to"] == [{"podSelector": {"matchLabels": labels}}]
    assert [port["port"] for port in proxy["ports"]] == [8000]
    assert keycloak["to"]
    assert [port["port"] for port in keycloak["ports"]] in ([8080], [443])
    assert {port["port"] for port in dns["ports"]} == {53}
    for job in jobs(stack):
        pod = job["template"]["metadata"]["labels"]
        assert spec["podSelector"]["matchLabels"].items() <= pod.items()
        assert pod["hub.jupyter.org/network-access-proxy-http"] == "true"
        assert not spec["podSelector"]["matchLabels"].items() <= labels.items()


def test_T1_at_keycloak_it_may_make_people_and_has_no_page(stack: Monitor) -> None:
    client = stack.one(CLIENT, names.VERIFY_CLIENT).plain
    flows = ("standardFlowEnabled", "implicitFlowEnabled", "directAccessGrantsEnabled")
    assert client["serviceAccountsEnabled"] is True
    assert not any(client[flow] for flow in flows)
    account = f"account-of-{names.VERIFY_CLIENT}"
    roles = [r.plain for r in stack.of_type(GRANT)]
    mine = [r["role"] for r in roles if r["serviceAccountUserId"] == account]
    assert mine == ["manage-users"]
    assert client["clientId"] != f"service-account-{TEMPORARY}"


def test_V9_the_clients_secret_is_in_one_secret_and_named_by_the_pods(stack: Monitor) -> None:
    secret = stack.one("kubernetes:core/v1:Secret", "mlhub-verify")
    data = secret.inputs["stringData"]
    assert is_secret(data) or all(is_secret(value) for value in data.values())
    word = secret.plain["stringData"]["client-secret"]
    assert stack.one(CLIENT, names.VERIFY_CLIENT).plain["clientSecret"] == word
    for job in jobs(stack):
        (variable,) = job["template"]["spec"]["containers"][0]["env"]
        assert variable == {
            "name": "MLHUB_VERIFY_CLIENT_SECRET",
            "valueFrom": {"secretKeyRef": {"name": "mlhub-verify", "key": "client-secret"}},
        }


@pytest.mark.parametrize("name", STACKS)
def test_T12_the_schedule_is_the_stacks_and_one_runs_at_a_time(name: str) -> None:
    config, spec = stack_file(name).verify, cron(platform(name))["spec"]
    assert config is not None
    assert (spec["schedule"], spec["timeZone"]) == ("17 4 * * *", "Etc/UTC")
    assert spec["suspend"] is config.suspended is (name == "local")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert (spec["successfulJobsHistoryLimit"], spec["failedJobsHistoryLimit"]) == (3, 3)


@pytest.mark.parametrize("name", AFTER_UP)
def test_T12_an_up_ends_with_a_job_that_it_does_not_wait_for(name: str) -> None:
    monitor = platform(name)
    (job,) = after_up(monitor)
    assert job["metadata"]["annotations"] == {"pulumi.com/skipAwait": "true"}
    assert "ttlSecondsAfterFinished" not in job["spec"], "the next up would make it anew"
    assert "name" not in job["metadata"], "another one in its place needs another name"
    (made,) = [r for r in monitor.registrations if r.name == "verify-after-up" and r.custom]
    release = monitor.one("kubernetes:helm.sh/v3:Release", "jupyterhub").urn
    (component,) = monitor.of_type("mlhub:up:VerifyAfterUp")
    needed = made.dependencies | component.dependencies
    assert {release, monitor.one(CRON, "verify").urn} <= needed


def test_T12_local_begins_none_by_itself() -> None:
    assert after_up(platform("local")) == []


def mark(**changes: Any) -> str:
    """What makes another Job of the one after an `up`, in `dev` with sections changed."""
    config = stack_file("dev").model_copy(update=changes)
    (job,) = after_up(run(lambda: Platform(config), "dev"))
    return str(job["spec"]["template"]["metadata"]["annotations"]["mlhub/applied"])


def test_T12_another_stack_is_tried_anew_and_the_same_is_not() -> None:
    (job,) = after_up(platform("dev"))
    before = job["spec"]["template"]["metadata"]["annotations"]["mlhub/applied"]
    assert mark() == before
    gpu = stack_file("dev").gpu.model_copy(update={"max_age": 60})
    assert mark(gpu=gpu) != before


def test_a_stack_without_the_section_has_nothing_of_it() -> None:
    config = stack_file("dev").model_copy(update={"verify": None})
    urns = " ".join(r.urn for r in run(lambda: Platform(config), "dev").registrations)
    assert "verify" not in urns.lower()


@pytest.mark.parametrize(
    "schedule", ["daily", "17 4 * *", "17 4 1 * *", "17 4 * 2 *", "61 x * * *"]
)
def test_a_schedule_that_is_none_or_leaves_a_week_out_is_refused(schedule: str) -> None:
    (said,) = sentences(verify={"schedule": schedule})
    assert f'verify.schedule is "{schedule}"; it must be minute, hour' in said


def test_a_profile_that_there_is_not_is_refused() -> None:
    (said,) = sentences(verify={"profiles": ["small-cpu", "huge"]})
    assert "verify.profiles[1] is huge; one of profiles[].slug (standard-cpu, small-cpu" in said
    assert sentences(verify={"schedule": "*/30 4-6 * * 1-5,0"}) == []
