"""The workspaces service against doubles of Keycloak, Kubernetes and the Hub: who may do what."""

import asyncio
import json
import re
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from mlhub import audit
from mlhub.execution import store as execution
from mlhub.execution.cluster import ClusterError
from mlhub.workspaces import records
from mlhub.workspaces import store as stores
from mlhub.workspaces.paths import confined
from mlhub.workspaces.records import roles_in
from tests.services.workspaces import (
    MATRIX,
    ROLES,
    Hub,
    Realm,
    Service,
    Volumes,
    attempt,
    furnished,
    member,
    serving,
    settings,
)


class Place:
    """The doubles, and replicas of the service among them."""

    def __init__(self, tmp_path: Path):
        self.realm, self.volumes, self.hub = Realm(), Volumes(), Hub()
        self.database = f"sqlite:///{tmp_path}/workspaces.db"
        self.addresses: tuple[str, str, str] = ("", "", "")

    def settings(self, **given: Any) -> Any:
        keycloak, hub, kubernetes = self.addresses
        return settings(keycloak, f"{hub}/hub/api", kubernetes, self.database, **given)


@pytest.fixture
async def place(serve: Any, tmp_path: Path) -> Place:
    place = Place(tmp_path)
    doubles = (place.realm, place.hub, place.volumes)
    place.addresses = tuple([await serve(double.application()) for double in doubles])
    return place


@pytest.fixture
async def service(place: Place) -> Any:
    async with serving(place.settings()) as service:
        yield service


@pytest.fixture
async def slug(service: Service) -> str:
    return await furnished(service)


async def create(service: Service, who: str, name: str, /, **more: Any) -> tuple[int, Any]:
    answer = await service.ask(who, "POST", "/workspaces", name=name, **more)
    return answer.status_code, answer.json()


# Who may do what


async def test_M7_the_role_matrix(service, slug):
    for operation, statuses in MATRIX.items():
        found = {role: await attempt(service, slug, operation, role) for role in ROLES}
        assert found == dict(zip(ROLES, statuses, strict=True)), operation


async def test_M7_nobody_without_a_token_of_this_service_comes_in(service, slug, place):
    assert (await service.ask("", "GET", "/workspaces")).status_code == 401
    assert (await service.ask("nobody", "GET", "/workspaces")).status_code == 401
    model = {"kind": "user", "name": "olga", "scopes": ["read:users:name!user=olga"]}
    place.hub.tokens["token-of-narrow"] = model
    answer = await service.ask("narrow", "GET", "/workspaces")
    assert (answer.status_code, answer.json()["type"]) == (403, "scope")
    place.hub.tokens["token-of-service"] = {"kind": "service", "name": "x", "scopes": []}
    assert (await service.ask("service", "GET", "/workspaces")).status_code == 403


async def test_M7_what_is_not_ones_own_looks_like_what_is_not_there(service, slug):
    theirs = (await service.ask("sam", "GET", f"/workspaces/{slug}")).json()
    absent = (await service.ask("sam", "GET", "/workspaces/absent")).json()
    assert theirs == absent


async def test_M7_everybody_sees_their_own_with_the_role(service, slug):
    for who, role in (("olga", "owner"), ("edda", "editor"), ("vera", "viewer")):
        (found,) = (await service.ask(who, "GET", "/workspaces")).json()["workspaces"]
        assert (found["id"], found["name"], found["role"]) == (slug, "Fraud Detection", role)
    for who in ("sam", "fran", "ada"):
        assert (await service.ask(who, "GET", "/workspaces")).json() == {"workspaces": []}


async def test_M7_a_member_is_found_by_name_or_address_and_must_be_of_the_hub(service, slug):
    at = f"/workspaces/{slug}/members"
    by_address = await service.ask("olga", "PUT", at, user="sam@mlhub.example", role="viewer")
    assert by_address.json() == {"user": "sam", "email": "sam@mlhub.example", "role": "viewer"}
    stranger = await service.ask("olga", "PUT", at, user="mallory", role="viewer")
    assert (stranger.status_code, stranger.json()["type"]) == (403, "no-access")
    nobody = await service.ask("olga", "PUT", at, user="nobody", role="viewer")
    assert (nobody.status_code, nobody.json()["type"]) == (404, "person")


