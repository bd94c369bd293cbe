"""CronJobs, as Kubernetes wants them: each only calls the API, with a secret of its own schedule's.

The pod that calls has no home, no token of a person's and none of the cluster's. What it holds
says "it is time for this schedule" and nothing else, once for each time that is the schedule's.
"""

from typing import Any

from mlhub.execution.jobs import KIND, REQUEST, USER, ascii_json
from mlhub.execution.plan_store import Schedule
from mlhub.execution.settings import Settings

SCHEDULE = "mlhub.io/schedule"
CONTAINER = "trigger"
TOKEN_FOLDER = "/var/run/mlhub"  # noqa: S105 (a folder's name)

LATE_SECONDS = 300
"""A time for which Kubernetes cannot make a Job for this long is missed."""

TRYING_SECONDS = 600
"""How long the Job tries to reach the service, which may be restarting or have no room."""

HELD = ("id", "user", "caller", "name", "notebook", "parameters", "how", "cron", "time_zone",
        "suspended", "reason", "token_hash", "created")  # fmt: skip
"""What a schedule is known again by when the database has lost it."""


def cron_job_name(schedule_id: str) -> str:
    return f"schedule-{schedule_id}"


def secret_name(schedule: Schedule) -> str:
    """With a part of the hash, so that a new token is never taken for the old one."""
    return f"schedule-{schedule.id}-{schedule.token_hash[:8]}"


def cron_job(settings: Settings, schedule: Schedule) -> dict[str, Any]:
    labels = {KIND: "schedule", SCHEDULE: schedule.id}
    pod_labels = {
        "app.kubernetes.io/name": "execution-trigger",
        "app.kubernetes.io/part-of": "mlhub",
        KIND: "trigger",
        SCHEDULE: schedule.id,
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": cron_job_name(schedule.id),
            "namespace": settings.pod.namespace,
            "labels": {"app.kubernetes.io/part-of": "mlhub", **labels},
            "annotations": {USER: schedule.user, REQUEST: held(schedule)},
        },
        "spec": {
            "schedule": schedule.cron,
            "timeZone": schedule.time_zone,
            "suspend": schedule.suspended,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATE_SECONDS,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": pod_labels},
                "spec": {
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": TRYING_SECONDS,
                    "ttlSecondsAfterFinished": 3600,
                    "template": {
                        "metadata": {"labels": pod_labels},
                        "spec": _pod(settings, schedule),
                    },
                },
            },
        },
    }


def held(schedule: Schedule) -> str:
    return ascii_json({name: getattr(schedule, name) for name in HELD})


def token_secret(settings: Settings, schedule: Schedule, token: str, owner: str) -> dict[str, Any]:
    """The Secret of a schedule's own token; it goes with its CronJob, whose uid is `owner`."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": secret_name(schedule),
            "namespace": settings.pod.namespace,
            "labels": {"app.kubernetes.io/part-of": "mlhub", SCHEDULE: schedule.id},
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "CronJob",
                    "name": cron_job_name(schedule.id),
                    "uid": owner,
                }
            ],
        },
        "immutable": True,
        "stringData": {"token": token},
    }


def _pod(settings: Settings, schedule: Schedule) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": settings.pod.uid,
            "fsGroup": settings.pod.fs_gid,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.trigger.image,
                "command": ["python3", "-sP", "-m", "mlhub.execution.trigger"],
                "env": [
                    {
                        "name": "MLHUB_FIRE_URL",
                        "value": f"{settings.trigger.url}/schedules/{schedule.id}/fire",
                    },
                    {
                        # `<CronJob>-<minutes since 1970>`, by Kubernetes' CronJob controller.
                        "name": "MLHUB_JOB",
                        "valueFrom": {
                            "fieldRef": {
                                "fieldPath": "metadata.labels['batch.kubernetes.io/job-name']"
                            }
                        },
                    },
                ],
                "resources": {
                    "requests": {"cpu": "20m", "memory": "32Mi"},
                    "limits": {"cpu": "250m", "memory": "64Mi"},
                },
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": True}],
            }
        ],
        "volumes": [{"name": "token", "secret": {"secretName": secret_name(schedule)}}],
    }
    if settings.pod.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pod.pull_secrets]
    return spec
