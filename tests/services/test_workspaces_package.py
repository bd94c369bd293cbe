"""`notebooks.WorkspaceManager` and the command line, on a real service."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from notebooks import SharedResource, WorkspaceManager, WorkspaceRole
from notebooks import workspaces as package
from notebooks.cli import main
from notebooks.connection import Connection
from notebooks.errors import Refused
from notebooks.workspaces import PathRefused, relative_path
from tests.services.test_workspaces_api import place, service  # noqa: F401 (fixtures)
from tests.services.workspaces import MATRIX, ROLES, WHO, Service, furnished, member


@pytest.fixture
def manager(service: Service) -> Any:  # noqa: F811
    """`manager("olga")`: hers."""
    return lambda who: WorkspaceManager(Connection(service.url, who, f"token-of-{who}"))


async def in_a_thread(call: Any, *given: Any, **named: Any) -> Any:
    """The package waits for its answers; the service answers in this thread's loop."""
    return await asyncio.to_thread(call, *given, **named)


async def test_M1_every_call_runs_as_it_is_written(manager):
    def story() -> Any:
        mine = manager("olga")
        made = mine.create_workspace(
            name="Churn Models", description="who leaves", owner="olga@mlhub.example"
        )
        assert (made.role, made.description) == (WorkspaceRole.OWNER, "who leaves")
        added = mine.add_member(
            workspace_id=made.id, user_email="edda@mlhub.example", role=WorkspaceRole.EDITOR
        )
        assert (added.user, added.role) == ("edda", "editor")
        shared = manager("edda").share_notebook(
            workspace_id=made.id,
            notebook_path="reports/churn.ipynb",
            shared_by="edda@mlhub.example",
        )
        assert isinstance(shared, SharedResource)
        (found,) = mine.list_shared_resources(made.id)
        assert (found.resource_type, found.resource_path) == ("notebook", "reports/churn.ipynb")
        assert found.shared_by == "edda"
        assert [each.role for each in mine.list_members(made.id)] == ["owner", "editor"]
        mine.remove_member(made.id, "edda@mlhub.example")
        with pytest.raises(Refused, match="no such workspace of yours"):
            manager("edda").list_shared_resources(made.id)
        assert mine.delete_workspace(made.id).restorable_until
        assert [each.id for each in mine.list_workspaces(deleted=True)] == [made.id]
        assert mine.restore_workspace(made.id).deleted is None

    await in_a_thread(story)


async def test_M7_a_refusal_has_the_services_sentence(manager):
    def story() -> None:
        made = manager("olga").create_workspace(name="solo")
        with pytest.raises(Refused) as refusal:
            manager("olga").remove_member(made.id, "olga")
        assert (refusal.value.status, refusal.value.type) == (409, "last-owner")
        assert "Make somebody else an owner first" in refusal.value.sentence
        with pytest.raises(ValueError, match="admin"):
            manager("olga").add_member(made.id, "edda", "admin")

    await in_a_thread(story)


async def test_M1_the_command_line(service, monkeypatch, capsys):  # noqa: F811
    found = Connection(service.url, "olga", "token-of-olga")
    monkeypatch.setattr(Connection, "find", classmethod(lambda cls: found))

    async def run(*argv: str) -> tuple[int, str, str]:
        code = await in_a_thread(main, ["workspaces", *argv])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, _ = await run("create", "Churn", "--description", "who leaves", "--json")
    made = json.loads(out)
    slug = made["id"]
    assert (code, made["role"], made["size"]) == (0, "owner", "10Gi")
    assert (await run("add", slug, "edda@mlhub.example", "--role", "editor"))[0] == 0
    assert (await run("share", slug, "a/b.ipynb"))[0] == 0
    assert (await run("share", slug, "data", "--folder"))[0] == 0
    _, out, _ = await run("list")
    assert all(part in out for part in (slug, "Churn", "owner", "10Gi"))
    _, out, _ = await run("members", slug)
    assert "edda@mlhub.example" in out
    _, out, _ = await run("shared", slug, "--json")
    listed = json.loads(out)
    assert [each["resource_path"] for each in listed] == ["a/b.ipynb", "data"]
    assert (await run("unshare", slug, listed[0]["id"]))[0] == 0
    code, _, err = await run("remove", slug, "olga", "--json")
    assert (code, json.loads(err)["error"]["type"]) == (1, "last-owner")
    assert (await run("delete", slug))[0] == 0
    assert slug in (await run("list", "--deleted"))[1]
    assert (await run("restore", slug))[0] == 0
    assert (await run("add", slug))[0] == 2, "wrong usage"
    assert (await run("add", slug, "edda", "--role", "admin"))[0] == 2


