#!/usr/bin/python3 -I
"""Start PostgreSQL with the roles, databases and passwords that its Secret says.

`/run/secrets/postgres` is the mounted Secret: `postgres-password` for the superuser, and for each
`<role>-password` a role and a database of that name. They are brought in line before the server
listens, in single-user mode, and as SCRAM verifiers: no password is ever in an argument, a log
or a statement. Adding a service means adding a key and restarting the pod.

Killed at any point it starts again: a data folder is made beside its place and renamed when whole,
and a folder with anything else in it is never touched.
"""

import base64
import hashlib
import hmac
import os
import re
import secrets
import shutil
import stringprep
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

BIN = Path("/usr/lib/postgresql/15/bin")
CONFIG = Path("/usr/local/share/mlhub-postgres")
SECRETS = Path(os.environ.get("POSTGRES_SECRETS", "/run/secrets/postgres"))
SCRAM_ITERATIONS = 4096
ROLE = re.compile(r"[a-z][a-z0-9_]{0,62}")
SINGLE_USER_NAME = re.compile(r'^\s*1: name = "(.*)"\s+\(typeid', re.MULTILINE)


class StartError(Exception):
    """Said to a person in one sentence; the pod then waits for them in CrashLoopBackOff."""


def read_passwords(folder: Path) -> dict[str, str]:
    """Role to password, from the files `<role>-password`."""
    passwords = {}
    for file in sorted(folder.glob("*-password")):
        role = file.name.removesuffix("-password")
        password = file.read_text(encoding="utf-8").rstrip("\n")
        if not ROLE.fullmatch(role):
            raise StartError(f"{file}: the role's name must match {ROLE.pattern}; rename the key.")
        if not password:
            raise StartError(f"{file} is empty; give the Secret's key a value.")
        passwords[role] = password
    if "postgres" not in passwords:
        raise StartError(
            f"{folder}/postgres-password does not exist; mount the Secret with the passwords there."
        )
    return passwords


def saslprep(password: str) -> str:
    """RFC 4013, as PostgreSQL applies it: text that it forbids is used as it is."""
    mapped = "".join(
        " " if stringprep.in_table_c12(c) else c for c in password if not stringprep.in_table_b1(c)
    )
    normal = unicodedata.normalize("NFKC", mapped)
    forbidden = (
        stringprep.in_table_a1,
        stringprep.in_table_c12,
        stringprep.in_table_c21_c22,
        stringprep.in_table_c3,
        stringprep.in_table_c4,
        stringprep.in_table_c5,
        stringprep.in_table_c6,
        stringprep.in_table_c7,
        stringprep.in_table_c8,
        stringprep.in_table_c9,
    )
    if not normal or any(test(c) for c in normal for test in forbidden):
        return password
    right_to_left = [stringprep.in_table_d1(c) for c in normal]
    if any(right_to_left) and (
        any(stringprep.in_table_d2(c) for c in normal)
        or not (right_to_left[0] and right_to_left[-1])
    ):
        return password
    return normal


def scram_verifier(password: str, salt: bytes | None = None) -> str:
    """What `pg_authid.rolpassword` holds for SCRAM-SHA-256 (RFC 5803's form)."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", saslprep(password).encode(), salt, SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    stored = base64.b64encode(hashlib.sha256(client_key).digest()).decode()
    server = base64.b64encode(hmac.digest(salted, b"Server Key", "sha256")).decode()
    return f"SCRAM-SHA-256${SCRAM_ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"


def statements(passwords: dict[str, str], roles: set[str], databases: set[str]) -> list[str]:
    """SQL that brings roles and databases in line; role names are checked by `read_passwords`."""
    sql = []
    for role, password in passwords.items():
        if role not in roles:
            sql.append(f'CREATE ROLE "{role}"')
        verifier = scram_verifier(password)
        sql.append(f"ALTER ROLE \"{role}\" LOGIN PASSWORD '{verifier}'")
        if role not in databases:
            sql.append(f'CREATE DATABASE "{role}" OWNER "{role}"')
            sql.append(f'REVOKE ALL ON DATABASE "{role}" FROM PUBLIC')
    return sql


def single_user(pgdata: Path, sql: list[str]) -> str:
    """Run statements with no server listening; the first error ends it.

    Errors are logged without the statement that caused them.
    """
    options = ["exit_on_error=on", "log_min_error_statement=panic", "log_checkpoints=off"]
    command = [f"{BIN}/postgres", "--single", "-j", "-D", str(pgdata)]
    command += [part for option in options for part in ("-c", option)]
    done = subprocess.run(  # noqa: PLW1510
        [*command, "postgres"],
        input="".join(f"{statement};\n\n" for statement in sql),
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise StartError(
            f"PostgreSQL could not open {pgdata} to set its roles: {done.stderr.strip()}"
        )
    return done.stdout


def create(pgdata: Path) -> None:
    """Make the data folder, whole or not at all."""
    if pgdata.exists() and any(pgdata.iterdir()):
        raise StartError(
            f"{pgdata} is not empty and is no PostgreSQL data folder (it has no PG_VERSION); "
            "mount an empty volume, or put the data back."
        )
    unfinished = pgdata.with_name(f"{pgdata.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    command = [f"{BIN}/initdb", f"--pgdata={unfinished}", "--username=postgres", "--encoding=UTF8"]
    command += ["--locale=C.UTF-8", "--auth=reject", "--data-checksums"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise StartError(f"initdb failed in {unfinished.parent}: {done.stderr.strip()}")
    if pgdata.exists():
        pgdata.rmdir()
    unfinished.rename(pgdata)
    folder = os.open(pgdata.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def prepare(pgdata: Path, passwords: dict[str, str]) -> None:
    """A data folder of this version with the Secret's roles, databases and passwords."""
    version = pgdata / "PG_VERSION"
    if not version.exists():
        said(f"make {pgdata}", lambda: create(pgdata))
    elif (found := version.read_text().strip()) != "15":
        raise StartError(f"{pgdata} is of PostgreSQL {found}, this is 15; dump and restore it.")
    pgdata.chmod(0o700)

    def bring_in_line() -> None:
        roles = single_user(pgdata, ["SELECT rolname AS name FROM pg_roles"])
        databases = single_user(pgdata, ["SELECT datname AS name FROM pg_database"])
        found = (set(SINGLE_USER_NAME.findall(text)) for text in (roles, databases))
        single_user(pgdata, statements(passwords, *found))

    said(f"set roles and passwords: {', '.join(passwords)}", bring_in_line)


def said(what: str, do: Callable[[], None]) -> None:
    start = time.monotonic()
    do()
    print(f"mlhub-postgres: {what} ({time.monotonic() - start:.1f} s)", flush=True)


def main() -> None:
    pgdata = Path(os.environ["PGDATA"])
    try:
        passwords = read_passwords(SECRETS)
        try:
            pgdata.parent.mkdir(parents=True, exist_ok=True)
            prepare(pgdata, passwords)
        except OSError as error:
            raise StartError(f"{error}; uid {os.getuid()} must own {pgdata.parent}.") from error
    except StartError as reason:
        sys.exit(f"mlhub-postgres: {reason}")
    files = [f"hba_file={CONFIG}/pg_hba.conf", f"ident_file={CONFIG}/pg_ident.conf"]
    options = [part for file in files for part in ("-c", file)]
    os.execv(BIN / "postgres", ["postgres", "-D", str(pgdata), *options, *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
