import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import certifi
import pytest
import yaml

from bootstrap import (
    addons,
    cli,
    down,
    leftovers,
    network,
    node,
    pki,
    preflight,
    rootfs,
    stack,
    status,
)
from bootstrap.console import pending, span, table
from bootstrap.control_plane import api_server, controller_manager, etcd, scheduler
from bootstrap.errors import BootstrapError
from bootstrap.gobuild import Progress, version_of, weights
from bootstrap.node import kubelet_config, proxy_config
from bootstrap.parts import ENGINE_PARTS, NODE_PARTS
from bootstrap.paths import BUILDKIT_SOCKET, NODE_ADDRESS, REGISTRY, Layout, environment
from bootstrap.preflight import Finding
from bootstrap.schedule import Done, Task
from components import names
from tests.pages import ROOT

LAYOUT = Layout(Path("/srv/mlhub"))
SERVERS = (etcd, api_server, controller_manager, scheduler, node.kubelet, node.proxy)


@pytest.mark.parametrize("server", SERVERS)
def test_no_server_listens_beyond_loopback_and_the_nodes_own_address(server):
    told = " ".join([*server(LAYOUT).argv, *server(LAYOUT).files.values()])
    assert "0.0.0.0" not in told  # noqa: S104 - looked for, not bound
    assert "127.0.0.1" in told or "172.31.250.1" in told


@pytest.mark.parametrize("server", SERVERS)
def test_no_servers_command_line_carries_a_secret(server):
    for argument in server(LAYOUT).argv:
        assert not any(word in argument for word in ("token=", "password", "BEGIN"))


def test_the_kubelet_answers_only_whom_the_api_server_vouches_for():
    config = kubelet_config(LAYOUT)
    assert config["authentication"]["anonymous"] == {"enabled": False}
    assert config["authentication"]["webhook"] == {"enabled": True}
    assert config["authorization"] == {"mode": "Webhook"}
    assert config["readOnlyPort"] == 0


def test_disk_is_reckoned_in_bytes_since_the_disk_is_shared():
    config = kubelet_config(LAYOUT)
    assert config["imageGCHighThresholdPercent"] == 100
    assert not any("%" in value for value in config["evictionHard"].values())


def test_node_ports_are_on_this_machine_alone():
    assert proxy_config(LAYOUT)["nodePortAddresses"] == ["127.0.0.0/8", "172.31.250.0/24"]


def test_without_the_policy_agent_a_pods_new_connection_is_dropped():
    rules = network.rules()
    queued = [line for line in rules.splitlines() if "NFQUEUE" in line]
    assert len(queued) == 2
    assert all("--queue-bypass" not in line for line in queued)


def test_every_way_of_a_pods_packet_leads_past_the_policies():
    led = {(table, chain) for table, chain, rule in network.JUMPS if "MLHUB-POLICY" in rule}
    assert led == {("mangle", "FORWARD"), ("mangle", "INPUT")}
    assert ("mangle", "PREROUTING", ("-i", "veth+", "-j", "MLHUB-GATE")) in network.JUMPS


def test_a_services_own_address_is_let_past_the_policies_and_goes_nowhere():
    rules = [rule for rule in network.rules().splitlines() if "10.96.0.0/16" in rule]
    assert rules == [
        "-A MLHUB-POLICY -d 10.96.0.0/16 -j RETURN",
        "-A MLHUB-FORWARD -d 10.96.0.0/16 -j REJECT",
    ]


@pytest.mark.parametrize("addon", addons.ADDONS, ids=lambda addon: addon.binary)
def test_manifests_are_yaml_with_every_place_filled(addon):
    values = dict.fromkeys(
        ("netpol", "coredns", "local_path_provisioner", "seaweedfs_csi", "debian"),
        "localhost:5000/x@sha256:0",
    )
    values |= {"dns_address": "10.96.0.10", "volumes": "/v", "kubelet": "/k"}
    values |= {"policy_queue": "100", "gate_queue": "101"}
    text = addons.manifest(addon.manifest, values)
    assert "${" not in text
    documents = [document for document in yaml.safe_load_all(text) if document]
    namespace, workload = addon.workload
    kind, _, name = workload.partition("/")
    assert (kind, namespace, name) in {
        (one["kind"].lower(), one["metadata"].get("namespace"), one["metadata"]["name"])
        for one in documents
    }


