"""The commands of `make`: up, down, status, doctor, env, password, build-from-source."""

import argparse
import errno
import json
import os
import shlex
import sys
from base64 import b64decode
from collections.abc import Sequence

from bootstrap import doctor, down, lock, stack, status, up
from bootstrap.errors import BootstrapError
from bootstrap.paths import Layout, environment, here
from components import names


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m bootstrap", description=__doc__)
    verbs = main.add_subparsers(dest="verb", required=True)
    for verb, told in (
        ("up", "set everything up and apply the local stack"),
        ("build-from-source", "the same, with neither releases nor the cache"),
    ):
        one = verbs.add_parser(verb, help=told)
        one.add_argument("--only-cluster", action="store_true", help="no engine and no stack")
        one.add_argument("--no-stack", action="store_true", help="make the stack; do not apply it")
        one.add_argument(
            "--take-over", action="store_true", help="stop another checkout's cluster first"
        )
    one = verbs.add_parser("down", help="stop what up started; data stays")
    one.add_argument("--purge-data", action="store_true", help="remove the data as well")
    one.add_argument("--yes", action="store_true", help="really remove it")
    one = verbs.add_parser("status", help="each part, its health, memory and address")
    one.add_argument("--json", action="store_true")
    verbs.add_parser("doctor", help="what is missing on this machine, and what to do")
    verbs.add_parser("env", help="the environment of pulumi, kubectl and buildctl, for eval")
    one = verbs.add_parser("password", help="print a demo user's password")
    one.add_argument("user")
    return main


def password(layout: Layout, user: str) -> str:
    """The password of a demo user, from the Secret that the stack has made."""
    space = stack.foundation_namespace(layout)
    asked = ("-n", space, "get", "secret", names.DEMO_USERS_SECRET, "-o", "json")
    done = stack.kubectl(layout, stack.own_context(layout), *asked)
    if done.returncode:
        raise BootstrapError(
            f"The passwords are not there ({done.stderr.strip()}). They come with `make up`."
        )
    users = json.loads(done.stdout)["data"]
    if user not in users:
        raise BootstrapError(
            f"{user} is no demo user; there are {', '.join(sorted(users))}. For example: "
            "`make password USER=alice`."
        )
    return b64decode(users[user]).decode()


def act(layout: Layout, given: argparse.Namespace) -> None:
    held = lock.MACHINE if os.geteuid() == 0 else layout.data / "lock"
    match given.verb:
        case "up" | "build-from-source":
            with lock.held(held, f"{given.verb} in {layout.checkout}"):
                up.run(
                    layout,
                    take_over=given.take_over,
                    only_cluster=given.only_cluster,
                    applies=not given.no_stack,
                    from_source=given.verb == "build-from-source",
                )
        case "down":
            with lock.held(held, f"down in {layout.checkout}"):
                down.run(layout, purge_data=given.purge_data, sure=given.yes)
        case "status":
            status.run(layout, as_json=given.json)
        case "doctor":
            doctor.run(layout)
        case "env":
            for name, value in environment(layout, stack.own_context(layout)).items():
                print(f"export {name}={shlex.quote(value)}")
        case "password":
            print(password(layout, given.user))


def readable(error: OSError) -> BootstrapError | None:
    """The sentence for what a machine can lack at any moment; None for what is a fault of ours."""
    where = error.filename or "a file"
    if error.errno == errno.ENOSPC:
        return BootstrapError(
            f"The disk is full: {where} could not be written. Free some (`make doctor` says how "
            "much is needed), then run the same again; it goes on from what is whole."
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return BootstrapError(f"{where} is not open to user {os.geteuid()}. Run this as root.")
    return None


def main(argv: Sequence[str]) -> int:
    """Runs a command; an error that a person reads is all that is shown of it."""
    given = parser().parse_args(argv)
    try:
        act(here(), given)
    except BootstrapError as error:
        print(f"mlhub: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        told = readable(error)
        if told is None:
            raise
        print(f"mlhub: {told}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mlhub: stopped; run it again to go on from here", file=sys.stderr)
        return 130
    return 0
