"""The Python language host under the real CLI: programs, policy packs, plug-ins, and their ends."""

import signal
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.engine.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

New = Callable[[str], Stack]


def test_a_program_prints_gets_its_configuration_and_exports(stack: New) -> None:
    program = stack(
        """
        import sys, pulumi
        config = pulumi.Config()
        print("to standard output")
        print("to standard error", file=sys.stderr)
        pulumi.export("number", config.require_int("number"))
        pulumi.export("password", config.require_secret("password"))
        pulumi.export("where", [pulumi.get_project(), pulumi.get_stack(), sys.prefix])
        """
    )
    program.configure(number="7", password="hush-hush-hush")
    printed = program.up()
    assert "to standard output" in printed
    assert "to standard error" in printed
    assert "hush-hush-hush" not in printed + program.export()
    outputs = program.json("stack", "output", "--show-secrets")
    assert outputs == {
        "number": 7, "password": "hush-hush-hush", "where": ["engine", "test", sys.prefix],
    }  # fmt: skip


def test_an_exception_is_shown_once_with_the_programs_own_lines(stack: New) -> None:
    refusal = stack("def wrong():\n    raise ValueError('no such stack')\nwrong()\n").fails(
        "preview"
    )
    assert refusal.count("ValueError: no such stack") == 1
    assert "__main__.py" in refusal
    assert "non-zero exit code" not in refusal
    assert "language_host" not in refusal


def test_a_program_that_ends_by_itself_gives_its_exit_code(stack: New) -> None:
    assert "non-zero exit code: 3" in stack("import sys; sys.exit(3)").fails("preview")


def test_about_names_the_programs_python_and_its_packages(stack: New) -> None:
    about = stack("").json("about")
    assert about["runtime"]["language"] == "python"
    assert about["runtime"]["executable"] == str(Path(sys.prefix) / "bin" / "python")
    assert "pulumi-keycloak" in {each["name"] for each in about["dependencies"]}


def test_a_virtual_environment_that_is_missing_says_how_to_make_it(stack: New) -> None:
    program = stack("")
    settings = {"name": "engine", "runtime": {"name": "python", "options": {"virtualenv": "none"}}}
    (program.project / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
    assert "run `pulumi install` to make it" in program.fails("preview")


def test_install_makes_the_virtual_environment(stack: New) -> None:
    program = stack("")
    settings = {"name": "engine", "runtime": {"name": "python", "options": {"virtualenv": "own"}}}
    (program.project / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
    (program.project / "requirements.txt").write_text("\n")
    program("install")
    assert (program.project / "own" / "bin" / "python").exists()


def policy_pack(folder: Path, body: str) -> Path:
    folder.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
    (folder / "PulumiPolicy.yaml").write_text(yaml.safe_dump({"runtime": runtime}))
    (folder / "__main__.py").write_text(textwrap.dedent(body))
    return folder


PACK = (Path(__file__).parent / "pack" / "__main__.py").read_text()


@pytest.fixture
def policed(stack: New) -> Callable[[int], tuple[Stack, list[str]]]:
    def made(length: int) -> tuple[Stack, list[str]]:
        program = stack(
            f"import pulumi_random\npulumi_random.RandomPassword('word', length={length})"
        )
        return program, ["--policy-pack", str(policy_pack(program.folder / "policy", PACK))]

    return made


def test_a_mandatory_policy_refuses_and_knows_the_stack(
    policed: Callable[[int], tuple[Stack, list[str]]],
) -> None:
    program, pack = policed(8)
    refusal = program.fails("up", "--yes", "--skip-preview", *pack)
    assert "stack test: length is 8, not 16" in refusal
    assert "KeyboardInterrupt" not in refusal
    assert not [r for r in program.resources() if r["type"].endswith("RandomPassword")]


def test_a_stack_that_keeps_the_rules_passes(
    policed: Callable[[int], tuple[Stack, list[str]]],
) -> None:
    program, pack = policed(16)
    printed = program.up(*pack)
    assert "engine" in printed
    assert any("RandomPassword" in r["type"] for r in program.resources())


def test_a_policy_pack_that_fails_to_start_fails_the_run(stack: New) -> None:
    program = stack("")
    pack = policy_pack(program.folder / "policy", "raise SystemExit('broken pack')")
    refusal = program.fails("preview", "--policy-pack", str(pack))
    assert "broken pack" in refusal


def test_a_provider_written_in_python_runs_from_a_folder(stack: New) -> None:
    program = stack(
        """
        import pulumi
        class Echo(pulumi.CustomResource):
            said: pulumi.Output[str]
            def __init__(self, name, says):
                super().__init__("echo:index:Echo", name, {"says": says, "said": None})
        pulumi.export("said", Echo("echo", "hello").said)
        """
    )
    folder = program.project / "echo"
    folder.mkdir()
    runtime = {"name": "python", "options": {"virtualenv": sys.prefix}}
    (folder / "PulumiPlugin.yaml").write_text(yaml.safe_dump({"runtime": runtime}))
    (folder / "__main__.py").write_text(
        textwrap.dedent(
            """
            import sys
            from pulumi.provider.experimental import provider as p
            from pulumi.provider.experimental.property_value import PropertyValue
            from pulumi.provider.experimental.server import main

            class Echo(p.Provider):
                async def check(self, request):
                    return p.CheckResponse(inputs=request.new_inputs)
                async def diff(self, request):
                    return p.DiffResponse(changes=False)
                async def create(self, request):
                    said = PropertyValue(request.properties["says"].value + " " + "there")
                    return p.CreateResponse("1", {**request.properties, "said": said})
                async def delete(self, request):
                    return None

            main(sys.argv[1:], "1.0.0", Echo())
            """
        )
    )
    settings = yaml.safe_load((program.project / "Pulumi.yaml").read_text())
    settings["plugins"] = {"providers": [{"name": "echo", "path": "./echo"}]}
    (program.project / "Pulumi.yaml").write_text(yaml.safe_dump(settings))
    program.up()
    assert program("stack", "output", "said").strip() == "hello there"
    program("destroy", "--yes", "--skip-preview")


def test_a_dynamic_resource_of_the_program_is_made(stack: New) -> None:
    program = stack(
        """
        import pulumi
        from pulumi.dynamic import CreateResult, Resource, ResourceProvider
        class Provider(ResourceProvider):
            def create(self, props):
                return CreateResult("1", {"answer": 42})
        class Thing(Resource):
            answer: pulumi.Output[int]
            def __init__(self, name):
                super().__init__(Provider(), name, {"answer": None})
        pulumi.export("answer", Thing("thing").answer)
        """
    )
    program.up()
    assert program("stack", "output", "answer").strip() == "42"


SLEEPER = """
import time
print("asleep", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_nothing_outlives_the_engine(stack: New, how: signal.Signals) -> None:
    program = stack(SLEEPER)
    running = program.start("preview")
    assert running.stdout is not None
    while "asleep" not in running.stdout.readline():
        assert running.poll() is None
    start = time.monotonic()
    running.send_signal(how)
    if how == signal.SIGINT:
        running.send_signal(how)  # the first asks politely, the second insists
    running.communicate(timeout=60)
    program.wait_for_no_process()
    assert time.monotonic() - start < 90
