"""The hub's pages on a phone: a real hub and a real browser; Keycloak and Kubernetes are doubles.

Needs no cluster.
"""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import Application, AppRunner, Request, Response, TCPSite, json_response
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect

from tests.ports import free_port
from tests.services.hub import POD, PROFILES, SECRETS, chart_values, merged
from tests.services.keycloak import PEOPLE, Keycloak
from tests.services.kubernetes import Kubernetes, kubeconfig
from tests.services.process import HubProcess
from tests.services.test_hub_admission import VALUES
from tests.services.test_hub_spawn import RUNNING
from tests.services.test_hub_tokens import MLFLOW

PHONE: ViewportSize = {"width": 390, "height": 844}
UNBROKEN = "this_has_no_space_at_which_it_could_be_broken_into_lines_1234567890"
SESSION, WAITS = "nightlyretrainingofthefrauddet", "waits"
GROUPS = [
    "/mlhub/users",
    "/workspaces/nightly-retraining-of-the-fraud-detection/viewer",
    "/workspaces/churn/editor",
]
APPLICATION, BACK = "service-mlflow", "/services/mlflow/oauth_callback"
CHOICE = "16 CPU and 128 GiB, on the nodes that have a large disk of their own"

CUT_OFF = """() => {
  const wide = document.documentElement.clientWidth;
  const in_what_scrolls = (element) => {
    for (let each = element.parentElement; each; each = each.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(each).overflowX)) return true;
    return false;
  };
  return [...document.body.querySelectorAll("*")]
    .filter((each) => {
      const box = each.getBoundingClientRect();
      return box.width && (box.right > wide + 1 || box.left < -1) && !in_what_scrolls(each);
    })
    .map((each) => `${each.tagName} ${each.id} ${each.textContent.trim()}`.slice(0, 60));
}"""
"""What reaches out of the window and lies in nothing that scrolls by itself."""


@contextlib.contextmanager
def beside() -> Iterator[Any]:
    """Runs coroutines in a thread of their own, since the browser has this one's event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(240)

    try:
        yield run
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def serve(app: Application) -> tuple[AppRunner, int]:
    runner = AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    port = free_port()
    await TCPSite(runner, "127.0.0.1", port).start()
    return runner, port


def server() -> Application:
    """A person's, which says that it is there."""

    async def up(_: Request) -> Response:
        return json_response({"version": "1"})

    app = Application()
    app.router.add_get("/user/{path:.*}/api", up)
    return app


def kubernetes() -> Kubernetes:
    """Starts every server at once but one, whose event has a name as long as an image's."""

    def then(pod: dict[str, Any]) -> dict[str, Any]:
        if WAITS not in pod["metadata"]["name"]:
            return RUNNING
        image = f"registry.example.com/{UNBROKEN}@sha256:{'0123456789abcdef' * 4}"
        double.say(pod, "Pod", "Failed", f"Failed to pull image {image}")
        return {"phase": "Pending"}

    double = Kubernetes(then=then)
    return double


def values(keycloak: Keycloak, port: int) -> dict[str, Any]:
    """Of a hub whose people's servers answer at `port`."""
    identity = {
        "public_url": keycloak.address,
        "internal_url": keycloak.address,
        "callback_url": keycloak.redirect_uri,
        "people_client": PEOPLE[0],
    }
    choices = {"huge": {"display_name": CHOICE, "kubespawner_override": {"cpu_limit": 2}}}
    profiles = merged({"all": PROFILES}, {})["all"]
    profiles[0]["profile_options"]["size"]["choices"] |= choices
    return chart_values(
        VALUES,
        MLFLOW,
        {
            "custom": {"mlhub": {"identity": identity}},
            "hub": {
                "config": {"KubeSpawner": {"port": port}},
                "loadRoles": {"user": {"scopes": ["self", "access:services!service=mlflow"]}},
            },
            "singleuser": {"profileList": profiles},
        },
    )


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    folder, port = tmp_path_factory.mktemp("hub"), free_port()
    keycloak = Keycloak(redirect_uri=f"http://127.0.0.1:{port}/hub/oauth_callback")
    keycloak.people, keycloak.at_the_browser = {"alice": GROUPS}, "alice"
    cluster = kubernetes()
    with beside() as run:
        apps = (keycloak.application(), cluster.application(), server())
        runners, (at_keycloak, at_cluster, at_server) = zip(
            *(run(serve(app)) for app in apps), strict=True
        )
        keycloak.address = f"http://127.0.0.1:{at_keycloak}"
        (folder / "kubeconfig").write_text(kubeconfig(f"http://127.0.0.1:{at_cluster}"))
        made = HubProcess(
            folder,
            values(keycloak, at_server),
            port,
            folder / "kubeconfig",
            {**POD, "PGPASSWORD": ""},
        )
        run(made.start())
        yield made
        run(made.kill())
        cluster.close()
        for runner in runners:
            run(runner.cleanup())


