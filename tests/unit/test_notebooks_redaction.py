"""What is recognised as a secret in a notebook, and what is not."""

import time

import pytest

from notebooks.redaction import OWN_SECRET, Finding, own_secrets, redact

KEY = """-----BEGIN RSA PRIVATE KEY-----
MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn
-----END RSA PRIVATE KEY-----"""


def cell(source: str = "", **more: object) -> dict[str, object]:
    return {"cell_type": "code", "source": source, "outputs": [], "metadata": {}, **more}


def cleaned(source: str) -> str:
    made, _ = redact({"cells": [cell(source)]})
    return made["cells"][0]["source"]


@pytest.mark.parametrize(
    ("source", "secret"),
    [
        ('password = "hunter2hunter"', "hunter2hunter"),
        ('client(api_key="abc123def456ghi789")', "abc123def456ghi789"),
        ("aws configure set AKIAQ3EGRIPXW5ZNTL4D", "AKIAQ3EGRIPXW5ZNTL4D"),
        ("!git clone https://me:s3cretpw@example.com/x.git", "s3cretpw"),
        ("token='ghp_1234567890abcdefghijklmnopqrstuvwxyz'", "1234567890abcdefghijkl"),
        ("login('hf_abcdefghijklmnopqrstuvwxyz12345678')", "abcdefghijklmnopqrst"),
        (
            "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w",
            "dozjgNryP4J3jVmNHl0w",
        ),
        (f'key = """{KEY}"""', "MIIEpAIBAAKCAQEA0Z3VS5JJcds3xfn"),
        ("x" * 20_000 + ' password = "hunter2hunter" ' + "y" * 20_000, "hunter2hunter"),
    ],
)
def test_M6_a_secret_goes_and_the_rest_stays(source, secret):
    assert secret not in cleaned("before()\n" + source + "\nafter()")
    assert cleaned("before()\n" + source + "\nafter()").startswith("before()\n")
    assert cleaned("before()\n" + source + "\nafter()").endswith("\nafter()")


@pytest.mark.parametrize(
    "source",
    [
        'token = os.environ["HF_TOKEN"]',
        "password = getpass.getpass()",
        'run_id = "0123456789abcdef0123456789abcdef"',
        'sha256 = "abd30428f1f79ac1c734818dd17c6d5a93a44d2166f0f8d2026bc9db81b2dbfc"',
        'df = df.drop(columns=["password"])',
        "for token in tokens: print(token)",
        'url = "http://mlflow-service.mlflow.svc.cluster.local:5000"',
        'password = "known to all"  # pragma: allowlist secret',
    ],
)
def test_M6_ordinary_code_stays_as_it_is(source):
    assert cleaned(source) == source


def test_M6_outputs_and_metadata_are_looked_at_and_pictures_are_not(monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_API_TOKEN", "0f3c9a5d7e")
    outputs = [
        {"output_type": "stream", "text": ["a\n", "token 0f3c9a5d7e\n"]},
        {"output_type": "display_data", "data": {"image/png": "0f3c9a5d7e", "text/plain": "b"}},
        {"output_type": "error", "evalue": "0f3c9a5d7e", "traceback": ["0f3c9a5d7e"]},
    ]
    parameters = {"papermill": {"parameters": {"password": "hunter2hunter", "depth": 3}}}
    made, found = redact({"cells": [cell("x", outputs=outputs)], "metadata": parameters})
    text, picture, error = made["cells"][0]["outputs"]
    assert text["text"] == ["a\n", "token [redacted: the value of JUPYTERHUB_API_TOKEN]\n"]
    assert picture["data"]["image/png"] == "0f3c9a5d7e"
    assert "0f3c9a5d7e" not in str(error)
    kept = made["metadata"]["papermill"]["parameters"]
    assert kept == {"password": "[redacted: Secret Keyword]", "depth": 3}
    assert set(found) == {
        Finding(0, "Secret Keyword", "metadata"),
        Finding(1, "the value of JUPYTERHUB_API_TOKEN", "outputs"),
    }
    assert "0f3c9a5d7e" not in str(found)
    assert outputs[0]["text"][1] == "token 0f3c9a5d7e\n", "what was given stays"


def test_M6_a_path_or_a_short_value_is_no_secret_of_the_environment():
    given = {"SSH_TOKEN_FILE": "/run/secrets/x", "API_KEY": "short", "HOME": "/home/jovyan"}
    assert own_secrets(given) == {}
    assert OWN_SECRET.search("OPENAI_API_KEY")


def test_M6_megabytes_of_output_are_looked_at_in_seconds():
    plot = '{"x": [' + "0.123456789, " * 200_000 + "]}"
    start = time.monotonic()
    redact({"cells": [cell("x", outputs=[{"output_type": "display_data", "data": {"a": plot}}])]})
    assert time.monotonic() - start < 60
