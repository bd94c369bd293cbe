"""Schedules: their CronJobs, what a firing asks anew, and what nobody but the schedule may do."""

import asyncio
import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from mlhub.execution import cron, trigger
from mlhub.execution.schedules import MISSED_SECONDS
from mlhub.execution.settings import Keycloak
from notebooks.cli.plans import last_rows
from tests.services.execution import Jobs, Tokens, settings
from tests.services.test_execution_api import World, hangs, problem, until, world  # noqa: F401
from tests.services.waiting import eventually

DAILY = {
    "username": "alice",
    "name": "daily",
    "notebook_name": "./work/sum.ipynb",
    "parameters": {"a": 1},
    "cron": "* * * * *",
    "time_zone": "Europe/Berlin",
}


@dataclass
class People:
    """Keycloak's admin API, as far as it is asked: who there is, and in which groups."""

    groups: dict[str, list[str]] = field(
        default_factory=lambda: {"alice": ["/mlhub/users"], "bob": ["/mlhub/users"]}
    )
    disabled: set[str] = field(default_factory=set)
    broken: int = 0

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_get("/admin/users", self._users)
        app.router.add_get("/admin/users/{id}/groups", self._groups)
        return app

    async def _token(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"].startswith("Basic ")
        assert (await request.post())["grant_type"] == "client_credentials"
        return web.json_response({"access_token": "own", "expires_in": 60})

    async def _users(self, request: web.Request) -> web.Response:
        assert request.headers["Authorization"] == "Bearer own"
        name = request.query["username"]
        found = [{"id": f"id-{name}", "username": name, "enabled": name not in self.disabled}]
        return web.json_response(found if name in self.groups else [], status=self.broken or 200)

    async def _groups(self, request: web.Request) -> web.Response:
        name = request.match_info["id"].removeprefix("id-")
        return web.json_response([{"path": path} for path in self.groups[name]])


@pytest.fixture
def people() -> People:
    return People()


@pytest.fixture
async def place(serve: Any, tmp_path: Path, people: People) -> Any:
    """A world with a Keycloak in it."""
    cluster, hub = Jobs(), Tokens()
    address = await serve(people.application())
    keycloak = Keycloak(
        issuer="https://keycloak.example.com/realms/mlhub",
        jwks_url=f"{address}/certs",
        audience="mlhub-execution",
        clients={"pipeline": ["alice"]},
        token_url=f"{address}/token",
        admin_url=f"{address}/admin",
        client_id="mlhub-execution",
        members=["/mlhub/users", "/mlhub/admins"],
    )
    given = settings(
        await serve(cluster.application()),
        await serve(hub.application()) + "/hub/api",
        f"sqlite:///{tmp_path}/execution.db",
    ).model_copy(update={"keycloak": keycloak})
    from tests.services.execution import Room

    async with contextlib.AsyncExitStack() as stack:
        yield World(cluster, hub, Room(), given, stack)
    await cluster.close()


@dataclass
class Scheduled:
    """A schedule of alice's and the token that its CronJob was given."""

    service: Any
    api: Any
    id: str
    token: str

    async def fire(self, at: float, token: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token if token is None else token}"}
        async with self.service.client() as client:
            return await client.post(
                f"/schedules/{self.id}/fire", json={"at": int(at)}, headers=headers
            )

    async def now(self) -> Any:
        return (await self.api.get(f"/schedules/{self.id}")).json()


def this_minute() -> int:
    return int(time.time() // 60 * 60)


@pytest.fixture
async def daily(place: World) -> Any:
    service = await place.start()
    api = await place.client(service)
    made = await api.post("/schedules", json=DAILY)
    assert made.status_code == 201, made.text
    (secret,) = place.cluster.secrets.values()
    return Scheduled(service, api, made.json()["schedule_id"], secret["stringData"]["token"])


def test_a_time_that_is_not_there_is_left_out_and_one_that_is_there_twice_fires_twice():
    march = time.mktime((2026, 3, 28, 12, 0, 0, 0, 0, 0)) - time.timezone
    day = [cron.following("30 2 * * *", "Europe/Berlin", march, 2)[0]]
    assert time.strftime("%m-%d %H:%M", time.gmtime(day[0])) == "03-30 00:30"
    october = 1792879200  # 2026-10-24 18:00 UTC
    twice = cron.following("30 2 * * *", "Europe/Berlin", october, 3)
    assert [time.strftime("%d %H:%M", time.gmtime(at)) for at in twice] == [
        "25 00:30",
        "25 01:30",
        "26 01:30",
    ]


@pytest.mark.parametrize(
    "given",
    ["", "* * * *", "@daily", "61 * * * *", "0 0 31 2 *", "0 0 * * 7", "0 0 L * *", "0 0 1/5 * *",
     "0 0 */2 * MON", "* * * * * *", "0 0 * * MON#1", "* * * * *; id", "TZ=UTC * * * * *"],
)  # fmt: skip
async def test_P6_what_kubernetes_reads_otherwise_or_not_at_all_is_422(place, given):
    api = await place.client(await place.start())
    problem(await api.post("/schedules", json=DAILY | {"cron": given}), 422, "invalid")
    for zone in ("Nowhere/City", "../../etc/passwd", "", "UTC\n"):
        problem(await api.post("/schedules", json=DAILY | {"time_zone": zone}), 422, "invalid")
    assert not place.cluster.cron_jobs


async def test_P10_a_schedule_is_a_cronjob_that_only_calls_the_api_with_a_secret_of_its_own(
    place, daily
):
    (item,) = place.cluster.cron_jobs.values()
    spec = item["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("* * * * *", "Europe/Berlin")
    assert (spec["concurrencyPolicy"], spec["startingDeadlineSeconds"]) == ("Forbid", 300)
    pod = spec["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    (volume,) = pod["volumes"]
    (secret,) = place.cluster.secrets.values()
    assert volume["secret"]["secretName"] == secret["metadata"]["name"]
    assert secret["metadata"]["ownerReferences"][0]["uid"] == item["metadata"]["uid"]
    for known in (json.dumps(item), json.dumps(await daily.now())):
        assert daily.token not in known
        assert place.alice not in known
    now = await daily.now()
    assert len(now["next"]) == 5
    assert not now["last"]


async def test_P10_a_firing_runs_as_its_person_once_however_often_it_is_called(place, daily):
    at = this_minute()
    answers = await asyncio.gather(*(daily.fire(at) for _ in range(5)))
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    (run_id,) = {answer.json()["run_id"] for answer in answers}
    run = await until(daily.api, run_id, "succeeded")
    assert (run["username"], run["origin"]) == ("alice", f"schedule/{daily.id}")
    assert len(place.cluster.runs()) == 1
    (last,) = (await daily.now())["last"]
    assert (last["outcome"], last["status"]) == ("started", "succeeded")


async def test_P10_a_time_whose_run_failed_says_why(place, daily):
    async def fails(pod: Any) -> None:
        pod.runs()
        pod.ends(1, {"reason": "cell-error", "message": "Cell 2 raised KeyError: 'x'"})

    place.cluster.script = fails
    run_id = (await daily.fire(this_minute())).json()["run_id"]
    await until(daily.api, run_id, "failed")
    (last,) = (await daily.now())["last"]
    assert (last["run_id"], last["status"]) == (run_id, "failed")
    assert (last["reason"], last["message"]) == ("cell-error", "Cell 2 raised KeyError: 'x'")
    cells = [cell for row in last_rows(await daily.now()) for cell in row]
    assert run_id in cells
    assert "failed: Cell 2 raised KeyError: 'x'" in cells


async def test_P4_a_schedules_token_fires_that_schedule_at_its_times_and_nothing_else(place, daily):
    problem(await daily.fire(this_minute(), "another"), 401, "token")
    problem(await daily.fire(this_minute(), place.alice), 401, "token")
    problem(await daily.fire(this_minute() + 600), 409, "not-its-time")
    problem(await daily.fire(this_minute() - 7200), 409, "not-its-time")
    other = await daily.api.post("/schedules", json=DAILY | {"name": "hourly", "cron": "7 * * * *"})
    daily.id = other.json()["schedule_id"]
    problem(await daily.fire(this_minute()), 401, "token")
    async with daily.service.client(daily.token) as thief:
        problem(await thief.get("/runs"), 401, "token")
        problem(await thief.post("/schedules", json=DAILY | {"name": "more"}), 401, "token")
    assert not place.cluster.runs()


async def test_P3_a_member_no_more_has_the_schedule_suspended_with_the_reason(place, daily, people):
    people.groups["alice"] = ["/elsewhere"]
    answer = (await daily.fire(this_minute())).json()
    assert (answer["outcome"], answer["reason"]) == ("refused", "not-a-member")
    now = await daily.now()
    assert now["suspended"]
    assert "no group" in now["reason"]
    assert not now["next"]
    (item,) = place.cluster.cron_jobs.values()
    assert item["spec"]["suspend"] is True
    assert not place.cluster.runs()
    people.groups["alice"] = ["/mlhub/users"]
    resumed = (await daily.api.patch(f"/schedules/{daily.id}", json={"suspended": False})).json()
    assert (resumed["suspended"], resumed["reason"]) == (False, None)
    assert item["spec"]["suspend"] is False


@pytest.mark.parametrize("how", ["gone", "disabled"])
async def test_P3_who_is_gone_or_disabled_is_no_member(place, daily, people, how):
    if how == "gone":
        people.groups.clear()
    else:
        people.disabled.add("alice")
    assert (await daily.fire(this_minute())).json()["reason"] == "not-a-member"
    assert not place.cluster.runs()


async def test_P8_a_silent_keycloak_suspends_nobody_and_the_firing_comes_later(
    place, daily, people
):
    people.broken, at = 503, this_minute()
    problem(await daily.fire(at), 503, "identity")
    assert not (await daily.now())["suspended"]
    people.broken = 0
    assert (await daily.fire(at)).json()["outcome"] == "started"
    (last,) = (await daily.now())["last"]
    assert last["outcome"] == "started"


async def test_P5_the_quota_is_asked_at_each_firing_and_its_reason_is_told(place, daily):
    place.room.runs = 0
    at = this_minute()
    problem(await daily.fire(at), 429, "quota")
    (last,) = (await daily.now())["last"]
    assert (last["outcome"], last["reason"]) == ("refused", "quota")
    place.room.runs = 1
    assert (await daily.fire(at)).json()["outcome"] == "started"


async def test_P8_a_firing_while_the_run_before_goes_on_is_skipped(place, daily):
    place.cluster.script = hangs
    at = this_minute()
    first = (await daily.fire(at - 10 * 60)).json()
    assert first["outcome"] == "started"
    # Longer than the firings that are shown go back.
    for minutes in range(9, -1, -1):
        later = (await daily.fire(at - minutes * 60)).json()
        assert (later["outcome"], later["reason"]) == ("skipped", "overlap")
    assert len(place.cluster.runs()) == 1


async def test_P8_a_firing_that_kubernetes_did_not_hear_is_made_by_the_next_try(place, daily):
    at = this_minute()
    place.cluster.unheard = True
    problem(await daily.fire(at), 503, "cluster")
    place.cluster.unheard = False
    firing = (await daily.fire(at)).json()
    assert firing["outcome"] == "started"
    await until(daily.api, firing["run_id"], "succeeded")


async def test_P8_a_firing_whose_run_goes_on_is_that_run_though_nobody_noted_it(
    place, daily, monkeypatch
):
    """As where the service is killed between the two."""
    place.cluster.script = hangs
    store = daily.service.app.state.api.schedules.store

    def killed(firing: Any) -> None:
        raise RuntimeError("killed")

    at = this_minute()
    with monkeypatch.context() as patch:
        patch.setattr(store, "note_firing", killed)
        assert (await daily.fire(at)).status_code == 500
    firing = (await daily.fire(at)).json()
    (run,) = (await daily.api.get("/runs")).json()["runs"]
    assert (firing["outcome"], firing["run_id"]) == ("started", run["run_id"])


async def test_P8_what_nobody_called_for_is_told_as_missed_and_not_made_up_for(place, daily):
    runs = daily.service.app.state.api.runs
    start = time.time()
    runs.clock = lambda: start + 1800

    async def told() -> Any:
        return (await daily.now())["last"]

    last = await eventually(told)
    assert {firing["outcome"] for firing in last} == {"missed"}
    assert not place.cluster.runs()


async def test_P10_a_changed_schedule_has_missed_none_of_its_new_times(place, daily):
    assert (await daily.api.patch(f"/schedules/{daily.id}", json={"cron": "0 0 1 1 *"})).json()
    runs = daily.service.app.state.api.runs
    start = time.time()
    # Just before times that nobody called for would be told.
    runs.clock = lambda: start + MISSED_SECONDS - 30
    changed = {"cron": "* * * * *"}
    assert (await daily.api.patch(f"/schedules/{daily.id}", json=changed)).status_code == 200
    runs.clock = lambda: start + MISSED_SECONDS + 300
    await asyncio.sleep(1)
    assert not (await daily.now())["last"]


async def test_P8_whatever_was_lost_in_between_comes_back(place, daily, tmp_path):
    cluster = place.cluster
    cluster.cron_jobs.clear()
    cluster.secrets.clear()
    await eventually(lambda: cluster.secrets)
    (secret,) = cluster.secrets.values()
    old, daily.token = daily.token, secret["stringData"]["token"]
    problem(await daily.fire(this_minute(), old), 401, "token")
    at = this_minute()

    async def fires() -> bool:
        return bool((await daily.fire(at)).status_code == 200)

    await eventually(fires)
    assert len(cluster.runs()) == 1
    # A database of before the schedule was made.
    await daily.service.stop()
    place.settings = place.settings.model_copy(
        update={"database_url": f"sqlite:///{tmp_path}/restored.db"}
    )
    daily.service = await place.start()
    daily.api = await place.client(daily.service)

    async def there() -> bool:
        return bool((await daily.api.get(f"/schedules/{daily.id}")).status_code == 200)

    await eventually(there)
    assert (await daily.now())["name"] == "daily"
    assert (await daily.fire(this_minute())).status_code == 200


async def test_P10_schedules_are_their_persons_changed_and_deleted_with_all_that_is_theirs(
    place, daily
):
    bob = await place.client(daily.service, place.bob)
    for method in ("GET", "PATCH", "DELETE"):
        body = {"json": {}} if method == "PATCH" else {}
        answer = await bob.request(method, f"/schedules/{daily.id}", **body)
        problem(answer, 404, "no-schedule")
    problem(await bob.post("/schedules", json=DAILY), 403, "not-yours")
    problem(await daily.api.post("/schedules", json=DAILY), 409, "name-taken")
    changed = await daily.api.patch(
        f"/schedules/{daily.id}", json={"cron": "30 6 * * mon-fri", "parameters": {"a": 2}}
    )
    assert (changed.json()["cron"], changed.json()["parameters"]) == ("30 6 * * MON-FRI", {"a": 2})
    (item,) = place.cluster.cron_jobs.values()
    assert item["spec"]["schedule"] == "30 6 * * MON-FRI"
    assert (await daily.api.delete(f"/schedules/{daily.id}")).status_code == 204
    assert not place.cluster.cron_jobs
    assert not place.cluster.secrets
    assert (await daily.api.get("/schedules")).json() == {"schedules": []}

    async def made_again() -> bool:
        return bool((await daily.api.post("/schedules", json=DAILY)).status_code == 201)

    await eventually(made_again)


async def test_P8_replicas_that_look_while_schedules_are_made_leave_each_its_token(place):
    services = [await place.start(reconcile_seconds=0.01) for _ in range(3)]
    api = await place.client(services[0])
    for number in range(8):
        made = await api.post("/schedules", json=DAILY | {"name": f"n{number}"})
        assert made.status_code == 201, made.text
    await asyncio.sleep(0.5)
    secrets = {
        s["metadata"]["labels"]["mlhub.io/schedule"]: s for s in place.cluster.secrets.values()
    }
    assert len(secrets) == len(place.cluster.secrets) == len(place.cluster.cron_jobs) == 8
    for schedule_id, secret in secrets.items():
        scheduled = Scheduled(services[1], api, schedule_id, secret["stringData"]["token"])
        answer = await scheduled.fire(this_minute())
        assert answer.status_code == 200 or answer.json()["type"] == "rate", answer.text


async def test_P8_a_cluster_that_was_silent_gets_its_cronjob_later(place):
    api = await place.client(await place.start())
    place.cluster.broken = 500
    made = await api.post("/schedules", json=DAILY)
    assert made.status_code == 201
    assert not place.cluster.cron_jobs
    place.cluster.broken = 0
    await eventually(lambda: place.cluster.secrets)
    assert len(place.cluster.cron_jobs) == len(place.cluster.secrets) == 1


async def test_P6_a_schedule_that_kubernetes_calls_invalid_is_suspended_and_says_why(place):
    api = await place.client(await place.start())
    place.cluster.invalid = "spec.timeZone: Invalid value"
    made = (await api.post("/schedules", json=DAILY)).json()
    assert made["suspended"]
    assert "spec.timeZone: Invalid value" in made["reason"]
    await asyncio.sleep(1)
    assert (await api.get("/schedules")).json()["schedules"] == [made]
    place.cluster.invalid = ""
    path = f"/schedules/{made['schedule_id']}"
    resumed = (await api.patch(path, json={"suspended": False})).json()
    assert (resumed["suspended"], resumed["reason"]) == (False, None)

    def suspended() -> list[bool]:
        return [item["spec"]["suspend"] for item in place.cluster.cron_jobs.values()]

    # A look that began before the change may come after it; the next one is of this state.
    await eventually(lambda: suspended() == [False])


async def test_P10_the_trigger_calls_for_its_jobs_own_time_and_again_where_that_may_help(
    place, daily, monkeypatch, tmp_path, capsys
):
    at = this_minute()
    monkeypatch.setattr(trigger, "TOKEN", tmp_path / "token")
    trigger.TOKEN.write_text(daily.token)
    monkeypatch.setattr(trigger, "LONGEST_PAUSE", 0.1)
    url = f"{daily.service.url}/services/execution/schedules/{daily.id}/fire"
    monkeypatch.setenv("MLHUB_FIRE_URL", url)
    monkeypatch.setenv("MLHUB_JOB", f"schedule-{daily.id}-{at // 60}")
    place.room.runs = 0
    calling = asyncio.create_task(asyncio.to_thread(trigger.main))
    await eventually(lambda: place.room.asked)
    place.room.runs = 1
    assert await calling == 0
    assert '"outcome":"started"' in capsys.readouterr().out
    trigger.TOKEN.write_text("another")
    assert await asyncio.to_thread(trigger.main) == 1