def authorize(context: BrowserContext, url: str) -> None:
    """An application of alice's, on the page of her tokens."""
    asked = f"client_id={APPLICATION}&redirect_uri={BACK}&response_type=code&state=a"
    back = context.request.get(f"{url}/hub/api/oauth2/authorize?{asked}", max_redirects=0)
    form: dict[str, str | float | bool] = {
        "client_id": APPLICATION,
        "client_secret": SECRETS["hub.services.mlflow.apiToken"],
        "grant_type": "authorization_code",
        "code": back.headers["location"].partition("code=")[2].partition("&")[0],
        "redirect_uri": BACK,
    }
    answer = context.request.post(f"{url}/hub/api/oauth2/token", form=form)
    assert answer.ok, answer.text()


@pytest.fixture(scope="module")
def page(browser: Browser, hub: HubProcess) -> Iterator[Page]:
    """Alice's, who has tokens, an application, and sessions of which one waits."""
    context = browser.new_context(base_url=hub.url, viewport=PHONE)
    page = context.new_page()
    page.goto("/hub/oauth_login?next=/hub/home")
    authorize(context, hub.url)
    page.goto("/hub/token")
    for note in ("laptop", UNBROKEN):
        page.fill("#token-note", note)
        page.click("#request-token-form button[type=submit]")
        expect(page.locator("#token-result")).not_to_be_empty()
        page.reload()
    for session in (SESSION, WAITS):
        page.goto(f"/hub/spawn/alice/{session}")
        page.select_option("select[name=workspace]", index=2)
        page.click("#spawn_form button[type=submit]")
        page.wait_for_url(lambda url: "/hub/spawn/" not in url)
    page.goto("/hub/home")
    expect(page.locator(".server-link:not(.hidden)")).to_be_visible()
    yield page
    context.close()


def fits(page: Page, picture: Path) -> None:
    """Whether nothing is cut off and the page does not go sideways, all of it unfolded."""
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.screenshot(path=picture, full_page=True)
    assert page.evaluate(CUT_OFF) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("token", "/hub/token"),
        ("home", "/hub/home"),
        ("spawn", "/hub/spawn/alice"),
        ("not-running", "/hub/user/alice/another/lab"),
        ("error", f"/hub/{UNBROKEN}"),
    ],
)
def test_a_page_of_the_hub_fits_a_phone(page: Page, artifacts: Path, name: str, path: str):
    page.goto(path)
    fits(page, artifacts / f"narrow-{name}.png")


def test_a_start_and_its_events_fit_a_phone(page: Page, artifacts: Path):
    page.goto(f"/hub/spawn-pending/alice/{WAITS}")
    expect(page.locator("#progress-message")).to_contain_text("Failed to pull image")
    fits(page, artifacts / "narrow-pending.png")


def test_the_menu_and_a_new_token_fit_a_phone(page: Page, artifacts: Path):
    page.goto("/hub/token")
    page.click(".navbar-toggler")
    page.get_by_role("button", name="Services").click()
    expect(page.get_by_role("link", name="mlflow")).to_be_visible()
    page.click("#request-token-form button[type=submit]")
    expect(page.locator("#token-result")).not_to_be_empty()
    fits(page, artifacts / "narrow-menu.png")