def test_volumes_outlive_their_claims():
    values = dict.fromkeys(("local_path_provisioner", "debian", "volumes"), "x")
    documents = yaml.safe_load_all(addons.manifest("storage.yaml", values))
    (storage,) = [one for one in documents if one["kind"] == "StorageClass"]
    assert storage["reclaimPolicy"] == "Retain"
    annotations = storage["metadata"]["annotations"]
    assert annotations["storageclass.kubernetes.io/is-default-class"] == "true"


def test_a_place_without_a_value_is_an_error():
    with pytest.raises(KeyError):
        addons.manifest("coredns.yaml", {})


def test_images_come_from_the_machines_own_debian_sources_and_no_others():
    listing = "\n".join(
        [
            "Packages|Debian|bookworm|http://mirror/debian|bookworm|main",
            "Packages|Debian|bookworm-security|http://mirror/sec|bookworm-security|main",
            "Packages|Debian Backports|bookworm-backports|http://mirror/debian|bp|main",
            "Packages|Debian|trixie|http://mirror/debian|trixie|main",
            "Packages|Vendor|bookworm|http://vendor/apt|bookworm|main",
            "DEP-11|Debian|bookworm|http://mirror/debian|bookworm|main",
        ]
    )
    assert rootfs.sources(listing) == [
        "deb http://mirror/debian bookworm main",
        "deb http://mirror/sec bookworm-security main",
    ]


