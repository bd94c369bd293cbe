"""Runs the previews that the report is about, without changing a stack, its file or its state."""

import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from tools.report import redact
from tools.report.compare import compared
from tools.report.previews import ASIDE, SHOWN, Preview, exit_event, loses_protection, read

PLACE_HOLDER = "a-secret-of-this-stack"
"""What a secret of the stack file is while a program is compared with another: nobody reads it."""

NOT_LOGGED_IN = "PULUMI_ACCESS_TOKEN must be set"
"""What the CLI says where nobody chose a backend, as if there were but one."""

ADVICE = {
    "no stack named": "`pulumi stack init {stack}` makes it",
    "unable to open state directory": "correct PULUMI_BACKEND_URL, or make the folder",
    "passphrase": "name a file that holds the stack's own in PULUMI_CONFIG_PASSPHRASE_FILE",
}
"""What to do about what the CLI complains of (Pulumi 3.259.0)."""
LOCAL_ADVICE = "`make up` first, which makes state and stack"


class PreviewError(Exception):
    """A preview cannot be had; says why and what to do."""


def deployed(checkout: Path, stack: str, packs: Sequence[str]) -> tuple[Preview, str]:
    """The preview against what is deployed, and the raw events."""
    with tempfile.TemporaryDirectory(prefix="mlhub-preview-") as folder:
        file = Path(folder) / f"Pulumi.{stack}.yaml"
        # The CLI may write into the file that it is given (docs/engine.md).
        shutil.copyfile(stack_file(checkout, stack), file)
        env = {"PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true"}
        return previewed(checkout, stack, file, packs, env)


def against(checkout: Path, base: Path, stack: str, packs: Sequence[str]) -> Preview:
    """What the program in `checkout` has that the one in `base` has not."""
    head = from_nothing(checkout, stack, packs)
    if not (base / "stacks" / f"Pulumi.{stack}.yaml").is_file():
        return head
    before = from_nothing(base, stack, ())
    if before.failed:
        why = "; ".join(before.errors) or "it gave no reason"
        raise PreviewError(f"the base's own program cannot be previewed: {why}")
    if head.failed and not head.violations:
        return head
    return compared(before, head, rebuilt(base / "images", checkout / "images"))


def rebuilt(old: Path, new: Path) -> set[str]:
    """The images of which a file changed that the build may see, and what stands on those."""
    found = set()
    for dockerfile in new.glob("*/Dockerfile"):
        image = dockerfile.parent.name
        ignore = dockerfile.with_name("Dockerfile.dockerignore")
        lines = ignore.read_text(encoding="utf-8").splitlines() if ignore.is_file() else ["!."]
        seen = [line[1:] for line in lines if line.startswith("!")]
        parts = [f"{image}/Dockerfile", f"{image}/Dockerfile.dockerignore", *seen]
        if any(contents(old / part) != contents(new / part) for part in parts):
            found.add(image)
    return found if "base" not in found else {each.parent.name for each in new.glob("*/Dockerfile")}


