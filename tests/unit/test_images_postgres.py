"""What the postgres image decides before PostgreSQL runs; the image's smoke test does the rest."""

import base64
import hmac
import importlib.util
import re
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "images/postgres/mlhub_postgres.py"
spec = importlib.util.spec_from_file_location("mlhub_postgres", FILE)
postgres = importlib.util.module_from_spec(spec)
spec.loader.exec_module(postgres)


@pytest.fixture
def secret(tmp_path):
    folder = tmp_path / "secret"
    folder.mkdir()
    for role in ("postgres", "jupyterhub", "keycloak"):
        (folder / f"{role}-password").write_text(f"{role}'s own")
    return folder


def test_a_verifier_answers_the_example_of_rfc_7677():
    verifier = postgres.scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    server_key = base64.b64decode(verifier.rsplit(":", 1)[1])
    nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    exchange = (
        f"n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,"
        f"c=biws,r={nonce}"
    )
    signature = hmac.digest(server_key, exchange.encode(), "sha256")
    assert base64.b64encode(signature) == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


@pytest.mark.parametrize(
    ("given", "prepared"),
    [("I\u00adX", "IX"), ("user", "user"), ("\u00aa", "a"), ("\u2168", "IX"), ("a\u00a0b", "a b")],
)
def test_passwords_are_prepared_as_rfc_4013_says(given, prepared):
    assert postgres.saslprep(given) == prepared


@pytest.mark.parametrize("forbidden", ["\u0007", "\u0627\u0031"])
def test_text_that_rfc_4013_forbids_is_used_as_it_is(forbidden):
    assert postgres.saslprep(forbidden) == forbidden


def test_V9_no_statement_holds_a_password(secret):
    passwords = postgres.read_passwords(secret)
    sql = " ".join(postgres.statements(passwords, {"postgres"}, {"postgres"}))
    assert not any(password in sql for password in passwords.values())
    assert sql.count("SCRAM-SHA-256$4096:") == 3


def test_a_new_server_gets_a_role_and_a_closed_database_for_each_key(secret):
    sql = postgres.statements(postgres.read_passwords(secret), {"postgres"}, {"postgres"})
    for role in ("jupyterhub", "keycloak"):
        assert f'CREATE ROLE "{role}"' in sql
        assert f'CREATE DATABASE "{role}" OWNER "{role}"' in sql
        assert f'REVOKE ALL ON DATABASE "{role}" FROM PUBLIC' in sql
    assert not any("CREATE" in statement and "postgres" in statement for statement in sql)


def test_a_later_start_sets_passwords_and_creates_nothing(secret):
    everything = {"postgres", "jupyterhub", "keycloak"}
    sql = postgres.statements(postgres.read_passwords(secret), everything, everything)
    assert len(sql) == 3
    assert all(re.match(r'ALTER ROLE "\w+" LOGIN PASSWORD', statement) for statement in sql)


def test_a_start_killed_between_role_and_database_is_finished_by_the_next(secret):
    roles = {"postgres", "jupyterhub", "keycloak"}
    sql = postgres.statements(postgres.read_passwords(secret), roles, {"postgres"})
    assert 'CREATE DATABASE "jupyterhub" OWNER "jupyterhub"' in sql
    assert not any(statement.startswith("CREATE ROLE") for statement in sql)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("jupyterhub-password", "", "is empty"),
        ('x"; DROP DATABASE keycloak; --password', "x", "the role's name must match"),
        ("Hub-password", "x", "the role's name must match"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_in_one_sentence(secret, name, content, said):
    (secret / name).write_text(content)
    with pytest.raises(postgres.StartError, match=said):
        postgres.read_passwords(secret)


def test_a_missing_secret_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(postgres.StartError, match="postgres-password does not exist; mount"):
        postgres.read_passwords(tmp_path)


def test_a_folder_with_something_else_in_it_is_never_touched(tmp_path):
    pgdata = tmp_path / "pgdata"
    pgdata.mkdir()
    (pgdata / "thesis.txt").write_text("mine")
    with pytest.raises(postgres.StartError, match="is not empty and is no PostgreSQL data folder"):
        postgres.prepare(pgdata, {"postgres": "x"})
    assert (pgdata / "thesis.txt").read_text() == "mine"


def test_data_of_another_version_is_refused(tmp_path):
    (tmp_path / "PG_VERSION").write_text("14\n")
    with pytest.raises(postgres.StartError, match="is of PostgreSQL 14, this is 15"):
        postgres.prepare(tmp_path, {"postgres": "x"})


def test_only_the_containers_user_comes_in_without_a_password():
    lines = (FILE.parent / "pg_hba.conf").read_text().splitlines()
    rules = [line.split() for line in lines if not line.startswith("#")]
    assert all(rule[-1] == "scram-sha-256" for rule in rules if rule[0] != "local")
    assert [rule for rule in rules if rule[0] == "local"] == [
        ["local", "all", "postgres", "peer", "map=owner"]
    ]
    assert not any(word in ("trust", "md5", "password") for rule in rules for word in rule)