def test_a_taken_port_is_told_with_its_holder(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(preflight, "PORTS", {("127.0.0.1", port): "registry"})
        monkeypatch.setattr(preflight.processes, "marked", dict)
        (finding,) = preflight.ports(LAYOUT)
    assert not finding.fine
    assert f"127.0.0.1:{port}" in finding.what
    assert f"(process {os.getpid()})" in finding.what


def test_a_free_port_is_free():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert preflight.listener("127.0.0.1", port) is None


def test_too_little_memory_is_told_in_gib():
    finding = preflight.memory("MemTotal:        2097152 kB\nMemFree: 1 kB\n")
    assert not finding.fine
    assert "2.0 GiB of 6 GiB" in finding.what


def test_a_kernel_without_overlay_is_told(tmp_path):
    (tmp_path / "filesystems").write_text("nodev\ttmpfs\n\text4\n")
    for name in ("cpu,cpuacct", "cpuset", "memory", "pids"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    finding = preflight.kernel(tmp_path, tmp_path)
    assert not finding.fine
    assert "overlay" in finding.do
    assert "control group" not in finding.do


def test_who_is_not_root_is_told_of_a_cluster_of_their_own(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    finding = preflight.root()
    assert not finding.fine
    assert "cluster.context" in finding.do


def test_every_finding_that_is_wrong_says_what_to_do(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    wrong = [one for one in preflight.findings(LAYOUT_HERE) if not one.fine]
    assert wrong
    assert all(isinstance(one, Finding) and one.do for one in wrong)


LAYOUT_HERE = Layout(Path(__file__).resolve().parents[2])


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("config:\n  mlhub:cluster: {context: team}\n", "team"),
        ("config:\n  mlhub:cluster: {}\n", None),
        ("config:\n  mlhub:domain: localhost\n", None),
        ("", None),
    ],
)
def test_a_context_in_the_stack_file_means_a_cluster_of_ones_own(tmp_path, text, context):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.local.yaml").write_text(text)
    assert stack.own_context(Layout(tmp_path)) == context


@pytest.mark.parametrize(
    ("text", "cluster", "namespaces"),
    [
        ("", "", ("jupyterhub", "foundation")),
        (
            "config:\n  mlhub:hub: {namespace: team}\n  mlhub:foundation: {namespace: base}\n",
            "",
            ("team", "base"),
        ),
        (
            "config:\n  mlhub:cluster: {context: team}\n",
            "--context team ",
            ("jupyterhub", "foundation"),
        ),
    ],
)
def test_the_cluster_and_the_namespaces_of_the_stack_file_are_asked(
    tmp_path, monkeypatch, text, cluster, namespaces
):
    """And no other cluster, whichever context is the current one."""
    hub, foundation = namespaces
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.local.yaml").write_text(text)
    (tmp_path / "bin").mkdir()
    kubectl = tmp_path / "bin" / "kubectl"
    kubectl.write_text(
        f"""#!/bin/sh\nprintf '%s\\n' "$*" >> {tmp_path}/asked\necho '{{"data": {{}}}}'\n"""
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    layout = Layout(tmp_path)
    assert status.last_backup(layout, stack.own_context(layout)) == {}
    with pytest.raises(BootstrapError, match="alice is no demo user"):
        cli.password(layout, "alice")
    assert stack.half_restored(layout) is None
    assert (tmp_path / "asked").read_text().splitlines() == [
        f"{cluster}-n {hub} get configmap mlhub-backup -o json",
        f"{cluster}-n {foundation} get secret demo-users -o json",
        f"{cluster}get namespace {hub} -o json --ignore-not-found",
    ]


@pytest.mark.parametrize(
    ("said", "refused"),
    [
        ("", False),
        ('{"metadata": {"name": "jupyterhub"}}', False),
        ('{"metadata": {"annotations": {"mlhub.io/restoring": "a.age"}}}', True),
    ],
)
def test_T13_up_waits_for_a_restore_that_has_begun(tmp_path, monkeypatch, said, refused):
    """It has stopped the hub, whose log-in page `up` awaits, and has filled half of the data."""
    layout = Layout(tmp_path)
    for folder, name, text in (
        (tmp_path / "bin", "kubectl", f"echo '{said}'"),
        (layout.bin, "pulumi", f"echo '{{}}'; echo \"$1 $2 $3\" >> {tmp_path}/applied"),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    layout.log.mkdir(parents=True)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    if refused:
        with pytest.raises(BootstrapError, match=r"restore of a\.age has begun.*make resume STACK"):
            stack.apply(layout)
        assert not (tmp_path / "applied").exists()
    else:
        stack.apply(layout)
        assert (tmp_path / "applied").read_text().startswith("up --stack local")


PENDING = {
    "deployment": {
        "pending_operations": [
            {
                "type": "creating",
                "resource": {
                    "type": stack.RELEASE,
                    "inputs": {"namespace": "jupyterhub", "name": "jupyterhub"},
                },
            }
        ]
    }
}


@pytest.fixture
def killed_up(tmp_path, monkeypatch) -> Layout:
    """A checkout whose `up` was killed while Helm installed; `asked` has what is then done."""
    layout = Layout(tmp_path)
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.local.yaml").touch()
    said = {"ls": [{"name": "organization/mlhub/local"}], "export": PENDING}
    answers = "".join(f"{verb}) echo '{json.dumps(text)}';; " for verb, text in said.items())
    for folder, name, text in (
        (tmp_path / "bin", "kubectl", 'echo "secret deleted"; asked="kubectl $3"'),
        (layout.bin, "pulumi", f'case $4 in {answers} esac; asked="pulumi $3"'),
    ):
        folder.mkdir(parents=True)
        (folder / name).write_text(f"#!/bin/sh\n{text}\necho $asked >> {tmp_path}/asked\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return layout


def lock_state(layout: Layout, name: str, pid: int, hostname: str = os.uname().nodename) -> None:
    """As the CLI does for an update of the stack `name`."""
    folder = layout.data / "state" / ".pulumi" / "locks" / "organization" / "mlhub" / name
    folder.mkdir(parents=True, exist_ok=True)
    lock = {"pid": pid, "username": "root", "hostname": hostname}
    (folder / f"{pid}.json").write_text(json.dumps(lock))


GONE = 2**30
"""No process has that pid."""


def test_T13_what_a_killed_up_left_is_cleared(killed_up):
    lock_state(killed_up, "local", GONE)
    said = stack.ensure(killed_up, Task("stack", threading.Event()))
    assert "unlocked" in said
    assert "cleared the interrupted release jupyterhub" in said
    asked = (killed_up.checkout / "asked").read_text().splitlines()
    assert asked[-3:] == ["pulumi cancel", "pulumi stack", "kubectl delete"]


@pytest.mark.parametrize("stale", ["local", "dev"])
@pytest.mark.parametrize(
    ("lives", "told"),
    [
        ((os.getpid(),), f"process {os.getpid()}"),
        # Nobody here knows whether that one lives.
        ((GONE, "elsewhere"), f"process {GONE} on elsewhere"),
    ],
    ids=["here", "elsewhere"],
)
def test_T13_an_update_that_somebody_else_runs_is_left_alone(killed_up, lives, told, stale):
    """`make rotate`, `rollback` or `restore`: what the state says is pending, Helm is about."""
    lock_state(killed_up, "local", *lives)
    lock_state(killed_up, stale, GONE + 1)
    with pytest.raises(BootstrapError, match=rf"{told}.*pulumi cancel --yes --stack local"):
        stack.ensure(killed_up, Task("stack", threading.Event()))
    asked = (killed_up.checkout / "asked").read_text()
    assert "cancel" not in asked
    assert "kubectl" not in asked


def test_T13_a_lock_of_another_stack_is_no_matter(killed_up):
    lock_state(killed_up, "dev", GONE)
    lock_state(killed_up, "staging", os.getpid())
    assert "unlocked" not in stack.ensure(killed_up, Task("stack", threading.Event()))
    assert "cancel" not in (killed_up.checkout / "asked").read_text()


def test_ones_own_kubeconfig_stays_with_ones_own_cluster():
    assert "KUBECONFIG" in environment(LAYOUT)
    assert "KUBECONFIG" not in environment(LAYOUT, "team")


def test_buildctl_finds_the_machines_own_builder_and_no_other():
    assert environment(LAYOUT)["BUILDKIT_HOST"] == f"unix://{BUILDKIT_SOCKET}"
    assert "BUILDKIT_HOST" not in environment(LAYOUT, "team")


def test_a_cluster_of_ones_own_that_is_silent_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setattr(stack, "own_context", lambda _: "team")
    monkeypatch.setattr(status, "pods", lambda *_: [])
    with pytest.raises(BootstrapError, match=r"context team tells of no pods.*--context team"):
        status.run(Layout(tmp_path), as_json=False)


def test_T13_a_lost_passphrase_is_in_every_archive_and_the_way_to_it_is_told(tmp_path):
    layout = Layout(tmp_path)
    state = layout.data / "state" / ".pulumi" / "stacks"
    state.mkdir(parents=True)
    (state / "local.json").touch()
    with pytest.raises(BootstrapError, match=r"tools\.recovery prepare --from"):
        stack.ensure(layout, Task("stack", threading.Event()))
    assert not layout.passphrase.exists()


def test_the_engine_trusts_the_registry_beside_whom_the_machine_trusts(monkeypatch, tmp_path):
    """Called again from an environment of ours, the bundle names ours itself, and does not grow."""
    machines = tmp_path / "machines.pem"
    machines.write_text("# whom the machine trusts\n")
    monkeypatch.setenv("SSL_CERT_FILE", str(machines))
    layout = Layout(tmp_path)
    assert "SSL_CERT_FILE" not in environment(layout)
    pki.ensure(layout)
    ours = environment(layout)["SSL_CERT_FILE"]
    written = Path(ours).read_text()
    assert written.startswith(machines.read_text())
    assert written.endswith(layout.registry_authority.read_text())
    monkeypatch.setenv("SSL_CERT_FILE", ours)
    pki.ensure(layout)
    assert Path(ours).read_text() == written
    assert "SSL_CERT_FILE" not in environment(layout, "team")


@pytest.mark.parametrize("system_has_one", [True, False])
def test_our_own_bundle_that_was_purged_is_made_from_what_the_machine_trusts(
    monkeypatch, tmp_path, system_has_one
):
    """`down --purge-data` leaves a shell that still names it."""
    machines = tmp_path / "machines.pem"
    if system_has_one:
        machines.write_text("# whom the machine trusts\n")
    monkeypatch.setattr(pki, "SYSTEM_BUNDLE", machines)
    layout = Layout(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(layout.trust))
    pki.ensure(layout)
    trusted = (machines if system_has_one else Path(certifi.where())).read_text()
    written = layout.trust.read_text()
    assert written == f"{trusted}{pki.TRUST_MARK}{layout.registry_authority.read_text()}"


def test_a_bundle_that_is_not_there_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(BootstrapError, match=r"SSL_CERT_FILE names .*none.pem, which cannot be"):
        pki.ensure(Layout(tmp_path))


def test_a_stack_file_that_is_none_is_told(tmp_path):
    (tmp_path / "stacks").mkdir()
    (tmp_path / "stacks" / "Pulumi.local.yaml").write_text("config: [a\n")
    with pytest.raises(BootstrapError, match="is not a stack file"):
        stack.own_context(Layout(tmp_path))


def test_only_helm_releases_that_an_update_was_about_are_cleared():
    pending = [
        *PENDING["deployment"]["pending_operations"],
        {"type": "creating", "resource": {"type": "random:index:RandomId"}},
    ]
    deployment = {"deployment": {"pending_operations": pending}}
    assert stack.interrupted(deployment) == [("creating", "jupyterhub", "jupyterhub")]
    assert stack.interrupted({"deployment": {}}) == []


@pytest.mark.parametrize(
    ("kind", "there", "forgets"),
    [("creating", True, True), ("creating", False, False), ("updating", True, False)],
)
def test_an_interrupted_making_is_forgotten_once_what_it_made_is_in_the_state(kind, there, forgets):
    state = {
        "pending_operations": [{"type": kind, "resource": {"urn": "a"}}],
        "resources": [{"urn": "b"}, *([{"urn": "a"}] if there else [])],
    }
    assert stack.made_since({"deployment": state}) is forgets
    assert not stack.made_since({"deployment": {"resources": [{"urn": "a"}]}})


def test_the_estimate_trusts_the_measured_time_first_and_the_pace_later():
    progress = Progress({"a": 50, "b": 50}, seconds=100)
    assert progress.at(1) == (0.0, 99.0)
    progress.done = 50
    fraction, left = progress.at(200)  # slower than measured: the pace alone counts
    assert fraction == pytest.approx(0.44)
    assert left == pytest.approx(200 * 0.56 / 0.44)


def test_only_packages_that_have_to_be_compiled_count(tmp_path):
    (tmp_path / "a.go").write_text("x" * 10)
    (tmp_path / "b.go").write_text("x" * 5)
    listing = f"go: downloading x v1\nexample/p\t{tmp_path}\ta.go,b.go\n"
    assert weights(listing) == {"example/p": 15}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26, 8)),
        ("go version go1.19 linux/amd64", (1, 19, 0)),
        ("no go", ()),
    ],
)
def test_gos_version_is_read(text, version):
    assert version_of(text) == version


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.42, "0.4 s"), (9.96, "10 s"), (59.4, "59 s"), (185, "3 min 05 s")]
)
def test_times_are_told_as_people_say_them(seconds, said):
    assert span(seconds) == said


