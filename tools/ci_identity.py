"""Lets a workflow reach cluster and state by GitHub's own identity token: no key is kept anywhere.

`prepare` writes a kubeconfig whose user is this module's `credential`, and, where AWS_ROLE_ARN is
set, an AWS configuration whose credentials are those of `state`: what the state's S3 gives for the
role. Both sides trust https://token.actions.githubusercontent.com for one repository and
environment (docs/previews.md). GitHub's tokens live for five minutes, less than an `up` or a
backup: kubectl and Pulumi ask here for new credentials before theirs end.
"""

import argparse
import json
import os
import shlex
import sys
import urllib.request
from base64 import b64encode, urlsafe_b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import yaml

STATE_AUDIENCE = "sts.amazonaws.com"
CLUSTER_AUDIENCE = "mlhub"
STS = "https://sts.amazonaws.com"
SECONDS = 30
MARGIN = 60
"""Seconds before a token ends at which the next is asked for, since clocks differ."""


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


def called(checkout: Path, verb: str) -> list[str]:
    """The command of a verb, for programs that ask in a later step."""
    return [str(checkout / ".venv" / "bin" / "python"), str(Path(__file__).resolve()), verb]


def kubeconfig(context: str, server: str, authority: str, checkout: Path) -> dict[str, Any]:
    """The cluster at `server`, whose certificate is of `authority` (PEM)."""
    missing = [name for name, v in (("CLUSTER_SERVER", server), ("CLUSTER_CA", authority)) if not v]
    if missing:
        raise IdentityError(
            f"{' and '.join(missing)} is not set; give the environment of this stack these "
            "variables: the API server's address and its authority's certificate (PEM)"
        )
    certificate = b64encode(authority.encode()).decode()
    command, *arguments = called(checkout, "credential")
    ask = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command,
        "args": arguments,
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
    """What kubectl and the Kubernetes plug-in take from an exec plug-in.

    They ask again at `expirationTimestamp`. Without it they would when the API server has refused
    a request, which has failed by then (client-go, `plugin/pkg/client/auth/exec`).
    """
    given = token(CLUSTER_AUDIENCE)
    until = datetime.fromtimestamp(ends(given) - MARGIN, UTC)
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": given, "expirationTimestamp": f"{until:%Y-%m-%dT%H:%M:%SZ}"},
    }


def ends(jwt: str) -> int:
    """Seconds since 1970 at which the token ends; who checks it is the one that it is for."""
    payload = jwt.split(".")[1]
    return int(json.loads(urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"])


def state_credentials() -> dict[str, Any]:
    """What AWS' SDKs take from a `credential_process`, by the role AWS_ROLE_ARN.

    They ask again when `Expiration` is near.
    """
    asked = {
        "Action": "AssumeRoleWithWebIdentity",
        "Version": "2011-06-15",
        "RoleArn": os.environ["AWS_ROLE_ARN"],
        "RoleSessionName": "mlhub",
        "WebIdentityToken": token(STATE_AUDIENCE),
    }
    endpoint = os.environ.get("AWS_ENDPOINT_URL_STS", STS)
    request = urllib.request.Request(endpoint, data=urlencode(asked).encode())  # noqa: S310
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
        given = ElementTree.fromstring(answer.read()).find(".//{*}Credentials")  # noqa: S314
    if given is None:
        raise IdentityError(f"{endpoint} gave no credentials for {asked['RoleArn']}")
    keys = ("AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration")
    return {"Version": 1} | {key: given.findtext(f"{{*}}{key}") for key in keys}


def prepare(context: str) -> None:
    folder = Path(os.environ["RUNNER_TEMP"])
    checkout = Path(__file__).resolve().parents[1]
    config = kubeconfig(
        context, os.environ.get("CLUSTER_SERVER", ""), os.environ.get("CLUSTER_CA", ""), checkout
    )
    exported = {"KUBECONFIG": folder / "kubeconfig"}
    private(exported["KUBECONFIG"], yaml.safe_dump(config))
    if role := os.environ.get("AWS_ROLE_ARN"):
        exported["AWS_CONFIG_FILE"] = folder / "aws-config"
        asking = shlex.join(called(checkout, "state"))
        private(exported["AWS_CONFIG_FILE"], f"[default]\ncredential_process = {asking}\n")
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
    verbs.add_parser("state", help="for AWS' SDKs: credentials for the state")
    verbs.add_parser("prepare", help="kubeconfig and AWS configuration").add_argument(
        "--context", required=True
    )
    given = parser.parse_args()
    try:
        if given.verb == "credential":
            print(json.dumps(credential()))
        elif given.verb == "state":
            print(json.dumps(state_credentials()))
        else:
            prepare(given.context)
    except (IdentityError, OSError) as error:
        print(f"ci_identity: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
