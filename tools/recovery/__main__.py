"""`make backup`, `make restore`, `make rollback` and what goes with them (docs/recovery.md)."""

import argparse
import os
import sys
from pathlib import Path

from tools.recovery import rollback
from tools.recovery.archive import Reader, identities, make_identity, recipient
from tools.recovery.backup import backup, keep
from tools.recovery.beside import restore_beside
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl
from tools.recovery.place import Place, stack_file
from tools.recovery.restore import inspect, prepare, restore, resume
from tools.recovery.state import Stack


def say(text: str) -> None:
    print(text, flush=True)


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m tools.recovery", description=__doc__)
    verbs = main.add_subparsers(dest="verb", required=True)

    def verb(name: str, told: str) -> argparse.ArgumentParser:
        one = verbs.add_parser(name, help=told)
        one.add_argument("--stack", default="local")
        one.add_argument("--config-file")
        return one

    one = verbs.add_parser("key", help="make a key for archives")
    one.add_argument("--to", required=True, help="the file of the private part")
    one = verb("backup", "write an archive")
    one.add_argument("--to", default="backups", help="a folder")
    one.add_argument("--recipient", default=os.environ.get("MLHUB_BACKUP_RECIPIENT", ""))
    one.add_argument("--keep", type=int, help="how many archives of the stack to leave there")
    for name, told in (
        ("verify", "read a whole archive and say what is in it"),
        ("prepare", "on a bare machine, before restore: the passphrase of the state"),
        ("restore", "make the stack as the archive has it"),
    ):
        one = verb(name, told)
        one.add_argument("--from", dest="archive", required=True)
        one.add_argument("--identity", required=True, help="the file of the private key")
        if name == "restore":
            one.add_argument("--replace", default="", help="yes: what is there may go")
            one.add_argument("--only", default="", help="one claim, its files beside what is there")
    verb("resume", "give a restore up: what it stopped runs again")
    one = verb("rollback", "apply the revision that was applied before")
    one.add_argument("--to", default="", help="another revision")
    one.add_argument("--data", choices=("keep", "drop"), default="keep")
    one.add_argument("--confirm", default="", help="the stack's name, to drop its data")
    verb("rebind", "give volumes whose claim was deleted back to a claim of that name")
    one = verb("rename-home", "give somebody's home to the user name that they have now")
    one.add_argument("--from", dest="former", required=True, help="the name that they had")
    one.add_argument("--to", required=True, help="the name that they have")
    one = verb("destroy", "remove all but data and secrets, for an `up` that finds them again")
    one.add_argument("--confirm", default="", help="the stack's name")
    return main


def restored(place: Place, stack: Stack, reader: Reader, given: argparse.Namespace) -> None:
    if given.only:
        restore_beside(place, stack, reader, given.only, say)
    else:
        restore(place, stack, reader, replace=given.replace == "yes", say=say)


def act(given: argparse.Namespace) -> None:
    if given.verb == "key":
        public = make_identity(Path(given.to))
        say(f"{given.to} opens what is written for {public}\nKeep it apart from the archives.")
        return
    if given.verb in ("verify", "prepare", "restore"):
        reader = Reader(Path(given.archive), identities(Path(given.identity)))
        if given.verb == "verify":
            return inspect(reader.path, reader, say)
        if given.verb == "prepare":
            return prepare(reader, given.stack, say)
    config = stack_file(given.stack)
    place = Place(config, Kubectl(config.cluster.kubectl))
    stack = Stack(given.stack, given.config_file)
    match given.verb:
        case "backup":
            folder = Path(given.to)
            backup(place, stack, folder, [recipient(given.recipient)], say)
            if given.keep is not None:
                keep(folder, given.stack, given.keep, say)
        case "restore":
            restored(place, stack, reader, given)
        case "resume":
            resume(place, stack, say)
        case "rollback":
            drop = given.data == "drop"
            rollback.roll_back(place, stack, given.to, drop=drop, confirm=given.confirm, say=say)
        case "rebind":
            rollback.rebind(place, say)
        case "rename-home":
            # By the hub's own package, which names homes and which the other verbs do without.
            from tools.recovery.rename import rename_home  # noqa: PLC0415

            rename_home(place, given.former, given.to, say)
        case "destroy":
            rollback.destroy(stack, given.confirm, say)


def main() -> int:
    given = parser().parse_args()
    try:
        act(given)
    except RecoveryError as error:
        print(f"mlhub: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"mlhub: {error}; mend that and run this again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mlhub: stopped; run it again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
