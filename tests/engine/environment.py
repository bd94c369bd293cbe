"""What a cluster stack takes for granted, on the embedded cluster: real where it can be.

Kubernetes is the embedded one under another context, Keycloak the platform's with a realm of its
own, the registry the local one, the chart repository a real one on loopback that serves
`charts/jupyterhub-lite`. Harbor's API is `tests.doubles.harbor`. Everything is named after the
stack, made here and taken away at the end.
"""

import functools
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.doubles.harbor import HarborDouble, serving
from tests.engine.stack import Stack

CHECKOUT = Path(__file__).resolve().parents[2]
REGISTRY = "localhost:5000"
MANIFESTS = (
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.v2+json"
)
PULUMI_CLIENT = "mlhub-pulumi"
HARBOR_PASSWORD = "Harbor-password-of-the-test-1"  # not a secret of anything


def kubectl(*arguments: str, given: str | None = None) -> str:
    done = subprocess.run(
        ["kubectl", *arguments], input=given, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class ProgramStack(Stack):
    """The checkout's own program with a stack file of its own, and state in `folder`."""

    def __init__(self, folder: Path, bin_dir: Path, name: str, document: dict[str, Any]):
        self.name = name
        self.folder = folder
        self.project = CHECKOUT
        folder.mkdir(parents=True)
        (folder / "passphrase").write_text("engine test")
        self.file = folder / f"Pulumi.{name}.yaml"
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))
        self.env = os.environ | {
            "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_BACKEND_URL": f"file://{folder / 'state'}?metadata=skip",
            "PULUMI_CONFIG_PASSPHRASE_FILE": str(folder / "passphrase"),
            "PULUMI_FALLBACK_TO_STATE_SECRETS_MANAGER": "true",
            "PULUMI_RUN_PROGRAM": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        }
        for variable in ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_OPTION_CONFIG_FILE"):
            self.env.pop(variable, None)
        self.begin()

    def begin(self) -> None:
        """The stack with nothing in its state."""
        for part in ("state", "init"):
            shutil.rmtree(self.folder / part, ignore_errors=True)
            (self.folder / part).mkdir()
        # In a folder of its own, since `stack init` writes beside Pulumi.yaml.
        (self.folder / "init" / "Pulumi.yaml").write_text("name: mlhub\nruntime: python\n")
        subprocess.run(
            ["pulumi", "-C", str(self.folder / "init"), "stack", "init", self.name],
            env=self.env, check=True, capture_output=True,
        )  # fmt: skip

    def start(self, *args: str) -> "subprocess.Popen[str]":
        where = ["--stack", self.name]
        if args[0] in ("up", "preview", "refresh", "destroy"):
            where += ["--config-file", str(self.file)]
        return super().start(*args, *where)

    def give(self, **secrets: str) -> None:
        """`pulumi config set --secret`, through standard input."""
        for key, value in secrets.items():
            subprocess.run(
                ["pulumi", "config", "set", "--secret", f"mlhub:{key}", "--non-interactive",
                 "--stack", self.name, "--config-file", str(self.file)],
                cwd=self.project, env=self.env, input=value, text=True,
                check=True, capture_output=True,
            )  # fmt: skip


@dataclass(frozen=True)
class Environment:
    """A stack, and the servers that it is about."""

    stack: ProgramStack
    harbor: HarborDouble
    keycloak: Any
    namespace: str
    """The hub's."""
    given: dict[str, str]
    """The secrets that a person gave."""

    def generated(self) -> dict[str, str]:
        """Every value in the Secrets that the stack made."""
        found = {}
        for space in (self.namespace, f"{self.namespace}-foundation", f"{self.namespace}-mlflow"):
            for secret in json.loads(kubectl("-n", space, "get", "secrets", "-o", "json"))["items"]:
                if "pulumi" in json.dumps(secret["metadata"].get("labels", {})):
                    for key, value in secret["data"].items():
                        found[f"{space}/{secret['metadata']['name']}/{key}"] = value
        return found


