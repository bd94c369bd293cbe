"""One pattern for every Dockerfile, and none of what an image must not have."""

import re
import subprocess
from pathlib import Path

import pytest

IMAGES = Path(__file__).parents[2] / "images"
DOCKERFILES = sorted(IMAGES.glob("*/Dockerfile"))

each_image = pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda f: f.parent.name)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instruction and its argument, continuation lines joined, comments dropped."""
    lines = [
        line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


def stages(dockerfile: Path) -> dict[str, list[tuple[str, str]]]:
    """Instructions by stage name, in order; the last stage is `""`."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, argument in instructions(dockerfile):
        if name == "FROM":
            stage = found.setdefault(argument.partition(" AS ")[2], [])
        if found:
            stage.append((name, argument))
    return found


def last_stage(dockerfile: Path) -> list[tuple[str, str]]:
    return stages(dockerfile)[""]


def shipped(dockerfile: Path) -> list[tuple[str, str]]:
    """The instructions of the last stage and of the stages that it stands on."""
    found = stages(dockerfile)
    lineage, below = list(found[""]), found[""][0][1]
    while below in found:
        lineage, below = found[below] + lineage, found[below][0][1].partition(" AS ")[0]
    return lineage


def test_the_images_of_the_local_stack_are_here():
    names = {f.parent.name for f in DOCKERFILES}
    assert {"base", "hub", "proxy", "keycloak", "postgres", "project", *TABLE} <= names


@each_image
def test_every_image_ends_as_uid_1000(dockerfile):
    users = [argument for name, argument in last_stage(dockerfile) if name == "USER"]
    assert users[-1] == "1000:100"


@each_image
def test_every_image_stands_on_the_base_that_the_program_passes(dockerfile):
    variable = "DEBIAN_IMAGE" if dockerfile.parent.name == "base" else "BASE_IMAGE"
    stages = set()
    for name, argument in instructions(dockerfile):
        if name == "FROM":
            image, _, stage = argument.partition(" AS ")
            assert image == f"${{{variable}}}" or image in stages, argument
            stages.add(stage)


@each_image
def test_T10_every_image_is_tried_at_its_build_as_its_own_user(dockerfile):
    name, last = last_stage(dockerfile)[-1]
    assert name == "RUN"
    used = re.search(
        r"source=(\S+/smoke\.(?:py|sh)),target=/(\S+) +(?:[A-Z_]+=1 )?(?:python3|bash) /\2", last
    )
    assert used, last
    assert (IMAGES / used[1]).exists()
    earlier = [argument for name, argument in last_stage(dockerfile) if name == "USER"]
    assert earlier[-1] == "1000:100"


@each_image
def test_a_smoke_test_with_ports_of_its_own_has_a_network_of_its_own(dockerfile):
    """The builder's may be the machine's, where a Jupyter has 8888, or shared by two platforms."""
    _, last = last_stage(dockerfile)[-1]
    smoke = IMAGES / re.search(r"source=(\S+/smoke\.\S+?),", last)[1]
    listens = re.search(r"(?:127\.0\.0\.1:|port=)\d{4,}", smoke.read_text())
    assert last.startswith("--network=none ") or not listens, listens


TABLE = {
    "ml-cpu": "jupyterlab pandas sklearn matplotlib.pyplot transformers litellm mlflow",
    "ml-gpu": "torch accelerate nvitop gpustat",
    "fine-tuning": "torch unsloth trl peft deepspeed bitsandbytes",
    "agent-dev": "langchain langgraph.graph crewai autogen_agentchat.agents chromadb "
    "qdrant_client faiss",
}
"""What each user image imports at its build, on top of ml-cpu's."""


@pytest.mark.parametrize("image", TABLE)
def test_T10_a_user_image_starts_a_server_and_imports_its_packages(image):
    smoke = (IMAGES / "jupyter/smoke.py").read_text()
    assert '"jupyterhub-singleuser", "--version"' in smoke
    last = instructions(IMAGES / image / "Dockerfile")[-1][1]
    imported = set(last.split("/smoke.py ")[-1].split())
    assert {"ipykernel", "papermill", *f"{TABLE['ml-cpu']} {TABLE[image]}".split()} <= imported


def test_J2_a_project_image_imports_what_its_requirements_name():
    last = instructions(IMAGES / "project/Dockerfile")[-1][1]
    assert "from=project,source=requirements.in,target=/requirements.in" in last
    assert last.split()[-3:] == ["/smoke.py", "--requirements", "/requirements.in"]


@pytest.mark.parametrize(
    ("image", "below"), [("ml-gpu", "ml-cpu"), ("agent-dev", "ml-cpu"), ("fine-tuning", "ml-gpu")]
)
def test_an_image_on_another_begins_with_its_steps_and_so_shares_its_layers(image, below):
    """BuildKit gives the same step the same layer; a label makes none."""

    def steps(name: str) -> list[tuple[str, str]]:
        made = last_stage(IMAGES / name / "Dockerfile")
        return [step for step in made if step[0] != "LABEL"]

    lower = steps(below)
    install = f"source={below}/requirements.txt"
    heavy = next(n for n, (_, argument) in enumerate(lower) if install in argument) + 1
    assert steps(image)[:heavy] == lower[:heavy]


