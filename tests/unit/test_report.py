"""The report on real previews (tests/golden), and what it says about each kind of danger.

`UPDATE_GOLDEN=1 pytest tests/unit/test_report.py` writes the Markdown anew; read the difference.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tools.report import __main__ as report
from tools.report import charts, dangers, markdown, previews
from tools.report.markdown import GITHUB_LIMIT, MARKER, Stack, comment
from tools.report.previews import Preview, Side, Step, Violation
from tools.report.properties import of_step, shown

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.jsonl"))


def golden(name: str) -> Stack:
    text = (GOLDEN / f"{name}.jsonl").read_text()
    preview = previews.read(text)
    return Stack(name, preview, charts.of_kept(text, preview))


@pytest.mark.parametrize("name", NAMES)
def test_a_real_preview_reads_as_it_did(name: str) -> None:
    said = comment([golden(name)])
    file = GOLDEN / f"{name}.md"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(said)
    assert said == file.read_text(), f"{file.name} differs; UPDATE_GOLDEN=1 writes it anew"


def test_no_change_is_one_line() -> None:
    lines = comment([golden("unchanged")]).splitlines()
    assert [line for line in lines if line] == [
        MARKER, "## What this would change", "### unchanged: no changes",
    ]  # fmt: skip


def test_several_stacks_are_one_comment_with_a_header_line_each() -> None:
    said = comment([golden(name) for name in NAMES])
    assert said.startswith(MARKER)
    assert said.count(MARKER) == 1
    headers = [line for line in said.splitlines() if line.startswith("### ")]
    assert [header.split(":")[0] for header in headers] == [f"### {name}" for name in NAMES]
    assert len(said.encode()) <= GITHUB_LIMIT


def test_dangers_come_before_everything_that_is_folded() -> None:
    said = comment([golden("wider")])
    assert said.index("[!CAUTION]") < said.index("<details>")
    for sentence in [
        "Client `jupyterhub` switches on: `directAccessGrantsEnabled` `false` → `true`",
        "`custom.mlhub.identity.access_groups` gains `/mlhub/students`",
        "NetworkPolicy `postgres` lets more through (ingress)",
        "ResourceQuota `quotas-namespace` raises `pods` `30` → `60`",
        "`singleuser.profileList[standard-cpu].kubespawner_override.cpu_limit` `2` → `4`",
        "`singleuser.profileList[small-cpu].kubespawner_override.mem_limit` `2G` → `8G`",
    ]:
        assert said.index(sentence) < said.index("<details>")


def test_what_holds_data_and_goes_is_named_with_what_it_costs() -> None:
    said = comment([golden("removed")])
    assert "deletes User `user-bob` and with it the account" in said
    assert "replaces Secret `demo-users` because of `data.bob`" in said
    assert "Namespace `jupyterhub` is no longer protected" in said


def test_a_failed_preview_gives_its_sentences_and_no_traceback() -> None:
    said = comment([golden("refused")])
    assert "### refused: failed" in said
    assert 'profiles[0].memory.limit is "5GB"; it must be an amount such as 5G' in said
    assert "pod is not an option; did you mean pods?" in said
    assert "Traceback" not in said
    refused = comment([golden("protected")])
    assert "unable to replace resource PersistentVolumeClaim postgres-data" in refused
    assert "urn:pulumi" not in refused


def test_every_error_is_shown_and_what_does_not_fit_is_counted() -> None:
    many = tuple(f"profiles[{number}].cpu.limit is 0" for number in range(60))
    said = comment([Stack("dev", Preview(errors=many, failed=True))])
    assert all(error in said for error in many)
    more = tuple(f"sentence {number}" for number in range(103))
    said = comment([Stack("dev", Preview(errors=("a\n" * 62, *more), failed=True))])
    assert "… and 2 more lines" in said
    assert "sentence 98\n… and 4 more errors" in said


def test_a_job_that_ended_before_its_preview_has_failed_and_the_others_are_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Such a job leaves no file at all."""
    kept = GOLDEN / "wider.jsonl"
    monkeypatch.setattr("sys.argv", ["report", "comment", str(tmp_path / "dev.jsonl"), str(kept)])
    assert report.main() == 0
    said = capsys.readouterr().out
    assert "dev: failed" in said
    assert "wider: 1 to create" in said


