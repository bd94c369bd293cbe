"""How long a preview takes, beside a plain pulumi-kubernetes program of as many resources.

    .venv/bin/python -m tools.benchmark --context mlhub-local

The real engine on an empty state that is thrown away, and any cluster that answers; nothing of it
is changed. What `prod` asks of Keycloak, Harbor and the registry before a preview is answered by a
server in this process, so that the figures are the program's and not a network's. Results go into
docs/benchmarks.md.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tools.report.previews import UNKNOWN, Preview
from tools.report.redact import SECRET
from tools.report.run import asked_secrets, empty_stack, previewed

CHECKOUT = Path(__file__).resolve().parents[1]
TABLE = CHECKOUT / "docs" / "benchmarks.md"
MARKS = ("<!-- benchmark -->", "<!-- /benchmark -->")
CHART = "charts/jupyterhub-lite"
RELEASE = "kubernetes:helm.sh/v3:Release"
CONFIG_MAP = "kubernetes:core/v1:ConfigMap"
MOST_RATIO = 1.3
MOST_START_SECONDS = 2.0
SIZES = (100, 300, 1000)

PLAIN = """
import importlib, json, re
import pulumi
import pulumi_kubernetes as k8s

provider = k8s.Provider("kubernetes", context={context!r}, cluster_identifier="benchmark")
opts = pulumi.ResourceOptions(provider=provider)
for token, name, inputs in json.load(open("resources.json")):
    _, group, kind = token.split(":")
    group, version = group.split("/")
    module = importlib.import_module("pulumi_kubernetes." + group.split(".")[0] + "." + version)
    known = {{re.sub("(?=[A-Z])", "_", key).lower(): value for key, value in inputs.items()}}
    getattr(module, kind)(name, opts=opts, **known)
"""
START = """
import os, resource, time
began = time.perf_counter()
import json, sys
import pulumi
from pulumi.runtime import mocks
from components.platform import Platform
from components.stackfile import load

class First(mocks.MockMonitor):
    def RegisterResource(self, request):
        if request.type != "pulumi:pulumi:Stack":
            used = resource.getrusage(resource.RUSAGE_SELF)
            spent = used.ru_utime + used.ru_stime
            # In one piece: several registrations may arrive at once.
            os.write(1, f"[{time.perf_counter() - began}, {spent}]\\n".encode())
            os._exit(0)
        return super().RegisterResource(request)

class Nothing(mocks.Mocks):
    def new_resource(self, args):
        return args.name, args.inputs
    def call(self, args):
        return {}

raw = json.load(sys.stdin)
monitor = First(Nothing())
mocks.set_mocks(monitor.mocks, project="mlhub", stack="prod", monitor=monitor)
secret = [key for key, value in raw.items() if value == "made up"]
pulumi.runtime.set_all_config(raw, secret)
pulumi.runtime.test(lambda: Platform(load("prod", raw, secret)))()
"""


class StandIn(BaseHTTPRequestHandler):
    """Answers what a preview asks of Keycloak, Harbor and the registry."""

    def do_GET(self) -> None:
        self.answer(b"{}")

    def do_HEAD(self) -> None:
        self.answer(b"")

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.oci.image.index.v1+json")
        self.send_header("Docker-Content-Digest", "sha256:" + "0" * 64)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def stand_in() -> Iterator[str]:
    """host:port of a server that stands in for the services."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), StandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"localhost:{server.server_port}"
    finally:
        server.shutdown()