async def test_M7_the_role_matrix_by_the_command_line(service, monkeypatch, capsys):  # noqa: F811
    slug = await furnished(service)
    at = f"/workspaces/{slug}"
    other = {"resource_type": "notebook", "resource_path": "b.ipynb"}
    calls = {
        "members": ["members", slug],
        "shared": ["shared", slug],
        "share": ["share", slug, "a.ipynb"],
        "unshare": ["unshare", slug],
        "add": ["add", slug, "extra@mlhub.example"],
        "change": ["add", slug, "extra", "--role", "owner"],
        "remove": ["remove", slug, "extra"],
        "delete": ["delete", slug],
        "restore": ["restore", slug],
        "leave": ["remove", slug],
    }
    assert {*calls, "get"} == set(MATRIX), "every operation; `get` has no command but `list`"
    for operation, argv in calls.items():
        for role, status in zip(ROLES, MATRIX[operation], strict=True):
            more = []
            if operation in ("change", "remove"):
                await member(service, slug, "extra", "editor")
            if operation == "restore":
                await service.ask("otto", "DELETE", at)
            if operation == "unshare":
                shared = await service.ask("otto", "POST", f"{at}/resources", **other)
                more = [shared.json()["id"]]
            if operation == "leave":
                more = [WHO[role]]
            found = Connection(service.url, WHO[role], f"token-of-{WHO[role]}")
            monkeypatch.setattr(Connection, "find", classmethod(lambda cls, found=found: found))
            code = await in_a_thread(main, ["workspaces", *argv, *more])
            said = capsys.readouterr()
            assert code == (0 if status < 300 else 1), (operation, role, said.err)
            assert bool(said.err) == (code == 1), (operation, role)
            if operation in ("delete", "restore"):
                await service.ask("otto", "POST", f"{at}/restore")
            if operation == "leave" and code == 0:
                await member(service, slug, WHO[role], role)
            if operation in ("add", "change", "remove"):
                await service.ask("otto", "DELETE", f"{at}/members/extra")
    for role, status in zip(ROLES, MATRIX["get"], strict=True):
        found = Connection(service.url, WHO[role], f"token-of-{WHO[role]}")
        monkeypatch.setattr(Connection, "find", classmethod(lambda cls, found=found: found))
        assert await in_a_thread(main, ["workspaces", "list", "--json"]) == 0
        listed = [each["id"] for each in json.loads(capsys.readouterr().out)]
        member_of = status < 300 and role != "admin"
        assert listed == ([slug] if member_of else []), role


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace's folder, as a server has it."""
    monkeypatch.setattr(package, "FOLDER", tmp_path)
    folder = tmp_path / "churn"
    (folder / "reports").mkdir(parents=True)
    (folder / "reports" / "a.ipynb").touch()
    (tmp_path / "private.ipynb").touch()
    (folder / "link.ipynb").symlink_to(tmp_path / "private.ipynb")
    (folder / "inner.ipynb").symlink_to(folder / "reports" / "a.ipynb")
    return folder


def test_M11_a_path_may_be_where_the_notebook_is(folder):
    assert relative_path(folder / "reports" / "a.ipynb", folder) == "reports/a.ipynb"
    assert relative_path("reports/a.ipynb", folder) == "reports/a.ipynb"
    assert relative_path("inner.ipynb", folder) == "inner.ipynb"


def test_M11_a_folder_that_an_earlier_mount_has_left_in_the_home_hides_nothing(folder):
    """The container runtime makes it, and it stays where the next server has no such workspace."""
    left = folder.parent / "left"
    left.mkdir()
    assert relative_path("reports/a.ipynb", left) == "reports/a.ipynb"
    assert relative_path(left / "a.ipynb", left) == "a.ipynb"


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/home/jovyan/private.ipynb", "copy it there"),
        ("../private.ipynb", "leads out"),
        ("link.ipynb", "leads out"),
        ("reports/../../private.ipynb", "leads out"),
        ("absent.ipynb", "There is no"),
        (".", "leads out"),
    ],
)
def test_M11_a_path_or_link_that_leads_out_is_not_shared(folder, path, sentence):
    with pytest.raises(PathRefused, match=sentence):
        relative_path(path, folder)


def test_M11_what_others_share_is_opened_inside_the_folder_alone(folder):
    shared = package.SharedResource("1", "churn", "notebook", "link.ipynb", "edda", None)
    with pytest.raises(PathRefused):
        shared.local_path(folder)


async def test_an_id_is_one_part_of_an_address(manager):
    for id in ("../runs", "a/b", "..", ""):
        with pytest.raises((Refused, PathRefused)):
            await in_a_thread(manager("olga").get_workspace, id)
