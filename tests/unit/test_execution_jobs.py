"""The Job of a run: what it takes, who it is, and that no word of a person's becomes a command."""

import json
from datetime import UTC, datetime

import pytest

from mlhub.execution.jobs import collect_job, listing_job, run_job
from mlhub.execution.outcome import judge, progress
from mlhub.execution.settings import Limits, SettingsError, load
from mlhub.execution.store import Run, adopted
from tests.services.execution import settings

SETTINGS = settings("http://k", "http://h", "sqlite://")
RUN = Run(
    id="0123456789abcdef",
    user="Älice@example.com",
    caller="carol",
    notebook="work/sum.ipynb",
    output="work/sum_output_20261122_101500.ipynb",
    replace=False,
    parameters={"a": "$(HOME) $$ `id`"},
    profile="small",
    time_limit=600,
    cell_timeout=None,
    created=1000.0,
)


def job() -> dict:
    return run_job(
        SETTINGS, RUN, labels={"mlhub/holder": "run"}, annotations={"mlhub/owner": RUN.user}
    )


def test_P5_a_run_is_tried_once_has_deadlines_and_goes_away():
    spec = job()["spec"]
    assert spec["backoffLimit"] == 0
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] == 300 + 600 + 45
    assert spec["ttlSecondsAfterFinished"] == 6 * 3600


def test_P5_the_pod_is_restricted_and_knows_nothing_of_the_cluster():
    pod = job()["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    assert "hostPath" not in json.dumps(pod)


def test_T7_where_homes_are_disks_a_run_is_on_the_node_of_its_persons_servers():
    disks = SETTINGS.model_copy(update={"pod": SETTINGS.pod.model_copy(update={"one_node": True})})
    runs = run_job(disks, RUN, labels={}, annotations={})
    for made in (runs, listing_job(disks, RUN.user, "list-1"), collect_job(disks, RUN)):
        template = made["spec"]["template"]
        (term,) = template["spec"]["affinity"]["podAffinity"][
            "requiredDuringSchedulingIgnoredDuringExecution"
        ]
        wanted = term["labelSelector"]["matchLabels"]
        assert wanted.keys() == {"component", "hub.jupyter.org/username"}
        assert wanted.items() <= template["metadata"]["labels"].items()
        assert term["topologyKey"] == "kubernetes.io/hostname"
    assert "affinity" not in job()["spec"]["template"]["spec"]


def test_T14_no_job_of_a_person_writes_to_its_image():
    for made in (job(), listing_job(SETTINGS, "alice", "list-1"), collect_job(SETTINGS, RUN)):
        (container,) = made["spec"]["template"]["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_P4_a_parameter_is_data_for_the_kubelet_and_the_shell():
    container = job()["spec"]["template"]["spec"]["containers"][0]
    given = next(e["value"] for e in container["env"] if e["name"] == "MLHUB_RUN")
    assert "$" not in given
    assert json.loads(given)["parameters"] == RUN.parameters
    assert RUN.notebook not in " ".join(container["command"])


def test_P8_a_job_says_enough_to_write_its_run_down_again():
    request = json.loads(job()["metadata"]["annotations"]["mlhub.io/request"])
    assert adopted(request) == RUN


def test_M3_a_name_that_is_no_label_is_hashed_and_kept_whole_in_an_annotation():
    made = job()
    label = made["metadata"]["labels"]["hub.jupyter.org/username"]
    assert label.startswith("lice-example-com---")
    assert made["metadata"]["annotations"]["mlhub.io/user"] == RUN.user
    template = made["spec"]["template"]["metadata"]
    assert template["labels"]["mlhub/holder"] == "run"
    assert template["annotations"]["mlhub/owner"] == RUN.user
    assert template["labels"]["component"] == "singleuser-server"


def test_P1_a_listing_is_small_and_short():
    made = listing_job(SETTINGS, "alice", "list-1")
    assert made["spec"]["activeDeadlineSeconds"] == 60
    limits = made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"cpu": "0.5", "memory": str(256 * 2**20)}


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("", None),
        ("[mlhub] cell 1 of 3\n", (0, 3)),
        ("[mlhub] cell 1 of 3\nx\n[mlhub] cell 3 of 3\n", (2, 3)),
        ("print: [mlhub] cell 9 of 9", None),
        ("[mlhub] cell 9999999999 of 3\n", None),
    ],
)
def test_P8_progress_is_the_last_cell_that_began(said, found):
    assert progress(said) == found


def test_P8_no_active_run_is_active_for_ever():
    limits = Limits()
    latest = RUN.created + limits.start_seconds + RUN.time_limit + 301
    running = {"status": {"containerStatuses": [{"state": {"running": {}}}]}}
    for pod in (None, {"status": {}}, running):
        for there in (None, {"status": {}}):
            change = judge(RUN, there, pod, latest, limits)
            assert change
            assert change.values["status"] in ("lost", "failed")


