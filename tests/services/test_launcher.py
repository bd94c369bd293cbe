"""Sessions from a laptop, on a real hub: the package's own launcher, log-in and connection."""

import asyncio
import re
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from aiohttp import web

from notebooks.connection import Connection
from notebooks.errors import NotLoggedIn, Refused
from notebooks.launcher import NotebookLauncher, NotStarted
from notebooks.login import log_in, log_out
from notebooks.models import NotebookStatus, ResourceConfig
from notebooks.sizes import NoSize
from tests.services.hub import Hub, logged_in, until
from tests.services.test_hub_profiles import choice, resources
from tests.services.test_hub_spawn import RUNNING

PROFILES = [
    {
        "slug": "standard",
        "display_name": "Standard",
        "default": True,
        "kubespawner_override": resources(2, "4G", 0),
    },
    {
        "slug": "own-size",
        "display_name": "Own size",
        "kubespawner_override": resources(1, "2G", 0),
        "profile_options": {
            "cpu": {
                "display_name": "CPU",
                "choices": {"1": choice("1 CPU", cpu_limit=1), "4": choice("4 CPU", cpu_limit=4)},
            },
            "memory": {
                "display_name": "Memory",
                "choices": {
                    "2G": choice("2 GiB", mem_limit="2G"),
                    "8G": choice("8 GiB", mem_limit="8G"),
                },
            },
        },
    },
]
REPOSITORY = "https://github.com/owner/name"
ENDED = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."}


async def launching(
    start_hub: Any, kubernetes: Any, serve: Any, profiles: list[dict[str, Any]], *more: Any
) -> Hub:
    """A hub whose servers are up as soon as their pods are."""
    server = web.Application()

    async def up(request: web.Request) -> web.Response:
        return web.json_response({"version": "1"})

    server.router.add_get("/user/{path:.*}/api", up)
    port = int((await serve(server)).rsplit(":", 1)[1])
    kubernetes.then = lambda pod: RUNNING
    quotas = {"server": {"cpu": 16, "memory": "64Gi", "gpu": 4}, "user": {"servers": 3}}
    hub: Hub = await start_hub(
        {
            "custom": {"mlhub": {"quotas": quotas, "git_hosts": ["github.com"]}},
            "hub": {"config": {"KubeSpawner": {"port": port}}},
            "singleuser": {"profileList": profiles},
        },
        *more,
    )
    hub.wait_for_refusals(30)
    return hub


@pytest.fixture
async def hub(start_hub: Any, kubernetes: Any, serve: Any) -> Hub:
    return await launching(start_hub, kubernetes, serve, PROFILES)


async def made_token(hub: Hub, keycloak: Any, name: str, **asked: Any) -> str:
    """A token as a person makes it on the hub's page Token."""
    keycloak.at_the_browser = name
    async with hub.browser() as browser:
        await logged_in(browser)
        xsrf = next(cookie for cookie in browser.cookie_jar if cookie.key == "_xsrf").value
        url = f"/hub/api/users/{name}/tokens"
        async with browser.post(url, json=asked, headers={"X-XSRFToken": xsrf}) as answer:
            return str((await answer.json())["token"])


@pytest.fixture
def token(hub: Hub, keycloak: Any) -> Any:
    """`await token("alice")`: hers."""
    return partial(made_token, hub, keycloak)


@pytest.fixture
async def alice(hub: Hub, token: Any, tmp_path: Any) -> Connection:
    pasted = await token("alice")
    return await asyncio.to_thread(log_in, hub.url, pasted, tmp_path / "alice.json")


@pytest.fixture
def launcher(alice: Connection) -> NotebookLauncher:
    return NotebookLauncher(alice)


async def launched(launcher: NotebookLauncher, **asked: Any) -> Any:
    # Not among the loop's own threads, with which the hub beside it looks up addresses.
    with ThreadPoolExecutor(1) as laptop:
        return await asyncio.get_running_loop().run_in_executor(
            laptop, lambda: launcher.launch(**asked)
        )


def container(kubernetes: Any, name: str) -> dict[str, Any]:
    (pod,) = (p for p in kubernetes.kept["pods"].values() if name in p["metadata"]["name"])
    found: dict[str, Any] = pod["spec"]["containers"][0]
    return found


def variables(kubernetes: Any, name: str) -> dict[str, str]:
    return {each["name"]: each.get("value") for each in container(kubernetes, name)["env"]}


