"""A preview that cannot be had says what to do."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tools.report.compare import compared
from tools.report.markdown import Stack, comment
from tools.report.previews import Preview, Side, Step, read
from tools.report.run import PreviewError, previewed, reduced

Cli = Callable[[str, str, int], None]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """A `pulumi` that prints one text, complains with another, and ends with a status."""

    def put(out: str, complaint: str, status: int) -> None:
        (tmp_path / "out").write_text(out)
        (tmp_path / "complaint").write_text(complaint)
        program = tmp_path / "pulumi"
        here = f"cat {tmp_path}/out; cat {tmp_path}/complaint >&2; exit {status}"
        program.write_text(f"#!/bin/sh\n{here}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return put


def preview_of(stack: str, folder: Path) -> tuple[Preview, str]:
    return previewed(folder, stack, folder / f"Pulumi.{stack}.yaml", (), {})


def test_who_has_not_said_where_the_state_is_learns_how(tmp_path: Path, cli: Cli) -> None:
    said = "error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions"
    cli("", said, 255)
    with pytest.raises(PreviewError, match="nobody has said where the state of prod is; `pulumi"):
        preview_of("prod", tmp_path)


@pytest.mark.parametrize(
    ("stack", "said", "advice"),
    [
        ("team-a", "error: no stack named 'team-a' found", "`pulumi stack init team-a` makes it"),
        ("local", "error: no stack named 'local' found", "`make up` first"),
        ("local", 'error: unable to open state directory "file:///x/.mlhub"', "`make up` first"),
        ("prod", 'error: unable to open state directory "file:///x"', "PULUMI_BACKEND_URL"),
        (
            "prod",
            "error: get stack secrets manager: passphrase must be set with …",
            "name a file that holds the stack's own in PULUMI_CONFIG_PASSPHRASE_FILE",
        ),
        ("prod", "error: … incorrect passphrase", "PULUMI_CONFIG_PASSPHRASE_FILE"),
    ],
)
def test_what_the_engine_complains_of_comes_with_what_to_do(
    tmp_path: Path, cli: Cli, stack: str, said: str, advice: str
) -> None:
    cli("", said, 255)
    with pytest.raises(PreviewError) as raised:
        preview_of(stack, tmp_path)
    first, _, then = str(raised.value).partition(said)
    assert first == f"`pulumi preview` of {stack} said nothing but: "
    assert then.startswith("; ")
    assert advice in then


def test_who_has_no_pulumi_learns_which_one_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PreviewError, match=r"install the Pulumi CLI \d+\.\d+\.\d+, or take the"):
        preview_of("prod", tmp_path)


def event(**said: Any) -> str:
    return json.dumps({"sequence": 0, **said}) + "\n"


def aside(message: str) -> str:
    return event(diagnosticEvent={"message": message, "severity": "info#err"})


GONE = aside("policies/limits.yaml: stacks.team-a.server.gpu: Field required\n") + event(
    cancelEvent={}
)
"""How the engine's stream ends where the policy pack does not start (Pulumi 3.259.0)."""


def test_a_policy_pack_that_does_not_start_is_a_failed_preview_with_its_reason(
    tmp_path: Path, cli: Cli
) -> None:
    cli(GONE, "error: the policy pack did not start\n", 1)
    found, events = preview_of("team-a", tmp_path)
    assert found.failed
    assert found.errors == (
        "policies/limits.yaml: stacks.team-a.server.gpu: Field required",
        "the policy pack did not start",
    )
    kept = read(reduced(events))
    assert (kept.failed, kept.errors) == (True, found.errors)
    said = comment([Stack("team-a", kept)])
    assert "### team-a: failed" in said
    assert "server.gpu: Field required" in said


def test_a_stream_that_ends_without_a_summary_has_failed() -> None:
    assert read(event(cancelEvent={})).failed
    assert not read(event(summaryEvent={"result": "succeeded"})).failed


def test_a_preview_whose_command_failed_has_failed_whatever_its_stream_says(
    tmp_path: Path, cli: Cli
) -> None:
    cli(event(summaryEvent={"result": "succeeded"}), "error: password=hunter22 is wrong\n", 1)
    found, events = preview_of("prod", tmp_path)
    assert found.failed
    assert found.errors == ("password=[secret] is wrong",)
    assert "hunter22" not in reduced(events)
    assert read(reduced(events)) == found


def test_what_a_program_says_aside_is_no_error_beside_one_and_none_where_all_is_well(
    tmp_path: Path, cli: Cli
) -> None:
    fine = aside("a warning of Python\n") + event(summaryEvent={"result": "succeeded"})
    assert read(fine).errors == ()
    real = event(diagnosticEvent={"message": "domain is missing\n", "severity": "error"})
    cli(aside("a warning of Python\n") + real, "error: and more\n", 1)
    assert preview_of("prod", tmp_path)[0].errors == ("domain is missing",)
    broken = {"policyName": "tls", "message": "no TLS", "enforcementLevel": "mandatory"}
    refused = event(policyEvent=broken) + event(summaryEvent={"result": "failed"})
    assert read(aside("a warning of Python\n") + refused).errors == ()


IMAGE = "urn:pulumi:s::p::docker-build:index:Image::hub"
REVISION = "org.opencontainers.image.revision"


def image(**labels: str) -> Preview:
    inputs = {"labels": labels}
    return Preview(steps=(Step("create", IMAGE, True, new=Side(inputs, {})),))


def test_an_image_is_no_change_for_a_label_that_a_base_without_history_lacks() -> None:
    head = image(**{REVISION: "0a1b", "org.opencontainers.image.version": "1"})
    assert compared(image(**{"org.opencontainers.image.version": "1"}), head).steps == ()
    assert compared(image(**{"org.opencontainers.image.version": "0"}), head).steps != ()
