"""A person tries the stack, by Jobs: by a schedule, after each `up`, and whenever somebody asks.

The CronJob is there before the hub; the Job after an `up` comes last, when all of it is there. No
`up` waits for either: a verification that fails is seen in its log, in its exit code and by an
alert (`components/alerts.py`), and takes nothing back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

from components import names
from components.config import StackFile
from components.config import Verify as VerifyConfig
from components.network import PROXY_PODS, dns, pods, tcp
from components.pods import container_security, from_secret, pod
from components.secrets import fingerprint, password, secret
from components.service_clients import grant, service_client
from components.values import internal_keycloak_url

FOLDER, FILE = "/etc/mlhub", "verify.json"
CLIENT_SECRET = "client-secret"  # noqa: S105

PROXY_PORT = 8000
"""Of the proxy's pods, in both charts."""

LONGEST_SECONDS = 3600
"""The kubelet's limit and not the Job's, at which the pod and its log would be gone."""

LABELS = {
    **names.labels(names.VERIFY),
    # Both charts let pods with this label reach the proxy.
    "hub.jupyter.org/network-access-proxy-http": "true",
}


def addresses(stack: StackFile) -> dict[str, Any]:
    """What a verification has to know of the stack, wherever it runs (`mlhub.verify.settings`)."""
    identity = stack.identity
    return {
        "hub_url": stack.hub_url,
        "keycloak_url": stack.keycloak_url,
        "realm": identity.realm,
        "groups": [g for g in identity.access_groups if g not in identity.admin_groups],
        "mlflow": stack.mlflow is not None,
        "execution": stack.execution is not None,
    }


def settings(stack: StackFile, config: VerifyConfig) -> dict[str, Any]:
    """For a pod: published addresses lead to Services, since there `localhost` is the pod itself
    and an ingress may be closed to it."""
    proxy = names.address(names.in_cluster(names.PROXY_SERVICE, stack.hub.namespace), 80)
    via = {stack.hub_url: proxy}
    if (inside := internal_keycloak_url(stack)) != stack.keycloak_url:
        via[stack.keycloak_url] = inside
    return {
        **addresses(stack),
        "login_realm": stack.identity.realm,
        "client_id": names.VERIFY_CLIENT,
        "profiles": list(config.profiles),
        "start_seconds": stack.hub.start_timeout,
        "via": via,
    }


def job_spec(
    image: pulumi.Input[str],
    pull_secrets: Sequence[str],
    annotations: Mapping[str, pulumi.Input[str]] | None = None,
) -> k8s.batch.v1.JobSpecArgsDict:
    """One verification, never tried twice: the second would hide what the first has seen.

    `annotations` are its pod's.
    """
    metadata: k8s.meta.v1.ObjectMetaArgsDict = {"labels": LABELS}
    if annotations is not None:
        metadata["annotations"] = annotations
    spec = pod(
        {
            "name": names.VERIFY,
            "image": image,
            "command": ["python3", "-sP", "-m", "mlhub.verify", f"{FOLDER}/{FILE}"],
            "env": [from_secret("MLHUB_VERIFY_CLIENT_SECRET", names.VERIFY_SECRET, CLIENT_SECRET)],
            "resources": {
                "requests": {"cpu": "20m", "memory": "64Mi"},
                "limits": {"cpu": "500m", "memory": "256Mi"},
            },
            "security_context": container_security(),
            "volume_mounts": [{"name": "settings", "mount_path": FOLDER, "read_only": True}],
        },
        [{"name": "settings", "config_map": {"name": names.VERIFY}}],
        pull_secrets,
    )
    return {
        "backoff_limit": 0,
        "template": {
            "metadata": metadata,
            "spec": {
                **spec,
                "service_account_name": names.VERIFY,
                "restart_policy": "Never",
                "active_deadline_seconds": LONGEST_SECONDS,
            },
        },
    }