def contents(path: Path) -> dict[str, bytes]:
    """Every file of a folder, or the one, by its name; empty where there is none."""
    if path.is_file():
        return {path.name: path.read_bytes()}
    files = (each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
    return {str(each.relative_to(path)): each.read_bytes() for each in files}


def from_nothing(checkout: Path, stack: str, packs: Sequence[str]) -> Preview:
    """The preview of a stack of which nothing is deployed, in a state that is thrown away."""
    content = yaml.safe_load(stack_file(checkout, stack).read_text(encoding="utf-8")) or {}
    with empty_stack(checkout, stack, content.get("config") or {}) as (file, env):
        return previewed(checkout, stack, file, packs, env, "--refresh=false")[0]


@contextmanager
def empty_stack(
    checkout: Path, stack: str, config: Mapping[str, Any]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """A stack file and the environment of a state with nothing in it; both go at the end.

    Secrets are PLACE_HOLDER, for the keys to the real ones are not at hand and nobody asks.
    """
    with tempfile.TemporaryDirectory(prefix="mlhub-preview-") as folder:
        root = Path(folder)
        for part in ("state", "project"):
            (root / part).mkdir()
        (root / "passphrase").write_text("thrown away")
        env = {
            "PULUMI_BACKEND_URL": f"file://{root / 'state'}",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(root / "passphrase"),
            "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
        }
        # The stack is made elsewhere: `stack init` writes a salt beside the project.
        project = yaml.safe_load((checkout / "Pulumi.yaml").read_text(encoding="utf-8"))
        bare = {"name": project["name"], "runtime": "python"}
        (root / "project" / "Pulumi.yaml").write_text(yaml.safe_dump(bare))
        command(root / "project", env, "stack", "init", stack)
        file = root / f"Pulumi.{stack}.yaml"
        plain, secret = without_secrets(config)
        file.write_text(yaml.safe_dump({"config": plain}))
        needed = {f"{project['name']}:{key}" for key in asked_secrets(checkout)}
        for key in sorted({*secret, *needed}):
            arguments = ("config", "set", "--secret", key, "--stack", stack)
            command(checkout, env, *arguments, "--config-file", str(file), given=PLACE_HOLDER)
        yield file, env


def asked_secrets(checkout: Path) -> set[str]:
    """`SECRET_KEYS` of the checkout's own model, which need not be the one that runs here."""
    model = checkout / "components" / "config.py"
    text = model.read_text(encoding="utf-8") if model.is_file() else ""
    found = re.search(r"^SECRET_KEYS = \(([^)]*)\)", text, re.MULTILINE)
    return set(re.findall(r'"(\w+)"', found[1])) if found else set()


def without_secrets(config: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The plain keys of a stack file, and the names of those that are encrypted."""
    secret = [key for key, value in config.items() if isinstance(value, dict) and "secure" in value]
    return {key: value for key, value in config.items() if key not in secret}, secret


def stack_file(checkout: Path, stack: str) -> Path:
    file = checkout / "stacks" / f"Pulumi.{stack}.yaml"
    if not file.is_file():
        known = sorted(each.name.split(".")[1] for each in file.parent.glob("Pulumi.*.yaml"))
        raise PreviewError(f"there is no stacks/{file.name}; STACK is one of {', '.join(known)}")
    return file


def previewed(
    checkout: Path,
    stack: str,
    file: Path,
    packs: Sequence[str],
    env: Mapping[str, str],
    *more: str,
) -> tuple[Preview, str]:
    arguments = ["preview", "--stack", stack, "--config-file", str(file), "--json", *more]
    for pack in packs:
        arguments += ["--policy-pack", pack]
    # Only the stream has what the policy pack says.
    env = {**env, "PULUMI_ENABLE_STREAMING_JSON_PREVIEW": "true"}
    done = pulumi(checkout, env, *arguments)
    if not done.stdout.strip():
        raise PreviewError(complaint(stack, done.stderr.strip() or f"status {done.returncode}"))
    events = done.stdout
    if done.returncode:
        events = f"{events.rstrip()}\n{exit_event(done.returncode, done.stderr)}"
    return read(events), events


def complaint(stack: str, said: str) -> str:
    """Why the CLI did not begin, and what to do."""
    if NOT_LOGGED_IN in said:
        return (
            f"nobody has said where the state of {stack} is; `pulumi login <backend>` or set "
            "PULUMI_BACKEND_URL, such as s3://mlhub-state?region=eu-west-1 (docs/previews.md)"
        )
    known = [advice.format(stack=stack) for part, advice in ADVICE.items() if part in said]
    advice = [LOCAL_ADVICE] if known and stack == "local" else known
    sentence = "; ".join([redact.text(said), *advice])
    return f"`pulumi preview` of {stack} said nothing but: {sentence}"


def command(folder: Path, env: Mapping[str, str], *arguments: str, given: str = "") -> None:
    done = pulumi(folder, env, *arguments, given=given)
    if done.returncode:
        said = redact.text((done.stderr or done.stdout).strip())
        raise PreviewError(f"`pulumi {' '.join(arguments[:2])}` failed: {said}")


def pulumi(
    folder: Path, env: Mapping[str, str], *arguments: str, given: str = ""
) -> "subprocess.CompletedProcess[str]":
    if shutil.which("pulumi") is None:
        raise PreviewError(
            f"there is no pulumi on PATH; install the Pulumi CLI {version('pulumi')}, or take the "
            "embedded stack's with `make up`"
        )
    return subprocess.run(
        ["pulumi", "-C", str(folder), *arguments, "--non-interactive", "--color", "never"],
        env={**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true", **env},
        input=given, capture_output=True, text=True, check=False,
    )  # fmt: skip


@contextmanager
def tree_of(checkout: Path, ref: str) -> Iterator[Path]:
    """The files of a commit in a folder that goes again, with the checkout's own environment."""
    archive = subprocess.run(
        ["git", "archive", "--format=tar", ref], cwd=checkout, capture_output=True, check=False
    )
    if archive.returncode:
        why = archive.stderr.decode().strip().splitlines()[0]
        raise PreviewError(
            f"BASE is {ref}, which git does not know ({why}); "
            "a branch, a tag or a commit is required"
        )
    with tempfile.TemporaryDirectory(prefix="mlhub-base-") as folder:
        root = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as opened:
            opened.extractall(root, filter="data")
        for shared in (".venv", ".mlhub"):
            if (checkout / shared).exists():
                (root / shared).symlink_to((checkout / shared).resolve())
        yield root


def reduced(events: str) -> str:
    """The events that a report is made of, without what is secret or of no use to it.

    Small enough to hand from one job of a workflow to the next, or to keep as a fixture.
    """
    kept: list[dict[str, Any]] = []
    for line in events[events.index("{") :].splitlines():
        event = json.loads(line)
        if found := event.get("resourcePreEvent"):
            meta = found["metadata"]
            if meta["op"] not in SHOWN | {"same"}:
                continue
            if meta["op"] == "same" and not (meta.get("new") or {}).get("custom"):
                continue
            if meta["op"] == "same" and not loses_protection(meta):
                meta = {**meta, "old": None, "new": {"custom": True}}
            kept.append({"resourcePreEvent": {"metadata": lean(meta)}})
        elif event.get("diagnosticEvent", {}).get("severity") in ("error", ASIDE):
            found = event["diagnosticEvent"]
            said = {"message": redact.text(found["message"]), "severity": found["severity"]}
            kept.append({"diagnosticEvent": {**said, "urn": found.get("urn")}})
        elif found := event.get("policyEvent"):
            kept.append({"policyEvent": {**found, "message": redact.text(found["message"])}})
        elif "summaryEvent" in event:
            kept.append({"summaryEvent": event["summaryEvent"]})
        elif found := event.get("exitEvent"):
            kept.append({"exitEvent": {**found, "said": redact.text(found["said"])}})
    return "".join(
        json.dumps({"sequence": number, **event}, ensure_ascii=False) + "\n"
        for number, event in enumerate(kept)
    )


def lean(meta: Mapping[str, Any]) -> dict[str, Any]:
    """A step's metadata as far as the report reads it."""
    detailed = meta.get("detailedDiff") or {}
    made: dict[str, Any] = {
        key: meta[key] for key in ("op", "urn", "keys", "detailedDiff") if meta.get(key)
    }
    for name in ("old", "new"):
        state = meta.get(name)
        if not state:
            continue
        keep = ("custom", "parent", "protect", "retainOnDelete")
        side: dict[str, Any] = {key: state[key] for key in keep if state.get(key)}
        side["inputs"] = redact.tree(wrapped(state.get("inputs") or {}))
        wanted = {"digest", "ref", "repoDigest"} | {
            path.split(".")[0].split("[")[0] for path in detailed
        }
        outputs = wrapped(state.get("outputs") or {})
        side["outputs"] = redact.tree({k: v for k, v in outputs.items() if k in wanted})
        made[name] = side
    return made


def wrapped(value: Any) -> Any:
    """Wrappers of secrets taken off; what is not known yet keeps the engine's placeholder."""
    if isinstance(value, Mapping):
        if "4dabf18193072939515e22adb298388d" in value:
            return redact.SECRET
        return {key: wrapped(part) for key, part in value.items()}
    return [wrapped(part) for part in value] if isinstance(value, list) else value
