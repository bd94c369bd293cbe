"""What is recognised as a secret in a notebook, and what is not."""

import time

import nbformat
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
        ('password: str = "hunter2"', "hunter2"),
        ('def connect(api_key: str | None = "xyz123def456"):', "xyz123def456"),
        ('api_key = "550e8400-e29b-41d4-a716-446655440000"', "550e8400"),
        ('password = "12345678"', "12345678"),
        ('password = "abcdefgh"', "abcdefgh"),
        ('password = "!hunter2"', "hunter2"),
        ('password = "it\'s hunter2"', "hunter2"),
        ('password = b"hunter2"', "hunter2"),
        ('password = """hunter2"""', "hunter2"),
        ('connect(client_id="me", client_secret="hunter2")', "hunter2"),
        ('engine = create_engine("postgresql://me:hunter2@db/sales")', "hunter2"),
        ('say("{\\"api_key\\": \\"xyz123def456\\"}")', "xyz123def456"),
        ('headers = {"X-API-Key": "xyz123def456"}', "xyz123def456"),
        ("%env API_KEY=xyz123def", "xyz123def"),
        ("%env API_KEY xyz123def", "xyz123def"),
        ("%set_env DB_PASSWORD = hunter2", "hunter2"),
        ("%env HF_TOKEN=xyz123def", "xyz123def"),
        ("!export API_KEY=xyz123def", "xyz123def"),
        ("export MODE=fast API_KEY='abc 123 def'", "123"),
        ("!PGPASSWORD=hunter2 psql sales", "hunter2"),
        ("!mysql --user=me --password=hunter2 sales", "hunter2"),
        ("x" * 20_000 + ' password = "hunter2hunter" ' + "y" * 20_000, "hunter2hunter"),
        ("x = !mysql --password=hunter2 sales", "hunter2"),
        ("rows[0], rest = !mysql --password=hunter2 sales", "hunter2"),
        ("x = %sx PGPASSWORD=hunter2 psql", "hunter2"),
        ("!mysql sales \\\n  --user=me \\\n  --password=hunter2", "hunter2"),
        ('os.system("mysql --password=hunter2 sales")', "hunter2"),
        ('subprocess.run(["mysql", "--password=hunter2"])', "hunter2"),
        ('HF_TOKEN = "abcd1234efgh5678"', "abcd1234"),
        ('client(token="abcd1234efgh5678")', "abcd1234"),
        ('headers = {"X-Auth-Token": "abcd1234efgh5678"}', "abcd1234"),
        ('aws_session_token = "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3Q="', "IQoJb3JpZ2lu"),
        ('os.environ.setdefault("DB_PASSWORD", "hunter2")', "hunter2"),
        ("os.putenv('HF_TOKEN', 'abcd1234efgh5678')", "abcd1234"),
        ('os.getenv("DB_PASSWORD", "hunter2")', "hunter2"),
        ('spark.read.option("password", "hunter2").load()', "hunter2"),
        ('spark.conf.set("fs.azure.account.key.mine", "hunter2==")', "hunter2"),
        ('psycopg2.connect("host=db user=me password=hunter2")', "hunter2"),
        ("dsn = 'password = hunter2 host=db'", "hunter2"),
        ('"Server=db;Database=x;User Id=me;Password=hunter2;"', "hunter2"),
    ],
)
def test_M6_a_secret_goes_and_the_rest_stays(source, secret):
    assert secret not in cleaned("before()\n" + source + "\nafter()")
    assert cleaned("before()\n" + source + "\nafter()").startswith("before()\n")
    assert cleaned("before()\n" + source + "\nafter()").endswith("\nafter()")


