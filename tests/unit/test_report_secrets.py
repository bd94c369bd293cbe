"""No secret comes out of the report, however it got into a preview."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tools.report import charts, previews, redact
from tools.report.markdown import Stack, comment
from tools.report.run import reduced

GOLDEN = Path(__file__).parents[1] / "golden"
WORD = "hunter2-correct-horse-battery"
ENCODED = base64.b64encode(WORD.encode()).decode()
WRAPPED = {
    "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
    "ciphertext": WORD,
}
SECRET_TYPE = "kubernetes:core/v1:Secret"
SECRET_HEAD = {"apiVersion": "v1", "kind": "Secret"}
PLACES: dict[str, tuple[str, Any]] = {
    "marked by Pulumi": ("random:index/randomPassword:RandomPassword", {"result": WRAPPED}),
    "a Secret's stringData": (SECRET_TYPE, {**SECRET_HEAD, "stringData": {"a": WORD}}),
    "a Secret's data": (SECRET_TYPE, {**SECRET_HEAD, "data": {"a": ENCODED}}),
    "a key that sounds secret": ("keycloak:openid/client:Client", {"clientSecret": WORD}),
    "a list under such a key": ("x:y:Z", {"passwords": [WORD, {"plain": WORD}]}),
    "a map under such a key": ("x:y:Z", {"credentials": {"user": WORD}}),
    "an environment variable": (
        "kubernetes:apps/v1:Deployment", {"env": [{"name": "DB_PASSWORD", "value": WORD}]},
    ),
    "a Release's values": (
        "kubernetes:helm.sh/v3:Release", {"values": {"cookieSecret": WORD, "apiToken": WORD}},
    ),
    "an address": ("x:y:Z", {"url": f"postgresql://hub:{WORD}@db:5432/hub"}),
    "a command line": ("x:y:Z", {"args": [f"--password={WORD}"]}),
    "a file in a ConfigMap": ("x:y:Z", {"data": {"f": f"user: a\npassword: {WORD}\n"}}),
    "a private key": (
        "x:y:Z", {"pem": f"-----BEGIN PRIVATE KEY-----\n{WORD}\n-----END PRIVATE KEY-----"},
    ),
}  # fmt: skip


def events(urn_type: str, old: Any, new: Any, op: str = "update") -> str:
    meta = {
        "op": op,
        "urn": f"urn:pulumi:s::p::{urn_type}::it",
        "old": old and {"custom": True, "inputs": old, "outputs": old},
        "new": new and {"custom": True, "inputs": new, "outputs": new},
        "detailedDiff": {key: {"diffKind": "update"} for key in (new or old)},
    }
    said = f"it did not like password={WORD}\n"
    lines = [
        {"resourcePreEvent": {"metadata": meta}},
        {"diagnosticEvent": {"message": said, "severity": "error", "urn": meta["urn"]}},
        {"diagnosticEvent": {"message": WORD, "severity": "debug"}},
        {"policyEvent": {"policyName": "p", "message": said, "enforcementLevel": "mandatory"}},
    ]
    return "\n".join(json.dumps({"sequence": n, **line}) for n, line in enumerate(lines))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("op", ["update", "replace", "delete", "create"])
def test_a_secret_in_a_preview_is_not_in_the_report(place: str, op: str) -> None:
    kind, inputs = PLACES[place]
    other = json.loads(json.dumps(inputs).replace(WORD, f"{WORD}-old"))
    old = None if op == "create" else {**other, "plain": "was"}
    new = None if op == "delete" else {**inputs, "plain": "is"}
    text = events(kind, old, new, op)
    said = comment([Stack("dev", previews.read(text))], limit=None)
    kept = reduced(text)
    assert "it" in said
    for leaked in (WORD, ENCODED):
        assert leaked not in said
        assert leaked not in kept
    assert comment([Stack("dev", previews.read(kept))], limit=None) == said


def test_that_scan_would_find_a_secret() -> None:
    text = events("kubernetes:core/v1:ConfigMap", {"data": {"a": "b"}}, {"data": {"a": WORD}})
    assert WORD in comment([Stack("dev", previews.read(text))])


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.[jm]*")), ids=lambda path: path.name)
def test_V9_nothing_in_the_golden_files_looks_like_a_secret(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".md":
        assert redact.text(text) == text
        return
    for line in text.splitlines():
        meta = json.loads(line).get("resourcePreEvent", {}).get("metadata", {})
        states = [meta.get(side) for side in ("old", "new")]
        assert redact.tree(states) == states, "make it anew: tests/golden/make.py"
        for value in under_secret_keys([state for state in states if state]):
            assert value in ("[secret]", previews.PLACEHOLDER, True, False), value


def under_secret_keys(tree: Any) -> list[Any]:
    if isinstance(tree, dict):
        own = [
            value
            for key, value in tree.items()
            if redact.secret_key(key) and isinstance(value, str | int)
        ]
        return own + [each for part in tree.values() for each in under_secret_keys(part)]
    return (
        [each for part in tree for each in under_secret_keys(part)]
        if isinstance(tree, list)
        else []
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("existingSecret", "mlhub-hub"), ("secretName", "tls"), ("passwordPolicy", "length(12)"),
        ("accessTokenLifespan", "5m0s"), ("resetPasswordAllowed", False), ("tokenUrl", "https://k"),
        ("automountServiceAccountToken", True), ("imagePullSecrets", "pull"),
        ("url", "postgresql+psycopg2://jupyterhub@postgres:5432/jupyterhub"),
        ("image", "r/hub:1@sha256:" + "a" * 64),
        ("valueFrom", {"secretKeyRef": {"name": "oidc", "key": "client_secret"}}),
        ("OAUTH_CLIENT_SECRET", {"valueFrom": {"secretKeyRef": {"name": "o", "key": "k"}}}),
    ],
)  # fmt: skip
def test_what_names_a_secret_is_shown_for_a_reviewer_needs_it(key: str, value: Any) -> None:
    assert redact.tree({key: value}) == {key: value}


class Templates:
    """A renderer whose charts are functions of their values."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Templates":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def render(self, chart: Any) -> list[dict[str, Any]]:
        self.count += 1
        generated = f"generated-{self.count}-{WORD}"
        word = f"{WORD}-{chart.values['replicas']}"
        return [
            {
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hub"},
                "data": {"generated": generated, "given": word},
            },
            {
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hub"},
                "spec": {
                    "replicas": chart.values["replicas"],
                    "template": {"metadata": {"annotations": {"checksum/secret": generated}}},
                },
            },
        ]  # fmt: skip


