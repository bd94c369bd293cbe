"""Jobs, as Kubernetes wants them. Pure: settings and a run in, an object out.

A run's pod is a server's pod with another command: same image, home, limits, security context,
labels (and with them network policies), and no service account's token.
"""

import json
from collections.abc import Mapping
from typing import Any

from mlhub import homes
from mlhub.execution.settings import Pod, Profile, Settings
from mlhub.execution.slugs import slug
from mlhub.execution.store import Run
from mlhub.slugs import personal_workspace
from mlhub.workspaces import mounts

KIND = "mlhub.io/kind"
RUN = "mlhub.io/run"
USER = "mlhub.io/user"
REQUEST = "mlhub.io/request"
"""Annotation from which a run is known again when the database has lost it."""

CONTAINER = "notebook"
GRACE_SECONDS = 45
"""For the runner to bring a partial notebook home; it takes 15 s and an MLflow's time-out."""

MLFLOW_TOKEN = "mlflow-token"  # noqa: S105 (a key of a Secret)
TRACKING_URI = "MLFLOW_TRACKING_URI"

LISTING_SECONDS = 60

LARGEST_VARIABLE = 128 * 1024
"""Bytes of one variable of an environment, its name and end among them (Linux, MAX_ARG_STRLEN)."""


def job_name(run_id: str) -> str:
    return f"run-{run_id}"


def experiment(run: Run) -> str:
    """Where MLflow keeps the runs of notebooks that name no other experiment: a workspace's own, or
    the person's, whose experiments are nobody else's."""
    return "notebooks" if run.workspace else f"notebooks-{run.user}"


def token_secret(pod: Pod, run_id: str, token: str, owner: str) -> dict[str, Any]:
    """The Secret of a run's MLflow token; it goes with the run's Job, whose uid is `owner`."""
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": job_name(run_id), "uid": owner}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": job_name(run_id),
            "namespace": pod.namespace,
            "labels": {"app.kubernetes.io/part-of": "mlhub", RUN: run_id},
            "ownerReferences": [job],
        },
        "immutable": True,
        "stringData": {MLFLOW_TOKEN: token},
    }


def claim_name(pod: Pod, user: str) -> str:
    return pod.home_claim.format(username=slug(user))


def run_job(
    settings: Settings,
    run: Run,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    role: str = "",
    with_token: bool = False,
) -> dict[str, Any]:
    """The Job of a run. Its own deadline is the hard one: the runner's comes first and says why.
    It is suspended until whoever makes it knows that it is there, and its Secret.

    `labels` and `annotations` are the admission's, for the pod; `role` is the person's in the run's
    workspace. `with_token`: its environment takes the MLflow token from its Secret.
    """
    profile = settings.profile(run.profile)
    assert profile is not None  # noqa: S101 (checked when the run was accepted)
    environment = task_of(run)
    job = _job(
        settings,
        run.user,
        name=job_name(run.id),
        labels={KIND: "run", RUN: run.id},
        annotations={USER: run.user, REQUEST: ascii_json(run.request())},
        admitted=(labels, annotations),
        profile=profile,
        module="notebooks.jobs.run",
        environment=environment | (mounts.environment(run.workspace) if run.workspace else {}),
        deadline=settings.limits.start_seconds + run.time_limit + GRACE_SECONDS,
        kept=settings.limits.job_kept_seconds,
    )
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    if run.workspace:
        spec["volumes"].append(mounts.volume(run.workspace, role))
        container["volumeMounts"].append(mounts.volume_mount(run.workspace, role))
    job["spec"]["suspend"] = True
    if with_token:
        reference = {"name": job_name(run.id), "key": MLFLOW_TOKEN}
        container["env"] += [
            {"name": "MLFLOW_TRACKING_TOKEN", "valueFrom": {"secretKeyRef": reference}},
            # For links, as a server has it.
            {"name": "MLHUB_MLFLOW_WORKSPACE", "value": personal_workspace(run.user)},
        ]
    return job


def task_of(run: Run) -> dict[str, str]:
    """What the runner is told, in its environment."""
    task = {
        "id": run.id,
        "notebook": run.notebook,
        "output": run.output,
        "replace": run.replace,
        "parameters": run.parameters,
        "time_limit": run.time_limit,
        "cell_timeout": run.cell_timeout,
        "experiment": experiment(run),
    }
    return {"MLHUB_RUN": ascii_json(task)}


def tellable(run: Run) -> bool:
    """Whether the runner can be told its task."""
    return all(len(f"{name}={value}") < LARGEST_VARIABLE for name, value in task_of(run).items())