def test_P8_a_cancelled_run_stays_until_its_job_is_gone():
    from dataclasses import replace

    cancelled = replace(RUN, cancel_requested=True)
    change = judge(cancelled, {"status": {}}, None, 1001.0, Limits())
    assert change
    assert (change.delete_job, change.values) == (True, {})
    gone = judge(cancelled, None, None, 1001.0, Limits())
    assert gone
    assert gone.values["status"] == "cancelled"


def test_P4_a_pods_word_for_its_output_is_taken_within_what_was_planned():
    state = {"terminated": {"exitCode": 0, "message": json.dumps({"output": "/etc/passwd"})}}
    pod = {"status": {"containerStatuses": [{"state": state}]}}
    change = judge(RUN, {"status": {}}, pod, 1001.0, Limits())
    assert change
    assert "output" not in change.values


def test_a_deadline_of_the_job_is_a_time_limit():
    condition = {"type": "Failed", "status": "True", "reason": "DeadlineExceeded"}
    change = judge(RUN, {"status": {"conditions": [condition]}}, None, 1001.0, Limits())
    assert change
    assert (change.values["status"], change.values["reason"]) == ("failed", "time-limit")


def test_settings_name_the_key_that_is_wrong_and_repeat_no_value(tmp_path):
    file = tmp_path / "execution.json"
    file.write_text(json.dumps({"database_url": 1, "password": "hunter2"}))
    with pytest.raises(SettingsError) as error:
        load(file)
    assert "pod: Field required" in str(error.value)
    assert "hunter2" not in str(error.value)


def test_P1_the_moment_of_a_run_is_the_same_told_and_given_back():
    for seconds in (1795367841.1234567, 1795367841.9999999, 0.1):
        told = datetime.fromtimestamp(seconds, UTC)
        assert datetime.fromisoformat(told.isoformat()).timestamp() == told.timestamp()


def test_P8_a_job_whose_maker_died_before_it_was_started_is_not_waited_for():
    held = run_job(SETTINGS, RUN, labels={}, annotations={})
    assert judge(RUN, held, None, RUN.created + 29, Limits()) is None
    change = judge(RUN, held, None, RUN.created + 31, Limits())
    assert change is not None
    assert change.delete_job
    assert (change.values["status"], change.values["reason"]) == ("failed", "not-started")
    started = held | {"spec": held["spec"] | {"suspend": False}}
    assert judge(RUN, started, None, RUN.created + 31, Limits()) is None


def test_P8_a_container_that_a_restart_of_the_node_met_before_its_start_is_not_waited_for():
    ready = {"type": "PodReadyToStartContainers", "status": "True"}
    made = {"containerID": "containerd://1", "state": {"waiting": {}}}
    status = {"phase": "Pending", "conditions": [ready], "containerStatuses": [made]}
    job = {"status": {}}
    assert judge(RUN, job, {"status": status}, RUN.created + 31, Limits()) is None
    gone = status | {"conditions": [ready | {"status": "False"}]}
    change = judge(RUN, job, {"status": gone}, RUN.created + 31, Limits())
    assert change is not None
    assert change.delete_job
    assert (change.values["status"], change.values["reason"]) == ("failed", "not-started")
    fresh = gone | {"containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}
    assert judge(RUN, job, {"status": fresh}, RUN.created + 31, Limits()) is None


def test_P8_what_the_kubelet_tries_again_is_waited_for_and_named_when_it_lasts():
    """A run that started a moment after the node's restart was called failed, and ran."""
    said = "failed to sync secret cache: timed out waiting for the condition"
    waiting = {"reason": "CreateContainerConfigError", "message": said}
    pod = {"status": {"phase": "Pending", "containerStatuses": [{"state": {"waiting": waiting}}]}}
    job = {"status": {}}
    assert judge(RUN, job, pod, RUN.created + 31, Limits()) is None
    late = judge(RUN, job, pod, RUN.created + Limits().start_seconds, Limits())
    assert late is not None
    assert late.values["reason"] == "not-started"
    assert said in late.values["message"]
    waiting["message"] = 'secret "x" not found'
    change = judge(RUN, job, pod, RUN.created + 31, Limits())
    assert change is not None
    assert (change.values["status"], change.values["reason"]) == ("failed", "container")


@pytest.mark.parametrize(
    "condition",
    [
        ("PodScheduled", "0/2 nodes: 2 node(s) didn't match pod affinity rules."),
        ("PodReadyToStartContainers", "containers with unready status: [notebook]"),
    ],
)
def test_P8_a_run_whose_home_is_a_disk_on_another_node_says_so(condition):
    """The kubelet says nothing on the pod of a volume that it waits for."""
    kind, said = condition
    conditions = [{"type": kind, "status": "False", "message": said}]
    waiting = {"state": {"waiting": {"reason": "ContainerCreating"}}}
    status = {"phase": "Pending", "conditions": conditions}
    if kind != "PodScheduled":
        status["containerStatuses"] = [waiting]
    started = job()
    started["spec"]["suspend"] = False
    late = judge(RUN, started, {"status": status}, RUN.created + Limits().start_seconds, Limits())
    assert late is not None
    assert late.values["reason"] == "not-started"
    assert "a disk, which one node at a time can have" in late.values["message"]
    assert said in late.values["message"]