@contextmanager
def chart_repository(folder: Path) -> Iterator[str]:
    """A chart repository on loopback with `jupyterhub-lite`, as `helm repo index` would make it."""
    chart = CHECKOUT / "charts" / "jupyterhub-lite"
    described = yaml.safe_load((chart / "Chart.yaml").read_text())
    file = f"{described['name']}-{described['version']}.tgz"
    folder.mkdir()
    with tarfile.open(folder / file, "w:gz") as archive:
        archive.add(chart, arcname=described["name"])
    digest = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    entry = described | {"urls": [file], "digest": digest}
    index = {"apiVersion": "v1", "entries": {described["name"]: [entry]}}
    (folder / "index.yaml").write_text(yaml.safe_dump(index))
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    handler = functools.partial(quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def prometheus_operator() -> Iterator[None]:
    """The definitions that an operator brings, version 0.93; nothing runs behind them."""
    definitions = str(CHECKOUT / "tests" / "unit" / "data" / "monitoring-crds.json")
    # Too large for the annotation of a plain `apply`.
    kubectl("apply", "--server-side", "-f", definitions)
    try:
        yield
    finally:
        kubectl("delete", "-f", definitions)


@contextmanager
def namespaces(hub: str) -> Iterator[None]:
    """The hub's namespace with the ingress's TLS Secret, as an administrator would have made them.

    At the end everything that carries the hub's name goes, volumes included.
    """
    furnish(hub)
    try:
        yield
    finally:
        clear(hub)


def furnish(hub: str) -> None:
    """What an administrator makes before the stack."""
    kubectl("create", "namespace", hub)
    kubectl(
        "-n", hub, "create", "secret", "generic", "jupyter-tls", "--type", "kubernetes.io/tls",
        "--from-literal=tls.crt=", "--from-literal=tls.key=",
    )  # fmt: skip


def clear(hub: str) -> None:
    """Takes everything that carries the hub's name off the cluster."""
    spaces = [hub, f"{hub}-foundation", f"{hub}-mlflow"]
    volumes = {
        volume["metadata"]["name"]: volume["spec"].get("local", {}).get("path")
        for volume in json.loads(kubectl("get", "pv", "-o", "json"))["items"]
        if volume["spec"].get("claimRef", {}).get("namespace") in spaces
    }
    kubectl("delete", "namespace", "--ignore-not-found", *spaces)
    for kind in ("storageclass", "clusterrole", "clusterrolebinding"):
        made = kubectl("get", kind, "-o", "name").split()
        for name in made:
            if name.partition("/")[2].startswith(hub):
                kubectl("delete", name)
    if volumes:
        kubectl("delete", "pv", *volumes)
    for path in filter(None, volumes.values()):
        shutil.rmtree(path)


def realm_for(admin: Any, name: str) -> tuple[Any, str]:
    """A realm with the one client that a platform engineer is given; the client's secret."""
    admin.create_realm({"realm": name, "enabled": True})
    admin.connection.realm_name = name
    client = admin.create_client(
        {
            "clientId": PULUMI_CLIENT,
            "publicClient": False,
            "serviceAccountsEnabled": True,
            "standardFlowEnabled": False,
        }
    )
    account = admin.get_client_service_account_user(client)["id"]
    management = admin.get_client_id("realm-management")
    roles = [admin.get_client_role(management, "realm-admin")]
    admin.assign_client_role(account, management, roles)
    return admin, str(admin.get_client_secrets(client)["value"])


def adapted(name: str, hub: str, harbor: str, keycloak: str, charts: str) -> dict[str, Any]:
    """The stack file of `name` for this machine. What is changed is here, and nothing else is.

    The embedded cluster has volumes for one pod alone (no `storage.volumes`), one architecture,
    and no images for GPUs, so that each profile gets the same image.
    """
    document = yaml.safe_load((CHECKOUT / "stacks" / f"Pulumi.{name}.yaml").read_text())
    config = document["config"]
    repository = f"{REGISTRY}/engine"
    config["mlhub:cluster"]["context"] = f"mlhub-{name}"
    config["mlhub:identity"]["keycloak"] |= {
        "url": keycloak,
        "internal_url": "http://keycloak.foundation.svc.cluster.local:8080",
    }
    config["mlhub:identity"]["realm"] = hub
    config["mlhub:registry"]["repository"] = repository
    config["mlhub:registry"]["harbor"] |= {"url": harbor, "username": "admin"}
    if build := config["mlhub:images"].get("build"):
        build |= {"debian": f"{REGISTRY}/mlhub/debian:bookworm", "platforms": ["linux/amd64"]}
    else:
        config["mlhub:images"]["promote"]["repository"] = repository
    config["mlhub:storage"] |= {"provisioner": "rancher.io/local-path", "volumes": []}
    config["mlhub:hub"]["namespace"] = hub
    config["mlhub:hub"]["chart"] = {
        "repository": charts, "name": "jupyterhub-lite", "version": chart_version(),
    }  # fmt: skip
    for profile in config["mlhub:profiles"]:
        profile["image"] = "ml-cpu"
    config["mlhub:network"] |= {
        "kubernetes_api": ["172.31.250.1/32"], "keycloak": ["10.244.0.0/16"],
    }  # fmt: skip
    # A profile that is not offered where no GPU is: a verification ends soon, and as a failure.
    config["mlhub:verify"] = {"suspended": True, "profiles": ["gpu"]}
    config["mlhub:foundation"] |= {
        "namespace": f"{hub}-foundation", "provisioner": "rancher.io/local-path", "parameters": {},
    }  # fmt: skip
    config["mlhub:mlflow"]["namespace"] = f"{hub}-mlflow"
    return dict(document)


def give_tag(repository: str, tag: str, another: str, **changed: Any) -> str:
    """What `repository` has by `tag` gets `another`, changed or as it is; the digest of that."""
    address = f"https://{REGISTRY}/v2/{repository}/manifests"
    trusted = os.environ["SSL_CERT_FILE"]
    accept = {"Accept": MANIFESTS}
    found = requests.get(f"{address}/{tag}", headers=accept, verify=trusted, timeout=30)
    found.raise_for_status()
    body = json.dumps(found.json() | changed).encode() if changed else found.content
    headers = {"Content-Type": found.headers["Content-Type"]}
    url = f"{address}/{another}"
    pushed = requests.put(url, data=body, headers=headers, verify=trusted, timeout=30)
    pushed.raise_for_status()
    return pushed.headers["Docker-Content-Digest"]


def have_run(promote: dict[str, str]) -> None:
    """The tags of the stack that comes before, which it gives over HTTPS alone."""
    _, _, project = promote["repository"].partition("/")
    for image in ("base", "hub", "proxy", "postgres", "mlflow", "execution", "ml-cpu"):
        ran = f"ran-{promote['after']}-{promote['tag']}"
        give_tag(f"{project}/{image}", promote["tag"], ran)


def chart_version() -> str:
    chart = CHECKOUT / "charts" / "jupyterhub-lite" / "Chart.yaml"
    return str(yaml.safe_load(chart.read_text())["version"])


def another_context(folder: Path, name: str) -> Path:
    """The embedded cluster's kubeconfig, under the name that the stack knows."""
    content = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())
    content["contexts"][0]["name"] = content["current-context"] = f"mlhub-{name}"
    file = folder / "kubeconfig"
    file.touch(mode=0o600)
    file.write_text(yaml.safe_dump(content))
    return file


