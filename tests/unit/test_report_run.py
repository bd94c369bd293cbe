"""A preview that cannot be had says what to do."""

import os
from pathlib import Path

import pytest

from tools.report.compare import compared
from tools.report.previews import Preview, Side, Step
from tools.report.run import PreviewError, previewed


def test_who_has_not_said_where_the_state_is_learns_how(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli = tmp_path / "pulumi"
    said = "error: PULUMI_ACCESS_TOKEN must be set for login during non-interactive CLI sessions"
    cli.write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    cli.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(PreviewError, match="nobody has said where the state of prod is; `pulumi"):
        previewed(tmp_path, "prod", tmp_path / "Pulumi.prod.yaml", (), {})


IMAGE = "urn:pulumi:s::p::docker-build:index:Image::hub"
REVISION = "org.opencontainers.image.revision"


def image(**labels: str) -> Preview:
    inputs = {"labels": labels}
    return Preview(steps=(Step("create", IMAGE, True, new=Side(inputs, {})),))


def test_an_image_is_no_change_for_a_label_that_a_base_without_history_lacks() -> None:
    head = image(**{REVISION: "0a1b", "org.opencontainers.image.version": "1"})
    assert compared(image(**{"org.opencontainers.image.version": "1"}), head).steps == ()
    assert compared(image(**{"org.opencontainers.image.version": "0"}), head).steps != ()