@pytest.mark.parametrize(
    ("magic", "line"),
    [
        ("%%bash", "DB_PASSWORD=hunter2 psql -h db"),
        ("%%bash", "mysql --password=hunter2 -u root"),
        ("%%bash --out said", "mysql --password=hunter2 -u root"),
        ("%%writefile values.yaml", "api-key: hunter2"),
        ("%%script --no-raise-error bash", "PGPASSWORD='hunter2' psql"),
        ("%%!", "PGPASSWORD=hunter2 psql"),
        ("%%capture\n%%sh", "PGPASSWORD=hunter2 psql"),
        ("%%writefile .env", "DB_PASSWORD=hunter2"),
        ("%%writefile -a .env.local", "HF_TOKEN=hunter2"),
        ("%%file conf/db.ini", "db.password = hunter2"),
        ("%%writefile values.yaml", "  password: hunter2"),
        ("%%writefile values.yaml", "  - token: 'hunter2'  # mine"),
        ('%%writefile "run.sh"', "export MODE=fast; API_KEY=hunter2 ./run"),
        ("%%writefile Dockerfile", "ENV API_KEY=hunter2"),
    ],
)
def test_M6_a_secret_goes_from_every_line_of_a_cell_of_shell_or_settings(magic, line):
    before, after = line.split("hunter2")
    source = f"\n{magic}\n# first\n{{}}\nlast\n"
    left = f"{before}[redacted: Secret Keyword]{after}"
    assert cleaned(source.format(line)) == source.format(left)


@pytest.mark.parametrize(
    ("source", "left"),
    [
        (
            'db = connect(password="hunter2hunter", api_key="xyz123def456")',
            'db = connect(password="[…]", api_key="[…]")',
        ),
        (
            '{"alice": {"password": "correct1"}, "bob": {"password": "horse2"}, "n": "3"}',
            '{"alice": {"password": "[…]"}, "bob": {"password": "[…]"}, "n": "3"}',
        ),
        (
            'if "first" == password or "second" == password:',
            'if "[…]" == password or "[…]" == password:',
        ),
        ('password = "pass"', 'password = "[…]"'),
        # The second window of a line begins within the value and sees the second one alone.
        (
            f"{'x' * 7000} password = '{'a' * 700} secret=\"{'b' * 80}\" end'{'y' * 2000}",
            f"{'x' * 7000} password = '[…]'{'y' * 2000}",
        ),
        ("%env API_KEY=xyz123def", "%env API_KEY=[…]"),
        ("!PGPASSWORD=hunter2 psql", "!PGPASSWORD=[…] psql"),
    ],
)
def test_M6_each_secret_of_a_line_goes_and_no_more_than_that(source, left):
    redacted = left.replace("[…]", "[redacted: Secret Keyword]")
    assert cleaned(source) == redacted
    assert cleaned(redacted) == redacted


def test_M6_the_cells_of_an_old_notebook_are_looked_at():
    """Format 3 has them in worksheets, and names their parts otherwise."""
    output = {"output_type": "stream", "stream": "stdout", "text": "password = 'hunter2'\n"}
    source = ['api_key = "xyz123def456"\n', "depth = 3"]
    code = {"cell_type": "code", "language": "python", "input": source, "outputs": [output]}
    sheet = {"cells": [code], "metadata": {}}
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": [sheet]}
    made, found = redact(old)
    assert "xyz123def456" not in str(made)
    assert "hunter2" not in str(made)
    assert "depth = 3" in str(made)
    assert [(each.cell, each.where) for each in found] == [(1, "source"), (1, "outputs")]
    assert redact(old)[0] == made, "of equal content are equal versions"
    nbformat.validate(nbformat.from_dict(made))
    assert "xyz123def456" in str(old), "what was given stays"