def test_the_table_of_times_begins_with_the_longest():
    told = table([Done("a", 1, ""), Done("b", 70, ""), Done("c", 0.1, "")], 71).splitlines()
    assert [line.split()[-1] for line in told[1:]] == ["b", "a", "altogether"]


def test_data_is_purged_only_when_it_is_said_twice(tmp_path):
    kept = tmp_path / ".mlhub" / "cluster"
    kept.mkdir(parents=True)
    with pytest.raises(BootstrapError, match="--purge-data --yes"):
        down.run(Layout(tmp_path), purge_data=True, sure=False)
    assert kept.is_dir()


def test_a_path_too_long_for_a_socket_is_told_before_anything_is_made(tmp_path):
    fine = preflight.path_length(Layout(Path("/home/ann/work/mlhub")))
    assert fine.fine
    long = preflight.path_length(Layout(Path("/" + "x" * 90)))
    assert not long.fine
    assert "shorter path" in long.do


def test_looking_changes_nothing(tmp_path):
    layout = Layout(tmp_path)
    preflight.findings(layout)
    assert leftovers.owner_of(layout).instance == ""
    assert list(tmp_path.iterdir()) == []


def test_running_steps_are_told_in_one_line_with_what_is_left():
    event = threading.Event()
    build = Task("kube", event, note="compiling", fraction=0.43, remaining=546)
    waiting = [Task(name, event, note="waiting") for name in ("buildkit", "pulumi")]
    assert pending([build, *waiting]) == (
        "kube: compiling 43%, about 9 min 06 s left; buildkit, pulumi: waiting"
    )


