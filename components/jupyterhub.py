"""The hub: its Secrets and one Helm release."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pulumi
import pulumi_kubernetes as k8s
import yaml

from components import names
from components.config import Chart
from components.config import Hub as HubConfig
from components.secrets import fingerprint, hex_key, secret

TIMEOUT_SECONDS = 600
"""For hub and proxy to become ready, images pulled and database migrated."""

KEPT_REVISIONS = 10

PROXY_TOKEN = "hub.config.ConfigurableHTTPProxy.auth_token"  # noqa: S105


def chart_arguments(chart: Chart) -> dict[str, Any]:
    """What the Release says of its chart."""
    if chart.path is None:
        return {
            "chart": chart.name,
            "version": chart.version,
            "repository_opts": {"repo": chart.repository},
        }
    folder = Path(chart.path)
    return {
        "chart": chart.path,
        "version": chart_version(folder),
        "description": f"chart sha256:{chart_digest(folder)}",
    }


def chart_version(chart: Path) -> str:
    """`version` in the chart's Chart.yaml."""
    described = yaml.safe_load((chart / "Chart.yaml").read_text(encoding="utf-8"))
    return str(described["version"])


def chart_digest(chart: Path) -> str:
    """SHA-256 over the chart's files, names and contents.

    pulumi-kubernetes compares a chart in a folder by its version alone (pulumi-kubernetes#2672), so
    the digest goes into the release's description: an edited template is a change, too.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in chart.rglob("*") if path.is_file()):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(chart).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def with_fingerprints(
    values: dict[str, Any],
    words: Mapping[str, pulumi.Output[str]],
    client_secret: pulumi.Output[str] | None,
) -> dict[str, Any]:
    """The values, with which hub and proxy start anew when a secret of theirs changes."""
    known_to = {
        "hub": [*words.values(), *([client_secret] if client_secret is not None else [])],
        "proxy": [words[PROXY_TOKEN]],
    }
    return values | {
        part: values[part] | {"annotations": {names.FINGERPRINT: fingerprint(*secrets)}}
        for part, secrets in known_to.items()
    }


@dataclass(frozen=True)
class JupyterHubArgs:
    config: HubConfig
    namespace: pulumi.Input[str]
    values: dict[str, Any]
    """The Release's values."""
    client_secret: pulumi.Output[str] | None
    """Of the hub's client in Keycloak; None where the Secret is there already."""
    people_secret: pulumi.Output[str] | None
    """Of the client with which it looks people up; None where it has none."""
    database_password: pulumi.Output[str]
    service_tokens: Mapping[str, pulumi.Output[str]]
    """Of the Hub's services, by name."""
    after: Sequence[pulumi.Resource] = ()
    """Everything else of the stack: the hub starts when it is there, and is the first to go."""


class JupyterHub(pulumi.ComponentResource):
    """The Release and what it refers to by name."""

    status: pulumi.Output[str]
    """`deployed`, where all is well."""
    revision: pulumi.Output[str]
    """The Release's, another one for each change."""

    def __init__(self, name: str, args: JupyterHubArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:jupyterhub:JupyterHub", name, {}, opts)
        child = pulumi.ResourceOptions(parent=self)

        words = self._generated(args, child)
        secrets = [secret(names.HUB_SECRET, namespace=args.namespace, data=words, opts=child)]
        if args.client_secret is not None:
            secrets.append(
                secret(
                    names.OIDC_SECRET,
                    namespace=args.namespace,
                    data={"client_id": names.OIDC_CLIENT, "client_secret": args.client_secret},
                    opts=child,
                )
            )

        release = k8s.helm.v3.Release(
            "jupyterhub",
            name=names.HUB_RELEASE,
            namespace=args.namespace,
            **chart_arguments(args.config.chart),
            values=with_fingerprints(args.values, words, args.client_secret),
            atomic=True,
            timeout=TIMEOUT_SECONDS,
            max_history=KEPT_REVISIONS,
            # Pulumi first deletes what nothing depends on: this release alone. Protected, it ends
            # a `pulumi destroy` before anything is gone, even one without a preview.
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[*secrets, *args.after], protect=True
            ),
        )
        self.status = release.status.apply(lambda status: str(status.status))
        self.revision = release.status.apply(lambda status: str(status.revision))
        self.register_outputs({"status": self.status, "revision": self.revision})

    def _generated(
        self, args: JupyterHubArgs, child: pulumi.ResourceOptions
    ) -> dict[str, pulumi.Output[str]]:
        """What is in `hub.existingSecret`; the keys are those that Zero to JupyterHub looks for."""
        return (
            {
                "hub.config.JupyterHub.cookie_secret": hex_key("hub-cookie", child),
                "hub.config.CryptKeeper.keys": hex_key("hub-crypt-key", child),
                PROXY_TOKEN: hex_key("hub-proxy-token", child),
                "hub.services.jupyterhub-idle-culler.apiToken": hex_key("hub-culler", child),
                "hub.db.password": args.database_password,
            }
            | ({} if args.people_secret is None else {names.PEOPLE_KEY: args.people_secret})
            | {
                f"hub.services.{service}.apiToken": token
                for service, token in args.service_tokens.items()
            }
        )