@pytest.mark.parametrize(
    "source",
    [
        'token = os.environ["HF_TOKEN"]',
        "password = getpass.getpass()",
        'run_id = "0123456789abcdef0123456789abcdef"',
        'sha256 = "abd30428f1f79ac1c734818dd17c6d5a93a44d2166f0f8d2026bc9db81b2dbfc"',
        'df = df.drop(columns=["password"])',
        "for token in tokens: print(token)",
        'connect(password=password, api_key=keys["mine"])',
        "def connect(user: str, password: str, api_key: str | None = None) -> None:",
        'def connect(password: str, user="bob"):',
        'if password: user = "bob"',
        'password: str = getpass.getpass("Password: ")',
        'print("password:", password, "is mine")',
        'print("password=" + password + " is mine")',
        'url = f"postgresql://{user}:{password}@{host}/sales"',
        "engine: postgresql://me:***@db/sales",
        'password = ""',
        'api_key = "<your key>"',
        'api_key = "${API_KEY}"',
        'password = "********"',
        'password_file = "/run/secrets/password"',
        'pad_token, sep_token = "[PAD]", "[SEP]"',
        "%env TOKENIZERS_PARALLELISM=false",
        "%env API_KEY",
        "%env API_KEY={key}",
        "!export API_KEY=$KEY; train --password=$(cat /run/key) --key_file=key.pem",
        "%env PASSWORD_FILE=/run/secrets/password",
        "!pip install secretstorage==3.3.3",
        "export(api_key=api_key)",
        'url = "http://mlflow-service.mlflow.svc.cluster.local:5000"',
        'password = "known to all"  # pragma: allowlist secret',
        'if token == "word2vec": next_token = "two words, 12 of them"',
        'tokenizer.add_special_tokens({"pad_token": "<|reserved_special_token_0|>"})',
        'token = "https://auth2.example.com/token"; token_type = "bearer-token-of-type-2"',
        'tokens = {"n_tokens": "1234567890123456", "token": "ABCDEFGHIJKLMNOPQRS"}',
        'os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")',
        'os.getenv("DB_PASSWORD", "")',
        'df.set_index("password").drop("password", axis=1)',
        'frame.get("user", "password"), frame.get("password", None)',
        'f"host={host} user={user} password={password}"',
        'connect("host=%s password=%s", "server=?;pwd=?", "user=:u AND password=:p")',
        '"host=" + host + " password=" + password + " user=me"',
        'connect(host="db", user=user, password=password)',
        'print("usage: train --token=TOKEN --password=<password> --api-key={key}")',
        'subprocess.run([tool, f"--password={password}", "--password=$PASSWORD"])',
        "assert password != other and token != other",
        '%%bash\ntoken=$(cat key)\ncurl --token=$token --password "$PASSWORD"',
        "%%writefile train.py\nconnect(password=password, api_key=key, token=token)",
        "%%writefile values.yaml\nsecretName: db\npassword: null\ntoken: ${TOKEN}\nmax_token: 512",
        "%%writefile values.yaml\npassword:\n  fromSecret: db\ntoken: true  # of each",
        "%%time\nconnect(password=password)",
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


def test_thousands_of_blanks_are_looked_at_in_no_time_and_hide_nothing():
    token = "ghp_" + "a1B2" * 9
    began = time.process_time()
    text = cleaned(f"password{' ' * 8000}\n{' ' * 9000}token{' ' * 5000}{token}")
    assert time.process_time() - began < 5
    assert token not in text
    assert len(text) > 22_000


@pytest.mark.parametrize(
    "text",
    [
        *(
            '"',
            "'",
            '\\"',
            "\\",
            "=",
            "= ",
            "!=",
            "-",
            "--",
            " ",
            "\t",
            "a",
            "a.",
            "a-",
            "token",
            "[]",
        ),
        *("--token=", "host=db ", "host=", "'host=db password=", 'get("', "export "),
        *("%%time\n", "%%script -a ", "--a ", "token: ", "get(", "a1", "password=", "token = "),
    ],
)
@pytest.mark.parametrize("magic", ["", "%%bash\n", "%%writefile .env\n", "%%script "])
def test_a_line_of_one_thing_over_and_over_is_looked_at_in_no_time(magic, text):
    """No pattern goes back over a line for each place in it."""
    began = time.process_time()
    cleaned(f"{magic}{text * (16_000 // len(text))}")
    assert time.process_time() - began < 5
