"""A Harbor of a few kilobytes: projects, robot accounts, retention and quotas of its API v2.0.

Written from the public API description (goharbor/harbor, `api/v2.0/swagger.yaml`). It remembers,
refuses what Harbor refuses, and answers with Harbor's own shapes and codes. Run it beside a test
with `serving()`, or by hand with `python -m tests.doubles.harbor 8090 admin <password>`.
"""

import base64
import json
import re
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import requests

from tests.doubles.tls import Certificate

API = "/api/v2.0"
HOP_BY_HOP = {"Host", "Connection", "Transfer-Encoding", "Content-Length", "Content-Encoding"}
SECRET = re.compile(r"(?=.*[a-z])(?=.*[A-Z])(?=.*[0-9]).{8,128}")
NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")


class RefusalError(Exception):
    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class HarborDouble:
    """The server's memory. `requests` holds verb and path of everything that was asked."""

    def __init__(self, username: str, password: str):
        self.username, self.password = username, password
        self.projects: dict[int, dict[str, Any]] = {}
        self.robots: dict[int, dict[str, Any]] = {}
        self.robot_secrets: dict[int, str] = {}
        self.retentions: dict[int, dict[str, Any]] = {}
        self.quotas: dict[int, int] = {}
        self.requests: list[str] = []
        self.late: dict[str, float] = {}
        """Seconds between having done something and saying so, by `VERB /path`."""
        self.registry = ""
        """Address of the registry that stands behind `/v2/`, where there is one."""
        self.authority: Path | None = None
        """Who signed for that registry."""
        self.url = ""
        self._lock = threading.Lock()
        self._next = 0

    def number(self) -> int:
        self._next += 1
        return self._next

    def project(self, name_or_id: str) -> dict[str, Any]:
        for number, project in self.projects.items():
            if name_or_id in (str(number), project["name"]):
                return project
        raise RefusalError(404, f"project {name_or_id} not found")

    def robot(self, name: str) -> dict[str, Any]:
        return next(robot for robot in self.robots.values() if robot["name"] == name)

    def push(self, project: str, repository: str) -> None:
        """As if an image had been pushed."""
        self.project(project).setdefault("repositories", []).append(f"{project}/{repository}")

    # The API

    def answer(self, verb: str, path: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        """Code, body, and a Location or none."""
        with self._lock:
            for pattern, operations in ROUTES.items():
                if match := re.fullmatch(pattern, path):
                    if verb not in operations:
                        raise RefusalError(405, f"method {verb} is not allowed")
                    return operations[verb](self, *map(unquote, match.groups()), query, body)
        raise RefusalError(404, f"path {path} was not found")

    def make_project(self, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        name = body["project_name"]
        if not NAME.fullmatch(name):
            raise RefusalError(400, f"invalid project name {name}")
        if any(project["name"] == name for project in self.projects.values()):
            raise RefusalError(409, f"The project named {name} already exists")
        number = self.number()
        self.projects[number] = {
            "project_id": number, "name": name, "owner_name": self.username,
            "metadata": dict(body.get("metadata", {})), "registry_id": 0,
        }  # fmt: skip
        self.quotas[number] = body.get("storage_limit", -1)
        return 201, None, f"{API}/projects/{number}"

    def get_project(self, name: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        project = self.project(name)
        return 200, project | {"repo_count": len(project.get("repositories", []))}

    def put_project(self, name: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        self.project(name)["metadata"] |= body.get("metadata", {})
        return 200, None

    def delete_project(self, name: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        project = self.project(name)
        if project.get("repositories"):
            raise RefusalError(412, f"the project {name} contains repositories, can not be deleted")
        number = project["project_id"]
        del self.projects[number], self.quotas[number]
        self.robots = {n: r for n, r in self.robots.items() if r["project"] != project["name"]}
        return 200, None

    def list_repositories(self, name: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        return 200, [{"name": repo} for repo in self.project(name).get("repositories", [])]

    def delete_repository(
        self, name: str, repository: str, query: dict[str, str], body: Any
    ) -> tuple[Any, ...]:
        repositories = self.project(name)["repositories"]
        full = f"{name}/{unquote(repository)}"
        if full not in repositories:
            raise RefusalError(404, f"repository {full} not found")
        repositories.remove(full)
        return 200, None

    def list_quotas(self, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        number = int(query["reference_id"])
        if query.get("reference") != "project" or number not in self.quotas:
            return 200, []
        return 200, [{"id": number, "ref": {"id": number}, "hard": {"storage": self.quotas[number]},
                      "used": {"storage": 0}}]  # fmt: skip

    def put_quota(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        self.quotas[int(number)] = body["hard"]["storage"]
        return 200, None

    def list_robots(self, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        wanted = dict(part.split("=") for part in query.get("q", "Level=system").split(","))
        found = [
            robot for robot in self.robots.values()
            if robot["level"] == wanted["Level"]
            and (wanted["Level"] == "system"
                 or self.project(robot["project"])["project_id"] == int(wanted["ProjectID"]))
        ]  # fmt: skip
        size, page = int(query.get("page_size", 10)), int(query.get("page", 1))
        return 200, found[(page - 1) * size : page * size]

    def make_robot(self, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        project = ""
        name = f"robot${body['name']}"
        if body["level"] == "project":
            (permission,) = body["permissions"]
            project = self.project(permission["namespace"])["name"]
            name = f"robot${project}+{body['name']}"
        if any(robot["name"] == name for robot in self.robots.values()):
            raise RefusalError(409, f"robot {name} already exists")
        if not body["permissions"] or not body.get("duration"):
            raise RefusalError(400, "bad request: permissions and duration are required")
        number = self.number()
        self.robots[number] = {**body, "id": number, "name": name, "project": project}
        self.robot_secrets[number] = secrets.token_hex(16)
        answer = {"id": number, "name": name, "secret": self.robot_secrets[number]}
        return 201, answer, f"{API}/robots/{number}"

    def found_robot(self, number: str) -> dict[str, Any]:
        if int(number) not in self.robots:
            raise RefusalError(404, f"robot {number} not found")
        return self.robots[int(number)]

    def get_robot(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        return 200, self.found_robot(number)

    def put_robot(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        robot = self.found_robot(number)
        if (body["name"], body["level"]) != (robot["name"], robot["level"]):
            raise RefusalError(400, "cannot update the level or name of robot")
        robot |= body
        return 200, None

    def patch_robot(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        self.found_robot(number)
        if not SECRET.fullmatch(body["secret"]):
            raise RefusalError(400, "the secret must be 8 to 128 characters with a-z, A-Z and 0-9")
        self.robot_secrets[int(number)] = body["secret"]
        return 200, {"secret": body["secret"]}

    def delete_robot(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        self.found_robot(number)
        del self.robots[int(number)]
        return 200, None

    def make_retention(self, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        project = self.project(str(body["scope"]["ref"]))
        if existing := project["metadata"].get("retention_id"):
            raise RefusalError(400, f"project already has retention policy {existing}")
        number = self.number()
        self.retentions[number] = {**body, "id": number}
        project["metadata"]["retention_id"] = str(number)
        return 201, None, f"{API}/retentions/{number}"

    def get_retention(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        if int(number) not in self.retentions:
            raise RefusalError(404, f"retention {number} not found")
        return 200, self.retentions[int(number)]

    def put_retention(self, number: str, query: dict[str, str], body: Any) -> tuple[Any, ...]:
        self.get_retention(number, query, body)
        self.retentions[int(number)] = body
        return 200, None


ROUTES: dict[str, dict[str, Callable[..., tuple[Any, ...]]]] = {
    "/projects": {"POST": HarborDouble.make_project},
    "/projects/([^/]+)": {
        "GET": HarborDouble.get_project,
        "PUT": HarborDouble.put_project,
        "DELETE": HarborDouble.delete_project,
    },
    "/projects/([^/]+)/repositories": {"GET": HarborDouble.list_repositories},
    "/projects/([^/]+)/repositories/([^/]+)": {"DELETE": HarborDouble.delete_repository},
    "/quotas": {"GET": HarborDouble.list_quotas},
    "/quotas/([0-9]+)": {"PUT": HarborDouble.put_quota},
    "/robots": {"GET": HarborDouble.list_robots, "POST": HarborDouble.make_robot},
    "/robots/([0-9]+)": {
        "GET": HarborDouble.get_robot,
        "PUT": HarborDouble.put_robot,
        "PATCH": HarborDouble.patch_robot,
        "DELETE": HarborDouble.delete_robot,
    },
    "/retentions": {"POST": HarborDouble.make_retention},
    "/retentions/([0-9]+)": {
        "GET": HarborDouble.get_retention,
        "PUT": HarborDouble.put_retention,
    },
    "/configurations": {
        "GET": lambda double, query, body: (200, {"robot_name_prefix": {"value": "robot$"}})
    },
}  # fmt: skip


def handler(double: HarborDouble) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            if self.path.startswith("/v2/") and double.registry:
                self.pass_on(double.registry)
                return
            if self.path == f"{API}/ping":
                self.say(200, "Pong")
                return
            address = urlsplit(self.path)
            path = address.path.removeprefix(API)
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length)
            double.requests.append(f"{self.command} {path}")
            query = {key: values[0] for key, values in parse_qs(address.query).items()}
            try:
                if not address.path.startswith(f"{API}/"):
                    raise RefusalError(404, "this is not the API")
                account = f"{double.username}:{double.password}".encode()
                if (
                    self.headers.get("Authorization")
                    != f"Basic {base64.b64encode(account).decode()}"
                ):
                    raise RefusalError(401, "unauthorized")
                answer = double.answer(self.command, path, query, json.loads(sent or b"null"))
            except RefusalError as refusal:
                word = {401: "UNAUTHORIZED", 404: "NOT_FOUND", 409: "CONFLICT"}
                code = word.get(refusal.code, "BAD_REQUEST")
                answer = refusal.code, {"errors": [{"code": code, "message": str(refusal)}]}
            time.sleep(double.late.get(f"{self.command} {path}", 0))
            self.say(*answer)

        def pass_on(self, registry: str) -> None:
            """As Harbor's own proxy does: one host for images and for the API."""
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answer = requests.request(
                self.command, f"{registry}{self.path}", data=sent, timeout=30,
                verify=str(double.authority) if double.authority else True,
                headers={k: v for k, v in self.headers.items() if k not in HOP_BY_HOP},
                allow_redirects=False,
            )  # fmt: skip
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in HOP_BY_HOP:
                    self.send_header(name, value.replace(registry, double.url))
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(answer.content)))
            else:
                self.send_header("Content-Length", answer.headers.get("Content-Length", "0"))
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = do_PUT = handle_request  # noqa: N815 - the base class names them
        do_PATCH = do_DELETE = do_HEAD = handle_request  # noqa: N815

        def say(self, code: int, body: Any, location: str = "") -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    return Handler


@contextmanager
def serving(
    username: str, password: str, port: int = 0, tls: Certificate | None = None
) -> Iterator[HarborDouble]:
    """A double on a free loopback port, its address in `url`."""
    double = HarborDouble(username, password)
    server = ThreadingHTTPServer(("127.0.0.1", port), handler(double))
    server.daemon_threads = True
    double.url = f"http://127.0.0.1:{server.server_port}"
    if tls is not None:
        server.socket = tls.context().wrap_socket(server.socket, server_side=True)
        double.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


if __name__ == "__main__":
    with serving(sys.argv[2], sys.argv[3], int(sys.argv[1])) as running:
        print(running.url, flush=True)
        threading.Event().wait()
