"""Tokens of people while the Hub is silent; of services, checked against the realm's keys."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
from aiohttp import BasicAuth, web
from cryptography.hazmat.primitives.asymmetric import rsa

from mlhub.execution.identity import HubTokens
from mlhub.execution.problems import Problem
from mlhub.execution.settings import Hub, Keycloak
from tests.ports import free_port
from tests.services.execution import SCOPE, Jobs, Room, Tokens, serving, settings
from tests.services.test_execution_api import RUN, problem
from tests.services.waiting import eventually

ISSUER = "https://keycloak.example.com/realms/mlhub"


class Realm:
    """A realm's keys, and tokens that it signs."""

    def __init__(self) -> None:
        self.key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.kid, self.asked, self.broken = "one", 0, False

    def application(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/certs", self._certs)
        app.router.add_post("/realm/protocol/openid-connect/token", self._give)
        return app

    async def _give(self, request: web.Request) -> web.Response:
        """Client credentials for the one client whose secret is `secret`."""
        basic = BasicAuth.decode(request.headers["Authorization"])
        if basic != BasicAuth("pipeline", "secret"):
            return web.json_response({"error": "unauthorized_client"}, status=401)
        assert (await request.post())["grant_type"] == "client_credentials"
        return web.json_response({"access_token": self.token(), "expires_in": 60})

    async def _certs(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.broken:
            return web.Response(status=502)
        key = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
        encryption = {"kty": "unknown", "kid": "enc", "use": "enc"}
        return web.json_response({"keys": [encryption, key | {"kid": self.kid, "alg": "RS256"}]})

    def token(self, *, key: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        now = int(time.time())
        given = {
            "iss": ISSUER,
            "aud": ["account", "mlhub-execution"],
            "exp": now + 60,
            "iat": now,
            "sub": "id-of-the-account",
            "typ": "Bearer",
            "azp": "pipeline",
            "preferred_username": "service-account-pipeline",
        } | claims
        given = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(given, key or self.key, algorithm, headers={"kid": self.kid})


@pytest.fixture
def realm() -> Realm:
    return Realm()


@pytest.fixture
async def service(serve: Any, realm: Realm, tmp_path: Any) -> Any:
    address = await serve(realm.application())
    keycloak = Keycloak(
        issuer=ISSUER,
        jwks_url=f"{address}/certs",
        audience="mlhub-execution",
        clients={"pipeline": ["alice"]},
        token_url=f"{address}/token",
        admin_url=f"{address}/admin",
        client_id="mlhub-execution",
        members=["/mlhub/users"],
    )
    cluster = Jobs()
    given = settings(
        await serve(cluster.application()),
        await serve(Tokens().application()) + "/hub/api",
        f"sqlite:///{tmp_path}/execution.db",
    ).model_copy(update={"keycloak": keycloak})
    async with serving(given, free_port(), Room()) as running:
        running.realm_url, running.cluster = f"{address}/realm", cluster
        running.clients = keycloak.clients
        yield running
    await cluster.close()


async def test_P3_a_service_runs_for_the_people_that_it_is_listed_for_and_no_other(service, realm):
    async with service.client(realm.token()) as client:
        run = await client.post("/execute", json=RUN)
        assert run.status_code == 202, run.text
        assert (await client.get(f"/runs/{run.json()['run_id']}")).status_code == 200
        problem(await client.post("/execute", json=RUN | {"username": "bob"}), 403, "not-yours")
        assert (await client.get("/runs?username=alice")).status_code == 200
    assert realm.asked == 1


async def test_P3_a_pipeline_that_may_run_for_somebody_no_more_sees_and_ends_nothing_of_theirs(
    service, realm
):
    schedule = RUN | {"name": "nightly", "cron": "0 3 * * *"}
    sweep = RUN | {"grid": {"a": [1]}}
    async with service.client(realm.token()) as client:
        run_id = (await client.post("/execute", json=RUN)).json()["run_id"]
        schedule_id = (await client.post("/schedules", json=schedule)).json()["schedule_id"]
        sweep_id = (await client.post("/sweeps", json=sweep)).json()["sweep_id"]
        service.clients["pipeline"] = ["bob"]
        for method, path in (
            ("GET", f"/runs/{run_id}"),
            ("GET", f"/runs/{run_id}/log"),
            ("GET", f"/runs/{run_id}/artifacts"),
            ("POST", f"/runs/{run_id}/cancel"),
            ("GET", f"/schedules/{schedule_id}"),
            ("PATCH", f"/schedules/{schedule_id}"),
            ("DELETE", f"/schedules/{schedule_id}"),
            ("GET", f"/sweeps/{sweep_id}"),
            ("POST", f"/sweeps/{sweep_id}/cancel"),
        ):
            kind = "no-" + path.split("/")[1][:-1]
            body = {"json": {"suspended": True}} if method == "PATCH" else {}
            problem(await client.request(method, path, **body), 404, kind)


@pytest.mark.parametrize(
    ("claims", "status", "kind"),
    [
        ({"exp": 1}, 401, "token"),
        ({"exp": None}, 401, "token"),
        ({"aud": "account"}, 401, "token"),
        ({"aud": None}, 401, "token"),
        ({"iss": "https://keycloak.example.com/realms/other"}, 401, "token"),
        ({"typ": "ID"}, 401, "token"),
        ({"typ": "Refresh"}, 401, "token"),
        ({"nbf": int(time.time()) + 3600}, 401, "token"),
        ({"azp": "other", "preferred_username": "service-account-other"}, 403, "client"),
        ({"preferred_username": "alice"}, 403, "not-a-service"),
        ({"azp": "pipeline", "preferred_username": "service-account-other"}, 403, "not-a-service"),
    ],
)
async def test_P3_a_token_that_is_not_for_this_is_refused(service, realm, claims, status, kind):
    async with service.client(realm.token(**claims)) as client:
        problem(await client.get("/runs?username=alice"), status, kind)


async def test_P3_a_token_that_the_realm_did_not_sign_is_refused(service, realm):
    another = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    forged = [
        realm.token(key=another),
        realm.token(key="a shared secret of thirty-two bytes", algorithm="HS256"),
        realm.token()[:-4] + "AAAA",
        jwt.encode({"iss": ISSUER}, "", "none"),
        "a.b.c",
    ]
    for token in forged:
        async with service.client(token) as client:
            problem(await client.get("/runs?username=alice"), 401, "token")


async def test_P3_made_up_keys_do_not_flood_keycloak(service, realm):
    async with service.client(realm.token()) as client:
        assert (await client.get("/runs?username=alice")).status_code == 200
    realm_kid, realm.kid = realm.kid, "made up"
    token = realm.token()
    realm.kid = realm_kid
    async with service.client(token) as client:
        for _ in range(10):
            problem(await client.get("/runs?username=alice"), 401, "token")
    assert realm.asked <= 2


async def test_P6_a_silent_keycloak_is_503_for_services(service, realm):
    realm.broken = True
    async with service.client(realm.token()) as client:
        problem(await client.get("/runs?username=alice"), 503, "identity")


@dataclass
class Asked:
    """Those who ask a Hub of the test about tokens, at a time of its own."""

    hub: Tokens
    api_url: str
    client: httpx.AsyncClient
    now: float = 0

    def tokens(self, patience: float = 0) -> HubTokens:
        hub = Hub(api_url=self.api_url, scope=SCOPE, patience_seconds=patience)
        return HubTokens(hub, self.client, lambda: self.now)


@pytest.fixture
async def asked(serve):
    hub = Tokens()
    async with httpx.AsyncClient(timeout=5, trust_env=False) as client:
        yield Asked(hub, await serve(hub.application()) + "/hub/api", client)


async def test_P6_who_is_known_stays_known_while_the_hub_is_silent_and_no_longer(asked):
    """So that whoever waits for their run outlives the Hub's restart."""
    known, alice, bob = asked.tokens(), asked.hub.person("alice"), asked.hub.person("bob")

    async def at(now: float, token: str = alice) -> str:
        asked.now = now
        return (await known.caller(token)).name

    assert await at(0) == "alice"
    asked.hub.broken = 502
    assert [await at(11), await at(299)] == ["alice", "alice"]
    for now, token in ((299, bob), (300, alice)):
        with pytest.raises(Problem, match="does not answer"):
            await at(now, token)
    asked.hub.broken = 0
    assert await at(301) == "alice"
    asked.hub.known.clear()
    with pytest.raises(Problem, match="unknown to the Hub"):
        await at(312)
    asked.hub.broken = 502
    with pytest.raises(Problem, match="does not answer"):
        await at(323)


async def test_P6_a_silent_hub_is_not_asked_at_every_call_of_those_it_knows(asked):
    known, alice = asked.tokens(), asked.hub.person("alice")
    await known.caller(alice)
    asked.hub.broken, before = 502, asked.hub.asked
    for asked.now in (11, 12, 13, 15):
        await known.caller(alice)
    assert asked.hub.asked == before + 2


async def test_P6_whom_the_hub_has_not_told_of_waits_for_it_a_moment(asked, caplog):
    known, alice = asked.tokens(patience=60), asked.hub.person("alice")
    asked.hub.broken = 503
    waiting = asyncio.create_task(known.caller(alice))
    await eventually(lambda: asked.hub.asked)
    asked.hub.broken = 0
    assert (await waiting).name == "alice"
    assert "503" in caplog.text
    assert alice not in caplog.text
