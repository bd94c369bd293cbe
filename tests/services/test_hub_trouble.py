"""Why a server does not start, from what Kubernetes says about its pod."""

import pytest

from mlhub.hub import trouble
from mlhub.hub.trouble import GRACE_SECONDS

CREATED = "2026-01-01T12:00:00Z"
LATER = "2026-01-01T12:00:05Z"
NO_CPU = "0/3 nodes are available: 1 Insufficient cpu, 2 Insufficient memory."
NO_GPU = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."


def pod(waiting: tuple[str, str] | None = None, unschedulable: str = "", **status: object):
    """A pending pod whose container waits for a reason, or that finds no node."""
    status = {"phase": "Pending", **status}
    if waiting:
        state = {"waiting": dict(zip(("reason", "message"), waiting, strict=True))}
        status["containerStatuses"] = [{"image": "registry/ml:1", "state": state}]
    if unschedulable:
        condition = {"status": "False", "reason": "Unschedulable", "message": unschedulable}
        status["conditions"] = [{"type": "PodScheduled", **condition}]
    else:
        status["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    return {"metadata": {"creationTimestamp": CREATED}, "status": status}


def event(reason: str, at: str = LATER, kind: str = "Pod", message: str = "said so"):
    about = {"kind": kind, "name": "x"}
    return {"involvedObject": about, "reason": reason, "message": message, "lastTimestamp": at}


@pytest.mark.parametrize(
    ("waiting", "reason"),
    [
        (("ImagePullBackOff", "Back-off pulling image"), "image"),
        (("ErrImagePull", "registry/ml:1: not found"), "image"),
        (("InvalidImageName", "couldn't parse"), "image"),
        (("CreateContainerConfigError", 'secret "x" not found'), "container"),
        (("CrashLoopBackOff", "back-off 10s"), "container"),
    ],
)
def test_what_the_kubelet_gave_up_is_said_at_once(waiting, reason):
    found = trouble.find(pod(waiting), [], 0)
    assert found.reason == reason
    assert waiting[1] in found.sentence


@pytest.mark.parametrize(
    "waiting",
    [
        ("ErrImagePull", "connection reset"),
        ("ContainerCreating", ""),
        ("PodInitializing", ""),
        # The first seconds after the node's restart.
        (
            "CreateContainerConfigError",
            "failed to sync secret cache: timed out waiting for the condition",
        ),
        ("CreateContainerError", "context deadline exceeded"),
    ],
)
def test_what_may_still_pass_is_no_trouble(waiting):
    assert trouble.find(pod(waiting), [event("Pulling")], 10_000) is None


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (NO_CPU, "No node has enough cpu and memory free for the server."),
        (NO_GPU, "No GPU is free for the server."),
        ("node(s) had untolerated taint {nvidia.com/gpu: }", "No node takes the server."),
    ],
)
def test_no_room_is_said_after_a_moment_and_names_what_is_short(said, sentence):
    assert trouble.find(pod(unschedulable=said), [], GRACE_SECONDS - 1) is None
    assert trouble.find(pod(unschedulable=said), [], GRACE_SECONDS).sentence.startswith(sentence)


def test_a_node_that_is_being_added_is_waited_for():
    coming = [event("FailedScheduling"), event("TriggeredScaleUp")]
    assert trouble.find(pod(unschedulable=NO_CPU), coming, GRACE_SECONDS) is None


def test_a_volume_that_cannot_be_mounted_is_said():
    found = trouble.find(pod(), [event("Scheduled"), event("FailedMount")], GRACE_SECONDS)
    assert (found.reason, "said so" in found.sentence) == ("volume", True)


MULTI_ATTACH = (
    'Multi-Attach error for volume "pvc-1" Volume is already used by pod(s) jupyter-alice--b'
)


def test_T7_a_disk_that_leaves_another_node_is_waited_for():
    """After a stop, the next start came while the disk was being detached, and was given up."""
    events = [event("Scheduled"), event("FailedAttachVolume", message=MULTI_ATTACH)]
    assert trouble.find(pod(), events, GRACE_SECONDS) is None
    assert trouble.find(pod(), events, trouble.DETACH_SECONDS - 1) is None
    attached = [*events, event("SuccessfulAttachVolume")]
    assert trouble.find(pod(), attached, trouble.DETACH_SECONDS) is None


def test_T7_a_disk_that_another_node_keeps_is_said_with_what_to_do():
    events = [event("Scheduled"), event("FailedAttachVolume", message=MULTI_ATTACH)]
    found = trouble.find(pod(), events, trouble.DETACH_SECONDS)
    assert found.reason == "volume"
    assert found.sentence.startswith("The home is a disk, which one node at a time can have: ")
    assert "stop your other servers and runs" in found.sentence
    assert "jupyter-alice--b" in found.sentence


def test_T7_a_server_that_does_not_fit_beside_ones_others_is_told_why_it_has_to():
    said = "0/3 nodes: 1 Insufficient nvidia.com/gpu, 2 node(s) didn't match pod affinity rules."
    found = trouble.find(pod(unschedulable=said), [], GRACE_SECONDS)
    assert found.reason == "capacity"
    assert found.sentence.startswith("The home is a disk, which one node at a time can have: ")
    assert "Insufficient nvidia.com/gpu" in found.sentence


def test_a_mount_that_failed_and_then_held_is_no_trouble():
    events = [event("FailedMount"), event("Pulling")]
    assert trouble.find(pod(), events, GRACE_SECONDS) is None


def test_a_claim_that_nobody_provides_is_trouble_until_the_pod_has_a_node():
    events = [event("ProvisioningFailed", kind="PersistentVolumeClaim")]
    waiting = pod(unschedulable="waiting for the claim")
    assert trouble.find(waiting, events, GRACE_SECONDS).reason == "volume"
    assert trouble.find(pod(), events, GRACE_SECONDS) is None


def test_events_of_the_start_before_do_not_count():
    old = [event("FailedMount", at="2026-01-01T11:59:59Z")]
    assert trouble.find(pod(), old, GRACE_SECONDS) is None


def test_a_pod_that_the_node_refused_is_said():
    found = trouble.find(pod(phase="Failed", message="Node was low on memory."), [], 0)
    assert found.sentence == "Kubernetes gave the server up: Node was low on memory."


def test_a_full_quota_is_said_with_what_to_do():
    api = 'pods "jupyter-alice" is forbidden: exceeded quota: namespace, requested: limits.cpu=4'
    found = trouble.refused(403, api)
    assert found.reason == "quota"
    assert "choose a smaller size" in found.sentence
    assert "limits.cpu=4" in found.sentence


def test_a_broken_api_is_no_refusal():
    assert trouble.refused(500, "etcd is gone") is None


def test_T8_a_server_that_misses_its_volume_gives_its_own_reason():
    said = "The volume of /home/jovyan is not mounted. Start it again."
    ended = {"terminated": {"exitCode": 74, "message": said}}
    for states in ({"state": ended}, {"state": {"waiting": {}}, "lastState": ended}):
        found = trouble.find(pod(containerStatuses=[{"image": "x", **states}]), [], 0)
        assert (found.reason, found.sentence) == ("volume", said)
    other = {"terminated": {"exitCode": 1, "message": "Traceback"}}
    assert trouble.find(pod(containerStatuses=[{"image": "x", "state": other}]), [], 0) is None