def test_the_small_things_of_a_user_image_come_after_every_lock():
    """A changed example or setting must not install gigabytes again."""
    for image in TABLE:
        made = [argument for _, argument in last_stage(IMAGES / image / "Dockerfile")]
        locks = [n for n, argument in enumerate(made) if "requirements.txt" in argument]
        small = [n for n, a in enumerate(made) if "from=wheel" in a or a.startswith("jupyter/")]
        assert max(locks) < min(small)


COMPILES = {"ml-gpu", "fine-tuning"}
"""Triton compiles the launcher of each kernel when it runs."""


@each_image
def test_no_sudo_no_piped_installer_no_compiler(dockerfile):
    text = " ".join(f"{name} {argument}" for name, argument in instructions(dockerfile))
    if dockerfile.parent.name in COMPILES:
        text = text.replace("gcc libc6-dev libpython3.11-dev", "")
    assert not re.search(r"\b(sudo|build-essential|gcc|g\+\+|(?:lib\S+|python3)-dev)(?= |$)", text)
    assert not re.search(r"\b(curl|wget)\b[^&|]*\|\s*(ba)?sh\b", text)
    assert "://" not in text.replace("debian:bookworm-slim", "")


@each_image
def test_python_and_npm_packages_come_from_locks_alone(dockerfile):
    for name, argument in instructions(dockerfile):
        if name != "RUN":
            continue
        for command in re.split(r"&&|;", argument):
            if re.search(r"\bpip install\b", command) or "/pip --python" in command:
                assert "--require-hashes" in command or "--no-index" in command, command
            if "npm-cli.js" in command:
                assert {"ci", "--ignore-scripts"} <= set(command.split()), command


@each_image
def test_the_build_machines_certificates_stay_out_of_the_layers(dockerfile):
    for name, argument in instructions(dockerfile):
        assert name != "ADD", "ADD fetches; use COPY"
        if name in ("ENV", "ARG", "COPY", "LABEL"):
            assert not re.search(r"cert|\bca\b|\.crt|\.pem|https?_proxy", argument, re.IGNORECASE)
        if "id=ca" in argument:
            # Of any stage: a registry's cache gets the layers of all (`mode=max`).
            assert "--mount=type=tmpfs,target=/run/trust " in argument
            read = re.sub(r"/run/(trust|secrets)/\S+|/usr/local/lib/mlhub/trust\.sh", "", argument)
            read = read.replace("cp /etc/ssl/certs/java/cacerts ", "")
            assert not re.search(r"certificates|cacerts|\.crt|\.pem", read), read


FETCHES = re.compile(r"\b(uv )?pip install\b(?!.*--no-index)|/pip --python|npm-cli\.js ci|\bmvn ")


@each_image
def test_V9_every_step_that_fetches_packages_asks_the_build_machines_mirrors(dockerfile):
    for name, argument in instructions(dockerfile):
        if name != "RUN" or not FETCHES.search(argument):
            continue
        assert "--mount=type=secret,id=mirrors " in argument, argument
        assert re.search(r"\. /(usr/local/lib/mlhub/trust\.sh|run/secrets/mirrors)", argument)


def test_V9_trust_reads_the_mirrors_for_one_step(tmp_path):
    (tmp_path / "ca.pem").touch()
    (tmp_path / "mirrors").write_text("export PIP_INDEX_URL='https://mirror.example.com/simple'\n")
    script = (IMAGES / "base" / "trust.sh").read_text()
    script = script.replace("/run/trust", str(tmp_path)).replace("/run/secrets", str(tmp_path))
    for given in (tmp_path / "mirrors", None):
        asked = script.replace("cat /etc/ssl/certs/ca-certificates.crt", "echo") + "env"
        said = subprocess.run(
            ["sh", "-c", asked], capture_output=True, text=True, check=True, env={}
        )
        there = "PIP_INDEX_URL=https://mirror.example.com/simple\n" in said.stdout
        assert there == bool(given)
        (tmp_path / "mirrors").unlink(missing_ok=True)


@each_image
def test_apt_leaves_no_lists_and_no_setuid_files(dockerfile):
    for name, argument in shipped(dockerfile):
        if name == "RUN" and "apt-get install" in argument:
            assert "--no-install-recommends" in argument
            assert "rm -rf /var/lib/apt/lists/*" in argument
            assert "-perm /6000 -exec chmod a-s" in argument


@each_image
def test_the_context_holds_only_what_the_dockerfile_uses(dockerfile):
    """So that a change elsewhere leaves the context's hash, and with it the image, as it is."""
    lines = dockerfile.with_name("Dockerfile.dockerignore").read_text().split()
    assert lines[0] == "*", "an allow-list"
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    text = dockerfile.read_text()
    for path in allowed:
        assert (IMAGES / path).exists() or path in of_other_contexts(dockerfile), path
        assert path in text, f"{path} is let in and not used"
    if any((IMAGES / path).is_dir() for path in allowed):
        assert "**/__pycache__" in lines
        assert "**/*.egg-info" in lines


