"""What SECURITY.md and the threat model say: audits and their exceptions, bills, secrets."""

import datetime
import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
from detect_secrets.plugins.base import RegexBasedDetector

from tests.unit.recorder import ROOT
from tools import audit, sbom

BASELINE = json.loads((ROOT / ".secrets.baseline").read_text(encoding="utf-8"))
LISTED = {
    (file, secret["type"]) for file, secrets in BASELINE["results"].items() for secret in secrets
}
TODAY = datetime.date(2026, 11, 29)


FORMS = {
    "AWS Access Key", "GitHub Token", "GitLab Token", "NPM tokens", "OpenAI Token", "Private Key",
    "PyPI Token", "SendGrid API Key", "Stripe Access Key",
}  # fmt: skip
"""What begins with letters of its own, and so is cheap to look for."""


def forms() -> dict[str, list[re.Pattern[str]]]:
    """detect-secrets' patterns, for whole files: it itself, line by line, is `make secrets`."""
    found = get_mapping_from_secret_type_to_class()
    plugins = {kind: found[kind]() for kind in sorted(FORMS)}
    return {
        kind: list(plugin.denylist)
        for kind, plugin in plugins.items()
        if isinstance(plugin, RegexBasedDetector)
    }


def looks_like(text: str, kinds: dict[str, list[re.Pattern[str]]]) -> set[str]:
    return {kind for kind, ps in kinds.items() if any(pattern.search(text) for pattern in ps)}


@pytest.mark.parametrize("kind", ["AWS Access Key", "GitHub Token", "Private Key"])
def test_V9_a_secret_of_a_known_form_is_found(kind):
    made_up = {
        "AWS Access Key": "key = 'AKIA" + "Q3EGRIPRQWEXAMPL'",
        "GitHub Token": "token: ghp_" + "a1B2" * 9,
        "Private Key": "-----BEGIN RSA " + "PRIVATE KEY-----",
    }
    assert kind in looks_like(made_up[kind], forms())


def test_V9_no_tracked_file_holds_a_secret_of_a_known_form():
    kinds = forms()
    assert set(kinds) == FORMS
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    assert len(files) > 500
    found = {
        (name, kind)
        for name in files
        for kind in looks_like((ROOT / name).read_text("utf-8", errors="replace"), kinds)
    }
    assert found - LISTED == set()


def test_an_exception_says_until_when_and_why():
    entry = audit.ignored("# a remark\nPYSEC-2026-1 2027-01-31 only its server is touched\n")
    assert entry == [
        audit.Ignored("PYSEC-2026-1", datetime.date(2027, 1, 31), "only its server is touched")
    ]
    with pytest.raises(ValueError, match="an id, a day"):
        audit.ignored("PYSEC-2026-1 2027-01-31")


def test_an_exception_ends_and_reaches_ninety_days_at_most():
    day = datetime.timedelta(days=1)
    of = [audit.Ignored("X", TODAY + n * day, "why") for n in (-1, 0, 90, 91)]
    said = audit.wrong(of, TODAY)
    assert len(said) == 2
    assert "that is past" in said[0]
    assert "90 days" in said[1]


def test_the_exceptions_that_there_are_hold_today():
    entries = audit.ignored(audit.IGNORED.read_text(encoding="utf-8"))
    assert audit.wrong(entries, datetime.datetime.now(tz=datetime.UTC).date()) == []


def test_every_lock_is_audited_and_none_is_passed_over_for_what_is_not_known():
    tracked = {path for path in ROOT.glob("**/requirements*.txt") if ".venv" not in path.parts}
    locks = {path for path in tracked if path.with_suffix(".in").is_file()}
    assert locks <= set(audit.locks())
    entries = [audit.Ignored("X-1", TODAY, "why")]
    *python, npm = audit.commands(entries, "python")
    assert all({"--strict", "--require-hashes", "X-1"} <= set(command) for command in python)
    assert "--audit-level=high" in npm


def test_a_finding_in_any_lock_fails_the_audit(monkeypatch):
    codes = iter([0, 1] + [0] * 50)
    monkeypatch.setattr(
        audit.subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], next(codes))
    )
    assert audit.main([]) == 1


def test_the_bill_is_valid_and_has_every_locked_package():
    bill = sbom.bill()
    some = bill | {"components": bill["components"][::40]}  # all of them take seconds
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(some)) is None
    purls = {part["purl"] for part in bill["components"]}
    locked = re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.M)
    assert len(locked) > 30
    for name, version in locked:
        assert f"pkg:pypi/{re.sub('[-_.]+', '-', name).lower()}@{version}" in purls
    assert any(purl.startswith("pkg:npm/configurable-http-proxy@") for purl in purls)
    assert any(purl.startswith("pkg:golang/k8s.io/kubernetes@") for purl in purls)


def test_the_threat_model_names_rows_and_tests_that_there_are():
    page = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
    rows = yaml.safe_load((ROOT / "tests" / "rows.yaml").read_text(encoding="utf-8"))
    table = [line.rsplit("|", 2)[1] for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(table) > 15
    for held in table:
        named = re.findall(r"`([^`]+)`", held)
        assert all(Path(ROOT / file).exists() for file in named), held
        of_rows = re.findall(r"\b[TJMPV]\d+\b", held)
        assert set(of_rows) <= set(rows), held
        assert named or of_rows, held


def test_what_runs_before_a_commit_is_what_check_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    entries = " ".join(hook["entry"] for hook in hooks)
    assert "ruff check" in entries
    assert "ruff format --check" in entries
    assert "--baseline .secrets.baseline" in entries
    for hook in hooks:
        assert re.match(r"\.venv/bin/(ruff|python|detect-secrets-hook)\b", hook["entry"])