def configuration(host: str, context: str, items: int | None = None) -> dict[str, Any]:
    """`prod` with its services at `host`, and, if asked, `items` profiles and workspaces.

    Half of each, and terse: the engine hands all configuration to the program in one variable of
    its environment, which Linux bounds at 128 KiB.
    """
    text = (CHECKOUT / "stacks" / "Pulumi.prod.yaml").read_text(encoding="utf-8")
    config: dict[str, Any] = yaml.safe_load(text)["config"]
    config["mlhub:cluster"] = {"context": context}
    # Its kinds are the Prometheus operator's, which not every cluster that answers has.
    del config["mlhub:monitoring"]
    # A namespace that every cluster has, and in which no stack has volumes.
    for volume in config["mlhub:storage"]["volumes"]:
        if "twin" in volume:
            volume["twin"] = {"namespace": "default"}
    config["mlhub:identity"]["keycloak"]["url"] = f"http://{host}"
    config["mlhub:registry"]["repository"] = f"{host}/mlhub"
    config["mlhub:registry"]["harbor"]["url"] = f"http://{host}"
    config["mlhub:images"]["promote"]["repository"] = f"{host}/mlhub"
    # Names of its own, for a stack that is there already would be another's to the preview.
    for section in ("foundation", "mlflow"):
        config[f"mlhub:{section}"]["namespace"] = f"benchmark-{section}"
    # A node's port: the ingress would want its Secret in the cluster.
    config["mlhub:hub"] = {"node_port": 30888, "namespace": "benchmark", "chart": {"path": CHART}}
    if items:
        base = config["mlhub:profiles"][0]
        config["mlhub:verify"] = {}  # of whatever profiles there are
        config["mlhub:profiles"] = [
            {**base, "slug": f"p{n}", "name": f"P{n}", "description": "P", "default": n == 0}
            for n in range((items + 1) // 2)
        ]
        config["mlhub:workspaces"] = [
            {"slug": f"w{n}", "name": f"W{n}", "size": "1Gi"} for n in range(items // 2)
        ]
        config["mlhub:quotas"]["namespace"]["storage"] = "900Ti"
    return config


def processor_seconds() -> float:
    """What every process that has ended has used; noise of the machine is hardly in it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ours(config: Mapping[str, Any]) -> tuple[float, float, Preview]:
    """Seconds and processor seconds of `pulumi preview` of our program with that configuration,
    and what it said."""
    with empty_stack(CHECKOUT, "prod", config) as (file, env):
        began, before = time.perf_counter(), processor_seconds()
        found, _ = previewed(CHECKOUT, "prod", file, (), env, "--refresh=false")
        took, spent = time.perf_counter() - began, processor_seconds() - before
    if found.failed:
        raise SystemExit("the preview failed:\n" + "\n".join(found.errors))
    return took, spent, found


def shown(value: Any) -> Any:
    """Without what a preview hides or does not know."""
    if isinstance(value, dict):
        return {k: shown(v) for k, v in value.items() if v not in (SECRET, UNKNOWN)}
    if isinstance(value, list):
        return [shown(v) for v in value]
    return value


def alike(preview: Preview) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Type, name and inputs of as many Kubernetes resources as the preview has resources.

    Its own, as anybody would write them down without components, and a ConfigMap, the cheapest
    there is, for each of Keycloak's, Harbor's and the components themselves.
    """
    made: list[tuple[str, str, Mapping[str, Any]]] = []
    for step in preview.steps:
        if step.type.startswith("kubernetes:") and step.new is not None:
            inputs = shown(step.new.inputs)
            if step.type == RELEASE:
                inputs = {k: inputs[k] for k in ("name", "namespace", "values", "timeout")}
                inputs["chart"] = str(CHECKOUT / CHART)
            made.append((step.type, step.name, inputs))
    for number in range(len(preview.steps) - len(made)):
        metadata = {"name": f"plain-{number}", "namespace": "default"}
        made.append(
            (CONFIG_MAP, f"plain-{number}", {"metadata": metadata, "data": {"is": "plain"}})
        )
    return made


def plain(made: Sequence[tuple[str, str, Mapping[str, Any]]], context: str) -> float:
    """The same for these resources by pulumi-kubernetes alone, one after the other."""
    with tempfile.TemporaryDirectory(prefix="mlhub-benchmark-") as folder:
        root = Path(folder)
        (root / "__main__.py").write_text(PLAIN.format(context=context))
        (root / "resources.json").write_text(json.dumps(made))
        runtime = {"name": "python", "options": {"virtualenv": str(CHECKOUT / ".venv")}}
        project = {"name": "plain", "runtime": runtime}
        (root / "Pulumi.yaml").write_text(yaml.safe_dump(project))
        (root / "stacks").mkdir()
        with empty_stack(root, "prod", {}) as (file, env):
            began = time.perf_counter()
            found, _ = previewed(root, "prod", file, (), env)
            took = time.perf_counter() - began
    if found.failed:
        raise SystemExit("the plain program failed:\n" + "\n".join(found.errors))
    return took


def start_up(config: Mapping[str, Any]) -> tuple[float, float]:
    """Wall and processor seconds from the interpreter's first line to the first registration."""
    raw = {key: v if isinstance(v, str) else json.dumps(v) for key, v in config.items()}
    raw |= {f"mlhub:{key}": "made up" for key in asked_secrets(CHECKOUT)}
    done = subprocess.run(
        [sys.executable, "-c", START], input=json.dumps(raw), cwd=CHECKOUT, check=False,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, capture_output=True, text=True,
    )  # fmt: skip
    if not done.stdout.strip():
        raise SystemExit(f"the program did not start:\n{done.stderr[-2000:]}")
    wall, spent = json.loads(done.stdout.splitlines()[0])
    return float(wall), float(spent)


def resources(preview: Preview) -> int:
    """What the engine was asked to register, providers and components included."""
    return len(preview.steps)


def exponent(sizes: Sequence[int], seconds: Sequence[float], fixed: float) -> float:
    """How the time beyond `fixed` grows with the size: 1 is linear, 2 quadratic."""
    logs = [
        (math.log(size), math.log(max(took - fixed, 1e-3)))
        for size, took in zip(sizes, seconds, strict=True)
    ]
    return statistics.linear_regression([x for x, _ in logs], [y for _, y in logs]).slope


def machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, load {load:.1f} at the start"


def versions() -> str:
    engine = subprocess.run(["pulumi", "version"], capture_output=True, text=True, check=True)
    sdk = importlib.metadata.version("pulumi-kubernetes")
    python = platform.python_version()
    return f"pulumi {engine.stdout.strip()}, pulumi-kubernetes {sdk}, Python {python}"


def compared(host: str, context: str, rounds: int) -> list[str]:
    """Rows for preview and start-up; the two programs take turns."""
    config = configuration(host, context)
    _, _, found = ours(config)  # warms the caches of both, for the plug-ins are the same
    made, count = alike(found), resources(found)
    pairs = [(ours(config)[0], plain(made, context)) for _ in range(rounds)]
    mine, theirs = (statistics.median(each) for each in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    start_up(config)
    starts = [start_up(config) for _ in range(max(rounds, 5))]
    wall, spent = (min(each) for each in zip(*starts, strict=True))
    said(f"prod {mine:.1f} s, plain {theirs:.1f} s, ratio {ratio:.2f}; start {wall:.2f} s")
    return [
        "| what | figure | at most |",
        "|---|---|---|",
        f"| preview of `prod`, {count} resources | {mine:.1f} s | |",
        f"| plain program of {count} resources | {theirs:.1f} s | |",
        f"| ratio, median of {rounds} rounds | {ratio:.2f} | {MOST_RATIO} |",
        f"| start-up to the first registration | {wall:.2f} s | {MOST_START_SECONDS:.0f} s |",
        f"| of that, processor time | {spent:.2f} s | |",
    ]


def grown(host: str, context: str, sizes: Sequence[int]) -> list[str]:
    """Rows for more and more profiles and workspaces."""
    _, fixed, smallest = ours(configuration(host, context, 1))
    rows = [
        "| profiles and workspaces (half each) | resources | preview | processor | per resource |",
        "|---|---|---|---|---|",
    ]
    more, times = [], []
    for size in sizes:
        took, spent, found = ours(configuration(host, context, size))
        count = resources(found)
        more.append(count - resources(smallest))
        times.append(spent)
        each = (spent - fixed) / more[-1] * 1000
        rows.append(f"| {size} | {count} | {took:.1f} s | {spent:.1f} s | {each:.1f} ms |")
        said(f"{size} profiles and workspaces: {took:.1f} s")
    power = exponent(more, times, fixed)
    return [
        *rows,
        "",
        "Per resource beyond those of one profile. Processor time grows with the number of",
        f"resources to the power of {power:.2f} (1 is linear).",
    ]


def said(text: str) -> None:
    print(text, flush=True)


def write(lines: Sequence[str]) -> None:
    """Puts the results between the marks of docs/benchmarks.md."""
    text = TABLE.read_text(encoding="utf-8")
    before, rest = text.split(MARKS[0])
    _, after = rest.split(MARKS[1])
    body = "\n".join(lines)
    TABLE.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    # As on a person's machine, where what was imported once is compiled.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    parser.add_argument("--context", required=True, help="of a cluster that answers")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    given = parser.parse_args()
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    lines = [f"{now} UTC. {machine()}; {versions()}.", ""]
    with stand_in() as host:
        lines += compared(host, given.context, given.rounds)
        if given.sizes:
            lines += ["", *grown(host, given.context, given.sizes)]
    write(lines)
    said(f"wrote {TABLE.relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