def listing_job(settings: Settings, user: str, name: str) -> dict[str, Any]:
    """A pod of the person's that says which notebooks there are, and little else."""
    return _small_job(settings, user, name, "listing", {})


def collect_name(run_id: str) -> str:
    return f"collect-{run_id}"


def collect_job(settings: Settings, run: Run) -> dict[str, Any]:
    """A pod of the person's that gives a killed run's partial notebook its name."""
    return _small_job(settings, run.user, collect_name(run.id), "collect", task_of(run))


def _small_job(
    settings: Settings, user: str, name: str, kind: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    """`kind` is the module of `notebooks.jobs` and the label."""
    profile = settings.profile(None)
    assert profile is not None  # noqa: S101 (settings have at least one)
    small = profile.model_copy(
        update={
            "cpu_limit": min(0.5, profile.cpu_limit),
            "cpu_guarantee": min(0.05, profile.cpu_guarantee),
            "mem_limit": min(256 * 2**20, profile.mem_limit),
            "mem_guarantee": min(64 * 2**20, profile.mem_guarantee),
            "extra_resource_limits": {},
            "extra_resource_guarantees": {},
            "node_selector": {},
        }
    )
    return _job(
        settings,
        user,
        name=name,
        labels={KIND: kind},
        annotations={USER: user},
        admitted=({}, {}),
        profile=small,
        module=f"notebooks.jobs.{kind}",
        environment=environment,
        deadline=LISTING_SECONDS,
        kept=60,
    )


def _job(
    settings: Settings,
    user: str,
    *,
    name: str,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    admitted: tuple[Mapping[str, str], Mapping[str, str]],
    profile: Profile,
    module: str,
    environment: Mapping[str, str],
    deadline: int,
    kept: int,
) -> dict[str, Any]:
    pod = settings.pod
    own = {**labels, homes.USERNAME: slug(user)}
    all_labels = {**pod.labels, **admitted[0], **own}
    spec = _pod(pod, user, profile, module, environment)
    if pod.one_node:
        terms = [homes.beside(all_labels)]
        spec["affinity"] = {
            "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": pod.namespace,
            "labels": {"app.kubernetes.io/part-of": "mlhub", **own},
            "annotations": dict(annotations),
        },
        "spec": {
            # A notebook that ran halfway is not run again behind its person's back.
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline,
            "ttlSecondsAfterFinished": kept,
            "template": {
                "metadata": {
                    "labels": all_labels,
                    "annotations": {**admitted[1], USER: user},
                },
                "spec": spec,
            },
        },
    }


def _pod(
    pod: Pod, user: str, profile: Profile, module: str, environment: Mapping[str, str]
) -> dict[str, Any]:
    home = {"name": "home", "persistentVolumeClaim": {"claimName": claim_name(pod, user)}}
    variables = {**pod.environment, "HOME": pod.home_mount, **environment}
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": pod.uid,
            "fsGroup": pod.fs_gid,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": profile.image,
                # Neither the home's modules nor those where it starts come before the image's.
                "command": ["tini", "-g", "--", "python3", "-sP", "-m", module],
                "workingDir": pod.home_mount,
                "env": [{"name": key, "value": value} for key, value in variables.items()],
                "resources": {
                    "limits": {
                        "cpu": str(profile.cpu_limit),
                        "memory": str(profile.mem_limit),
                        **_some(profile.extra_resource_limits),
                    },
                    "requests": {
                        "cpu": str(profile.cpu_guarantee),
                        "memory": str(profile.mem_guarantee),
                        **_some(profile.extra_resource_guarantees),
                    },
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                    "runAsUser": pod.uid,
                },
                "volumeMounts": [
                    {"name": "home", "mountPath": pod.home_mount},
                    *pod.volume_mounts,
                ],
            }
        ],
        "volumes": [home, *pod.volumes],
    }
    if profile.node_selector:
        spec["nodeSelector"] = profile.node_selector
    if profile.tolerations:
        spec["tolerations"] = profile.tolerations
    if pod.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in pod.pull_secrets]
    return spec


def _some(resources: Mapping[str, str]) -> dict[str, str]:
    """Without those of which there are none."""
    return {name: amount for name, amount in resources.items() if amount != "0"}


def ascii_json(value: Any) -> str:
    """JSON in which Kubernetes finds no `$(VARIABLE)` to replace."""
    return json.dumps(value).replace("$", "\\u0024")
