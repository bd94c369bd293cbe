"""A server's start as the person sees it: refused at once, failed in seconds, and why."""

import asyncio
import html
import json
import re
import time
from typing import Any

import pytest
from aiohttp import web
from jupyterhub.apihandlers.users import ActivityAPIHandler

from mlhub.hub import trouble
from tests.services.hub import PROFILES, Hub, logged_in, until

NOTEBOOK = {"name": "notebook", "image": "ml", "imageID": "ml", "restartCount": 0}
"""What Kubernetes says of every container; without it the client refuses to read its answers."""
RUNNING = {
    "phase": "Running",
    "podIP": "127.0.0.1",
    "containerStatuses": [{**NOTEBOOK, "ready": True, "state": {"running": {}}}],
    "conditions": [{"type": "PodScheduled", "status": "True"}],
}


def waiting(reason: str, message: str) -> dict[str, Any]:
    state = {"waiting": {"reason": reason, "message": message}}
    container = {"name": "notebook", "ready": False, "image": "registry/ml:1", "state": state}
    return {"phase": "Pending", "containerStatuses": [container]}


@pytest.fixture
async def hub(start_hub: Any) -> Hub:
    return await start_hub({"singleuser": {"profileList": PROFILES}})


async def start(alice: Any, user: str = "alice", **user_options: Any) -> tuple[int, str]:
    """Ask for the server by the REST API; the status, and the message of a refusal."""
    xsrf = next(cookie for cookie in alice.cookie_jar if cookie.key == "_xsrf").value
    async with alice.post(
        f"/hub/api/users/{user}/server", json=user_options, headers={"X-XSRFToken": xsrf}
    ) as answer:
        body = await answer.json() if answer.status >= 400 else {}
        return answer.status, body.get("message", "")


async def outcome(alice: Any, server: str = "alice") -> tuple[int, str]:
    """The page on which a person waits for the start, once it is decided."""
    deadline = time.monotonic() + 120
    while True:
        async with alice.get(f"/hub/spawn-pending/{server}", allow_redirects=False) as page:
            text = await page.text()
            if "Spawn failed" in text or page.status != 200:
                return page.status, text
        assert time.monotonic() < deadline, text
        await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"profile": "huge"}, "There is no profile named 'huge'. There are: 'standard', 'other'."),
        ({"profile": "standard", "size": "huge"}, "There is no choice for 'size' named 'huge'."),
        ({"size": "huge"}, "There is no choice for 'size' named 'huge'."),
        ({"profile": "other", "size": "small"}, "There is no option of the profile 'other' named"),
        ({"image": "evil/image"}, "There is no option of the profile 'standard' named 'image'."),
        (
            {"size--unlisted-choice": "64"},
            "Received unlisted_choice for size without being enabled",
        ),
        ({"profile": ["standard"]}, "The option 'profile' takes text, not list."),
    ],
)
async def test_a_choice_that_is_not_offered_is_answered_400_and_starts_nothing(
    hub, alice, kubernetes, options, sentence
):
    hub.wait_for_refusals(30)
    status, message = await start(alice, **options)
    assert (status, sentence in message) == (400, True), message
    assert not kubernetes.kept["pods"]
    assert not kubernetes.kept["persistentvolumeclaims"]


async def test_a_choice_by_the_form_that_is_not_offered_shows_the_form_again(alice):
    async with alice.get("/hub/spawn") as page:
        assert "Standard" in await page.text()
    xsrf = next(cookie for cookie in alice.cookie_jar if cookie.key == "_xsrf").value
    given = {"profile": "huge", "_xsrf": xsrf}
    async with alice.post("/hub/spawn", data=given, allow_redirects=False) as page:
        status, text = page.status, await page.text()
    if status == 302:
        # The form waits for a second, then the page for the start tells.
        status, text = await outcome(alice)
    assert (status, "There is no profile named" in text) == (400, True), text


async def test_V2_V8_T7_the_offered_choice_becomes_the_persons_own_pod_and_volume(
    hub, alice, kubernetes
):
    assert (await start(alice, profile="standard", size="large"))[0] == 202
    await until(lambda: kubernetes.kept["pods"])
    (pod,), (claim,) = (
        kubernetes.kept[kind].values() for kind in ("pods", "persistentvolumeclaims")
    )
    assert (pod["metadata"]["name"], claim["metadata"]["name"]) == ("jupyter-alice", "claim-alice")
    resources = pod["spec"]["containers"][0]["resources"]
    assert (resources["limits"]["cpu"], resources["limits"]["memory"]) == (4, 2 * 2**30)
    variables = {v["name"]: v.get("value") for v in pod["spec"]["containers"][0]["env"]}
    assert json.loads(variables["MLHUB_MOUNTS"])["/home/jovyan"] == "write"
    security = pod["spec"]["containers"][0]["securityContext"]
    assert security["readOnlyRootFilesystem"] is True