async def test_M1_M2_a_launch_by_address_gives_url_id_and_status(hub, alice, launcher, kubernetes):
    told = []
    session = await launched(
        launcher,
        user_email="Alice@mlhub.example",
        resources=ResourceConfig(cpu_cores=2, memory_gb=2),
        tell=lambda percent, message: told.append(percent),
    )
    assert session.status is NotebookStatus.RUNNING
    assert re.fullmatch(r"alice/notebook-[0-9a-f]{6}", session.session_id)
    assert session.notebook_url == f"{hub.url}/user/alice/{session.name}/lab"
    assert alice.token not in session.notebook_url
    assert session.options == {"profile": "own-size", "cpu": "4", "memory": "2G"}
    limits = container(kubernetes, session.name)["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == (4, 2 * 2**30)
    assert session.started


async def test_M2_the_url_leads_a_stranger_to_the_log_in(hub, launcher):
    session = await launched(launcher)
    path = session.notebook_url.removeprefix(hub.url)
    # The proxy is a double here; the Hub's page of that place asks who comes.
    async with (
        hub.browser() as stranger,
        stranger.get(f"/hub{path}", allow_redirects=False) as page,
    ):
        assert page.status == 302
        assert "/hub/login" in page.headers["Location"]


async def test_M2_sessions_are_listed_stopped_and_restored_as_they_were(hub, launcher, kubernetes):
    first = await launched(launcher, resources=ResourceConfig(memory_gb=8), git_repo=REPOSITORY)
    assert variables(kubernetes, first.name)["MLHUB_GIT_REPO"] == REPOSITORY
    stopped = await asyncio.to_thread(launcher.stop, first.name)
    assert stopped.status is NotebookStatus.STOPPED
    await until(lambda: not kubernetes.kept["pods"])
    assert list(kubernetes.kept["persistentvolumeclaims"]) == ["claim-alice"]
    (listed,) = await asyncio.to_thread(launcher.list)
    assert (listed.session_id, listed.status) == (first.session_id, NotebookStatus.STOPPED)
    assert listed.options == first.options

    restored = await asyncio.to_thread(launcher.restore, first.session_id)
    assert restored.status is NotebookStatus.RUNNING
    assert restored.options == first.options
    assert variables(kubernetes, first.name)["MLHUB_GIT_REPO"] == REPOSITORY
    again = await asyncio.to_thread(launcher.restore, first.session_id)
    assert again.started == restored.started, "what runs is not started again"


@pytest.mark.parametrize("name", ["2026-report", "forecasting-of-churn--2026-and-later"])
async def test_M1_a_session_is_named_after_any_repository(hub, launcher, name):
    session = await launched(launcher, git_repo=f"https://github.com/owner/{name}")
    assert session.status is NotebookStatus.RUNNING


async def test_a_forgotten_session_is_gone_and_its_home_is_kept(hub, launcher, kubernetes):
    session = await launched(launcher)
    await asyncio.to_thread(lambda: launcher.stop(session.session_id, forget=True))
    assert await asyncio.to_thread(launcher.list) == ()
    assert list(kubernetes.kept["persistentvolumeclaims"]) == ["claim-alice"]
    with pytest.raises(Refused, match="There is no session alice/"):
        await asyncio.to_thread(launcher.restore, session.session_id)


async def test_M9_ten_launches_at_once_start_three(hub, launcher, kubernetes):
    results = await asyncio.gather(*(launched(launcher) for _ in range(10)), return_exceptions=True)
    outcomes = Counter(type(result).__name__ for result in results)
    assert outcomes == {"NotebookSession": 3, "Refused": 7}
    refusal = next(result for result in results if isinstance(result, Refused))
    assert (refusal.status, refusal.type) == (429, "quota")
    assert "You have 3 of 3 servers running" in refusal.sentence
    assert len(kubernetes.kept["pods"]) == 3
    assert len(await asyncio.to_thread(launcher.list)) == 3, "a refusal leaves no record"


async def test_M9_a_restore_that_is_refused_can_be_had_later(hub, launcher, monkeypatch):
    monkeypatch.setattr("mlhub.hub.spawner.FORGET_SECONDS", 0)
    kept = await launched(launcher)
    await asyncio.to_thread(launcher.stop, kept.session_id)
    others = [await launched(launcher) for _ in range(3)]
    with pytest.raises(Refused, match="3 of 3 servers"):
        await asyncio.to_thread(launcher.restore, kept.session_id)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(launcher.stop, others[0].session_id)
    restored = await asyncio.to_thread(launcher.restore, kept.session_id)
    assert restored.status is NotebookStatus.RUNNING


async def test_M9_a_size_that_nothing_holds_is_a_sentence_and_starts_nothing(
    hub, launcher, kubernetes
):
    with pytest.raises(NoSize, match="holds 16 CPU"):
        await launched(launcher, resources=ResourceConfig(cpu_cores=16))
    assert not kubernetes.kept["pods"]


async def test_a_start_that_fails_says_why(hub, launcher, kubernetes):
    kubernetes.then = lambda pod: ENDED
    hub.wait_for_refusals(0)
    with pytest.raises((NotStarted, Refused)) as failure:
        await launched(launcher)
    assert "low on memory" in str(failure.value)


async def test_a_start_that_takes_too_long_is_given_back_to_the_person(hub, launcher, kubernetes):
    kubernetes.then = lambda pod: {"phase": "Pending"}
    hub.wait_for_refusals(0)
    with pytest.raises(NotStarted, match="is starting after 1 s"):
        await launched(launcher, timeout=1)
    session = await launched(launcher, wait=False)
    assert session.status is NotebookStatus.STARTING
    await asyncio.to_thread(launcher.stop, session.session_id)


async def test_M2_an_admin_launches_for_another_and_nobody_else_does(
    hub, alice, token, tmp_path, kubernetes
):
    carol = await asyncio.to_thread(
        lambda pasted: log_in(hub.url, pasted, tmp_path / "carol.json", admin=True),
        await token("carol"),
    )
    session = await launched(NotebookLauncher(carol), user_email="alice")
    assert session.user == "alice"
    assert session.session_id in [
        each.session_id for each in await asyncio.to_thread(NotebookLauncher(alice).list)
    ]
    for whom in ("carol", "nobody"):
        with pytest.raises(Refused, match=f"Nobody named '{whom}' for whom you may") as refusal:
            await launched(NotebookLauncher(alice), user_email=whom)
        assert refusal.value.status == 404
    with pytest.raises(Refused):
        await asyncio.to_thread(NotebookLauncher(alice).list, "carol")
    with pytest.raises(Refused):
        await asyncio.to_thread(NotebookLauncher(alice).get, "carol/")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"git_repo": "https://evil.example/a/b"}, "cloned from github.com"),
        ({"template": "../x"}, "no template's name"),
        ({"workspace": "not-mine"}, "no member of a workspace named 'not-mine'"),
    ],
)
async def test_M10_what_a_session_may_not_begin_with_starts_nothing(
    hub, launcher, kubernetes, asked, sentence
):
    with pytest.raises(Refused, match=re.escape(sentence)):
        await launched(launcher, **asked)
    assert not kubernetes.kept["pods"]
    assert await asyncio.to_thread(launcher.list) == ()