def of_other_contexts(dockerfile: Path) -> set[str]:
    """What is taken from a context that the program names (a project's lock, a program)."""
    found = set()
    for _, argument in instructions(dockerfile):
        for stage, path in re.findall(r"from=([a-z]+),source=(\S+?),", argument):
            found |= {path} if stage not in stages(dockerfile) else set()
        if copied := re.match(r"--from=(\S+) (?:--\S+ )*(\S+) ", argument):
            found |= {copied[2]} if copied[1] not in stages(dockerfile) else set()
    return found


@each_image
def test_T10_what_comes_from_another_context_is_seen_when_it_changes(dockerfile):
    """docker-build hashes named contexts, too, by this list; BuildKit itself reads it for `images/`
    alone. What it leaves out may change, and the image stays as it was.
    """
    lines = dockerfile.with_name("Dockerfile.dockerignore").read_text().splitlines()
    assert of_other_contexts(dockerfile) <= {line.removeprefix("!") for line in lines}


def test_T10_the_lock_of_a_project_and_the_program_of_seaweedfs_come_from_other_contexts():
    assert of_other_contexts(IMAGES / "project/Dockerfile") == {
        "requirements.in",
        "requirements.txt",
    }
    assert of_other_contexts(IMAGES / "seaweedfs/Dockerfile") == {"weed"}


@each_image
def test_every_image_says_what_it_is(dockerfile):
    labels = " ".join(argument for name, argument in last_stage(dockerfile) if name == "LABEL")
    assert "org.opencontainers.image.title=" in labels
    assert "org.opencontainers.image.description=" in labels


@each_image
def test_T10_every_image_ends_by_writing_down_what_is_in_it(dockerfile):
    made = [argument for name, argument in last_stage(dockerfile) if name in ("RUN", "COPY")]
    image = dockerfile.parent.name
    named = '"${PROJECT:?}"' if image == "project" else image
    write = f"python3 -s /usr/local/lib/mlhub/sbom.py {named}"
    # Or by a bill of its own, which adds to the base's what is one file.
    own = f"source={image}/bill.py,target=/bill.py python3 -s /bill.py"
    assert made[-2] == write or own in made[-2], (
        f"`RUN {write}` must follow all that is installed, before the smoke test"
    )


@each_image
def test_T10_an_image_that_serves_knows_when_it_is_well(dockerfile):
    """seaweedfs is four programs, and a pod says which; a project's image has its user image's."""
    checks = [argument for name, argument in last_stage(dockerfile) if name == "HEALTHCHECK"]
    without = dockerfile.parent.name in ("base", "project", "seaweedfs")
    assert len(checks) == (0 if without else 1)


@each_image
def test_every_image_starts_under_tini(dockerfile):
    """What an image does not say itself it has from the base."""
    entries = [argument for name, argument in last_stage(dockerfile) if name == "ENTRYPOINT"]
    assert entries or dockerfile.parent.name != "base"
    assert all(entry.startswith('["tini", ') for entry in entries)


@each_image
def test_no_cache_of_an_installer_is_left_in_an_image(dockerfile):
    for name, argument in instructions(dockerfile):
        for command in re.split(r"&&|;", argument) if name == "RUN" else ():
            if re.search(r"\buv pip install\b", command):
                assert "--no-cache" in command, command
            elif re.search(r"/?pip (--python \S+ )?install\b", command):
                assert "--no-cache-dir" in command, command


def test_user_images_keep_everything_out_of_the_home():
    """A volume is mounted over /home/jovyan and would hide what an image put there."""
    for dockerfile in DOCKERFILES:
        for name, argument in last_stage(dockerfile):
            if name == "COPY":
                assert "/home/" not in argument, argument


def test_the_start_command_ignores_modules_of_the_home():
    entry = dict(last_stage(IMAGES / "ml-cpu/Dockerfile"))["ENTRYPOINT"]
    assert entry == '["tini", "-g", "--", "python3", "-s", "/usr/local/bin/mlhub-start"]'


@pytest.mark.parametrize("script", sorted(IMAGES.glob("*/*.sh")), ids=lambda f: f.parent.name)
def test_shell_scripts_parse_and_stop_at_the_first_error(script):
    text = script.read_text()
    # One that is sourced would set what the step has not asked for, so each of its lines says it.
    assert "set -euo pipefail" in text or text.startswith("# Sourced by a build step")
    assert len(text.splitlines()) < 30
    subprocess.run(["bash", "-n", str(script)], check=True)


@each_image
def test_every_image_is_in_the_table_of_the_page(dockerfile):
    table = (IMAGES.parent / "docs/images.md").read_text().partition("## Sizes")[0]
    assert f"\n| `{dockerfile.parent.name}` | " in table
