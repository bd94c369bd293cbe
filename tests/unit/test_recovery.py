"""Recovery's parts, with a kubectl that runs a pod's command on this machine."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.config import Cluster
from mlhub.execution.jobs import KIND
from mlhub.execution.slugs import slug
from tests.unit.recorder import platform
from tools import verify
from tools.recovery import __main__ as commands
from tools.recovery import place, rollback
from tools.recovery.agents import BATCH, agent, batches
from tools.recovery.contents import CLEAR, PACK, UNPACK
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod, wait_until
from tools.recovery.place import Claim, Place, again, stack_file
from tools.recovery.rename import OWNER, rename_home
from tools.recovery.state import lineage, outliving, resources, with_keycloak_of

POD = Pod("jupyterhub", "agent")
HERE = """
import os, sys
command = sys.argv[sys.argv.index("--") + 1:]
os.execvp(command[0], command)
"""
"""`kubectl exec POD -- COMMAND` without the pod."""
BREAKS = """
import sys
sys.stdout.write("half of it")
sys.exit("error: connection lost")
"""


def kubectl(script: str) -> Kubectl:
    return Kubectl((sys.executable, "-c", script))


def test_what_a_pod_sends_arrives_whole_and_with_its_checksum():
    reports = []
    data = b"".join(
        kubectl(HERE).take(POD, "head", "-c", "3000000", "/dev/zero", ended=reports.append)
    )
    assert data == bytes(3_000_000)
    assert reports[0].bytes == 3_000_000


class Listing(Kubectl):
    """Tells of these claims in the hub's namespace."""

    def __init__(self, *claims: dict[str, Any]):
        self._claims = list(claims)

    def items(self, kind: str, namespace: str, *_: str) -> list[dict[str, Any]]:
        return self._claims if namespace == "jupyterhub" else []