def pod(component: str, phase: str) -> dict[str, object]:
    labels = {"component": component}
    metadata = {"namespace": "jupyterhub", "name": "a-pod", "labels": labels}
    return {"metadata": metadata, "status": {"phase": phase}}


@pytest.mark.parametrize(
    ("component", "phase", "healthy"),
    [
        ("singleuser-server", "Failed", True),
        ("singleuser-server", "Pending", False),
        ("hub", "Failed", False),
        ("hub", "Succeeded", True),
    ],
)
def test_a_persons_run_that_failed_is_no_ill_of_the_platform(component, phase, healthy):
    assert status.pod_row(pod(component, phase), 0).healthy is healthy


def fired(job: str, hour: int, phase: str) -> dict[str, object]:
    made = {"uid": f"{job}-uid", "creationTimestamp": f"2026-01-02T{hour:02}:00:00Z"}
    metadata = {"namespace": "jupyterhub", "name": f"{job}-x", "labels": {"job-name": job}}
    return {"metadata": metadata | made, "status": {"phase": phase}}


def test_a_failed_firing_is_an_ill_until_it_is_fired_again():
    """Kubernetes keeps the last one that failed for ever."""
    failed, later = fired("verify-100", 1, "Failed"), fired("verify-160", 2, "Succeeded")
    alone, others = fired("import-7", 1, "Failed"), fired("shared-folders-abc", 3, "Failed")
    assert status.mended([later, failed, alone, others]) == {"verify-100-uid"}
    assert status.mended([failed, alone]) == set()
    assert status.pod_row(failed, 0, over=True).healthy
    assert not status.pod_row(failed, 0).healthy