async def test_M7_an_address_counts_once_it_is_verified_and_never_for_ones_own_roles(
    service, slug, place
):
    """People may say of themselves that an address is theirs."""
    fran = place.realm.users["fran"] | {"email": "boss@mlhub.example", "emailVerified": False}
    place.realm.users["fran"] = fran
    at = f"/workspaces/{slug}/members"
    nobody = await service.ask("olga", "PUT", at, user="boss@mlhub.example", role="owner")
    assert (nobody.status_code, nobody.json()["type"]) == (404, "person")
    # In a realm whose user names are addresses.
    for name, email in (("sam@corp.example", ""), ("vera", "sam@corp.example")):
        place.realm.users[name] = place.realm.users[name.split("@")[0]] | {
            "username": name, "email": email
        }  # fmt: skip
    by_name = await service.ask("olga", "PUT", at, user="sam@corp.example", role="viewer")
    assert by_name.json()["user"] == "sam@corp.example"


async def test_M7_a_change_of_role_leaves_one_role_and_the_hub_is_told(service, slug, place):
    assert (await member(service, slug, "edda", "viewer")).status_code == 200
    assert place.realm.paths("edda") == {f"/workspaces/{slug}/viewer"}
    assert place.hub.told[-1] == ("edda", slug, "viewer")
    await service.ask("olga", "DELETE", f"/workspaces/{slug}/members/edda")
    assert place.realm.paths("edda") == set()
    assert place.hub.told[-1] == ("edda", slug, None)


async def test_a_hub_that_does_not_hear_hinders_nobody(service, slug, place):
    place.hub.deaf = True
    assert (await member(service, slug, "edda", "viewer")).status_code == 200


# The last owner


@pytest.mark.parametrize("how", ["remove", "viewer", "editor"])
async def test_M7_the_last_owner_stays(service, place, how):
    slug = (await create(service, "olga", "solo"))[1]["id"]
    await member(service, slug, "edda", "editor", by="olga")
    at = f"/workspaces/{slug}/members"
    if how == "remove":
        answer = await service.ask("olga", "DELETE", f"{at}/olga")
    else:
        answer = await service.ask("olga", "PUT", at, user="olga", role=how)
    assert (answer.status_code, answer.json()["type"]) == (409, "last-owner")
    assert place.realm.paths("olga") == {f"/workspaces/{slug}/owner"}


async def test_M7_an_owner_whose_account_is_disabled_is_none(service, slug, place):
    place.realm.users["otto"]["enabled"] = False
    answer = await service.ask("olga", "DELETE", f"/workspaces/{slug}/members/olga")
    assert answer.json()["type"] == "last-owner"


@pytest.mark.parametrize("round_", range(5))
async def test_M7_two_owners_who_remove_each_other_leave_one(service, slug, place, round_):
    at = f"/workspaces/{slug}/members"
    async with serving(place.settings()) as other:
        answers = await asyncio.gather(
            service.ask("olga", "DELETE", f"{at}/otto"), other.ask("otto", "DELETE", f"{at}/olga")
        )
    assert sorted(a.status_code for a in answers) == [204, 404], "the second has no role any more"
    owners = [n for n in ("olga", "otto") if f"/workspaces/{slug}/owner" in place.realm.paths(n)]
    assert len(owners) == 1


async def test_M7_owners_who_all_leave_at_once_leave_one(service, slug, place):
    for name in ("edda", "vera", "sam"):
        await member(service, slug, name, "owner")
    everybody = ("olga", "otto", "edda", "vera", "sam")
    at = f"/workspaces/{slug}/members"
    answers = await asyncio.gather(*(service.ask(n, "DELETE", f"{at}/{n}") for n in everybody))
    assert Counter(a.status_code for a in answers) == {204: 4, 409: 1}