def chart_changes(old: dict[str, Any], new: dict[str, Any], folder: Path) -> list[Any]:
    folder.joinpath("chart").mkdir()
    sides = [previews.Side({"chart": "chart", "values": v}, {}) for v in (old, new)]
    urn = "urn:pulumi:s::p::kubernetes:helm.sh/v3:Release::hub"
    step = previews.Step("update", urn, True, *sides)
    return charts.of(previews.Preview(steps=(step,)), folder, folder, Templates)  # type: ignore[arg-type]


def test_what_templates_generate_is_no_change(tmp_path: Path) -> None:
    values = {"replicas": 1}
    (change,) = chart_changes(values, values, tmp_path)
    assert change.objects == ()
    assert change.problem == ""


def test_a_changed_secret_of_a_chart_is_said_and_not_shown(tmp_path: Path) -> None:
    changes = chart_changes({"replicas": 1}, {"replicas": 2}, tmp_path)
    said = comment([Stack("dev", previews.Preview(steps=(changes[0].step,)), changes)])
    assert "-  replicas: 1\n+  replicas: 2" in said
    assert "+  given: '[secret, changed]'" in said
    assert "checksum/secret" not in said.replace("checksum/secret: '[generated]'", "")
    assert WORD not in said
    assert "Pods that start anew: `hub`." in said


def test_a_chart_that_cannot_be_rendered_is_said_in_the_report(tmp_path: Path) -> None:
    urn = "urn:pulumi:s::p::kubernetes:helm.sh/v3:Release::hub"
    sides = [
        previews.Side(
            {"chart": "gone", "values": {}, "description": f"chart sha256:{'a' * 64}"}, {}
        )
    ] * 2
    step = previews.Step("update", urn, True, *sides)
    preview = previews.Preview(steps=(step,))
    (change,) = charts.of(preview, tmp_path, tmp_path, Templates)  # type: ignore[arg-type]
    assert "nowhere in this repository's history" in change.problem
    assert "manifests not compared" in comment([Stack("dev", preview, [change])])
