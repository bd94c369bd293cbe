"""The report of a verification, what it says of a stack that does not answer, and its person."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from components.stackfile import read
from mlhub.hub import trouble
from mlhub.verify import people, web
from mlhub.verify.checks import offered, refusals, serve_and_run, verify
from mlhub.verify.notebook import notebook
from mlhub.verify.people import temporary
from mlhub.verify.person import Busy, Person, failed
from mlhub.verify.report import Failed, NotTried, Report
from mlhub.verify.settings import Settings
from mlhub.verify.web import ask, session
from tests.unit.recorder import ROOT

NOWHERE = Settings(
    hub_url="http://127.0.0.1:9",
    keycloak_url="http://127.0.0.1:9",
    realm="mlhub",
    groups=(),
    login_realm="master",
    client_id="admin-cli",
    password="hunter2",
)


@pytest.fixture
def report() -> Report:
    return Report(lambda line: None)


def test_T12_a_stack_that_does_not_answer_fails_with_what_did_not(report: Report) -> None:
    verify(NOWHERE, report)
    assert not report.works()
    assert report.lines[0].outcome == "failed"
    assert "http://127.0.0.1:9/hub/health got no answer: Connection refused" in (
        report.lines[0].said.replace("[Errno 111] ", "")
    )


def test_nothing_tried_is_no_success(report: Report) -> None:
    assert not report.works()
    with report.check("a thing"):
        raise NotTried("there is none")
    assert not report.works()
    assert report.sentence() == "Nothing was verified."


def test_one_failure_is_enough_and_the_rest_goes_on(report: Report) -> None:
    with report.check("first"):
        raise Failed("it did not")
    with report.check("second"):
        pass
    assert not report.works()
    found = json.loads(report.as_json())
    assert [(c["what"], c["outcome"]) for c in found["checks"]] == [
        ("first", "failed"),
        ("second", "ok"),
    ]


def test_a_defect_of_the_program_is_a_failure_and_not_swallowed(report: Report) -> None:
    with pytest.raises(ZeroDivisionError), report.check("a sum"):
        print(1 / 0)
    assert report.lines[0].outcome == "failed"


def test_secrets_are_in_no_representation() -> None:
    assert "hunter2" not in repr(NOWHERE)


def test_the_notebook_asks_mlflow_only_where_there_is_one() -> None:
    without, with_it = (json.dumps(notebook(mlflow=has)) for has in (False, True))
    assert "mlflow" not in without
    assert "mlflow.log_param" in with_it


Answer = tuple[int, dict[str, str], str]
"""Status, headers, body."""


@contextlib.contextmanager
def serving(answer: Callable[[str, str, dict[str, str], bytes], Answer]) -> Iterator[str]:
    """A server on loopback that answers a method, a path, headers and a body; its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            given = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, body = answer(self.command, self.path, dict(self.headers), given)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(BrokenPipeError):  # a caller that was ended
                self.wfile.write(body.encode())

        do_GET = do_POST = do_PUT = do_DELETE = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


class Realm:
    """As much of Keycloak as the person needs, and a hub whose log-in page never comes."""

    def __init__(self) -> None:
        self.person: dict[str, Any] | None = None
        self.asked: list[str] = []
        self.hangs = threading.Event()
        self.before_post: Callable[[], None] = lambda: None
        self.forgets_to_answer = False

    def there(self, age: float, person_id: str = "7", **known: Any) -> None:
        made = (time.time() - age) * 1000
        self.person = {"id": person_id, "createdTimestamp": made, **known}

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self.asked.append(f"{method} {path.partition('?')[0]}")
        if path.startswith("/hub/oauth_login"):
            self.hangs.set()
            time.sleep(20)
        if path.endswith("/token"):
            return 200, {}, json.dumps({"access_token": "a-token"})
        if method == "POST" and path.endswith("/users"):
            self.before_post()
            if self.person is not None:
                return 409, {}, ""
            self.there(0, lastName=json.loads(body)["lastName"])
            if self.forgets_to_answer:
                time.sleep(2)
        if method == "DELETE":
            if not self.person or not path.endswith(f"/{self.person['id']}"):
                return 404, {}, ""
            self.person = None
        found = [self.person] if self.person else []
        return 200, {}, json.dumps(found if "/users?" in path else {"id": "8"})


