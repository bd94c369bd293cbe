"""The team's project in Harbor: what may go into it, who may pull and push, and what stays.

A project belongs to the stack that builds into it. A stack that promotes has accounts of its own in
that project and nothing else, so that no two stacks decide one thing.
"""

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import pulumi_random as random

from components import names
from components.config import Harbor, in_bytes

SEVERITY = "critical"
"""From this severity on Harbor refuses to hand an image out. Lower is for people to decide: a new
finding of a lower severity would keep running environments from starting pods."""

PULL_DAYS = 30
"""What a node has pulled within so many days stays: a pod, or a release to roll back to."""


@dataclass(frozen=True)
class Login:
    """An account at a registry."""

    username: pulumi.Input[str]
    password: pulumi.Input[str]


def gibibytes(size: str) -> int:
    """`500Gi` is 500: Harbor counts a project's quota in whole GiB."""
    return math.ceil(in_bytes(size) / 2**30)


def retention_rules(keep_tags: int) -> list[dict[str, Any]]:
    """What stays; everything else of the project is deleted once a day.

    Rules add up (Harbor, "Create Tag Retention Rules"). Untagged artifacts count like others in the
    first and third: a tag that moved on leaves the digest that some pod may still run.
    """
    images = {"repo_excluding": names.CACHE_REPOSITORY, "tag_matching": "**"}
    return [
        {**images, "most_recently_pushed": keep_tags, "untagged_artifacts": True},
        {
            "repo_matching": "**",
            "tag_matching": f"{names.IN_USE}*",
            "always_retain": True,
            "untagged_artifacts": False,
        },
        {**images, "n_days_since_last_pull": PULL_DAYS, "untagged_artifacts": True},
        {
            "repo_matching": names.CACHE_REPOSITORY,
            "tag_matching": "**",
            "always_retain": True,
            "untagged_artifacts": False,
        },
    ]


def robot_permissions(project: pulumi.Input[str], *actions: str) -> list[dict[str, Any]]:
    """These actions on the repositories of one project."""
    access = [{"resource": "repository", "action": action} for action in actions]
    return [{"kind": "project", "namespace": project, "accesses": access}]


def docker_config(host: str, username: str, password: str) -> str:
    """`.dockerconfigjson`, as kubelet reads it."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return json.dumps(
        {"auths": {host: {"username": username, "password": password, "auth": token}}}
    )


@dataclass(frozen=True)
class RegistryArgs:
    config: Harbor
    repository: str
    """Where the stack's images are: host[:port]/project."""
    stack: str
    """Makes the accounts' names this stack's own in a project that several share."""
    builds: bool
    """Whether the stack builds into the project, and so has it."""
    pullers: Mapping[str, pulumi.Input[str]]
    """The namespaces whose pods pull, by a name that never changes."""


class Registry(pulumi.ComponentResource):
    """Accounts and Secrets; for a stack that builds, the project and its policies too.

    Among the providers it needs harbor, kubernetes and random.
    """

    push: Login
    """For whoever builds, and for marking what is in use."""
    pull: Login
    pull_secret_names: pulumi.Output[list[str]]
    """One in each namespace; all have the same name."""

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:registry:Registry", name, {}, opts)
        self._child = pulumi.ResourceOptions(parent=self)
        self._args = args
        host, _, project_name = args.repository.partition("/")
        project: pulumi.Input[str] = project_name
        if args.builds:
            project = self._project(project_name)
        self.pull = self._robot("pull", project, "pull", description="Pulls for the cluster.")
        self.push = self._robot("push", project, "pull", "push", description="Pushes from CI.")
        secrets = [
            self._pull_secret(called, namespace, host) for called, namespace in args.pullers.items()
        ]
        self.pull_secret_names = pulumi.Output.all(*(s.metadata.name for s in secrets))
        self.register_outputs(
            {
                "pull_secret_names": self.pull_secret_names,
                "pull_username": self.pull.username,
                "push_username": self.push.username,
            }
        )

    def _project(self, project: str) -> pulumi.Output[str]:
        import pulumiverse_harbor as harbor  # noqa: PLC0415 - 65 ms for stacks without Harbor

        made = harbor.Project(
            project,
            name=project,
            public=False,
            vulnerability_scanning=True,
            deployment_security=SEVERITY,
            storage_quota=gibibytes(self._args.config.storage),
            force_destroy=False,
            # Images of every environment are in it.
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        )
        harbor.RetentionPolicy(
            project,
            scope=made.id,
            schedule="Daily",
            rules=retention_rules(self._args.config.keep_tags),
            # Without its rules the project would keep everything: safe, and not for destroy to do.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        name: pulumi.Output[str] = made.name
        return name

    def _robot(
        self, purpose: str, project: pulumi.Input[str], *actions: str, description: str
    ) -> Login:
        import pulumiverse_harbor as harbor  # noqa: PLC0415

        called = f"{self._args.stack}-{purpose}"
        secret = random.RandomPassword(
            f"registry-{purpose}",
            length=32,
            special=False,
            # Harbor refuses a secret without one of each.
            min_upper=1,
            min_lower=1,
            min_numeric=1,
            opts=self._child,
        )
        robot = harbor.RobotAccount(
            called,
            name=called,
            level="project",
            description=f"{description} Made by mlhub, stack {self._args.stack}.",
            permissions=robot_permissions(project, *actions),
            duration=-1,
            disable=False,
            secret=secret.result,
            opts=self._child,
        )
        return Login(robot.full_name, pulumi.Output.secret(robot.secret))

    def _pull_secret(
        self, called: str, namespace: pulumi.Input[str], host: str
    ) -> k8s.core.v1.Secret:
        login = pulumi.Output.all(self.pull.username, self.pull.password)
        config: pulumi.Input[str] = login.apply(lambda given: docker_config(host, *given))
        hidden: pulumi.Output[str] = pulumi.Output.secret(config)
        return k8s.core.v1.Secret(
            f"{names.PULL_SECRET}-{called}",
            metadata={
                "name": names.PULL_SECRET,
                "namespace": namespace,
                "labels": names.labels(names.PULL_SECRET),
            },
            type="kubernetes.io/dockerconfigjson",
            string_data={".dockerconfigjson": hidden},
            opts=self._child,
        )


def harbor_provider(config: Harbor, password: pulumi.Input[str]) -> pulumi.ProviderResource:
    """The provider for the Harbor of a stack file; `password` is marked secret whatever it is."""
    import pulumiverse_harbor as harbor  # noqa: PLC0415

    return harbor.Provider(
        "harbor",
        url=config.url,
        username=config.username,
        password=pulumi.Output.secret(password),
        # The SDK's own default is to trust any certificate.
        insecure=False,
        api_version=2,
    )
