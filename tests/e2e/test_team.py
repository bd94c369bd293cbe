"""A team's first day, in the browsers of two people: rows J3, M1, M5, M7 and M11 in one story.

Alice makes a workspace and invites Bob; he launches a session for it from a template, runs that,
finds its run in MLflow as himself, shares the notebook, and is refused what is an owner's. When
Alice takes him out again, he is a stranger everywhere.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from notebooks import NotebookLauncher, NotebookSession, NotebookStatus, ResourceConfig
from notebooks.connection import Connection
from tests.e2e.platform import HUB_URL, Kubectl, Person, wait_until
from tests.e2e.test_mlflow import PAGE, result, shown
from tests.e2e.test_workspaces import Hand, name  # noqa: F401 (a fixture)

TEMPLATE = "data-exploration"
IDLE = "Python 3 (ipykernel) | Idle"

INVITE = """
from notebooks import WorkspaceManager, WorkspaceRole
manager = WorkspaceManager()
made = manager.create_workspace(
    name="NAME", description="of a test", owner="alice@mlhub.example"
)
manager.add_member(
    workspace_id=made.id, user_email="bob@mlhub.example", role=WorkspaceRole.EDITOR
)
print("RESULT", made.id)
"""
LIST = """
for each in manager.list_shared_resources(made.id):
    print("RESULT", each.resource_type, each.resource_path, each.shared_by)
"""
TAKE_OUT = "manager.remove_member(made.id, 'bob@mlhub.example')"


@pytest.fixture
def bob(person: Callable[[str], Person]) -> Person:
    return person("bob").log_in()


@pytest.fixture
def launch(bob: Person) -> Iterator[Callable[[str], NotebookSession]]:
    """`launch(workspace)`: Bob's, as from a laptop; the sessions are forgotten afterwards."""
    launcher = NotebookLauncher(Connection(HUB_URL, "bob", Hand(bob).token))

    def launch(workspace: str) -> NotebookSession:
        return launcher.launch(
            user_email="bob@mlhub.example",
            workspace=workspace,
            resources=ResourceConfig(cpu_cores=1, memory_gb=2, gpu_count=0),
            mlflow_experiment=workspace,
            template=TEMPLATE,
        )

    yield launch
    for session in launcher.list():
        if session.options.get("template") == TEMPLATE:
            launcher.stop(session.session_id, forget=True)


def run_all(page: Page, session: NotebookSession) -> None:
    """Open the template in the lab of the session, and run it by the menu."""
    page.goto(f"{session.notebook_url}/tree/{TEMPLATE}.ipynb?reset")
    expect(page.locator(".jp-Notebook")).to_be_visible(timeout=90_000)
    expect(page.get_by_text(IDLE)).to_be_visible(timeout=90_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()
    expect(page.locator(".jp-OutputArea-output img").first).to_be_visible(timeout=180_000)


def mlflow(hand: Hand, method: str, path: str, **given: Any) -> Any:
    """MLflow's answer, as from a laptop; empty where it refuses."""
    answer = requests.request(
        method,
        f"{HUB_URL}{PAGE}api/2.0/mlflow/{path}",
        headers={"Authorization": f"Bearer {hand.token}", "X-MLFLOW-WORKSPACE": given.pop("of")},
        timeout=60,
        **given,
    )
    return answer.json() if answer.ok else {}


def runs(hand: Hand, workspace: str) -> list[dict[str, Any]]:
    """Those of the experiment with the workspace's name, as far as somebody may read them."""
    by_name = {"experiment_name": workspace}
    found = mlflow(hand, "GET", "experiments/get-by-name", of=workspace, params=by_name)
    if "experiment" not in found:
        return []
    where = {"experiment_ids": [found["experiment"]["experiment_id"]]}
    kept: list[dict[str, Any]] = mlflow(hand, "POST", "runs/search", of=workspace, json=where).get(
        "runs", []
    )
    return kept


def in_mlflow(page: Page, workspace: str, run: dict[str, Any]) -> None:
    """The workspace is among those on MLflow's page, and the run is in it."""
    page.goto(PAGE)
    shown(page.get_by_role("link", name=workspace))
    at = f"#/experiments/{run['experiment_id']}/runs/{run['run_id']}?workspace={workspace}"
    page.goto(PAGE + at)
    shown(page.get_by_text(run["run_id"]))
    shown(page.get_by_text("duplicates"))


@pytest.mark.timeout(600)
def test_M1_M5_M7_M11_a_teams_first_day(
    *,
    person: Callable[[str], Person],
    bob: Person,
    launch: Callable[[str], NotebookSession],
    kubectl: Kubectl,
    name: str,  # noqa: F811
    artifacts: Path,
) -> None:
    alice = person("alice").log_in().start_server()
    slug = result(alice.run(INVITE.replace("NAME", name)))
    assert slug == name

    hand = Hand(bob)
    session = launch(slug)
    assert session.status is NotebookStatus.RUNNING
    assert session.options["workspace"] == slug
    run_all(bob.page, session)
    (left,) = wait_until(
        "the template has left its run",
        lambda: [each for each in runs(hand, slug) if each["info"]["status"] == "FINISHED"],
        180,
    )
    bob.page.screenshot(path=artifacts / "template.png")
    tags = {tag["key"]: tag["value"] for tag in left["data"]["tags"]}
    assert (tags["mlflow.user"], tags["mlhub.notebook"]) == ("bob", f"{TEMPLATE}.ipynb")
    in_mlflow(bob.page, slug, left["info"])
    bob.page.screenshot(path=artifacts / "mlflow-team.png")

    pod, notebook = f"jupyter-bob--{session.name}", f"/home/jovyan/workspaces/{slug}/churn.ipynb"
    kubectl.exec(pod, "mv", f"/home/jovyan/{TEMPLATE}.ipynb", notebook)
    command = ("python3", "-m", "notebooks.cli", "workspaces")
    kubectl.exec(pod, *command, "share", slug, notebook)
    assert result(alice.run(LIST)) == "notebook churn.ipynb bob"
    with pytest.raises(subprocess.CalledProcessError) as refusal:
        kubectl.exec(pod, *command, "add", slug, "carol")
    assert "owner" in refusal.value.stderr, "an editor invites nobody"

    alice.run(TAKE_OUT)
    wait_until("the session stops with the role", lambda: kubectl.pod(pod) is None, 90)
    assert hand.workspaces("GET", f"/{slug}").status_code == 404
    assert hand.start(slug).status_code == 403
    wait_until("it counts in MLflow, too", lambda: not runs(hand, slug), 90)
    bob.page.goto(f"{PAGE}#/experiments?workspace={slug}")
    shown(bob.page.get_by_text("Create your first experiment"))
    bob.page.goto(PAGE)
    shown(bob.page.get_by_role("link", name="bob--home"))
    expect(bob.page.get_by_role("link", name=slug)).to_have_count(0)
    in_mlflow(alice.page, slug, left["info"])
