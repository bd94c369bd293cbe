"""The warning before a server ends, in a real lab and a real browser; the hub is a double.

Needs no cluster: the lab is this machine's, with the extension from the images' package.
"""

import re
import shutil
from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.e2e.platform import wait_until
from tests.unit.test_notebooks_activity import SOURCE, Server, serve
from tests.unit.test_notebooks_ending import a_hub, of_a_server

EXTENSION = SOURCE.parent / "lab"


def test_V4_the_lab_warns_before_the_server_ends_and_says_what_keeps_it(
    browser: Browser, tmp_path: Path, artifacts: Path
):
    share = tmp_path / "share/labextensions/@mlhub"
    share.mkdir(parents=True)
    (share / "ending").symlink_to(EXTENSION)
    (tmp_path / "etc/labconfig").mkdir(parents=True)
    shutil.copy(SOURCE.parents[2] / "jupyter/page_config.json", tmp_path / "etc/labconfig")
    ends = {
        "second": {
            "seconds": 600,
            "why": "Its GPU was not used for 20 min; 30 min is the most.",
            "keep": "A computation on the GPU keeps it.",
        }
    }
    with (
        a_hub(ends) as (url, heard),
        serve(
            tmp_path,
            module="jupyterlab",
            JUPYTER_PATH=str(tmp_path / "share"),
            **of_a_server(url),
        ) as server,
    ):
        page = browser.new_page()
        page.clock.install()
        page.goto(f"{server.url}lab?token=secret")
        told = page.get_by_role("alert").filter(has_text="This server stops")
        expect(told).to_have_text(
            "This server stops in 10 minutes. Its GPU was not used for 20 min; 30 min is the most. "
            "A computation on the GPU keeps it.",
            timeout=60_000,
        )
        page.screenshot(path=artifacts / "ending.png")
        ends["second"] |= {"seconds": 90}
        wait_until("the server has heard of it", lambda: _seconds(server) <= 90)
        page.clock.fast_forward(30_000)
        expect(told).to_contain_text(re.compile("stops in (90|8.) s"))
        ends.clear()
        wait_until("it stays", lambda: _seconds(server) == 1e9)
        page.clock.fast_forward(30_000)
        expect(told).to_have_count(0)
        page.close()
    assert heard


def _seconds(server: Server) -> float:
    return server.call("GET", "mlhub/ending").get("seconds", 1e9)
