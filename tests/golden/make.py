"""Makes the previews that the report is tested with, by the real program and engine.

Run beside a running local stack (`make up`), when the program changes what a report shows:

    eval "$(.venv/bin/python -m bootstrap env)" && .venv/bin/python -m tests.golden.make

Each scenario edits a copy of the checkout and previews it against what is deployed; nothing is
changed. What is kept has no secret in it (`tools.report.run.reduced`), and a test looks again.
"""

import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools.report import charts
from tools.report.run import deployed, reduced

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
CHART = "charts/jupyterhub-lite"
STACK_FILE = "stacks/Pulumi.local.yaml"


@dataclass(frozen=True)
class Edit:
    """A text in a file of the checkout and what stands there instead."""

    file: str
    old: str
    new: str


SCENARIOS: dict[str, list[Edit]] = {
    "unchanged": [],
    "wider": [
        Edit(STACK_FILE, "cpu: {limit: 2, guarantee: 0.2}", "cpu: {limit: 4, guarantee: 0.2}"),
        Edit(STACK_FILE, "memory: {limit: 2G,", "memory: {limit: 8G,"),
        Edit(STACK_FILE, "pods: 30", "pods: 60"),
        Edit(STACK_FILE, "access_groups: [", "access_groups: [/mlhub/students, "),
        Edit("components/identity.py", "grants_enabled=False", "grants_enabled=True"),
        Edit("components/network.py", '"from_": [pods(keycloak), ', '"from_": [pods({}), '),
    ],
    "removed": [
        Edit(STACK_FILE, "      - {name: bob, groups: [/mlhub/users]}\n", ""),
        Edit("components/namespace.py", "protect=True, retain_on_delete=True", "protect=False"),
    ],
    "protected": [
        Edit(STACK_FILE, "rancher.io/local-path", "seaweedfs-csi-driver"),
    ],
    "chart": [
        Edit(f"{CHART}/templates/hub.yaml", "targetPort: http\n", "targetPort: 8081\n"),
        Edit("images/hub/Dockerfile", "FROM ", "# another hub\nFROM "),
        Edit(STACK_FILE, "node_port: 30888", "node_port: 30890"),
    ],
    "refused": [
        Edit(STACK_FILE, "memory: {limit: 5G,", "memory: {limit: 5GB,"),
        Edit(STACK_FILE, "pods: 30", "pod: 30"),
    ],
    "policy": [Edit("components/secrets.py", "name, length=32", "name, length=12")],
}  # fmt: skip
PACKS = {"policy": ["tests/engine/pack"]}


def edited(folder: Path, edits: list[Edit]) -> None:
    for edit in edits:
        path = folder / edit.file
        text = path.read_text()
        if edit.old not in text:
            raise SystemExit(
                f"{edit.file} has no {edit.old!r} any more; bring the scenario in line"
            )
        path.write_text(text.replace(edit.old, edit.new, 1))


def make(name: str) -> None:
    with tempfile.TemporaryDirectory(prefix="mlhub-golden-") as scratch:
        folder = Path(scratch) / "checkout"
        ignored = shutil.ignore_patterns(".git", ".venv", ".mlhub", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=ignored, symlinks=True)
        for shared in (".venv", ".mlhub"):
            (folder / shared).symlink_to((ROOT / shared).resolve())
        edited(folder, SCENARIOS[name])
        for pack in PACKS.get(name, []):
            settings = f"runtime: {{name: python, options: {{virtualenv: {sys.prefix}}}}}\n"
            (folder / pack / "PulumiPolicy.yaml").write_text(settings)
        preview, events = deployed(folder, "local", PACKS.get(name, []))
        changed = charts.of(preview, ROOT, folder)
    text = (reduced(events) + charts.kept(changed)).replace(scratch, "/checkout")
    (HERE / f"{name}.jsonl").write_text(
        re.sub(r"/\w+/[\w/.-]*(mlhub-\w+|checkout)[\w/.-]*", "/…", text)
    )
    print(f"made tests/golden/{name}.jsonl ({len(text) // 1024} KiB)")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or SCENARIOS:
        make(wanted)