@contextmanager
def environment(
    folder: Path, bin_dir: Path, name: str, keycloak_url: str, admin: Any
) -> Iterator[Environment]:
    """The stack `name` with everything it takes for granted, not yet applied."""
    hub = f"engine-{name}"
    folder.mkdir()
    with (
        chart_repository(folder / "charts") as charts,
        serving("admin", HARBOR_PASSWORD) as harbor,
        prometheus_operator(),
        namespaces(hub),
    ):
        address = harbor.url.replace("127.0.0.1", "localhost")
        if name != "dev":
            # Made by `dev`, which is gone from the cluster by now.
            harbor.make_project({}, {"project_name": "engine"})
        document = adapted(name, hub, address, keycloak_url, charts)
        promote = document["config"]["mlhub:images"].get("promote", {})
        if "after" in promote:
            have_run(promote)
        realm, client_secret = realm_for(admin, hub)
        try:
            stack = ProgramStack(folder / "stack", bin_dir, name, document)
            stack.env["KUBECONFIG"] = str(another_context(folder, name))
            given = {
                "keycloak_client_secret": client_secret,
                "harbor_password": HARBOR_PASSWORD,
                "s3_secret_key": "s3-secret-of-the-test-1",
            }
            stack.give(**given)
            yield Environment(stack, harbor, realm, hub, given)
            stack.wait_for_no_process()
        finally:
            admin.connection.realm_name = "master"
            admin.delete_realm(hub)
