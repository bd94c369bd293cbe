"""Whose token it is, asked of an MLflow; the real one with people: test_notebooks_mlflow.py."""

import http.server
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from notebooks.person import person
from notebooks.this_notebook import name_of


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, object], None]]:
    """Makes the MLflow that is named answer everything so."""
    monkeypatch.delenv("JUPYTERHUB_USER", raising=False)
    monkeypatch.setenv("LOGNAME", "jovyan")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ExitStack() as stack:

        def answer(status: int, what: object) -> None:
            class Handler(http.server.BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    body = json.dumps(what).encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, format: str, *args: object) -> None:
                    pass

            server = stack.enter_context(http.server.HTTPServer(("127.0.0.1", 0), Handler))
            stack.callback(server.shutdown)
            threading.Thread(target=server.serve_forever, daemon=True).start()
            monkeypatch.setattr(
                mlflow, "get_tracking_uri", lambda: f"http://127.0.0.1:{server.server_port}"
            )

        yield answer


def test_mlflow_says_whose_token_it_is_and_a_server_says_so_itself(answering, monkeypatch):
    answering(200, {"user": {"id": 1, "username": "alice", "is_admin": False}})
    assert person() == "alice"
    monkeypatch.setenv("JUPYTERHUB_USER", "bob")
    assert person() == "bob"


def test_where_mlflow_knows_no_people_it_is_the_machines_user(answering, monkeypatch, tmp_path):
    answering(404, {})
    assert person() == "jovyan"
    monkeypatch.setattr(mlflow, "get_tracking_uri", lambda: f"sqlite:///{tmp_path}/mlflow.db")
    assert person() == "jovyan"


def test_a_refusal_is_not_taken_for_an_mlflow_without_people(answering):
    """A version that was kept under another name would be lost to its person."""
    answering(503, {"error_code": "TEMPORARILY_UNAVAILABLE", "message": "try again"})
    with pytest.raises(MlflowException):
        person()


def test_a_notebook_that_moved_is_found_as_the_page_says(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs/templates.md").read_text(encoding="utf-8")
    (written,) = re.findall(r'`runs_of\("(.+?)"\)`', page)
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "work")  # a kernel's folder is its notebook's
    assert name_of(written) == "old/path.ipynb"