def test_J7_an_image_is_shown_from_its_digest_to_what_it_becomes() -> None:
    rows = [line for line in comment([golden("chart")]).splitlines() if line.startswith("| `")]
    assert rows == ["| `localhost:5000/mlhub/hub` | `local@sha256:7584f1ebec93` | built anew |"]


def test_T4_a_changed_template_is_a_diff_of_manifests() -> None:
    said = comment([golden("chart")])
    assert "-    targetPort: http\n+    targetPort: 8081" in said
    assert "Pods that start anew: `hub`." in said


def test_policy_violations_are_dangers_and_stand_first() -> None:
    stack = golden("policy")
    assert stack.preview.failed
    assert dangers.of(stack.preview)[0].kind == "policy"
    assert "`long-passwords` at `keycloak-admin`: stack local: length is 12, not 16" in comment(
        [stack]
    )


def test_an_advisory_remark_is_no_danger() -> None:
    remark = Violation("costs", "", "a large volume", mandatory=False)
    said = comment([Stack("dev", Preview(violations=(remark,)))])
    assert "CAUTION" not in said
    assert "a large volume" in said


def test_the_document_form_of_the_cli_is_read_as_well() -> None:
    new = {"custom": True, "inputs": {"length": 8}}
    urn = "urn:pulumi:t::p::random:index/randomPassword:RandomPassword::word"
    document = {
        "steps": [{"op": "create", "urn": urn, "newState": new, "detailedDiff": None}],
        "diagnostics": [{"message": "error: preview failed\n", "severity": "error"}],
        "changeSummary": {"create": 1, "same": 3},
    }
    preview = previews.read("warning: using a plug-in\n" + json.dumps(document, indent=4))
    assert markdown.counts(preview) == "1 to create; 3 unchanged — **failed**"


def test_what_is_no_preview_is_said_in_a_sentence() -> None:
    with pytest.raises(previews.NotAPreviewError, match="expected what `pulumi preview --json`"):
        previews.read("error: no stack named 'prod' found")


def step(
    kind: str, old: Any, new: Any, op: str = "update", detailed: Any = None, **flags: Any
) -> Step:
    sides = [
        None if inputs is None else Side(inputs, {}, **{k: v[place] for k, v in flags.items()})
        for place, inputs in enumerate([old, new])
    ]
    return Step(op, f"urn:pulumi:s::p::{kind}::it", True, sides[0], sides[1], (), detailed or {})


def told(*steps: Step) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for danger in dangers.of(Preview(steps=steps)):
        found.setdefault(danger.kind, []).append(danger.text)
    return found


CORE, RBAC = "kubernetes:core/v1:", "kubernetes:rbac.authorization.k8s.io/v1:"
POLICY = "kubernetes:networking.k8s.io/v1:NetworkPolicy"


@pytest.mark.parametrize(
    "kind",
    [
        "kubernetes:core/v1:PersistentVolumeClaim", "kubernetes:core/v1:PersistentVolume",
        "kubernetes:core/v1:Namespace", "kubernetes:storage.k8s.io/v1:StorageClass",
        "keycloak:index/realm:Realm", "keycloak:index/group:Group", "keycloak:index/user:User",
        "kubernetes:core/v1:Secret", "random:index/randomPassword:RandomPassword",
        "kubernetes:helm.sh/v3:Release", "harbor:index/project:Project",
    ],
)  # fmt: skip
@pytest.mark.parametrize("op", ["delete", "replace"])
def test_deleting_or_replacing_data_is_a_danger(kind: str, op: str) -> None:
    assert list(told(step(kind, {}, None if op == "delete" else {}, op))) == ["data"]


