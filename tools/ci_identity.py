"""Lets a workflow reach cluster and state by GitHub's own identity token: no key is kept anywhere.

`prepare` writes a kubeconfig whose user is this module's `credential`, and, where AWS_ROLE_ARN is
set, the token that the state's S3 takes for the role. Both sides trust
https://token.actions.githubusercontent.com for one repository and environment (docs/previews.md).
Tokens live for minutes: kubectl and Pulumi ask for a new one when they need it.
"""

import argparse
import json
import os
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import yaml

STATE_AUDIENCE = "sts.amazonaws.com"
CLUSTER_AUDIENCE = "mlhub"
SECONDS = 30


class IdentityError(Exception):
    """No token can be had; says what is missing."""


def token(audience: str) -> str:
    """A token for `audience` from the runner."""
    try:
        url = f"{os.environ['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={audience}"
        bearer = os.environ["ACTIONS_ID_TOKEN_REQUEST_TOKEN"]
    except KeyError as error:
        raise IdentityError(
            f"{error.args[0]} is not set: this runs in a job of GitHub Actions with "
            "`permissions: id-token: write`"
        ) from None
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {bearer}"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        return str(json.load(answer)["value"])


def kubeconfig(context: str, server: str, authority: str, checkout: Path) -> dict[str, Any]:
    """The cluster at `server`, whose certificate is of `authority` (PEM)."""
    missing = [name for name, v in (("CLUSTER_SERVER", server), ("CLUSTER_CA", authority)) if not v]
    if missing:
        raise IdentityError(
            f"{' and '.join(missing)} is not set; give the environment of this stack these "
            "variables: the API server's address and its authority's certificate (PEM)"
        )
    certificate = b64encode(authority.encode()).decode()
    ask = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(checkout / ".venv" / "bin" / "python"),
        "args": [str(Path(__file__).resolve()), "credential"],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": certificate},
            }
        ],
        "users": [{"name": "github", "user": {"exec": ask}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": "github"}}],
        "current-context": context,
    }


def credential() -> dict[str, Any]:
    """What kubectl and the Kubernetes plug-in take from an exec plug-in."""
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token(CLUSTER_AUDIENCE)},
    }


def prepare(context: str) -> None:
    folder = Path(os.environ["RUNNER_TEMP"])
    config = kubeconfig(
        context,
        os.environ.get("CLUSTER_SERVER", ""),
        os.environ.get("CLUSTER_CA", ""),
        Path(__file__).resolve().parents[1],
    )
    exported = {"KUBECONFIG": folder / "kubeconfig"}
    private(exported["KUBECONFIG"], yaml.safe_dump(config))
    if role := os.environ.get("AWS_ROLE_ARN"):
        exported["AWS_WEB_IDENTITY_TOKEN_FILE"] = folder / "state-token"
        private(exported["AWS_WEB_IDENTITY_TOKEN_FILE"], token(STATE_AUDIENCE))
    lines = [f"{name}={value}\n" for name, value in exported.items()]
    if role:
        lines.append(f"AWS_ROLE_ARN={role}\n")
        if endpoint := os.environ.get("AWS_ENDPOINT_URL_STS"):
            lines.append(f"AWS_ENDPOINT_URL_STS={endpoint}\n")
    with Path(os.environ["GITHUB_ENV"]).open("a", encoding="utf-8") as file:
        file.writelines(lines)


def private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("credential", help="for kubectl: a token for the cluster")
    verbs.add_parser("prepare", help="kubeconfig and state's token").add_argument(
        "--context", required=True
    )
    given = parser.parse_args()
    try:
        if given.verb == "credential":
            print(json.dumps(credential()))
        else:
            prepare(given.context)
    except (IdentityError, OSError) as error:
        print(f"ci_identity: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
