"""The report of a verification, and what it says of a stack that does not answer."""

import json

import pytest

from mlhub.verify.checks import verify
from mlhub.verify.notebook import notebook
from mlhub.verify.report import Failed, NotTried, Report
from mlhub.verify.settings import Settings

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