async def test_who_is_at_work_stays_alone_for_as_long_as_it_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(execution, "LEASE_SECONDS", 4)
    monkeypatch.setattr("mlhub.execution.leases.RENEW_SECONDS", 0.1)
    one, other = (stores.Store(f"sqlite:///{tmp_path}/leases.db") for _ in range(2))
    one.prepare()
    order: list[str] = []

    async def late() -> None:
        async with other.alone("b", "a"):
            order.append("other")

    async with one.alone("a", "b"):
        waiting = asyncio.create_task(late())
        await asyncio.sleep(6)
        order.append("one")
    await waiting
    assert order == ["one", "other"]
    for store in (one, other):
        store.close()


# To create


async def test_M8_a_workspace_is_its_groups_and_a_volume_and_its_creator_owns_it(service, place):
    status, made = await create(service, "olga", "Fraud Detection", description="of cards")
    slug = made["id"]
    assert status == 201
    assert (made["role"], made["size"], made["created_by"]) == ("owner", "10Gi", "olga")
    assert made["description"] == "of cards"
    assert place.realm.paths("olga") == {f"/workspaces/{slug}/owner"}
    below = {place.realm.path(group) for group in place.realm.groups.values()}
    assert {f"/workspaces/{slug}/{role}" for role in ("owner", "editor", "viewer")} <= below
    (claim,) = place.volumes.claims.values()
    assert claim["metadata"]["name"] == f"workspace-{slug}"
    assert claim["metadata"]["labels"]["mlhub.io/workspace"] == slug
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "storageClassName": "homes",
        "resources": {"requests": {"storage": "10Gi"}},
    }


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"name": "a", "size_gib": 51}, 422, "invalid"),
        ({"name": "a", "size_gib": 101}, 422, "invalid"),
        ({"name": ""}, 422, "invalid"),
        ({"name": "a\nb"}, 422, "invalid"),
        ({"name": "x" * 61}, 422, "invalid"),
        ({"name": "a", "owner": "otto"}, 403, "owner"),
        ({"name": "a", "strange": 1}, 422, "invalid"),
    ],
)
async def test_M8_M9_what_is_wrong_is_refused_and_makes_nothing(service, place, body, status, kind):
    answer = await service.ask("olga", "POST", "/workspaces", **body)
    assert (answer.status_code, answer.json()["type"]) == (status, kind)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not place.volumes.claims


async def test_M1_the_owner_may_be_named_by_address_and_others_by_an_administrator(service):
    assert (await create(service, "olga", "a1", owner="olga@mlhub.example"))[0] == 201
    status, made = await create(service, "ada", "a2", owner="otto@mlhub.example")
    assert (status, made["created_by"], made["role"]) == (201, "otto", None)


async def test_M9_the_same_name_at_once_makes_one(service, place):
    async with serving(place.settings()) as other:
        names = ("olga", "otto", "edda", "vera", "sam", "fran")
        answers = await asyncio.gather(
            *(create((service, other)[n % 2], who, "Same") for n, who in enumerate(names))
        )
    assert Counter(status for status, _ in answers) == {201: 1, 409: 5}
    assert len(place.volumes.claims) == 1
    assert sum(bool(place.realm.paths(name)) for name in names) == 1


async def test_M9_the_limit_of_a_person_holds_at_once_and_over_replicas(service, place):
    async with serving(place.settings()) as other:
        answers = await asyncio.gather(
            *(create((service, other)[n % 2], "olga", f"team {n}") for n in range(8))
        )
    assert Counter(status for status, _ in answers) == {201: 3, 409: 5}
    assert len(place.volumes.claims) == 3
    assert {body["type"] for status, body in answers if status == 409} == {"limit"}
    assert (await create(service, "otto", "another"))[0] == 201, "it is each person's own"