def test_an_ordinary_thing_may_go_unless_it_is_protected() -> None:
    plain, guarded = (
        step("kubernetes:core/v1:ConfigMap", {}, None, "delete", protect=[flag, False])
        for flag in (False, True)
    )
    assert told(plain) == {}
    assert "**protected**" in told(guarded)["data"][0]


def test_protection_taken_away_is_a_danger() -> None:
    assert "protection" in told(step(f"{CORE}Service", {}, {}, protect=[True, False]))
    assert "protection" in told(step(f"{CORE}Service", {}, {}, retain=[True, False]))
    assert told(step(f"{CORE}Service", {}, {}, protect=[False, True])) == {}


@pytest.mark.parametrize(
    ("kind", "old", "new", "danger"),
    [
        (f"{CORE}ResourceQuota", {"hard": {"pods": "30"}}, {"hard": {"pods": "60"}}, "quota"),
        (f"{CORE}ResourceQuota", {"hard": {"limits.memory": "900Mi"}},
         {"hard": {"limits.memory": "1Gi"}}, "quota"),
        (f"{CORE}ResourceQuota", {"hard": {"pods": "30"}}, {"hard": {}}, "quota"),
        (f"{CORE}LimitRange", {"limits": [{"type": "Container", "max": {"cpu": "500m"}}]},
         {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}, "quota"),
        (POLICY, {"policyTypes": ["Ingress", "Egress"]}, {"policyTypes": ["Ingress"]}, "network"),
        (POLICY, {"ingress": []}, {"ingress": [{"from": []}]}, "network"),
        (POLICY, {"podSelector": {}}, {"podSelector": {"matchLabels": {"a": "b"}}}, "network"),
        (f"{CORE}Service", {"type": "ClusterIP"}, {"type": "LoadBalancer"}, "network"),
        ("kubernetes:apps/v1:Deployment",
         {"template": {"spec": {"containers": [{"name": "c"}]}}},
         {"template": {"spec": {"containers": [
             {"name": "c", "securityContext": {"privileged": True}}]}}}, "access"),
        ("kubernetes:apps/v1:Deployment", {"template": {"spec": {"containers": []}}},
         {"template": {"spec": {"containers": [], "hostNetwork": True}}}, "access"),
    ],
)  # fmt: skip
def test_M9_what_a_kubernetes_object_loosens_is_a_danger_and_the_way_back_is_none(
    kind: str, old: Any, new: Any, danger: str
) -> None:
    assert list(told(step(kind, {"spec": old}, {"spec": new}))) == [danger]
    if old.get("podSelector") is None:
        assert told(step(kind, {"spec": new}, {"spec": old})) == {}


def test_network_rules_in_another_order_open_nothing() -> None:
    rules = [{"ports": [{"port": 1}, {"port": 2}]}, {"ports": [{"port": 3}]}]
    turned = [{"ports": [{"port": 3}]}, {"ports": [{"port": 2}, {"port": 1}]}]
    assert told(step(POLICY, {"spec": {"egress": rules}}, {"spec": {"egress": turned}})) == {}


def test_T14_rights_that_grow_are_named_one_by_one() -> None:
    old = {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}
    new = {
        "rules": [
            {"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        ]
    }
    assert told(step(f"{RBAC}Role", old, new))["access"] == ["Role `it` may `list` `secrets`"]
    assert told(step(f"{RBAC}Role", new, old)) == {}


def test_a_new_cluster_role_is_wider_access() -> None:
    rules = [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}]
    assert "access" in told(step(f"{RBAC}ClusterRole", None, {"rules": rules}, "create"))


def test_a_namespace_whose_pods_may_be_privileged_is_wider_access() -> None:
    levels = [
        {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": level}}}
        for level in ("restricted", "baseline")
    ]
    assert list(told(step(f"{CORE}Namespace", *levels))) == ["access"]
    assert told(step(f"{CORE}Namespace", *reversed(levels))) == {}


CLIENT = "keycloak:openid/client:Client"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"validRedirectUris": ["https://a/cb"]}, {"validRedirectUris": ["https://a/cb", "https://b/*"]}),
        ({"directAccessGrantsEnabled": False}, {"directAccessGrantsEnabled": True}),
        ({"accessType": "CONFIDENTIAL"}, {"accessType": "PUBLIC"}),
        ({"pkceCodeChallengeMethod": "S256"}, {"pkceCodeChallengeMethod": "plain"}),
        ({"webOrigins": []}, {"webOrigins": ["+"]}),
    ],
)  # fmt: skip
def test_T1_a_client_that_lets_in_more_is_a_danger_and_the_way_back_is_none(
    old: Any, new: Any
) -> None:
    kinds = dict.fromkeys([*old, *new], "update")
    assert list(told(step(CLIENT, old, new, detailed=kinds))) == ["access"]
    assert told(step(CLIENT, new, old, detailed=kinds)) == {}


