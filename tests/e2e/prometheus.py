"""Debian's Prometheus against the running stack, told of it as an operator would tell it."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml

from components.monitoring import Part, monitor_spec
from tests.e2e.platform import Kubectl, wait_until
from tests.ports import free_port


def scrape_configs(part: Part, namespace: str, kubectl: Kubectl) -> list[dict[str, Any]]:
    """What the Prometheus operator makes of a ServiceMonitor, as far as ours say anything: the
    pods behind each Service that it selects; the Service's name is the job, its namespace a label.

    Debian's Prometheus finds nothing in a Kubernetes by itself, so the pods are looked up here.
    """
    spec = monitor_spec(part)
    (endpoint,) = spec["endpoints"]
    selector = ",".join(f"{key}={value}" for key, value in spec["selector"]["matchLabels"].items())
    services = kubectl.json("-n", namespace, "get", "services", "-l", selector)["items"]
    assert services, selector
    return [
        {
            "job_name": service["metadata"]["name"],
            "static_configs": [
                {
                    "targets": targets(service, endpoint["port"], kubectl),
                    "labels": {"namespace": namespace},
                }
            ],
        }
        for service in services
    ]


def targets(service: dict[str, Any], port_name: str, kubectl: Kubectl) -> list[str]:
    """`address:port` of each pod behind a Service."""
    about = service["metadata"]

    def found() -> list[str]:
        slices = kubectl.json(
            "-n", about["namespace"], "get", "endpointslices", "-l",
            f"kubernetes.io/service-name={about['name']}",
        )["items"]  # fmt: skip
        return [
            f"{address}:{port['port']}"
            for each in slices
            for port in each["ports"] or []
            if port["name"] == port_name
            for endpoint in each["endpoints"] or []
            for address in endpoint["addresses"]
        ]

    pods: list[str] = wait_until(f"{about['name']} has a pod behind it", found)
    return pods


def kubelet_config(node: str, api: str) -> dict[str, Any]:
    """The node's kubelet, by a proxy to the API server on loopback."""
    return {
        "job_name": "kubelet",
        "metrics_path": f"/api/v1/nodes/{node}/proxy/metrics",
        "static_configs": [{"targets": [api]}],
    }


@contextmanager
def api_on_loopback() -> Iterator[str]:
    """`host:port` of a `kubectl proxy`."""
    port = free_port()
    process = subprocess.Popen(["kubectl", "proxy", f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


class Prometheus:
    """One that runs on loopback."""

    def __init__(self, url: str):
        self._url = url

    def get(self, path: str, **query: str) -> Any:
        answer = requests.get(f"{self._url}/api/v1/{path}", params=query, timeout=10)
        assert answer.ok, answer.text
        return answer.json()["data"]

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What the expression gives now: a series each."""
        found: list[dict[str, Any]] = self.get("query", query=expression)["result"]
        return found

    def alive(self) -> bool:
        try:
            self.get("status/buildinfo")
        except (requests.RequestException, AssertionError):
            return False
        return True


@contextmanager
def prometheus(
    folder: Path, scrape: Sequence[dict[str, Any]], rules: list[dict[str, Any]]
) -> Iterator[Prometheus]:
    """A Prometheus with these scrape configurations and rule groups, its data in `folder`."""
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}))
    document = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "5s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": list(scrape),
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(document))
    for kind, file in (("rules", "rules.yaml"), ("config", "prometheus.yaml")):
        checked = subprocess.run(
            ["promtool", "check", kind, folder / file], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
    port = free_port()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    made = Prometheus(f"http://127.0.0.1:{port}")
    try:
        wait_until("Prometheus answers", made.alive, 60)
        yield made
    except BaseException:
        print((folder / "log").read_text()[-3000:])
        raise
    finally:
        process.terminate()
        process.wait()