async def test_M9_a_deleted_one_counts_until_it_has_ended(service):
    for name in ("a1", "a2", "a3"):
        await create(service, "olga", name)
    (_, full) = await create(service, "olga", "a4")
    assert full["type"] == "limit"
    assert full["detail"].endswith("Delete one, or ask an administrator to make this one for you.")
    began = records.now()
    for name in ("a1", "a2", "a3"):
        await service.ask("olga", "DELETE", f"/workspaces/{name}")
    (_, full) = await create(service, "olga", "a4")
    assert full["type"] == "limit"
    (free,) = re.findall("The next one is free on (.*) UTC; until then ask an", full["detail"])
    assert began - timedelta(minutes=1) <= moment(free) - timedelta(days=7) <= records.now()
    assert "Delete one" not in full["detail"]


async def test_M9_whoever_has_more_than_the_limit_waits_for_more_than_one_end(place):
    """As after an administrator has made some, or the limit has become less."""
    async with serving(place.settings()) as service:
        for name in ("a1", "a2", "a3"):
            await create(service, "olga", name)
        await service.ask("olga", "DELETE", "/workspaces/a1")
    limits = {"per_person": 2, "grace_days": 7}
    async with serving(place.settings(limits=limits)) as service:
        assert "Delete one" in (await create(service, "olga", "a4"))[1]["detail"]
        await service.ask("olga", "DELETE", "/workspaces/a2")
        assert "next one is free on" in (await create(service, "olga", "a4"))[1]["detail"]


def moment(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)


async def test_a_cluster_without_room_says_so_and_the_next_try_goes_on(service, place):
    place.volumes.refuses = "exceeded quota: namespace, requests.storage"
    status, body = await create(service, "olga", "Full")
    assert (status, body["type"], "exceeded quota" in body["detail"]) == (409, "storage", True)
    assert (await service.ask("olga", "GET", "/workspaces")).json() == {"workspaces": []}
    place.volumes.refuses = ""
    assert (await create(service, "otto", "Full"))[0] == 201
    assert place.realm.paths("olga") == set(), "whoever tried first has no part in it"


@pytest.mark.parametrize("call", ["PUT /admin/realms/mlhub/groups", "PUT /admin/realms/mlhub/user"])
async def test_one_that_was_killed_on_the_way_is_seen_by_nobody_and_made_again(
    service, place, call
):
    place.realm.dies_before = call
    assert (await create(service, "olga", "Half"))[0] == 503
    place.realm.dies_before = ""
    assert (await service.ask("olga", "GET", "/workspaces")).json() == {"workspaces": []}
    status, made = await create(service, "otto", "Half")
    assert (status, made["created_by"]) == (201, "otto")
    assert place.realm.paths("olga") == set()
    assert len(place.volumes.claims) == 1


async def test_M8_a_volume_with_others_data_is_nobodys_to_take(service, place):
    await create(service, "olga", "churn")
    group = place.realm.put("/workspaces/churn")
    place.realm.groups.pop(group["id"])
    status, body = await create(service, "sam", "churn")
    assert (status, body["type"]) == (409, "volume")
    assert place.realm.paths("sam") == set()


# The stack file's


async def test_M7_a_workspace_of_the_stack_file_is_like_any_other_but_stays(service, place):
    group = place.realm.put("/workspaces/research")
    group["attributes"] = {records.NAME: ["Research"], records.SIZE: ["20Gi"]}
    for role in ("owner", "editor", "viewer"):
        place.realm.put(f"/workspaces/research/{role}")
    assert (await member(service, "research", "olga", "owner", by="ada")).status_code == 200
    (found,) = (await service.ask("olga", "GET", "/workspaces")).json()["workspaces"]
    assert (found["name"], found["size"], found["created_by"]) == ("Research", "20Gi", "")
    answer = await service.ask("olga", "DELETE", "/workspaces/research")
    assert (answer.status_code, answer.json()["type"]) == (409, "stack-file")
    assert "mlhub:workspaces" in answer.json()["detail"]


# What is shared


