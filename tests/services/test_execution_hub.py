"""The execution API with the real JupyterHub: its tokens, its admission, its proxy, its pods."""

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
from tests.services.hub import SECRETS, Hub, chart_values, until
from tests.services.test_execution_api import RUN, problem

HUB_TOKEN = SECRETS["hub.services.execution.apiToken"]
VALUES = {
    "custom": {"mlhub": {"quotas": {"user": {"servers": 2}, "server": {"cpu": 16}}}},
    "hub": execution_server.hub_values("jupyterhub"),
    "singleuser": {
        "networkPolicy": {"enabled": True},
        "extraEnv": {"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
        "storage": {
            "extraVolumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
            "extraVolumeMounts": [{"name": "data", "mountPath": "/mnt/data", "readOnly": True}],
        },
        "profileList": [
            {
                "slug": "standard",
                "display_name": "Standard",
                "default": True,
                "kubespawner_override": {
                    "image": "registry/ml-cpu@sha256:1",
                    "cpu_limit": 2,
                    "cpu_guarantee": 0.5,
                    "mem_limit": "2G",
                    "mem_guarantee": "1G",
                    "extra_resource_limits": {"nvidia.com/gpu": "0"},
                    "extra_resource_guarantees": {"nvidia.com/gpu": "0"},
                },
            }
        ],
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
    given = settings(await serve(cluster.application()), api, f"sqlite:///{tmp_path}/execution.db")
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
    too_large = await admission.decide(AdmissionRequest("alice", "3" * 16, "s", 99, 2**30, 0))
    assert (too_large.allowed, too_large.status) == (False, 403)
    gone = await admission.decide(AdmissionRequest("nobody", "4" * 16, "s", 1, 2**30, 0))
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
