"""The execution API with the real JupyterHub: its tokens, its admission, its proxy, its pods."""

import json
import time
from typing import Any

import pytest

from components import execution_server
from mlhub.execution.admission import AdmissionRequest, AdmissionSilentError, HubAdmission
from mlhub.execution.jobs import run_job
from mlhub.execution.settings import Settings
from mlhub.execution.store import Run
from tests.ports import free_port
from tests.services.execution import Jobs, serving, settings
from tests.services.hub import SECRETS, Hub, chart_values, logged_in, until
from tests.services.test_execution_api import RUN, problem
from tests.services.test_execution_schedules import DAILY, Scheduled, this_minute
from tests.services.test_execution_sweeps import SWEEP, settled

HUB_TOKEN = SECRETS["hub.services.execution.apiToken"]


def profile(slug: str, gpus: int = 0) -> dict[str, Any]:
    return {
        "slug": slug,
        "display_name": slug,
        "default": slug == "standard",
        "kubespawner_override": {
            "image": "registry/ml-cpu@sha256:1",
            "cpu_limit": 2,
            "cpu_guarantee": 0.5,
            "mem_limit": "2G",
            "mem_guarantee": "1G",
            "extra_resource_limits": {"nvidia.com/gpu": str(gpus)},
            "extra_resource_guarantees": {"nvidia.com/gpu": str(gpus)},
        },
    }


VALUES = {
    "custom": {
        "mlhub": {
            "profiles": {"gpu": {"groups": ["/mlhub/gpu"]}},
            "quotas": {
                "user": {"servers": 2},
                "server": {"cpu": 16},
                "groups": {"/mlhub/gpu": {"gpu": 1}},
            },
        }
    },
    "hub": execution_server.hub_values("jupyterhub"),
    "singleuser": {
        "networkPolicy": {"enabled": True},
        "extraEnv": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
        "storage": {
            "extraVolumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "extraVolumeMounts": [{"name": "data", "mountPath": "/mnt/data", "readOnly": True}],
        },
        "profileList": [profile("standard"), profile("gpu", 1)],
    },
}


@pytest.fixture
async def hub(start_hub: Any) -> Hub:
    start = time.monotonic()
    started: Hub = await start_hub(VALUES)
    # A service that is down and has a `url` takes up to 40 s of each start.
    assert time.monotonic() - start < 20
    return started


@pytest.fixture
async def service(hub: Hub, alice: Any, serve: Any, tmp_path: Any) -> Any:
    cluster = Jobs()
    api = f"{hub.url}/hub/api"
    profiles = [execution_server.profile(p) for p in VALUES["singleuser"]["profileList"]]
    given = settings(
        await serve(cluster.application()),
        api,
        f"sqlite:///{tmp_path}/execution.db",
        profiles=profiles,
    )
    admission = HubAdmission(api, HUB_TOKEN)
    async with serving(given, free_port(), admission) as running:
        running.cluster = cluster
        yield running
    await cluster.close()


async def test_P9_the_proxy_has_the_route_though_nothing_answers_there(hub):
    route = hub.app.proxy.routes["/services/execution/"]
    assert route["target"] == "http://execution.jupyterhub.svc.cluster.local:8002"


async def test_P3_a_persons_own_token_runs_and_one_for_less_does_not(hub, service):
    user = hub.user("alice")
    for token in (user.new_api_token(), user.new_api_token(scopes=[execution_server.SCOPE])):
        async with service.client(token) as client:
            answer = await client.post("/execute", json=RUN)
            assert answer.status_code == 202, answer.text
            problem(await client.get("/runs?username=bob"), 403, "not-yours")
    async with service.client(user.new_api_token(scopes=["read:users:name!user"])) as client:
        problem(await client.post("/execute", json=RUN), 403, "scope")
    async with service.client(HUB_TOKEN) as client:
        problem(await client.post("/execute", json=RUN), 403, "not-a-person")


async def test_P10_a_token_of_ones_server_starts_runs(hub, service):
    token = hub.user("alice").new_api_token(roles=["server"])
    async with service.client(token) as client:
        assert (await client.post("/execute", json=RUN)).status_code == 202