@dataclass(frozen=True)
class VerifyArgs:
    config: VerifyConfig
    realm_id: pulumi.Input[str]
    namespace: pulumi.Input[str]
    """The hub's."""
    settings: dict[str, Any]
    image: pulumi.Input[str]
    """The hub's, which has the program and what it needs."""
    pull_secrets: Sequence[str]
    keycloak: k8s.networking.v1.NetworkPolicyEgressRuleArgsDict
    """The way to Keycloak: to our own one's pods, or to addresses."""


class Verify(pulumi.ComponentResource):
    """The CronJob, the client that makes its person, and whom its pods may talk to."""

    known: pulumi.Output[str]
    """The fingerprint of the client's secret."""

    def __init__(self, name: str, args: VerifyArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:verify:Verify", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)
        metadata: k8s.meta.v1.ObjectMetaArgsDict = {
            "name": names.VERIFY,
            "namespace": args.namespace,
            "labels": names.labels(names.VERIFY),
        }

        word = password("verify-keycloak-client", child)
        client = service_client(names.VERIFY_CLIENT, args.realm_id, word, child, all_roles=True)
        # Nothing smaller makes a person.
        grant(f"{names.VERIFY}-makes-a-person", client, "manage-users", child)
        needed = [
            secret(
                names.VERIFY_SECRET,
                namespace=args.namespace,
                data={CLIENT_SECRET: word},
                opts=child,
            ),
            k8s.core.v1.ConfigMap(
                names.VERIFY,
                metadata=metadata,
                data={FILE: pulumi.Output.json_dumps(args.settings, indent=1, sort_keys=True)},
                opts=child,
            ),
            k8s.core.v1.ServiceAccount(
                names.VERIFY, metadata=metadata, automount_service_account_token=False, opts=child
            ),
            k8s.networking.v1.NetworkPolicy(
                names.VERIFY,
                metadata=metadata,
                spec={
                    "pod_selector": {"match_labels": names.selector(names.VERIFY)},
                    "policy_types": ["Ingress", "Egress"],
                    "egress": [
                        {"to": [pods(PROXY_PODS)], "ports": [tcp(PROXY_PORT)]},
                        args.keycloak,
                        dns(),
                    ],
                },
                opts=child,
            ),
        ]
        k8s.batch.v1.CronJob(
            names.VERIFY,
            metadata=metadata,
            spec={
                "schedule": args.config.schedule,
                "time_zone": "Etc/UTC",
                "suspend": args.config.suspended,
                "concurrency_policy": "Forbid",
                # One that could not begin in time is left out, and the next one comes.
                "starting_deadline_seconds": 600,
                "successful_jobs_history_limit": 3,
                "failed_jobs_history_limit": 3,
                "job_template": {
                    "metadata": {"labels": names.labels(names.VERIFY)},
                    "spec": job_spec(args.image, args.pull_secrets),
                },
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=needed),
        )
        self.known = fingerprint(word)
        self.register_outputs({"known": self.known})


@dataclass(frozen=True)
class VerifyAfterUpArgs:
    namespace: pulumi.Input[str]
    """The hub's."""
    image: pulumi.Input[str]
    pull_secrets: Sequence[str]
    applied: pulumi.Input[str]
    """Differs where something else is applied, and only there."""


class VerifyAfterUp(pulumi.ComponentResource):
    """One verification of what an `up` has changed; the hub and all before it are there.

    Another `applied` is another Job in the place of the last. It has no time to live: Kubernetes
    would delete it, and the next `up`, whatever it changes, would find it gone and make it anew.
    """

    job: pulumi.Output[str]
    """Its name."""

    def __init__(
        self, name: str, args: VerifyAfterUpArgs, opts: pulumi.ResourceOptions | None = None
    ):
        super().__init__("mlhub:up:VerifyAfterUp", name, {}, opts)
        made = k8s.batch.v1.Job(
            name,
            metadata={
                "namespace": args.namespace,
                "labels": names.labels(names.VERIFY),
                # Not waited for: that it fails is for people to see, and no reason to fail an `up`.
                "annotations": {"pulumi.com/skipAwait": "true"},
            },
            spec=job_spec(
                args.image, args.pull_secrets, annotations={"mlhub/applied": args.applied}
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.job = made.metadata.name.apply(str)
        self.register_outputs({"job": self.job})
