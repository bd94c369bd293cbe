"""The running `local` stack, as its users meet it: a browser, kubectl, nothing mocked.

These tests start nothing: `make up` has. A stack that is not there is an error, never a skip.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.e2e.platform import HUB_URL, Kubectl, Person

ARTIFACTS = Path(os.environ.get("MLHUB_ARTIFACTS", "artifacts"))

CHROMIUM = Path(__file__).parent / "chromium.py"
CHROMIUM_FLAGS = [
    "--no-sandbox",  # the tests run as root in CI, where Chromium refuses its sandbox
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def kubectl() -> Kubectl:
    """kubectl on the stack's cluster; fails at once when nothing answers."""
    kubectl = Kubectl()
    try:
        kubectl("get", "--raw", "/readyz")
    except subprocess.CalledProcessError as error:
        pytest.exit(f"the cluster does not answer ({error.stderr.strip()}); run `make up` first", 3)
    return kubectl


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots go; CI keeps this folder."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    # Instead of 5 s, which a lab that opens beside other work has taken.
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


def seat(browser: Browser, kubectl: Kubectl, name: str) -> Person:
    """A demo user at a browser of their own, not yet logged in; close their context after use."""
    context = browser.new_context(
        base_url=HUB_URL, viewport={"width": 1280, "height": 800}, accept_downloads=False
    )
    context.set_default_timeout(60_000)
    return Person(name, kubectl.secret("foundation", "demo-users")[name], context)


@pytest.fixture
def person(browser: Browser, kubectl: Kubectl) -> Iterator[Callable[[str], Person]]:
    """`person("alice")`: `seat`, cleared after the test."""
    people: list[Person] = []

    def sit_down(name: str) -> Person:
        people.append(seat(browser, kubectl, name))
        return people[-1]

    yield sit_down
    for someone in people:
        someone.leave()