@pytest.fixture
def realm() -> Iterator[tuple[Realm, Settings]]:
    realm = Realm()
    with serving(realm.answer) as url:
        yield realm, dataclasses.replace(NOWHERE, hub_url=url, keycloak_url=url, groups=("/a/b",))


def test_T12_the_person_is_there_for_as_long_as_they_work(realm: tuple[Realm, Settings]) -> None:
    server, settings = realm
    with temporary(settings, print):
        assert server.person is not None
    assert server.person is None
    assert "PUT /admin/realms/mlhub/users/7/groups/8" in server.asked


def test_T12_another_verification_is_waited_for_and_not_disturbed(
    realm: tuple[Realm, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = realm
    server.there(20)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert not any(line.startswith(("DELETE", "POST /admin")) for line in server.asked)
        if len(slept) == 3:
            server.person = None

    monkeypatch.setattr(people.time, "sleep", sleep)
    said: list[str] = []
    with temporary(settings, said.append):
        assert len(slept) == 3
    assert len(said) == 1
    assert said[0].startswith("another verification of this realm began 2")


def test_T12_what_a_killed_verification_left_is_removed(realm: tuple[Realm, Settings]) -> None:
    server, settings = realm
    server.there(people.OTHERS_SECONDS + 1)
    said: list[str] = []
    with temporary(settings, said.append):
        pass
    assert said == []
    assert sum(line.startswith("DELETE") for line in server.asked) == 2


def test_T12_two_that_begin_at_once_take_turns(
    realm: tuple[Realm, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = realm
    monkeypatch.setattr(people.time, "sleep", lambda _: setattr(server, "person", None))

    def the_other_is_quicker() -> None:
        server.there(0)
        server.before_post = lambda: None

    server.before_post = the_other_is_quicker
    said: list[str] = []
    with temporary(settings, said.append):
        assert server.person is not None
    assert len(said) == 1
    assert server.person is None


def test_T12_a_name_or_address_that_somebody_else_has_is_told_and_not_waited_for(
    realm: tuple[Realm, Settings],
) -> None:
    server, settings = realm
    server.before_post = lambda: server.there(0)
    tried = 0

    def found(_: people.Keycloak) -> None:
        nonlocal tried
        tried += 1
        assert tried < 9

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(people.Keycloak, "found", found)
        with pytest.raises(people.NotMade, match="POST /users with HTTP 409"):
            temporary(settings, print).__enter__()


def test_T12_a_late_verification_leaves_the_person_of_the_next_one(
    realm: tuple[Realm, Settings],
) -> None:
    """Who took longer than OTHERS_SECONDS was taken for killed."""
    server, settings = realm
    with temporary(settings, print):
        server.there(0, "8", lastName="verify another")
    assert server.person is not None


def test_T12_a_person_is_removed_whose_making_was_never_answered(
    realm: tuple[Realm, Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, settings = realm
    monkeypatch.setattr(web, "TIMEOUT", (1, 1))
    server.forgets_to_answer = True
    with pytest.raises(web.Unreachable), temporary(settings, print):
        pass
    assert server.person is None


BY_HAND = """\
import json, signal, sys
from pathlib import Path
from mlhub.verify.settings import Settings
from tools import verify
asked = Settings(**json.loads(Path(sys.argv.pop()).read_text()))
verify.read, verify.settings = (lambda *_: None), (lambda *_: asked)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
raise SystemExit(verify.main())
"""
"""`make verify`, told whom to verify, and not by nohup, as these tests may be."""


@pytest.mark.parametrize(
    ("command", "sent"),
    [
        (["-m", "mlhub.verify"], signal.SIGTERM),
        (["-c", BY_HAND, "--stack", "local"], signal.SIGTERM),
        (["-c", BY_HAND, "--stack", "local"], signal.SIGHUP),
    ],
)
def test_T12_one_that_is_ended_removes_the_person_first(
    realm: tuple[Realm, Settings], tmp_path: Path, command: list[str], sent: signal.Signals
) -> None:
    server, settings = realm
    asked = {**dataclasses.asdict(settings), "via": {}, "groups": ["/a/b"]}
    del asked["client_secret"]
    file = tmp_path / "verify.json"
    file.write_text(json.dumps(asked))
    process = subprocess.Popen(
        [sys.executable, *command, file],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "images/packages/mlhub/src")},
    )
    try:
        assert server.hangs.wait(120)
        assert server.person is not None
        process.send_signal(sent)
        said, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + sent
    assert server.person is None
    assert "ok" in [line.split()[0] for line in said.splitlines() if "person is removed" in line]


@pytest.mark.parametrize(
    ("wanted", "started", "outcome"),
    [
        ((), ["small", "gpu--node-1"], "ok"),
        (("small",), ["small"], "ok"),
        (("gpu",), ["gpu--node-1"], "ok"),
        (("small", "huge"), ["small"], "failed"),
    ],
)
def test_T12_a_profile_that_is_asked_for_and_not_offered_is_a_failure(
    report: Report, wanted: tuple[str, ...], started: list[str], outcome: str
) -> None:
    class Somebody(Person):
        def __init__(self) -> None:
            self.settings = dataclasses.replace(NOWHERE, profiles=wanted)

        def profiles(self) -> list[dict[str, Any]]:
            return [{"slug": "small"}, {"slug": "gpu--node-1"}]

    assert [each["slug"] for each in offered(Somebody(), report)] == started
    assert [line.outcome for line in report.lines] == [outcome]
    if outcome == "failed":
        assert report.lines[0].said == "not huge, to a member of the access groups"


def size(slug: str, gpu: int) -> dict[str, Any]:
    return {"slug": slug, "size": {"cpu": 1, "memory": 2**30, "gpu": gpu}}


class Desk(Person):
    """A person whose hub refuses the start of some profiles, and who notes what is run."""

    def __init__(self, *offers: dict[str, Any], **refused: str):
        self.settings = dataclasses.replace(NOWHERE, execution=True)
        self.offers, self.refused = list(offers), refused
        self.files: dict[str, Any] = {}
        self.ran: dict[str, Any] | None = None

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code = 204
        if path.endswith("/server") and method == "POST":
            if why := self.refused.get(given["json"]["profile"]):
                answer.status_code = 429
                answer._content = json.dumps({"message": why}).encode()
        elif path.endswith("/progress"):
            answer.raw = io.BytesIO(b'data: {"ready": true}\n')
        return answer

    def stop(self) -> None:
        pass

    def write(self, path: str, kind: str, content: Any) -> None:
        self.files[path] = content

    def read(self, path: str) -> str:
        return str(self.files[path])

    def delete(self, path: str) -> None:
        self.files.pop(path, None)

    def must(self, method: str, path: str, **given: Any) -> Any:
        self.ran = given["json"]
        self.files[self.ran["parameters"]["target"]] = self.ran["parameters"]["word"]
        return {"status": "succeeded", "output_notebook": "out.ipynb"}

    def outcomes(self, report: Report) -> list[str]:
        """Of the servers, and of a run."""
        serve_and_run(self, report, self.offers)
        return [line.outcome for line in report.lines]


class Late(Person):
    """A person whose server an earlier verification began to start, which the hub stops once it
    has."""

    def __init__(self, pending: int):
        self.settings = NOWHERE
        self.pending, self.there = pending, True
        self.deleted = 0

    def call(self, method: str, path: str, **given: Any) -> requests.Response:
        answer = requests.Response()
        answer.status_code = 200
        answer._content = json.dumps({"servers": {"": {}} if self.there else {}}).encode()
        if method == "POST":
            answer.status_code = 202 if self.there else 400
        elif method == "DELETE":
            self.deleted += 1
            self.there = self.deleted <= self.pending
            answer.status_code = 400 if self.there else 202
        return answer


@pytest.mark.parametrize("pending", [0, 3])
def test_T12_a_server_of_a_killed_verification_is_no_failure_of_the_stack(
    report: Report, monkeypatch: pytest.MonkeyPatch, pending: int
) -> None:
    monkeypatch.setattr("mlhub.verify.person.POLL_SECONDS", 0)
    person = Late(pending)
    refusals(person, report)
    assert report.lines[-1].outcome == "ok", report.lines[-1]
    assert person.deleted == pending + 1


def test_T12_a_gpu_that_others_have_is_no_failure(report: Report) -> None:
    full = "The group /mlhub/gpu holds all of its 2 GPUs."
    person = Desk(size("gpu", 1), size("cpu", 0), gpu=full)
    assert person.outcomes(report) == ["not tried", "ok", "ok"]
    assert report.lines[0].said == full
    assert person.ran is not None
    assert person.ran["profile"] == "cpu"


def test_T12_a_profile_without_a_gpu_has_to_start(report: Report) -> None:
    person = Desk(size("cpu", 0), cpu="The namespace holds all of its cores.")
    assert person.outcomes(report) == ["failed", "not tried"]


def test_T12_a_run_is_of_no_single_node(report: Report) -> None:
    person = Desk(size("gpu--node-1", 1))
    assert person.outcomes(report) == ["ok", "ok"]
    assert person.ran is not None
    assert "profile" not in person.ran


def test_T12_a_start_that_waits_for_a_gpu_is_known_by_the_hubs_own_sentence() -> None:
    pod = {
        "metadata": {"creationTimestamp": "2026-11-30T04:17:00Z"},
        "status": {
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
                }
            ]
        },
    }
    found = trouble.find(pod, [], trouble.GRACE_SECONDS)
    assert found is not None
    assert isinstance(failed(f"Spawn failed: {found.sentence}"), Busy)
    assert not isinstance(failed("Spawn failed: No node takes the server"), Busy)


def test_T12_in_a_pod_a_published_address_is_reached_as_through_its_ingress() -> None:
    """Host and scheme are the published ones, and are not taken along to the next address."""
    seen: list[tuple[str, dict[str, str]]] = []
    published = "https://jupyter.example.com"

    def elsewhere(_: str, path: str, headers: dict[str, str], __: bytes) -> Answer:
        seen.append((path, headers))
        return 200, {}, "there"

    with serving(elsewhere) as other:

        def hub(_: str, path: str, headers: dict[str, str], __: bytes) -> Answer:
            seen.append((path, headers))
            if path == "/back":
                return 200, {}, headers.get("Cookie", "")
            return 302, {"Location": f"{other}/log-in", "Set-Cookie": "a=b; Secure; Path=/"}, ""

        with serving(hub) as target:
            browser = session({published: target})
            answer = ask(browser, "GET", f"{published}/hub")
            assert (answer.url, answer.text) == (f"{other}/log-in", "there")
            assert ask(browser, "GET", f"{published}/back").text == "a=b"
    (_, first), (_, second), _ = seen
    assert (first["Host"], first["X-Forwarded-Proto"]) == ("jupyter.example.com", "https")
    assert f"http://{second['Host']}" == other
    assert "X-Forwarded-Proto" not in second


def test_the_stack_file_of_a_stack_of_ones_own_has_encrypted_secrets(tmp_path):
    """As `pulumi config set --secret` writes them; they are no values in plain text."""
    config = yaml.safe_load((ROOT / "stacks" / "Pulumi.prod.yaml").read_text())
    for key in ("keycloak_client_secret", "harbor_password", "s3_secret_key"):
        config["config"][f"mlhub:{key}"] = {"secure": "v1:c2FsdA==:c2VhbGVk"}
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.prod.yaml").write_text(yaml.safe_dump(config))
    assert read("prod", tmp_path).identity.keycloak is not None
