"""Debian's Prometheus against the running stack, told of it as an operator would tell it."""

import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import yaml

from components.monitoring import Part, monitor_spec
from tests.e2e.platform import wait_until


def scrape_config(part: Part, namespace: str, kubeconfig: str) -> dict[str, Any]:
    """What the Prometheus operator makes of a ServiceMonitor, as far as ours say anything: the
    Service's name is the job, its namespace a label."""
    spec = monitor_spec(part)
    (endpoint,) = spec["endpoints"]
    relabel = [
        {
            "source_labels": [f"__meta_kubernetes_service_label_{plain(key)}"],
            "regex": value,
            "action": "keep",
        }
        for key, value in spec["selector"]["matchLabels"].items()
    ]
    relabel += [
        {
            "source_labels": ["__meta_kubernetes_endpoint_port_name"],
            "regex": endpoint["port"],
            "action": "keep",
        },
        {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
        {"source_labels": ["__meta_kubernetes_service_name"], "target_label": "job"},
    ]
    return {
        "job_name": part.service,
        "scrape_interval": "1s",
        "kubernetes_sd_configs": [
            {
                "role": "endpoints",
                "kubeconfig_file": kubeconfig,
                "namespaces": {"names": [namespace]},
            }
        ],
        "relabel_configs": relabel,
    }


def plain(label: str) -> str:
    """As service discovery spells a Kubernetes label."""
    return "".join(letter if letter.isalnum() else "_" for letter in label)


def kubelet_config(node: str, api: str) -> dict[str, Any]:
    """The node's kubelet, by a proxy to the API server on loopback."""
    return {
        "job_name": "kubelet",
        "scrape_interval": "2s",
        "metrics_path": f"/api/v1/nodes/{node}/proxy/metrics",
        "static_configs": [{"targets": [api]}],
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
