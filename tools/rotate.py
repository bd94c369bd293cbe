"""Makes one generated secret anew: `make rotate STACK=local SECRET=hub-cookie`.

`pulumi up` does the work: the secret is replaced, the Secrets that hold it follow, and every pod
that was started with it starts anew (its fingerprint changed). Killed at any point, the same
command goes on.

Keycloak's administrator is the one that a running server keeps to itself. Its password is changed
there between two updates: the state has the new one, the Secret still the old one, so whoever runs
this again finds both, and Keycloak takes one of them. Each update is asked for.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
from typing import Any

from keycloak.exceptions import KeycloakAuthenticationError, KeycloakError

from components import names
from tools import administrator

PASSWORD = "random:index/randomPassword:RandomPassword"  # noqa: S105
ADMIN = "keycloak-admin"
PEOPLE = "user-"


class RotationError(Exception):
    """What a person reads."""


class Stack:
    """The CLI on one stack."""

    def __init__(self, name: str, config_file: str | None):
        self.name = name
        self.options = ["--stack", name]
        self.config = ["--config-file", config_file] if config_file else []

    def up(self, *options: str, unasked: bool = False) -> None:
        """`unasked`: without a question to Keycloak, for an update of one secret alone."""
        command = ["pulumi", "up", *self.options, *self.config, "--policy-pack", "policies"]
        command += options
        environment = os.environ | ({names.KEYCLOAK_UNASKED: "yes"} if unasked else {})
        if subprocess.run(command, check=False, env=environment).returncode:
            raise RotationError("the update did not end; mend what it says and run this again")

    def resources(self, *, with_secrets: bool = False) -> list[dict[str, Any]]:
        command = ["pulumi", "stack", "export", *self.options]
        command += ["--show-secrets"] if with_secrets else []
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise RotationError(f"the state of {self.name} cannot be read: {done.stderr.strip()}")
        return list(json.loads(done.stdout)["deployment"].get("resources", []))


def named(resources: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Resources of a type by name."""
    return {r["urn"].rpartition("::")[2]: r for r in resources if r["type"] == kind}


def plain(value: Any) -> Any:
    """A secret of an export with `--show-secrets`, as itself."""
    return json.loads(value["plaintext"]) if isinstance(value, dict) else value


def rotate(stack: Stack, name: str, confirmed: list[str]) -> None:
    """Replace the generated secret `name`; raises RotationError with what to do."""
    known = named(stack.resources(), PASSWORD)
    if name.startswith(PEOPLE) and name in known:
        raise RotationError(
            f"{name} is the first password of a person, who changes it in Keycloak's account page"
        )
    if name not in known:
        there = ", ".join(sorted(n for n in known if not n.startswith(PEOPLE))) or "none"
        raise RotationError(f"SECRET is {name!r}; the stack {stack.name} has: {there}")
    if name == ADMIN:
        hand_over(stack, known[name]["urn"], confirmed)
        stack.up(*confirmed)
    else:
        stack.up("--replace", known[name]["urn"], *confirmed)


def hand_over(stack: Stack, urn: str, confirmed: list[str]) -> None:
    """Give Keycloak a new administrator's password, and keep it in the state."""
    if len({*admin_passwords(stack)[:2]}) == 1:
        # The provider gets the new password with it, before Keycloak does.
        stack.up("--target-replace", urn, *confirmed, unasked=True)
    old, new, url = admin_passwords(stack)
    try:
        administrator.hand_over(url, old, new)
    except KeycloakAuthenticationError:
        raise RotationError(
            f"Keycloak at {url} takes neither the password of the Secret {ADMIN} nor the one of "
            f"the state; set the Secret's for {administrator.NAME} there, then run this again"
        ) from None
    except KeycloakError as error:
        raise RotationError(
            f"Keycloak at {url} does not answer as it should ({error.response_code or 'no answer'})"
            "; run this again when it does, the old password or the new one is valid until then"
        ) from None


def admin_passwords(stack: Stack) -> tuple[str, str, str]:
    """The password in the Secret, the one in the state, and Keycloak's address."""
    resources = stack.resources(with_secrets=True)
    held = named(resources, "kubernetes:core/v1:Secret")[names.KEYCLOAK_ADMIN_SECRET]
    server = named(resources, "pulumi:providers:keycloak")["keycloak"]
    made = named(resources, PASSWORD)[ADMIN]
    return (
        value_in(held, "password"),
        str(plain(made["outputs"]["result"])),
        str(plain(server["inputs"]["url"])),
    )


def value_in(held: dict[str, Any], key: str) -> str:
    """A value of a Secret in the state, where a refresh turns `stringData` into `data`."""
    inputs = held["inputs"]
    if "stringData" in inputs:
        return str(plain(plain(inputs["stringData"])[key]))
    return base64.b64decode(plain(plain(inputs["data"])[key])).decode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("secret", help="its name, such as hub-cookie")
    parser.add_argument("--stack", required=True)
    parser.add_argument("--config-file")
    parser.add_argument("--yes", action="store_true", help="apply without asking")
    given = parser.parse_args()
    confirmed = ["--yes", "--skip-preview"] if given.yes else []
    try:
        rotate(Stack(given.stack, given.config_file), given.secret, confirmed)
    except RotationError as error:
        print(f"mlhub: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