async def test_M11_what_is_shared_is_listed_with_who_shared_it(service, slug):
    at = f"/workspaces/{slug}/resources"
    note = {"resource_type": "notebook", "resource_path": "reports/churn.ipynb"}
    made = (await service.ask("edda", "POST", at, **note)).json()
    again = (await service.ask("olga", "POST", at, **note)).json()
    assert again == made, "what is shared already stays as it is"
    await service.ask(
        "olga", "POST", at, resource_type="folder", resource_path="data/", shared_by="olga"
    )
    listed = (await service.ask("vera", "GET", at)).json()["resources"]
    shown = [(r["resource_type"], r["resource_path"], r["shared_by"]) for r in listed]
    assert shown == [("notebook", "reports/churn.ipynb", "edda"), ("folder", "data", "olga")]
    forged = await service.ask("edda", "POST", at, **note, shared_by="olga@mlhub.example")
    assert (forged.status_code, forged.json()["type"]) == (403, "shared-by")


async def test_M11_a_path_that_leads_out_of_the_workspace_is_refused(service, slug):
    at = f"/workspaces/{slug}/resources"
    for path in (
        "../x.ipynb", "/etc/x.ipynb", "a/../../x.ipynb", "~/x.ipynb", "a//x.ipynb", "./x.ipynb",
        "file://x.ipynb", "a\\..\\x.ipynb", "x\x00.ipynb", "x.ipynb\n", "", "x.txt",
        "a" * 501 + ".ipynb",
    ):  # fmt: skip
        answer = await service.ask("olga", "POST", at, resource_type="notebook", resource_path=path)
        assert answer.status_code == 422, path
    assert (await service.ask("olga", "GET", at)).json() == {"resources": []}


def test_M11_a_name_keeps_the_letters_that_it_has_on_the_volume():
    """A Mac writes an umlaut as two characters, by which alone its file is found."""
    name = "Pru\N{COMBINING DIAERESIS}fung.ipynb"
    assert confined(name) == name


@given(st.text(alphabet="ab./\\~ :é\x00\n", max_size=30))
def test_M11_whatever_passes_stays_below_the_folder(path):
    try:
        found = confined(path)
    except ValueError:
        return
    folder = Path("/home/jovyan/workspaces/churn")
    assert (folder / found).resolve().is_relative_to(folder)
    assert (folder / found).resolve() != folder
    assert confined(found) == found


# The end


async def test_M7_a_deleted_workspace_is_hidden_and_restored_as_it_was(service, slug, place):
    await service.ask(
        "edda", "POST", f"/workspaces/{slug}/resources", resource_type="folder", resource_path="d"
    )
    before = (await service.ask("olga", "GET", f"/workspaces/{slug}/members")).json()
    deleted = (await service.ask("olga", "DELETE", f"/workspaces/{slug}")).json()
    until = datetime.fromisoformat(deleted["restorable_until"])
    assert abs(until - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=5)
    for who in ("olga", "edda", "vera", "ada"):
        assert (await service.ask(who, "GET", f"/workspaces/{slug}")).status_code == 404
    assert {(who, role) for who, at, role in place.hub.told[-4:] if at == slug} == {
        (who, None) for who in ("olga", "otto", "edda", "vera")
    }
    assert roles_in([*place.realm.paths("edda")]) == {f"{slug}.deleted": "editor"}
    listed = (await service.ask("olga", "GET", "/workspaces?deleted=true")).json()["workspaces"]
    assert [each["id"] for each in listed] == [slug]
    assert (await service.ask("edda", "GET", "/workspaces?deleted=true")).json()["workspaces"] == []
    status, body = await create(service, "sam", "Fraud Detection")
    assert (status, body["type"]) == (409, "deleted")
    assert (await service.ask("otto", "POST", f"/workspaces/{slug}/restore")).status_code == 200
    assert (await service.ask("olga", "GET", f"/workspaces/{slug}/members")).json() == before
    shared = (await service.ask("vera", "GET", f"/workspaces/{slug}/resources")).json()
    assert len(shared["resources"]) == 1
    assert place.volumes.claims, "and the volume was never touched"