@pytest.mark.parametrize(
    "link",
    [
        "profile=standard&profile-option-standard--git_repo=https://github.com/o/n",
        "opt-profile=standard&opt-profile-option-standard--git_repo=https://github.com/o/n",
        "opt-profile=standard&opt-git_repo=https://github.com/o/n",
        "git_repo=https://github.com/o/n",
        "profile=standard&profile-option-standard--template=data-exploration",
        "profile=standard&profile-option-standard--workspace=theirs",
    ],
)
async def test_M10_a_link_sets_no_repository_and_starts_nothing(
    hub, keycloak, kubernetes, audited, link
):
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        async with browser.get(f"/hub/spawn/alice/sent?{link}") as page:
            assert page.status == 400
            assert "A link cannot set" in await page.text()
    assert {line["outcome"] for line in audited("server.ask")} == {"refused"}
    assert not kubernetes.kept["pods"]


async def test_a_link_may_set_profile_and_sizes(hub, keycloak, kubernetes):
    keycloak.at_the_browser = "alice"
    async with hub.browser() as browser:
        await logged_in(browser)
        link = "opt-profile=own-size&opt-profile-option-own-size--cpu=4"
        await browser.get(f"/hub/spawn/alice/sent?{link}", allow_redirects=False)
    await until(lambda: kubernetes.kept["pods"])
    assert container(kubernetes, "sent")["resources"]["limits"]["cpu"] == 4