def test_T13_a_claim_that_is_being_deleted_is_named_and_waits_for_nobody():
    """No pod gets it any more: the backup waited for one that had it, and failed for everybody."""

    def claim(name: str, **more: str) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "jupyterhub", **more}
        spec = {"storageClassName": "jupyterhub-homes"}
        kind = {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
        return {**kind, "metadata": metadata, "spec": spec, "status": {"phase": "Bound"}}

    gone = claim("claim-bob", deletionTimestamp="2026-11-30T07:09:00Z")
    place = Place(stack_file("local"), Listing(claim("claim-alice"), gone))
    assert [one["metadata"]["name"] for one in place.claims()] == ["claim-alice"]
    assert place.leaving() == [Claim("jupyterhub", "claim-bob")]


def test_what_a_pod_is_given_arrives_whole(tmp_path):
    target = tmp_path / "target"
    report = kubectl(HERE).give(POD, [b"a" * 100_000, b"b"], "tee", str(target))
    assert target.read_bytes() == b"a" * 100_000 + b"b"
    assert report.bytes == 100_001


def test_a_broken_connection_is_never_taken_for_the_end_of_the_data():
    reports = []
    with pytest.raises(RecoveryError, match=r"connection lost.*run this again"):
        list(kubectl(BREAKS).take(POD, "tar", ended=reports.append))
    assert not reports


def test_a_command_that_fails_says_why():
    with pytest.raises(RecoveryError, match=r"status 2.*No such file"):
        list(kubectl(HERE).take(POD, "ls", "/nowhere", ended=lambda report: None))
    with pytest.raises(RecoveryError, match="sh in agent failed with status 3"):
        kubectl(HERE).give(POD, [b"x" * 10_000_000], "sh", "-c", "exit 3")


def test_a_file_that_changes_while_it_is_read_fails_nothing_and_is_told(tmp_path):
    (tmp_path / "a").write_text("kept")
    (tmp_path / "secret").write_text("closed")
    stub = 'printf "./a\\ntar: ./b: file changed as we read it\\n" >&2; echo data; exit 1'
    reports = []
    taken = kubectl(HERE).take(POD, "sh", "-c", stub, ended=reports.append, fine=(0, 1))
    assert b"".join(taken) == b"data\n"
    assert reports[0].said == ["tar: ./b: file changed as we read it"]
    assert reports[0].files == 1


def test_T13_files_come_back_as_they_were_and_the_volumes_own_folder_is_left_alone(tmp_path):
    home, other = tmp_path / "home", tmp_path / "other"
    (home / "work").mkdir(parents=True)
    (home / "work" / "two\nlines").write_text("1")
    (home / "-dash").write_text("2")
    (home / "-dash").chmod(0o600)
    (home / "link").symlink_to("work")
    (home / "hard").hardlink_to(home / "-dash")
    other.mkdir(mode=0o711)
    reports = []
    packed = kubectl(HERE).take(POD, "sh", "-c", PACK, str(home), ended=reports.append)
    kubectl(HERE).give(POD, packed, *UNPACK, f"--directory={other}")
    assert reports[0].files == 5
    assert (other / "work" / "two\nlines").read_text() == "1"
    assert (other / "link").readlink() == Path("work")
    assert (other / "hard").samefile(other / "-dash")
    assert (other / "-dash").stat().st_mode & 0o777 == 0o600
    # On a new volume it is root's, and who restores is not root.
    assert other.stat().st_mode & 0o777 == 0o711


@pytest.fixture
def home() -> Iterator[Path]:
    """A person's, whose parents are open to whoever restores."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "home"
        (made / ".cache" / "closed").mkdir(parents=True)
        (made / ".cache" / "closed" / "file").write_text("1")
        (made / "workspaces" / "churn").mkdir(parents=True)
        for path in (made, *(p for p in made.rglob("*") if "workspaces" not in p.parts)):
            os.chown(path, 1000, 100)
        (made / ".cache" / "closed").chmod(0o555)
        yield made


def by_a_person(*command: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    person = ("setpriv", "--reuid=1000", "--regid=100", "--clear-groups")
    return subprocess.run([*person, *command], input=stdin, capture_output=True, check=False)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_T13_a_home_in_which_a_workspace_was_mounted_is_emptied_and_filled_again(home):
    packed = by_a_person("sh", "-c", PACK, str(home))
    assert packed.returncode == 0, packed.stderr
    assert by_a_person("sh", "-c", CLEAR, str(home)).returncode == 0
    left = [str(path.relative_to(home)) for path in sorted(home.rglob("*"))]
    assert left == ["workspaces", "workspaces/churn"]
    filled = by_a_person(*UNPACK, f"--directory={home}", stdin=packed.stdout)
    assert filled.returncode == 0, filled.stderr
    assert (home / ".cache/closed/file").read_text() == "1"
    assert (home / ".cache/closed").stat().st_mode & 0o777 == 0o555
    (home / "workspaces" / "churn" / "of-somebody-else").write_text("kept")
    refused = by_a_person("sh", "-c", CLEAR, str(home))
    assert refused.returncode == 1
    assert b"of-somebody-else" in refused.stderr
    (home / "workspaces" / "churn").chmod(0o700)
    refused = by_a_person("sh", "-c", CLEAR, str(home))
    assert refused.returncode == 1, "what cannot be looked into may hold files"


def test_M3_a_claim_is_made_again_with_the_names_that_the_hub_knows_and_no_former_volume():
    claim = {
        "metadata": {
            "name": "claim-alice",
            "namespace": "jupyterhub",
            "uid": "1",
            "labels": {"hub.jupyter.org/username": "alice"},
            "annotations": {"hub.jupyter.org/username": "alice", "pv.kubernetes.io/bound": "yes"},
        },
        "spec": {"storageClassName": "jupyterhub-homes", "volumeName": "pvc-1"},
        "status": {"phase": "Bound"},
    }
    made = again(claim)
    assert made["metadata"]["annotations"] == {"hub.jupyter.org/username": "alice"}
    assert made["spec"] == {"storageClassName": "jupyterhub-homes"}
    assert "status" not in made
    assert "uid" not in made["metadata"]
    static = claim | {"spec": {"storageClassName": "", "volumeName": "jupyterhub.data"}}
    assert again(static)["spec"]["volumeName"] == "jupyterhub.data"


def test_T14_an_agent_has_no_privilege_and_a_reader_cannot_write():
    claims = [Claim("jupyterhub", "claim-alice"), Claim("jupyterhub", "claim-bob")]
    pod = agent("reader", claims, ("image@sha256:0", []), writes=False)
    spec = pod["spec"]
    assert spec["automountServiceAccountToken"] is False
    (container,) = spec["containers"]
    assert all(mount["readOnly"] for mount in container["volumeMounts"])
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"]
    # It would give every file of a home to the group.
    assert "fsGroup" not in spec["securityContext"]
    assert container["resources"]["limits"]


def test_claims_are_mounted_together_by_namespace_and_not_all_at_once():
    claims = [Claim("a", f"c{number}") for number in range(BATCH + 1)] + [Claim("b", "c")]
    assert [len(batch) for batch in batches(claims)] == [BATCH, 1, 1]


def entry(kind: str, name: str, **more) -> dict:
    return {"urn": f"urn:pulumi:local::mlhub::{kind}::{name}", "type": kind, **more}


STATE = {
    "version": 3,
    "deployment": {
        "secrets_providers": {"type": "passphrase", "state": {"salt": "one"}},
        "pending_operations": [
            {"type": "updating", "resource": entry("docker-build:index:Image", "hub")}
        ],
        "resources": [
            entry("pulumi:pulumi:Stack", "stack"),
            entry("pulumi:providers:random", "random", id="r"),
            entry("pulumi:providers:keycloak", "keycloak", id="k"),
            entry("kubernetes:core/v1:Namespace", "space", protect=True),
            entry(
                "random:index/randomPassword:RandomPassword",
                "postgres",
                dependencies=["urn:pulumi:local::mlhub::kubernetes:core/v1:Namespace::space"],
                outputs={"result": {"ciphertext": "v1:…"}},
            ),
            entry("keycloak:index/group:Group", "users", id="old", inputs={"name": "users"}),
            entry("docker-build:index:Image", "hub"),
        ],
    },
}


def names_in(state: dict) -> list[str]:
    return [resource["urn"].rpartition("::")[2] for resource in resources(state)]


def test_T13_generated_secrets_outlive_a_cluster_and_what_was_on_it_does_not():
    kept = outliving(STATE, own_keycloak=True)
    assert names_in(kept) == ["stack", "random", "postgres"]
    assert resources(kept)[-1]["outputs"] == {"result": {"ciphertext": "v1:…"}}
    assert resources(kept)[-1]["dependencies"] == []
    assert "pending_operations" not in kept["deployment"]
    assert lineage(kept) == lineage(STATE)


def test_objects_in_a_keycloak_of_others_outlive_the_cluster():
    kept = outliving(STATE, own_keycloak=False)
    assert names_in(kept) == ["stack", "random", "keycloak", "postgres", "users"]


def test_keycloak_objects_are_known_by_the_ids_of_the_restored_database():
    present = json.loads(json.dumps(STATE).replace('"old"', '"new"'))
    found = with_keycloak_of(present, STATE)
    (group,) = [r for r in resources(found) if r["urn"].endswith("::users")]
    assert group["id"] == "old"
    assert names_in(found) == names_in(present)


def applied(head: str, *, result: str = "succeeded", kind: str = "update", dirty: str = "false"):
    environment = {"git.head": head, "git.dirty": dirty}
    return {"kind": kind, "result": result, "environment": environment}


def test_T13_the_revision_before_is_the_last_other_one_whose_update_succeeded():
    history = [
        applied("c"),
        applied("c"),
        applied("b", result="failed"),
        applied("x", kind="destroy"),
        applied("a"),
    ]
    assert rollback.before(history) == "a"
    with pytest.raises(RecoveryError, match="TO=<commit>"):
        rollback.before([applied("c"), applied("c")])
    with pytest.raises(RecoveryError, match="not committed"):
        rollback.before([applied("c"), applied("b", dirty="true")])
    with pytest.raises(RecoveryError, match="TO=<commit>"):
        rollback.before([])


def test_T13_after_an_up_that_failed_the_revision_before_is_the_one_that_worked():
    failed = applied("c", result="failed")
    assert rollback.before([failed, applied("b"), applied("a")]) == "b"
    assert rollback.before([failed, applied("b")]) == "b"
    assert rollback.before([failed, applied("c"), applied("b")]) == "b"


class Volumes(Kubectl):
    """A cluster of which only volumes and claims are known."""

    def __init__(
        self,
        *volumes: tuple[str, str, str],
        claims: dict[str, str] | None = None,
        leaving: str = "",
    ):
        super().__init__()
        self.patched: list[str] = []
        self._claims = claims or {}
        self._leaving = leaving
        self._volumes = [
            {
                "metadata": {"name": name},
                "spec": {"claimRef": {"namespace": "jupyterhub", "name": claim, "uid": "1"}},
                "status": {"phase": phase},
            }
            for name, claim, phase in volumes
        ]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        if arguments[0] == "patch":
            self.patched.append(arguments[2])
            assert "/spec/claimRef/uid" in arguments[-1]
            return ""
        if arguments[:2] == ("get", "persistentvolumes"):
            return json.dumps({"items": self._volumes})
        if not any(a.startswith("--field") for a in arguments):
            return json.dumps({"items": self._held(*arguments[1:4:2])})
        name = next(a for a in arguments if a.startswith("--field")).rpartition("=")[2]
        found = [{"spec": {"volumeName": self._claims[name]}}] if name in self._claims else []
        return json.dumps({"items": found})

    def _held(self, kind: str, namespace: str) -> list[dict[str, Any]]:
        """The claim that is being deleted, or the pod that holds it."""
        if not self._leaving or namespace != "jupyterhub":
            return []
        if kind == "pods":
            volumes = [{"persistentVolumeClaim": {"claimName": self._leaving}}]
            return [{"metadata": {"name": "jupyter-alice"}, "spec": {"volumes": volumes}}]
        meta = {"name": self._leaving, "namespace": namespace, "deletionTimestamp": "2026-11-30"}
        return [{"metadata": meta, "status": {"phase": "Bound"}}]


def rebound(cluster: Volumes) -> tuple[list[str], str]:
    said: list[str] = []
    rollback.rebind(Place(stack_file("local"), cluster), said.append)
    return cluster.patched, "\n".join(said)


def test_T13_a_released_volume_waits_for_its_claim_again_and_no_other_is_touched():
    cluster = Volumes(("v1", "claim-alice", "Released"), ("v2", "claim-bob", "Bound"))
    assert rebound(cluster)[0] == ["v1"]


def test_T13_a_claim_that_has_another_volume_keeps_it_and_the_former_is_named():
    cluster = Volumes(("v1", "claim-alice", "Released"), claims={"claim-alice": "v9"})
    patched, said = rebound(cluster)
    assert not patched
    assert "v1 stay aside" in said


def test_T13_of_two_former_volumes_none_is_chosen_by_chance():
    cluster = Volumes(("v1", "claim-alice", "Released"), ("v2", "claim-alice", "Released"))
    patched, said = rebound(cluster)
    assert not patched
    assert "v1, v2" in said


def test_T13_where_no_volume_is_released_it_is_said_who_holds_the_claim():
    assert rebound(Volumes())[1].split() == ["no", "volume", "is", "Released"]
    _, said = rebound(Volumes(("v1", "claim-alice", "Bound"), leaving="claim-alice"))
    assert "no volume is Released" in said
    assert "Terminating: jupyterhub/claim-alice, held by jupyter-alice" in said


class Known:
    """A stack of which only the state is known, and what is done to it."""

    name = "local"
    config_file = None

    def __init__(self, state: dict, *history: dict):
        self.state = state
        self.history = list(history)
        self.changes: list[tuple[str, ...]] = []

    def updates(self) -> list[dict]:
        return self.history

    def export(self) -> dict:
        return json.loads(json.dumps(self.state))

    def replace_state(self, state: dict) -> None:
        self.state = state

    def change(self, *command: str) -> None:
        self.changes.append(command)


def test_T13_destroy_keeps_secrets_in_the_state_and_nothing_that_holds_on_to_the_cluster():
    state = json.loads(json.dumps(STATE).replace('"protect": true', '"retainOnDelete": true'))
    stack = Known(state)
    rollback.destroy(stack, "local", lambda text: None)
    ((verb, *options),) = stack.changes
    assert verb == "destroy"
    excluded = {option.rpartition("::")[2] for option in options if option.startswith("urn:")}
    assert excluded == {"stack", "random", "keycloak", "postgres", "users"}
    (secret,) = [r for r in resources(stack.state) if r["urn"].endswith("::postgres")]
    assert secret["dependencies"] == []


def test_T13_destroy_is_refused_unconfirmed_and_where_the_cluster_would_lose_something():
    stack = Known(STATE)
    with pytest.raises(RecoveryError, match="CONFIRM=local"):
        rollback.destroy(stack, "", lambda text: None)
    with pytest.raises(RecoveryError, match="space are protected"):
        rollback.destroy(stack, "local", lambda text: None)
    assert not stack.changes


def amid(operation: str, name: str) -> Known:
    """A stack whose `up` or `destroy` was killed while it was about the object of that name."""
    state = json.loads(json.dumps(STATE).replace('"protect": true', '"retainOnDelete": true'))
    resource = entry("kubernetes:core/v1:Namespace", name)
    state["deployment"]["pending_operations"] = [{"type": operation, "resource": resource}]
    return Known(state)


def test_T13_destroy_forgets_nothing_that_a_killed_up_was_making():
    """It is on the cluster, perhaps, and in the state as pending alone, which an import drops."""
    stack = amid("creating", "half-made")
    before = stack.export()
    with pytest.raises(RecoveryError, match=r"making half-made.*`up`"):
        rollback.destroy(stack, "local", lambda text: None)
    assert stack.state == before
    assert not stack.changes


@pytest.mark.parametrize("operation", ["creating", "updating", "deleting"])
def test_T13_destroy_goes_on_where_the_state_has_what_a_kill_interrupted(operation):
    """A `destroy` that was killed among them, and what a later `up` has made."""
    stack = amid(operation, "space")
    rollback.destroy(stack, "local", lambda text: None)
    assert [verb for verb, *_ in stack.changes] == ["destroy"]


def test_T13_data_are_dropped_only_when_the_stack_is_named():
    class Full(Place):
        def __init__(self):
            pass

        def claims(self):
            return [{"metadata": {"namespace": "jupyterhub", "name": "claim-alice"}}]

        def databases(self):
            return ["jupyterhub", "keycloak"]

        def buckets(self):
            return []

        def stop(self):
            raise AssertionError("nothing may be stopped before it is confirmed")

    class Named:
        name = "local"

    with pytest.raises(RecoveryError, match=r"jupyterhub, keycloak.*claim-alice.*CONFIRM=local"):
        rollback._confirmed(Full(), Named(), "yes")


def test_what_is_deleted_with_data_is_found_by_the_labels_that_it_has():
    jobs = platform("prod").of_type("kubernetes:batch/v1:Job")
    (folders,) = [job for job in jobs if job.name.startswith("shared-folders")]
    (key, value) = rollback.FOLLOWS["jobs"].split("=")
    assert folders.plain["metadata"]["labels"][key] == value
    assert rollback.FOLLOWS["cronjobs"] == KIND


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_recovery_reads_a_stack_file_with_encrypted_secrets(stack, tmp_path, monkeypatch):
    content = yaml.safe_load(Path(f"stacks/Pulumi.{stack}.yaml").read_text())
    for key in ("keycloak_client_secret", "harbor_password", "s3_secret_key"):
        content["config"][f"mlhub:{key}"] = {"secure": "v1:…"}
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / f"Pulumi.{stack}.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.chdir(tmp_path)
    place = Place(stack_file(stack), Kubectl())
    assert not place.own_keycloak
    assert len(place.namespaces) == 3


@pytest.mark.parametrize(
    ("context", "asked"),
    [
        (None, "--kubeconfig .mlhub/cluster/kubeconfig --context mlhub-local"),
        ("team", "--context team"),
    ],
)
def test_recovery_and_verify_act_on_the_cluster_of_the_stack_file(
    context, asked, tmp_path, monkeypatch
):
    """And on no other, whichever context is the current one. None is the embedded node's, as it is
    to the program."""
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\nexit 1\n')
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    config = stack_file("local").model_copy(update={"cluster": Cluster(context=context)})
    monkeypatch.setattr(commands, "stack_file", lambda _: config)
    with pytest.raises(RecoveryError):
        commands.act(commands.parser().parse_args(["rebind"]))
    with pytest.raises(verify.NotReadError):
        verify.account("local", config)
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"{asked} get persistentvolumes --output json",
        f"{asked} -n foundation get secret keycloak-admin -o json",
    ]


def test_an_unknown_stack_gets_a_sentence():
    with pytest.raises(RecoveryError, match="there is no stacks/"):
        stack_file("nothing")


def test_T13_a_clone_has_the_revisions_files_and_this_checkouts_cluster(tmp_path):
    head = rollback.git("rev-parse", "HEAD")
    folder = tmp_path / "checkout"
    rollback.clone(head, folder)
    assert rollback.git("-C", str(folder), "rev-parse", "HEAD") == head
    assert (folder / "__main__.py").is_file()
    assert (folder / ".git").is_dir()  # where the CLI looks for the commit
    assert (folder / ".mlhub").readlink() == Path.cwd() / ".mlhub"
    assert not rollback.git("-C", str(folder), "status", "--porcelain", "--untracked-files=no")


class Homes(Kubectl):
    """A cluster that knows homes: their volumes, their claims and who mounts them."""

    def __init__(self, *pods: str, **homes: str):
        super().__init__()
        self.claims = set(homes.values())
        self.pods = pods
        self.volumes = {name: self._volume(name, claim) for name, claim in homes.items()}

    @staticmethod
    def _volume(name: str, claim: str) -> dict[str, Any]:
        return {
            "metadata": {"name": name},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": "10Gi"},
                "claimRef": {"namespace": "jupyterhub", "name": claim, "uid": "1"},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "jupyterhub-homes",
            },
        }

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        match arguments[0]:
            case "patch":
                change = json.loads(arguments[-1])["spec"]["claimRef"]
                ref = self.volumes[arguments[2]]["spec"]["claimRef"] | change
                assert ref["name"] not in self.claims
                self.volumes[arguments[2]]["spec"]["claimRef"] = ref
            case "delete":
                self.claims.discard(arguments[2])
            case "apply":
                (self.made,) = json.loads(stdin or "")["items"]
                self.claims.add(self.made["metadata"]["name"])
            case _ if arguments[1] == "persistentvolumes":
                return json.dumps({"items": [*self.volumes.values()]})
            case _ if arguments[1] == "persistentvolumeclaims":
                wanted = {a.rpartition("=")[2] for a in arguments if a.startswith("--field")}
                bound = [
                    {"spec": {"volumeName": name}}
                    for name, volume in self.volumes.items()
                    if volume["spec"]["claimRef"]["name"] in self.claims & wanted
                ]
                return json.dumps({"items": bound})
            case _:
                claim = {"persistentVolumeClaim": {"claimName": "claim-alice"}}
                pods = [{"metadata": {"name": p}, "spec": {"volumes": [claim]}} for p in self.pods]
                return json.dumps({"items": pods})
        return ""


def renamed(cluster: Homes, former: str = "alice", user: str = "alicia@example.com") -> Homes:
    rename_home(Place(stack_file("local"), cluster), former, user, lambda _: None)
    return cluster


def test_T13_who_is_renamed_keeps_their_home_and_the_former_name_has_none():
    cluster = renamed(Homes(v1="claim-alice", v2="claim-bob"))
    theirs = f"claim-{slug('alicia@example.com')}"
    assert cluster.claims == {theirs, "claim-bob"}
    assert cluster.volumes["v1"]["spec"]["claimRef"]["name"] == theirs
    assert cluster.volumes["v1"]["spec"]["claimRef"]["uid"] is None
    assert cluster.made["spec"]["volumeName"] == "v1"
    assert cluster.made["metadata"]["annotations"] == {OWNER: "alicia@example.com"}
    assert cluster.made["metadata"]["labels"] == {OWNER: slug("alicia@example.com")}


def test_T13_a_killed_renaming_goes_on_where_it_was():
    cluster = Homes(v1="claim-alice")
    cluster.claims.clear()  # Killed after the claim was deleted.
    assert renamed(cluster).claims == {f"claim-{slug('alicia@example.com')}"}
    cluster.claims.clear()  # Killed before the new one was there.
    assert renamed(cluster).claims == {f"claim-{slug('alicia@example.com')}"}
    with pytest.raises(RecoveryError, match="nothing was renamed"):
        renamed(cluster)


@pytest.mark.parametrize(
    ("cluster", "user", "why"),
    [
        (Homes(v1="claim-alice"), "", "TO is ''"),
        (Homes(v1="claim-alice"), " carla", "'carla' is required"),
        # The hub and Keycloak write names in small letters, and composed.
        (Homes(v1="claim-alice"), "Carla", "'carla' is required"),
        (Homes(v1="claim-alice"), "Andre\u0301", "'andr\u00e9' is required"),
        (Homes(v1="claim-alice"), "team/carla", "TO is 'team/carla'"),
        (Homes(v1="claim-carla"), "carla", "nothing was renamed"),
        (Homes(v1="claim-alice", v2="claim-carla"), "carla", "has a home already"),
        (Homes("jupyter-alice", v1="claim-alice"), "carla", "jupyter-alice still has"),
        (Homes(v1="claim-bob"), "carla", "no volume"),
        (Homes(v1="claim-alice", v2="claim-alice"), "carla", "v1, v2"),
        (Homes(v1="claim-alice"), "alice", "one home"),
    ],
)
def test_T13_no_home_is_taken_from_or_given_to_the_wrong_one(cluster, user, why):
    before = (set(cluster.claims), json.dumps(cluster.volumes))
    with pytest.raises(RecoveryError, match=why):
        renamed(cluster, user=user)
    assert (cluster.claims, json.dumps(cluster.volumes)) == before


def test_T13_a_home_of_nobody_is_given_to_nobody():
    cluster = Homes(v1="claim-alice", v2=f"claim-{slug('')}")
    with pytest.raises(RecoveryError, match="FROM"):
        renamed(cluster, former="", user="carla")
    assert len(cluster.claims) == 2
    assert "claim-carla" not in cluster.claims


def test_T13_a_home_that_was_given_to_a_wrong_spelling_can_be_given_on():
    cluster = Homes(v1=f"claim-{slug('Carla')}")
    assert renamed(cluster, former="Carla", user="carla").claims == {"claim-carla"}


def test_T13_a_home_that_would_go_with_its_claim_is_left_where_it_is():
    cluster = Homes(v1="claim-alice")
    cluster.volumes["v1"]["spec"]["persistentVolumeReclaimPolicy"] = "Delete"
    with pytest.raises(RecoveryError, match="Retain"):
        renamed(cluster)
    assert cluster.claims == {"claim-alice"}


class Clocks(Kubectl):
    """A cluster that knows CronJobs alone, one of which a person has suspended."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs = {name: self._job(name, name == "paused") for name in ("verify", "paused")}

    @staticmethod
    def _job(name: str, suspended: bool) -> dict[str, Any]:
        meta = {"name": name, "namespace": "jupyterhub", "annotations": {}}
        return {"metadata": meta, "spec": {"suspend": suspended}}

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        match arguments:
            case ("annotate", "cronjob", name, *_, mark):
                marks = self.jobs[name]["metadata"]["annotations"]
                if mark.endswith("-"):
                    del marks[mark[:-1]]
                else:
                    marks |= dict([mark.split("=")])
            case ("patch", "cronjob", name, *_, patch):
                self.jobs[name]["spec"] |= json.loads(patch.removeprefix("--patch="))["spec"]
            case ("get", "cronjobs", _, "jupyterhub", *_):
                return json.dumps({"items": [*self.jobs.values()]})
        return '{"items": []}'


def test_T13_what_starts_by_the_clock_waits_while_services_are_stopped_for_a_restore():
    def suspended() -> dict[str, bool]:
        return {name: job["spec"]["suspend"] for name, job in cluster.jobs.items()}

    cluster = Clocks()
    place = Place(stack_file("local"), cluster)
    place.stop()
    assert suspended() == {"verify": True, "paused": True}
    place.stop()  # a restore that was ended goes on
    place.start("keycloak")
    assert suspended() == {"verify": True, "paused": True}
    place.start()
    assert suspended() == {"verify": False, "paused": True}, "who suspended one keeps it so"
    assert not any(job["metadata"]["annotations"] for job in cluster.jobs.values())


class Stopping(Kubectl):
    """A cluster with a hub, whose pods these are by name and phase; `deleted` is what went."""

    def __init__(self, **pods: str) -> None:
        super().__init__()
        self.replicas = 1
        self.deleted: list[str] = []
        owner = [{"name": "hub-7d9c"}]
        self._pods = [
            {"metadata": {"name": name, "ownerReferences": owner}, "status": {"phase": phase}}
            for name, phase in pods.items()
        ]

    def __call__(self, *arguments: str, stdin: str | None = None) -> str:
        match arguments:
            case ("scale", "deployment", "hub", *_, "--replicas=0"):
                self.replicas = 0
            case ("delete", kind, *_):
                self.deleted.append(kind)
            case ("get", "deployments", _, "jupyterhub", *_):
                hub = {"metadata": {"name": "hub"}, "spec": {"replicas": self.replicas}}
                return json.dumps({"items": [hub]})
            case ("get", "pods", _, "jupyterhub", *_):
                return json.dumps({"items": self._pods})
        return '{"items": []}'


def stopped(cluster: Stopping, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is deleted once the services have stopped, which nobody waits for."""
    monkeypatch.setattr(place, "wait_until", lambda claim, holds, _: wait_until(claim, holds, -1))
    Place(stack_file("local"), cluster).stop()
    return cluster.deleted


def test_T13_a_pod_that_failed_long_ago_writes_nothing_and_holds_nothing_up(monkeypatch):
    """Nobody deletes one that was evicted, nor does it go when its Deployment is stopped."""
    cluster = Stopping(evicted="Failed", completed="Succeeded")
    assert stopped(cluster, monkeypatch) == ["jobs", "pods"]


@pytest.mark.parametrize("phase", ["Running", "Pending", "Unknown"])
def test_T13_a_pod_that_may_write_yet_is_waited_for_and_named(phase, monkeypatch):
    cluster = Stopping(evicted="Failed", **{"hub-7d9c-x": phase})
    with pytest.raises(RecoveryError, match=r"have stopped: jupyterhub/hub-7d9c-x.*run this again"):
        stopped(cluster, monkeypatch)
    assert not cluster.deleted