async def test_M7_after_the_grace_the_groups_go_and_a_new_one_begins_with_nothing(place):
    limits = {"per_person": 3, "grace_days": 0, "sweep_seconds": 3600}
    async with serving(place.settings(limits=limits)) as service:
        slug = await furnished(service)
        at = f"/workspaces/{slug}/resources"
        await service.ask("edda", "POST", at, resource_type="folder", resource_path="d")
        other = (await create(service, "olga", "other"))[1]["id"]
        rooms = service.app.state.api.rooms
        await rooms.sweep()
        assert len(place.volumes.claims) == 2, "what is not deleted stays"
        await service.ask("olga", "DELETE", f"/workspaces/{slug}")
        await rooms.sweep()
        assert set(place.volumes.claims) == {f"workspace-{other}"}
        assert place.realm.paths("edda") == set()
        status, refused = await create(service, "sam", "Fraud Detection")
        assert (status, refused["type"]) == (409, "ended"), "MLflow keeps what is under that slug"
        assert (await create(service, "ada", "Fraud Detection", owner="sam"))[0] == 201
        assert (await service.ask("sam", "GET", at)).json() == {"resources": []}
        members = (await service.ask("sam", "GET", f"/workspaces/{slug}/members")).json()
        assert [each["user"] for each in members["members"]] == ["sam"]


async def test_M7_one_that_cannot_end_keeps_no_other_from_its_end(place):
    limits = {"per_person": 3, "grace_days": 0, "sweep_seconds": 3600}
    async with serving(place.settings(limits=limits)) as service:
        for name in ("first", "second", "third"):
            await create(service, "olga", name)
            await service.ask("olga", "DELETE", f"/workspaces/{name}")
        rooms = service.app.state.api.rooms
        remove = rooms.claims.remove

        async def removed(slug: str, group: str) -> bool:
            if slug == "first":
                raise ClusterError(500, "not well")
            if slug == "second":
                raise RuntimeError
            return bool(await remove(slug, group))

        rooms.claims.remove = removed
        await rooms.sweep()
        rooms.claims.remove = remove
        assert set(place.volumes.claims) == {"workspace-first", "workspace-second"}
        by_hand = place.realm.child(place.realm.put("/workspaces")["id"], "second.deleted")
        by_hand["attributes"]["mlhub.deleted"] = ["2026-01-02T03:04:05"]
        await rooms.sweep()
        assert not place.volumes.claims


async def test_M7_before_the_grace_ends_nothing_goes(service, slug, place):
    await service.ask("olga", "DELETE", f"/workspaces/{slug}")
    await service.app.state.api.rooms.sweep()
    assert place.volumes.claims
    assert (await service.ask("olga", "POST", f"/workspaces/{slug}/restore")).status_code == 200


async def test_M7_one_restored_and_deleted_again_during_a_sweep_has_its_grace_anew(
    service, place, monkeypatch
):
    await create(service, "olga", "churn")
    await service.ask("olga", "DELETE", "/workspaces/churn")
    long_ago = {records.DELETED_AT: ["2026-01-02T03:04:05+00:00"]}
    group = place.realm.put("/workspaces/churn.deleted")
    group["attributes"] = group["attributes"] | long_ago
    rooms = service.app.state.api.rooms
    alone = rooms.store.alone

    @asynccontextmanager
    async def late(*names: str) -> Any:
        """The sweep's turn, after the owner's."""
        monkeypatch.undo()
        for method, at in (("POST", "/workspaces/churn/restore"), ("DELETE", "/workspaces/churn")):
            assert (await service.ask("olga", method, at)).status_code == 200
        async with alone(*names):
            yield

    monkeypatch.setattr(rooms.store, "alone", late)
    await rooms.sweep()
    assert set(place.volumes.claims) == {"workspace-churn"}
    assert (await service.ask("olga", "POST", "/workspaces/churn/restore")).status_code == 200


