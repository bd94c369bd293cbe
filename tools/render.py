"""The manifests that a chart renders to, by the plug-in that also installs the Release.

Helm itself is not needed, nor a cluster: the plug-in's function `helm:template` renders as Helm
does, and `lookup` finds nothing. From the command line, secrets hidden:
`python -m tools.render charts/jupyterhub-lite values.yaml`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import yaml
from google.protobuf import json_format, struct_pb2
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc

from tools.report import redact

PLUGIN = "pulumi-resource-kubernetes"
SECONDS = 120
KUBERNETES = "1.34.0"
"""What `.Capabilities.KubeVersion` says to templates, since no cluster is asked."""


class RenderError(Exception):
    """A chart cannot be rendered; says what Helm said."""


@dataclass(frozen=True)
class Chart:
    """A chart and what to render it with."""

    chart: str
    """A folder, or a name in `repository`."""
    values: Mapping[str, Any]
    release: str = "release"
    namespace: str = "default"
    repository: str = ""
    version: str = ""

    def request(self) -> dict[str, Any]:
        asked: dict[str, Any] = {
            "release_name": self.release,
            "namespace": self.namespace,
            "kube_version": KUBERNETES,
            "values": self.values,
        }
        if Path(self.chart).is_dir():
            return asked | {"path": str(Path(self.chart).resolve())}
        fetched = {"repo": self.repository, "version": self.version}
        return asked | {"chart": self.chart, "fetch_opts": fetched, **fetched}


def plugin() -> Path:
    """The plug-in on PATH, or the newest that `pulumi plugin install` has laid down."""
    if found := shutil.which(PLUGIN):
        return Path(found)
    home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
    laid = sorted(home.glob(f"plugins/resource-kubernetes-v*/{PLUGIN}"), key=os.path.getmtime)
    if not laid:
        raise RenderError(
            f"charts are rendered by {PLUGIN}, which is neither on PATH nor in {home}/plugins; "
            "install it with `pulumi plugin install resource kubernetes`"
        )
    return laid[-1]


class Renderer:
    """A running plug-in."""

    def __init__(self, channel: grpc.Channel):
        self.stub = provider_pb2_grpc.ResourceProviderStub(channel)
        self.stub.Configure(provider_pb2.ConfigureRequest(acceptSecrets=True), timeout=SECONDS)

    def render(self, chart: Chart) -> list[dict[str, Any]]:
        """The chart's objects as Kubernetes would get them, secrets and all."""
        args = struct_pb2.Struct()
        args.update({"jsonOpts": json.dumps(chart.request())})
        request = provider_pb2.InvokeRequest(tok="kubernetes:helm:template", args=args)
        try:
            answer = self.stub.Invoke(request, timeout=SECONDS)
        except grpc.RpcError as error:
            raise RenderError(f"{chart.chart}: {redact.text(str(error.details()))}") from None
        if answer.failures:
            said = "; ".join(redact.text(failure.reason) for failure in answer.failures)
            raise RenderError(f"{chart.chart}: {said}")
        result = json_format.MessageToDict(getattr(answer, "return"))["result"]
        return [whole(item) for item in result if item]


def whole(value: Any) -> Any:
    """Numbers as they were: a protobuf struct knows floats alone."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list) else value


@contextmanager
def renderer() -> Iterator[Renderer]:
    """Starts the plug-in, told of no cluster, and ends it."""
    env = {**os.environ, "KUBECONFIG": os.devnull}
    with subprocess.Popen(
        [plugin(), "127.0.0.1:9"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True, env=env,
    ) as process:  # fmt: skip
        try:
            assert process.stdout  # noqa: S101 - it is a pipe
            port = process.stdout.readline().strip()
            if not port.isdigit():
                raise RenderError(f"{PLUGIN} did not start")
            with grpc.insecure_channel(
                f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", 2**28)]
            ) as channel:
                yield Renderer(channel)
        finally:
            process.terminate()


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """YAML documents in a fixed order, every secret hidden."""
    ordered = sorted(objects, key=identity)
    return yaml.safe_dump_all((redact.tree(each) for each in ordered), sort_keys=False)


def identity(thing: Mapping[str, Any]) -> tuple[str, str, str]:
    """(kind, namespace, name) of an object."""
    metadata = thing.get("metadata") or {}
    return (
        str(thing.get("kind")),
        str(metadata.get("namespace") or ""),
        str(metadata.get("name") or metadata.get("generateName")),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("chart", help="a folder, or a chart's name with --repository")
    parser.add_argument("values", type=Path, help="a YAML file")
    parser.add_argument("--repository", default="", help="https://hub.jupyter.org/helm-chart")
    parser.add_argument("--version", default="")
    parser.add_argument("--release", default="jupyterhub")
    parser.add_argument("--namespace", default="jupyterhub")
    given = parser.parse_args()
    values = yaml.safe_load(given.values.read_text(encoding="utf-8")) or {}
    chart = Chart(
        given.chart, values, given.release, given.namespace, given.repository, given.version
    )
    try:
        with renderer() as running:
            print(as_yaml(running.render(chart)), end="")
    except RenderError as error:
        print(f"render: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
