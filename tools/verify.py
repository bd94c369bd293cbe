"""`make verify STACK=…`: whether the applied stack works for a person (mlhub.verify).

Reads the stack file for the addresses, and takes the account that may make people from where the
program has it: the administrator of a Keycloak of the stack's own, or the realm's client with the
secret `mlhub:keycloak_client_secret`."""

import argparse
import base64
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from components import names
from components.config import StackFile
from components.stackfile import StackFileError, read
from components.verify import addresses
from mlhub.verify.checks import verify
from mlhub.verify.report import Report
from mlhub.verify.settings import Settings

CHECKOUT = Path(__file__).resolve().parents[1]


class NotReadError(Exception):
    """What is missing, for a person."""


def answer(*command: str) -> str:
    """A command's standard output; raises NotReadError with what it says on standard error."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReadError(f"`{' '.join(command[:3])} …` failed: {done.stderr.strip()}")
    return done.stdout


def account(stack: str, found: StackFile) -> dict[str, Any]:
    """Who makes the person."""
    server = found.identity.keycloak
    if server is None:
        space = found.foundation.namespace
        asked = ("-n", space, "get", "secret", names.KEYCLOAK_ADMIN_SECRET, "-o", "json")
        text = answer(*found.cluster.kubectl, *asked)
        data = {k: base64.b64decode(v).decode() for k, v in json.loads(text)["data"].items()}
        return {"login_realm": "master", "client_id": "admin-cli", **data}
    secret = answer("pulumi", "config", "get", "mlhub:keycloak_client_secret", "--stack", stack)
    return {
        "login_realm": found.identity.realm,
        "client_id": server.client_id,
        "client_secret": secret.strip(),
    }


def settings(stack: str, found: StackFile, profiles: tuple[str, ...]) -> Settings:
    return Settings(**addresses(found), profiles=profiles, **account(stack, found))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--profile", help="the only one to start (without it: each)")
    parser.add_argument("--json", type=Path, help="also write the report there")
    given = parser.parse_args()
    only = (given.profile,) if given.profile else ()
    try:
        asked = settings(given.stack, read(given.stack, CHECKOUT), only)
    except StackFileError as error:
        print("\n".join(error.sentences), file=sys.stderr)
        return 2
    except NotReadError as error:
        print(error, file=sys.stderr)
        return 2
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_DFL:
            # A pipeline's time limit or a lost terminal; the person is removed all the same.
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    report = Report(lambda line: print(line, flush=True))
    verify(asked, report)
    print(report.sentence())
    if given.json is not None:
        given.json.write_text(report.as_json(), encoding="utf-8")
    return 0 if report.works() else 1


if __name__ == "__main__":
    raise SystemExit(main())