async def test_a_claim_that_the_service_did_not_make_is_never_deleted(place):
    limits = {"per_person": 3, "grace_days": 0, "sweep_seconds": 3600}
    async with serving(place.settings(limits=limits)) as service:
        await create(service, "olga", "churn")
        place.volumes.claims["workspace-churn"]["spec"]["storageClassName"] = "deletes"
        await service.ask("olga", "DELETE", "/workspaces/churn")
        await service.app.state.api.rooms.sweep()
    assert "workspace-churn" in place.volumes.claims, "its class might not retain the volume"


# The service itself


async def test_a_keycloak_that_is_silent_is_said_and_nothing_is_changed(service, slug, place):
    place.realm.silent = 500
    answer = await service.ask("olga", "GET", "/workspaces")
    assert (answer.status_code, answer.json()["type"]) == (503, "keycloak")
    health = (await service.ask("", "GET", "/health")).json()
    assert (health["status"], health["keycloak"], health["database"]) == ("degraded", False, True)


@pytest.mark.parametrize("status", [400, 403, 502])
async def test_what_keycloak_answers_is_in_the_log_and_a_no_is_not_called_silence(
    service, slug, place, caplog, status
):
    """As a federation that lets nobody change its people, or a role that was taken away."""
    place.realm.silent = status
    answer = await service.ask("olga", "GET", "/workspaces")
    assert (answer.status_code, answer.json()["type"]) == (503, "keycloak")
    assert ("does not answer" in answer.json()["detail"]) == (status == 502)
    assert f"GET /users: {status}" in caplog.text
    assert "not well" in caplog.text


async def test_a_secret_that_keycloak_does_not_take_is_said_in_the_log(place, caplog):
    async with serving(place.settings(), secret="another") as service:
        answer = await service.ask("olga", "GET", "/workspaces")
    assert (answer.status_code, answer.json()["type"]) == (503, "keycloak")
    assert "does not answer" not in answer.json()["detail"]
    assert "asked for a token: 401" in caplog.text
    assert "another" not in caplog.text


async def test_a_keycloak_that_hangs_keeps_the_service_answering_its_probes(serve, place):
    """Kubernetes waits five seconds, and kills who is late six times (`components.hub_service`)."""
    hangs, over = web.Application(), asyncio.Event()

    async def hang(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    hangs.router.add_route("*", "/{path:.*}", hang)
    place.addresses = (await serve(hangs), *place.addresses[1:])
    async with serving(place.settings()) as service:
        try:
            async with asyncio.timeout(5):
                asked = (service.ask("", "GET", "/health") for _ in range(3))
                answers = await asyncio.gather(*asked)
        finally:
            over.set()
    for health in (answer.json() for answer in answers):
        assert (health["status"], health["keycloak"]) == ("degraded", False)
        assert health["database"]
        assert health["kubernetes"]


@pytest.mark.parametrize("status", [403, 500])
async def test_a_kubernetes_that_shows_no_claims_is_no_health(service, place, status: int):
    place.volumes.silent = status
    health = (await service.ask("", "GET", "/health")).json()
    assert (health["status"], health["kubernetes"]) == ("degraded", False)


async def test_it_says_what_it_is_and_how_to_use_it(service):
    assert (await service.ask("", "GET", "/health")).json()["status"] == "healthy"
    assert (
        "GET PUT /workspaces/{id}/members"
        in (await service.ask("", "GET", "/")).json()["endpoints"]
    )
    page = await service.ask("", "GET", "/docs")
    assert (page.status_code, "last owner" in page.text) == (200, True)


async def test_every_change_leaves_a_line_in_the_trail_and_no_secret(service, audited, capsys):
    slug = await furnished(service)
    await service.ask("olga", "DELETE", f"/workspaces/{slug}")
    told = [(line["event"], line["who"], line["outcome"]) for line in audited("")]
    assert told == [
        ("workspace.create", "olga", "done"),
        ("workspace.member", "olga", "set"),
        *[("workspace.member", "otto", "set")] * 3,
        ("workspace.member", "olga", "removed"),
        ("workspace.delete", "olga", "done"),
    ]
    assert "token" not in json.dumps(audited(""))
    assert audit.LONGEST