# The log-in


async def test_a_log_in_keeps_a_token_of_its_own_that_can_do_little(hub, token, tmp_path):
    pasted, file = await token("alice"), tmp_path / "mlhub" / "login.json"
    kept = await asyncio.to_thread(log_in, hub.url, pasted, file)
    assert kept.token != pasted
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert pasted not in file.read_text()
    with pytest.raises(Refused) as refusal:
        await asyncio.to_thread(
            Connection(hub.url, "alice", pasted).request, "GET", "/hub/api/user"
        )
    assert refusal.value.type == "login", "the pasted token is revoked"
    me = await asyncio.to_thread(kept.request, "GET", "/hub/api/user")
    assert me["name"] == "alice"
    assert not [scope for scope in me["scopes"] if scope.startswith(("tokens", "access:servers"))]
    with pytest.raises(Refused):
        await asyncio.to_thread(kept.request, "POST", "/hub/api/users/alice/tokens", {})
    with pytest.raises(Refused):
        await asyncio.to_thread(kept.request, "GET", "/hub/api/users/bob")
    assert [each.api_id for each in hub.user("alice").api_tokens if each.note.startswith("noteb")]


async def test_an_admins_log_in_acts_for_others_only_when_that_was_asked(hub, token, tmp_path):
    await token("alice")
    plain = await asyncio.to_thread(log_in, hub.url, await token("carol"), tmp_path / "login.json")
    with pytest.raises(Refused, match="only administrators"):
        await launched(NotebookLauncher(plain), user_email="alice")


async def test_logging_in_again_revokes_the_former_token_and_logging_out_the_last(
    hub, token, tmp_path
):
    file = tmp_path / "login.json"
    first = await asyncio.to_thread(log_in, hub.url, await token("alice"), file)
    second = await asyncio.to_thread(log_in, hub.url, await token("alice"), file)
    assert await asyncio.to_thread(log_out, file) == second
    for gone in (first, second):
        with pytest.raises(Refused, match="does not know your log-in"):
            await asyncio.to_thread(gone.request, "GET", "/hub/api/user")
    assert not file.exists()
    with pytest.raises(NotLoggedIn):
        await asyncio.to_thread(log_out, file)


async def test_a_token_for_less_is_refused_and_nothing_is_kept(hub, token, tmp_path):
    pasted, file = await token("alice", scopes=["read:users:name!user"]), tmp_path / "login.json"
    with pytest.raises(Refused, match="lacks the scope servers!user=alice"):
        await asyncio.to_thread(log_in, hub.url, pasted, file)
    assert not file.exists()


async def test_what_is_offered_is_told_to_nobody_who_could_not_start_it(hub, token):
    identity = Connection(hub.url, "alice", await token("alice", scopes=["read:users:name!user"]))
    with pytest.raises(Refused, match="scope start:servers is required"):
        await asyncio.to_thread(identity.request, "GET", "/hub/api/mlhub/profiles")


async def test_a_token_of_nobodys_is_refused(hub, tmp_path):
    sentence = f"does not know that token; copy a new one from {hub.url}/hub/token."
    with pytest.raises(Refused, match=re.escape(sentence)):
        await asyncio.to_thread(log_in, hub.url, "made-up", tmp_path / "login.json")


async def test_a_log_in_outlives_the_session_at_keycloak_once_there_is_another(
    hub, alice, launcher, keycloak, token
):
    keycloak.sessions.clear()
    await asyncio.sleep(1.1)  # the hub asks again after `refresh_seconds`
    with pytest.raises(Refused, match="Log in to it in your browser") as refusal:
        await launched(launcher)
    assert refusal.value.type == "login"
    await token("alice")
    assert (await launched(launcher)).status is NotebookStatus.RUNNING


async def test_a_servers_own_token_launches_for_its_owner_alone(hub, launcher, kubernetes):
    session = await launched(launcher)
    own = Connection(hub.url, "alice", variables(kubernetes, session.name)["JUPYTERHUB_API_TOKEN"])
    other = await launched(NotebookLauncher(own), user_email="alice")
    assert other.status is NotebookStatus.RUNNING
    with pytest.raises(Refused, match="Nobody named 'bob'"):
        await launched(NotebookLauncher(own), user_email="bob")
    with pytest.raises(Refused):
        await asyncio.to_thread(own.request, "POST", "/hub/api/users/alice/tokens", {})