async def test_P5_a_run_is_admitted_with_the_servers_and_its_pod_is_counted(hub, service):
    async with service.client(hub.user("alice").new_api_token()) as client:
        answers = [await client.post("/execute", json=RUN) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    body = problem(answers[2], 429, "quota")
    assert "stop one to start another" in body["detail"]
    assert body["quota"]["accounts"][0]["remains"]["servers"] == 0
    job = service.cluster.runs()[0]
    template = job["spec"]["template"]["metadata"]
    assert template["labels"]["mlhub/holder"] == "run"
    assert template["annotations"]["mlhub/owner"] == "alice"


async def test_P5_the_admission_says_no_room_gives_back_and_is_silent_in_words(hub, alice):
    admission = HubAdmission(f"{hub.url}/hub/api", HUB_TOKEN)
    asked = AdmissionRequest("alice", "0" * 16, "standard", 1, 2**30, 0)
    first = await admission.decide(asked)
    assert first.allowed
    second = await admission.decide(AdmissionRequest("alice", "1" * 16, "standard", 1, 2**30, 0))
    third = await admission.decide(AdmissionRequest("alice", "2" * 16, "standard", 1, 2**30, 0))
    assert (second.allowed, third.allowed, third.status) == (True, False, 429)
    await admission.release(first.reservation)
    assert (await admission.decide(asked)).allowed
    too_large = await admission.decide(
        AdmissionRequest("alice", "3" * 16, "standard", 99, 2**30, 0)
    )
    assert (too_large.allowed, too_large.status) == (False, 403)
    gone = await admission.decide(AdmissionRequest("nobody", "4" * 16, "standard", 1, 2**30, 0))
    assert (gone.allowed, gone.status, "nobody" in gone.reason) == (False, 403, True)
    await admission.close()
    for wrong in (
        HubAdmission(f"{hub.url}/hub/api", "no token"),
        HubAdmission("http://127.0.0.1:9", ""),
    ):
        with pytest.raises(AdmissionSilentError):
            await wrong.decide(asked)
        await wrong.release("0" * 16)
        await wrong.close()


GPU_RUN = RUN | {"profile": "gpu"}
USERS, GPUS = ["/mlhub/users"], ["/mlhub/users", "/mlhub/gpu"]


def now_in(hub: Hub, keycloak: Any, groups: list[str], name: str = "alice") -> None:
    """Keycloak has other groups of somebody's, and it is time to ask it."""
    keycloak.people[name] = groups
    hub.user(name)._auth_refreshed -= 1000
    hub.app.authenticator._asked.clear()


def not_for_alice(answer: Any) -> None:
    said = problem(answer, 403, "profile")["detail"]
    assert said == "alice may not use the profile 'gpu'. Theirs are: standard."


async def test_P5_a_profile_of_a_group_runs_for_its_members_alone_and_in_the_groups_quota(
    hub, service, keycloak, audited
):
    async with service.client(hub.user("alice").new_api_token()) as client:
        now_in(hub, keycloak, USERS)
        not_for_alice(await client.post("/execute", json=GPU_RUN))
        assert not service.cluster.runs()
        (line,) = audited("run.ask")
        assert (line["outcome"], line["profile"], line["reason"]) == ("refused", "gpu", "choice")
        now_in(hub, keycloak, GPUS)
        key = {"Idempotency-Key": "one"}
        first = await client.post("/execute", json=GPU_RUN, headers=key)
        assert first.status_code == 202, first.text
        (job,) = service.cluster.runs()
        notes = job["spec"]["template"]["metadata"]["annotations"]
        assert ["group", "/mlhub/gpu"] in json.loads(notes["mlhub/charges"])
        assert notes["mlhub/profile"] == "gpu"
        full = problem(await client.post("/execute", json=GPU_RUN), 429, "quota")["detail"]
        assert "of the group /mlhub/gpu" in full
        # Whose group is lost has no other run of it, and keeps the one that was promised.
        now_in(hub, keycloak, USERS)
        again = await client.post("/execute", json=GPU_RUN, headers=key)
        assert again.json()["run_id"] == first.json()["run_id"]
        not_for_alice(await client.post("/execute", json=GPU_RUN))
        # Nor does one begin while nobody knows whether they have it.
        now_in(hub, keycloak, GPUS)
        keycloak.silent = 500
        problem(await client.post("/execute", json=GPU_RUN), 503, "admission")


async def test_P5_whose_run_it_is_decides_and_not_who_asks_for_it(hub, service, keycloak):
    keycloak.people["carol"] = ["/mlhub/admins", "/mlhub/gpu"]
    keycloak.at_the_browser = "carol"
    async with hub.browser() as browser:
        await logged_in(browser)
    async with service.client(hub.user("carol").new_api_token()) as client:
        not_for_alice(await client.post("/execute", json=GPU_RUN))


async def test_P10_a_sweep_of_a_profile_that_is_not_ones_own_is_refused_as_a_whole(
    hub, service, audited
):
    async with service.client(hub.user("alice").new_api_token()) as client:
        made = await client.post("/sweeps", json=SWEEP | {"profile": "gpu"})
        assert made.status_code == 202, made.text
        sweep = await settled(client, made.json()["sweep_id"], "failed")
    assert sweep["counts"] == {"refused": 4}
    said = {point["message"] for point in sweep["points"]}
    assert said == {"alice may not use the profile 'gpu'. Theirs are: standard."}
    assert len(audited("run.ask")) == 1, "nor are three more asked for in vain"


async def test_P10_a_schedule_that_begins_after_its_person_has_lost_the_group_is_refused(
    hub, service, keycloak
):
    now_in(hub, keycloak, GPUS)
    async with service.client(hub.user("alice").new_api_token()) as client:
        made = await client.post("/schedules", json=DAILY | {"profile": "gpu"})
        (secret,) = service.cluster.secrets.values()
        token = secret["stringData"]["token"]
        daily = Scheduled(service, client, made.json()["schedule_id"], token)
        now_in(hub, keycloak, USERS)
        fired = await daily.fire(this_minute())
        assert fired.status_code == 200, "so that its trigger does not ask again"
        (last,) = (await daily.now())["last"]
    assert (last["outcome"], last["reason"]) == ("refused", "profile")
    assert last["message"] == "alice may not use the profile 'gpu'. Theirs are: standard."
    assert not service.cluster.runs()


async def test_P5_a_runs_pod_is_the_servers_pod_with_another_command(hub, alice, kubernetes):
    xsrf = next(cookie for cookie in alice.cookie_jar if cookie.key == "_xsrf").value
    await alice.post("/hub/api/users/alice/server", json={}, headers={"X-XSRFToken": xsrf})
    await until(lambda: kubernetes.kept["pods"])
    (server,) = kubernetes.kept["pods"].values()
    values = chart_values(VALUES)
    base = settings("http://k", "http://h", "sqlite://").model_dump()
    given = Settings.model_validate(
        base
        | {
            "pod": execution_server.pod_policy("jupyterhub", values),
            "profiles": [execution_server.profile(p) for p in values["singleuser"]["profileList"]],
        }
    )
    task = Run("0" * 16, "alice", "alice", "a.ipynb", "b.ipynb", False, {}, "standard", 60, None, 0)
    template = run_job(given, task, labels={}, annotations={})["spec"]["template"]
    run, pod = template["spec"], server["spec"]
    (mine,), (theirs,) = run["containers"], pod["containers"]
    assert mine["image"] == theirs["image"]
    for kind in ("limits", "requests"):
        wanted = {k: float(v) for k, v in theirs["resources"][kind].items() if float(v)}
        assert {k: float(v) for k, v in mine["resources"][kind].items()} == wanted
    assert by_name(run["volumes"], "persistentVolumeClaim") == by_name(
        pod["volumes"], "persistentVolumeClaim"
    )
    mounts = {m["mountPath"]: m.get("readOnly", False) for m in theirs["volumeMounts"]}
    assert {m["mountPath"]: m.get("readOnly", False) for m in mine["volumeMounts"]} == mounts
    assert run["affinity"] == pod["affinity"]
    for key in ("runAsNonRoot", "fsGroup", "seccompProfile"):
        assert run["securityContext"][key] == pod["securityContext"][key], key
    alike = ("allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsUser")
    for key in alike:
        assert mine["securityContext"][key] == theirs["securityContext"][key], key
    selected = ("app", "release", "component", "hub.jupyter.org/network-access-hub")
    for label in (*selected, "hub.jupyter.org/username"):
        assert template["metadata"]["labels"][label] == server["metadata"]["labels"][label], label
    assert run["automountServiceAccountToken"] is pod["automountServiceAccountToken"] is False
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in mine["env"]


def by_name(volumes: list[Any], kind: str) -> set[str]:
    return {v[kind]["claimName"] for v in volumes if kind in v}