def embedded(part: object, path: str = "") -> Iterator[str]:
    """The keys of a stack file whose values the embedded cluster alone has."""
    if isinstance(part, dict):
        for key, value in part.items():
            yield from embedded(value, f"{path}.{key}" if path else key)
    elif isinstance(part, list):
        for value in part:
            yield from embedded(value, path if isinstance(value, str) else f"{path}[]")
    elif isinstance(part, str):
        host = part.partition("/")[0]
        made = {REGISTRY, NODE_ADDRESS, "localhost", names.SEAWEEDFS_CSI, names.LOCAL_PATH}
        if made & {part, host} or path.endswith((".builder", ".twin.namespace")):
            yield path


def test_who_has_a_cluster_is_told_all_that_the_local_stack_takes_from_the_embedded_one():
    config = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())["config"]
    found = {*embedded({key.removeprefix("mlhub:"): part for key, part in config.items()})}
    assert len(found) == 9
    page = (ROOT / "docs" / "bootstrap.md").read_text()
    (told,) = [part for part in page.split("\n\n") if "`mlhub:cluster.context`" in part]
    assert [key for key in found if f"`{key.removesuffix('.namespace')}`" not in told] == []


WORDS = {"8": "eight", "9": "nine", "10": "ten", "11": "eleven"}


def test_the_page_counts_the_machines_processes_and_the_minutes_of_a_build_as_the_program_does():
    page = (ROOT / "docs" / "bootstrap.md").read_text()
    servers = len(status.services(LAYOUT))
    assert f"The first {WORDS[str(servers)]} are processes" in page
    minutes = {part.name: part.cpu_seconds / 60 for part in (*NODE_PARTS, *ENGINE_PARTS)}
    for name, each in minutes.items():
        assert re.search(rf"^\| {name} \|.*\| {each:.1f} \|$", page, re.MULTILINE), name
    cached = sum(minutes[name] for name in ("kube", "pulumi", "pulumi-kubernetes"))
    all_of_it = sum(minutes.values())
    said = f"{all_of_it:.0f} in all from source, {all_of_it - cached:.0f} with the cache"
    assert said in " ".join(page.split())


def test_the_readme_asks_for_what_up_looks_for():
    readme = (ROOT / "README.md").read_text()
    assert f"{preflight.DISK_FIRST // preflight.GIB} GiB of free disk" in readme
    assert f"{preflight.MEMORY // preflight.GIB} GiB of memory" in readme
    assert "x86_64" in readme
