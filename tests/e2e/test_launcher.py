"""Row M2, from a laptop: log in with a token, launch, open, stop, restore, be refused."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.platform import HUB_URL, Kubectl, Person

SOURCES = Path(__file__).parents[2] / "images/packages/notebooks/src"
OWNER = "carol"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def laptop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """`laptop("launch", …)` runs the command line on a machine that is nobody's server."""
    home = tmp_path_factory.mktemp("laptop")
    environ = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    environ |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "PYTHONPATH": str(SOURCES)}

    def run(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "notebooks.cli", *args],
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    yield run
    listed = run("sessions", "list", "--json")
    names = [each["session_id"] for each in json.loads(listed.stdout or "[]") if each["name"]]
    with ThreadPoolExecutor() as several:
        list(several.map(lambda name: run("sessions", "stop", name, "--forget"), names))
    run("logout")


def done(completed: subprocess.CompletedProcess[str]) -> Any:
    assert completed.returncode == 0, completed.stderr
    return json.loads(completed.stdout)


def active(laptop: Run) -> list[dict[str, Any]]:
    found = done(laptop("sessions", "list", "--json"))
    return [session for session in found if session["status"] != "stopped"]


LISTENS = "() => window.jQuery?._data(document.querySelector('#request-token-form'), 'events')"
"""Whether the page's script has come, without which the button only reloads the page."""


def make_token(person: Person) -> str:
    """As the command line tells a person to."""
    person.page.goto("/hub/token")
    person.page.wait_for_function(LISTENS)
    person.page.get_by_role("button", name="Request new API token").click()
    expect(person.page.locator("#token-result")).to_be_visible(timeout=30_000)
    return person.page.locator("#token-result").inner_text().strip()


def open_in_a_browser(page: Page, person: Person, url: str) -> None:
    """Nobody is logged in there: the address leads to Keycloak, and back to the lab."""
    page.goto(url)
    if (button := page.locator("a.btn-jupyter[href*='oauth_login']")).count():
        button.click()
    expect(page.locator("#username")).to_be_visible()
    page.fill("#username", person.name)
    page.fill("#password", person.password)
    page.click("#kc-login")
    expect(page.locator("#jp-main-dock-panel")).to_be_visible(timeout=90_000)


def test_M2_M9_a_session_from_a_laptop(
    laptop: Run, person: Callable[[str], Person], kubectl: Kubectl
):
    carol, elsewhere = person(OWNER).log_in(), person(OWNER)
    logged_in = laptop("login", "--hub", f"{HUB_URL}/hub/home", stdin=make_token(carol))
    assert f"Logged in to {HUB_URL} as {OWNER}" in logged_in.stdout, logged_in.stderr

    launch = ("launch", "--user", OWNER, "--json", "--cpu")
    # Nobody's repository: with an internet or without, it is not to be had.
    nothing = ("--git-repo", "https://github.com/owner/name")
    session = done(laptop(*launch, "2", "--memory", "2Gi", *nothing))
    assert session["status"] == "running"
    sizes = {key: session["options"][key] for key in ("profile", "cpu", "memory")}
    assert sizes == {"profile": "own-size", "cpu": "2", "memory": "2G"}
    assert session["notebook_url"] == f"{HUB_URL}/user/{OWNER}/{session['name']}/lab"
    pod = f"jupyter-{OWNER}--{session['name']}"
    limits = kubectl.pod(pod)["spec"]["containers"][0]["resources"]["limits"]
    assert (limits["cpu"], limits["memory"]) == ("2", str(2 * 2**30))

    open_in_a_browser(elsewhere.page, elsewhere, session["notebook_url"])
    assert elsewhere.page.url.startswith(session["notebook_url"])
    assert "was not cloned" in kubectl.exec(pod, "cat", "name is missing.txt")
    inside = kubectl.exec(pod, "python3", "-m", "notebooks.cli", "sessions", "list", "--json")
    assert session["notebook_url"] in [each["notebook_url"] for each in json.loads(inside)]
    mark = f"written at {time.time()}"
    kubectl.exec(pod, "sh", "-c", f"echo '{mark}' > launched.txt")

    stopped = done(laptop("sessions", "stop", session["session_id"], "--json"))
    assert stopped["status"] == "stopped"
    restored = done(laptop("sessions", "restore", session["session_id"], "--json"))
    assert restored["options"] == session["options"]
    assert restored["status"] == "running"
    assert kubectl.exec(pod, "cat", "launched.txt").strip() == mark

    while len(active(laptop)) < 3:
        done(laptop(*launch, "1", "--no-wait"))
    refused = laptop("launch", "--user", OWNER)
    assert refused.returncode == 1
    assert "You have 3 of 3 servers running; stop one to start another." in refused.stderr
    assert len(active(laptop)) == 3

    too_large = laptop("launch", "--user", OWNER, "--cpu", "64")
    assert too_large.returncode == 1
    assert "No size that the hub offers you holds 64 CPU." in too_large.stderr