def release(old: Any, new: Any, detailed: Any = None) -> Step:
    sides = ({"chart": "c", "values": values} for values in (old, new))
    return step("kubernetes:helm.sh/v3:Release", *sides, detailed=detailed or {"values": "update"})


def profile(**override: Any) -> dict[str, Any]:
    return {"singleuser": {"profileList": [{"slug": "cpu", "kubespawner_override": override}]}}


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        (profile(cpu_limit=2), profile(cpu_limit=4), "quota"),
        (profile(mem_limit="900M"), profile(mem_limit="1G"), "quota"),
        (profile(extra_resource_limits={"nvidia.com/gpu": "0"}),
         profile(extra_resource_limits={"nvidia.com/gpu": "1"}), "quota"),
        ({"custom": {"mlhub": {"quotas": {"user": {"cpu": 4}}}}},
         {"custom": {"mlhub": {"quotas": {"user": {"cpu": 8}}}}}, "quota"),
        ({"custom": {"mlhub": {"identity": {"admin_groups": ["/a"]}}}},
         {"custom": {"mlhub": {"identity": {"admin_groups": ["/a", "/b"]}}}}, "access"),
        ({"hub": {"networkPolicy": {"enabled": True}}},
         {"hub": {"networkPolicy": {"enabled": False}}}, "network"),
        ({"singleuser": {"networkPolicy": {"egressAllowRules": {"privateIPs": False}}}},
         {"singleuser": {"networkPolicy": {"egressAllowRules": {"privateIPs": True}}}}, "network"),
        ({"singleuser": {"allowPrivilegeEscalation": False}},
         {"singleuser": {"allowPrivilegeEscalation": True}}, "access"),
        ({"hub": {"config": {"KeycloakAuthenticator": {"allow_all": False}}}},
         {"hub": {"config": {"KeycloakAuthenticator": {"allow_all": True}}}}, "access"),
    ],
)  # fmt: skip
def test_M9_a_value_that_loosens_is_a_danger_and_the_way_back_is_none(
    old: Any, new: Any, kind: str
) -> None:
    assert list(told(release(old, new))) == [kind]
    assert told(release(new, old, {"values": "update"})) == {}


def test_a_limit_that_is_gone_is_looser_than_any() -> None:
    found = told(release(profile(cpu_limit=2), profile(), {"values.singleuser": "delete"}))
    assert list(found) == ["quota"]


def test_a_new_profile_beyond_the_largest_is_a_danger() -> None:
    old = profile(cpu_limit=4, mem_limit="8G")
    new = json.loads(json.dumps(old))
    new["singleuser"]["profileList"].append(
        {"slug": "huge", "kubespawner_override": {"cpu_limit": 64, "mem_limit": "8G"}}
    )
    assert told(release(old, new)) == {
        "quota": ["the new profile `huge` has `cpu_limit` `64`, more than any before"]
    }


def test_a_profile_put_first_is_one_profile_more() -> None:
    one = {"slug": "one", "kubespawner_override": {"cpu_limit": 1}}
    two = {"slug": "two", "kubespawner_override": {"cpu_limit": 1}}
    changes = of_step(release({"l": [one]}, {"l": [two, one]}))
    assert [change.path for change in changes] == ["values.l[two]"]