async def test_a_server_that_runs_is_reached_through_the_proxy(
    start_hub, keycloak, kubernetes, serve
):
    server = web.Application()

    async def up(request: web.Request) -> web.Response:
        return web.json_response({"version": "1"})

    server.router.add_get("/user/alice/api", up)
    port = int((await serve(server)).rsplit(":", 1)[1])
    hub = await start_hub({"hub": {"config": {"KubeSpawner": {"port": port}}}})
    kubernetes.then = lambda pod: RUNNING
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        assert (await start(browser))[0] in (201, 202)
        status, _ = await outcome(browser)
        assert status == 302, "the waiting page sends on to the server"
    assert hub.app.proxy.routes["/user/alice/"]["target"] == f"http://127.0.0.1:{port}"


async def test_who_waits_while_a_restarted_hub_looks_at_their_server_gets_the_page_again(
    hub, alice, kubernetes
):
    """It follows no start and says so with 400, after which a browser never asks again."""
    hub.wait_for_refusals(0)
    await start(alice)
    hub.user("alice").spawner._spawn_pending = False
    hub.user("alice").spawner._check_pending = True
    async with alice.get("/hub/spawn-pending/alice") as page:
        text = await page.text()
    assert "EventSource.CLOSED) setTimeout(again, 2000)" in text
    (health,) = re.findall(r'fetch\("([^"]+)"\)', text)
    async with alice.get(health) as well:
        assert well.status == 200, "or it would never be loaded again"
    (told,) = re.findall(r'new EventSource\("([^"]+)"\)', text)
    async with alice.get(html.unescape(told)) as progress:
        assert progress.status == 400


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (
            waiting("ImagePullBackOff", "no such tag"),
            "The image registry/ml:1 cannot be pulled: no",
        ),
        (waiting("CreateContainerConfigError", "no secret"), "container does not start: no secret"),
    ],
)
async def test_a_start_that_cannot_succeed_says_why_within_seconds(
    alice, kubernetes, status, sentence
):
    kubernetes.then = lambda pod: status
    await start(alice)
    began = time.monotonic()
    code, page = await outcome(alice)
    assert (code, sentence in page) == (503, True), page
    assert time.monotonic() - began < 20
    assert not kubernetes.kept["pods"], "the pod that failed is gone"
    assert kubernetes.kept["persistentvolumeclaims"], "the home is not"


async def test_a_claim_that_nobody_provides_says_why(alice, kubernetes, monkeypatch):
    monkeypatch.setattr(trouble, "GRACE_SECONDS", 1)

    def unbound(pod: dict[str, Any]) -> dict[str, Any]:
        claim = kubernetes.kept["persistentvolumeclaims"]["claim-alice"]
        kubernetes.say(claim, "PersistentVolumeClaim", "ProvisioningFailed", "the disk is full")
        return {"phase": "Pending"}

    kubernetes.then = unbound
    await start(alice)
    code, page = await outcome(alice)
    assert (code, "volume cannot be used: the disk is full" in page) == (503, True), page


@pytest.mark.parametrize("kind", ["pods", "persistentvolumeclaims"])
async def test_M9_a_full_quota_is_the_answer_to_the_request(hub, alice, kubernetes, kind):
    hub.wait_for_refusals(30)
    said = "exceeded quota: namespace, requested: limits.cpu=4"
    kubernetes.refuse = lambda of, item: said if of == kind else None
    status, message = await start(alice)
    assert (status, "quota has no room" in message, "limits.cpu=4" in message) == (503, True, True)


async def test_V9_a_refused_pod_leaves_no_token_in_the_log(hub, alice, kubernetes, caplog):
    """KubeSpawner logs a refused pod whole, the server's API token in its environment included."""
    hub.wait_for_refusals(30)
    tokens: list[str] = []

    def refuse(kind: str, pod: dict[str, Any]) -> str | None:
        if kind != "pods":
            return None
        environment = {e["name"]: e.get("value") for e in pod["spec"]["containers"][0]["env"]}
        tokens.append(environment["JUPYTERHUB_API_TOKEN"])
        return "exceeded quota: namespace"

    kubernetes.refuse = refuse
    hub.app.log.addHandler(caplog.handler)
    await start(alice)
    hub.app.log.removeHandler(caplog.handler)
    assert "Failed for" in caplog.text
    leaked = [number for number, token in enumerate(tokens) if token in caplog.text]
    assert tokens
    assert not leaked


async def test_refusals_are_no_failures_of_the_hub(hub, alice):
    hub.wait_for_refusals(30)
    for _ in range(5):  # KubeSpawner's consecutive_failure_limit
        assert (await start(alice, profile="huge"))[0] == 400
    assert hub.app.users.settings.get("failure_count", 0) == 0


def test_the_hub_takes_reports_of_activity_where_ours_does():
    """Our handler stands before the Hub's own, so its route must stay the Hub's."""
    from jupyterhub.apihandlers import users

    assert (r"/api/users/([^/]+)/activity", ActivityAPIHandler) in users.default_handlers