def test_a_value_that_is_not_known_yet_is_not_called_deleted() -> None:
    old = {"hub": {"image": {"name": "r/hub", "tag": "1@sha256:" + "a" * 64}}, "gone": 1}
    new = {"hub": {"image": {"name": "r/hub"}}}
    changes = {c.path: shown(c.new) for c in of_step(release(old, new, {"values.gone": "delete"}))}
    assert changes == {
        "values.hub.image.tag": "(known after the update)", "values.gone": "nothing",
    }  # fmt: skip


def test_what_somebody_changed_by_hand_is_shown_as_it_is_and_as_it_will_be() -> None:
    inputs = {"fullPath": True}
    drifted = Step(
        "update", f"urn:pulumi:s::p::{CLIENT}::it", True,
        Side(inputs, {"fullPath": False}), Side(inputs, {}), (), {"fullPath": "update"},
    )  # fmt: skip
    assert [(c.path, c.old, c.new) for c in of_step(drifted)] == [("fullPath", False, True)]


def test_what_kubernetes_and_the_engine_write_is_left_out() -> None:
    old = {"metadata": {"resourceVersion": "1", "labels": {"app.kubernetes.io/managed-by": "x"}}}
    new = {
        "metadata": {
            "resourceVersion": "2",
            "labels": {"app.kubernetes.io/managed-by": "pulumi"},
            "annotations": {"pulumi.com/patchForce": "true"},
            "managedFields": [],
        },
        "__initialApiVersion": "v1",
        "status": {"phase": "Active"},
    }
    assert of_step(step(f"{CORE}Service", old, new)) == []


def large(dangers_too: bool) -> list[Stack]:
    """Four stacks of 400 changed things with long, many-byte values."""
    kind = f"{CORE}ResourceQuota" if dangers_too else f"{CORE}ConfigMap"
    steps = tuple(
        Step("update", f"urn:pulumi:s::p::{kind}::thing-{number}", True,
             Side({"spec": {"hard": {f"k{i}": 1 for i in range(20)}}, "note": "é" * 300}, {}),
             Side({"spec": {"hard": {f"k{i}": 2 for i in range(20)}}, "note": "ü" * 300}, {}))
        for number in range(400)
    )  # fmt: skip
    return [Stack(name, Preview(steps=steps)) for name in ("local", "dev", "staging", "prod")]


@pytest.mark.parametrize("dangers_too", [False, True])
def test_a_comment_never_exceeds_what_github_takes(dangers_too: bool) -> None:
    said = comment(large(dangers_too))
    assert len(said.encode()) <= GITHUB_LIMIT
    assert said.startswith(MARKER)
    for name in ("local", "dev", "staging", "prod"):
        assert f"### {name}: 400 to change" in said
    assert "did not fit into a comment" in said or "more lines" in said
    assert said.count("<details>") == said.count("</details>")


def test_even_headers_that_exceed_the_limit_are_cut() -> None:
    broken = tuple(Violation(f"r{n}", "", "word " * 100, mandatory=True) for n in range(40))
    stacks = [Stack(f"stack-{number}", Preview(violations=broken)) for number in range(20)]
    assert len(comment(stacks, limit=None).encode()) > GITHUB_LIMIT
    assert len(comment(stacks).encode()) <= GITHUB_LIMIT


def test_without_a_limit_nothing_is_cut() -> None:
    said = comment(large(True), limit=None)
    assert "thing-399" in said
    assert "more lines" not in said


def test_text_from_a_stack_file_can_neither_call_people_nor_close_the_fold() -> None:
    evil = "`</details> @everyone\n```\n# heading"
    said = comment(
        [Stack("dev", Preview(steps=(step(f"{CORE}ConfigMap", {"a": "b"}, {"a": evil}),)))]
    )
    assert said.count("</details>") == 2  # one of them in a code span
    line = next(line for line in said.splitlines() if "@everyone" in line)
    assert line.count("`") == 6
    message = Violation("rule", "", "ask @admins <b>now</b>", mandatory=True)
    assert "@admins" not in comment([Stack("dev", Preview(violations=(message,)))])
