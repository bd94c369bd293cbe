"""What a stack has that is worth keeping, and what writes to it, as the cluster itself tells it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components import names
from components.config import StackFile
from components.stackfile import StackFileError, read
from tools.recovery.errors import RecoveryError
from tools.recovery.kube import Kubectl, Pod, wait_until

REPLICAS = "mlhub.io/replicas"
"""On a workload that was stopped here: how many it had."""
HELD_ELSEWHERE = (names.POSTGRES_CLAIM, names.SEAWEEDFS_CLAIM)
"""Claims whose files change under a reader's hands: databases and buckets are asked for instead."""
SUSPENDED = "mlhub.io/suspended-by-recovery"
"""On a CronJob that was suspended here, and that nobody had suspended before."""
KEPT_RUNNING = ("proxy", "user-scheduler")
"""Deployments that write nothing of a stack's data."""
LABELS = names.labels("recovery")
MANAGED_BY = "app.kubernetes.io/managed-by"


def stack_file(stack: str) -> StackFile:
    """The checked stack file of this checkout."""
    try:
        return read(stack)
    except StackFileError as error:
        raise RecoveryError(str(error)) from error


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim whose files are a part of the archive."""

    namespace: str
    name: str

    @property
    def part(self) -> str:
        return f"volumes/{self}"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Node:
    """Where a pod is, and the tolerations that let it be there."""

    name: str
    tolerations: tuple[dict[str, Any], ...] = field(default=(), compare=False)


class Place:
    """A stack's namespaces on its cluster."""

    def __init__(self, config: StackFile, kubectl: Kubectl):
        self.kubectl = kubectl
        self.hub = config.hub.namespace
        self.foundation = config.foundation.namespace
        mlflow = [config.mlflow.namespace] if config.mlflow is not None else []
        self.namespaces = [self.hub, self.foundation, *mlflow]
        self.own_keycloak = config.foundation.keycloak is not None
        self.postgres = Pod(self.foundation, f"{names.POSTGRES}-0")

    def there(self) -> bool:
        """Whether the stack's Postgres is on the cluster."""
        name = f"--field-selector=metadata.name={names.POSTGRES}"
        return bool(self.kubectl.items("statefulsets", self.foundation, name))

    def sql(self, statement: str, database: str = "postgres") -> list[str]:
        """Rows of one statement as the superuser, columns with `|` between them."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        said = self.kubectl.execute(
            self.postgres, "psql", *options, f"--dbname={database}", "--file=-", stdin=statement
        )
        return [line for line in said.splitlines() if line]

    def databases(self) -> list[str]:
        return self.sql(
            "SELECT datname FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres' "
            "AND datname NOT LIKE '%.restoring' ORDER BY datname"
        )

    def claims(self) -> list[dict[str, Any]]:
        """Bound claims with people's files, each as it would be made again."""
        return self.claims_and_leaving()[0]

    def leaving(self) -> list[Claim]:
        """Bound claims that somebody has deleted and that a pod, ended ones too, holds still: no
        other pod gets them, so nothing can read their files."""
        return self.claims_and_leaving()[1]

    def claims_and_leaving(self) -> tuple[list[dict[str, Any]], list[Claim]]:
        """Both of one look: between two a claim could change sides."""
        bound = [*self.bound()]
        return (
            [again(claim) for claim in bound if readable(claim)],
            [claim_of(claim) for claim in bound if being_deleted(claim)],
        )

    def bound(self) -> Iterator[dict[str, Any]]:
        """Every claim that has a volume, those of Postgres and SeaweedFS among them."""
        for namespace in self.namespaces:
            for claim in self.kubectl.items("persistentvolumeclaims", namespace):
                if claim.get("status", {}).get("phase") == "Bound":
                    yield claim

    def of_people(self) -> list[Claim]:
        """Claims that an `up` does not make, but the hub or the workspaces' API for somebody."""
        return [
            claim_of(claim)
            for claim in self.bound()
            if claim["metadata"].get("labels", {}).get(MANAGED_BY) != LABELS[MANAGED_BY]
        ]

    def mounting(self, claim: Claim) -> list[str]:
        """The pods, ended ones too, that name the claim."""
        return [
            pod["metadata"]["name"]
            for pod in self.kubectl.items("pods", claim.namespace)
            for volume in pod["spec"].get("volumes", [])
            if volume.get("persistentVolumeClaim", {}).get("claimName") == claim.name
        ]

    def nodes(self, claims: Collection[Claim]) -> dict[Claim, Node]:
        """Where pods that have not ended mount these claims; of others nothing."""
        found = {}
        for namespace in sorted({claim.namespace for claim in claims}):
            pods = [
                pod
                for pod in self.kubectl.items("pods", namespace)
                if pod["spec"].get("nodeName") and pod["status"]["phase"] in ("Pending", "Running")
            ]
            # One that waits for a volume has a node as well, which need not be the volume's.
            for pod in sorted(pods, key=lambda pod: pod["status"]["phase"] == "Running"):
                spec = pod["spec"]
                node = Node(spec["nodeName"], tuple(spec.get("tolerations", [])))
                for volume in spec.get("volumes", []):
                    name = volume.get("persistentVolumeClaim", {}).get("claimName")
                    found[Claim(namespace, name)] = node
        return {claim: node for claim, node in found.items() if claim in claims}

    def lacks_seaweedfs(self) -> bool:
        """Whether its volume is there and itself is not, as after an `up` that was killed."""
        name = f"--field-selector=metadata.name={names.SEAWEEDFS}"
        has_volume = names.SEAWEEDFS_CLAIM in [one["metadata"]["name"] for one in self.bound()]
        return has_volume and not self.kubectl.items("statefulsets", self.foundation, name)

    def buckets(self) -> list[str]:
        """Of the stack's own SeaweedFS."""
        for container in self.seaweedfs_containers:
            for variable in container.get("env", []):
                if variable["name"] == "SEAWEEDFS_BUCKETS":
                    return [name for name in variable.get("value", "").split(",") if name]
        return []

    @property
    def filer(self) -> Pod:
        return Pod(self.foundation, f"{names.SEAWEEDFS}-0", "filer")

    @cached_property
    def seaweedfs_containers(self) -> list[dict[str, Any]]:
        name = f"--field-selector=metadata.name={names.SEAWEEDFS}"
        found = self.kubectl.items("statefulsets", self.foundation, name)
        return list(found[0]["spec"]["template"]["spec"]["containers"]) if found else []

    def image(self) -> tuple[str, list[dict[str, str]]]:
        """What pods of ours run: the image of Postgres, which has tar, and its pull Secrets."""
        spec = self.kubectl.json(
            "get", "statefulset", names.POSTGRES, "--namespace", self.foundation
        )["spec"]["template"]["spec"]
        return spec["containers"][0]["image"], spec.get("imagePullSecrets", [])

    def images(self) -> dict[str, str]:
        """What runs, by workload."""
        found = {}
        for namespace in self.namespaces:
            for kind in ("deployments", "statefulsets"):
                for one in self.kubectl.items(kind, namespace):
                    containers = one["spec"]["template"]["spec"]["containers"]
                    found[f"{namespace}/{one['metadata']['name']}"] = containers[0]["image"]
        return found

    def secrets(self) -> list[dict[str, Any]]:
        """The Secrets that the program generated; Helm's records are none of them."""
        return [
            {key: one[key] for key in ("apiVersion", "kind", "type", "data") if key in one}
            | {"metadata": {k: one["metadata"][k] for k in ("name", "namespace")}}
            for namespace in self.namespaces
            for one in self.kubectl.items(
                "secrets", namespace, "--selector=app.kubernetes.io/part-of=mlhub"
            )
        ]

    def has_data(self) -> list[str]:
        """What a restore would replace, in words."""
        homes = [c["metadata"]["name"] for c in self.claims()]
        told = [f"{len(homes)} volumes ({', '.join(homes[:5])}{' …' if homes[5:] else ''})"]
        people = 0
        if names.HUB_DATABASE in self.databases():
            tables = self.sql("SELECT to_regclass('users')", names.HUB_DATABASE)
            people = (
                int(self.sql("SELECT count(*) FROM users", names.HUB_DATABASE)[0]) if tables else 0
            )
        told += [f"{people} people known to the hub"] if people else []
        return told if homes or people else []

    # What writes.

    def stop(self) -> None:
        """Ends every writer: the services, then people's servers and runs. Volumes stay.

        What starts by the clock waits until then: a verification that meets stopped services
        would raise an alert for nothing.
        """
        for namespace in self.namespaces:
            for one in self.kubectl.items("cronjobs", namespace):
                if not one["spec"].get("suspend"):
                    self._suspend(one, f"{SUSPENDED}=true", suspended=True)
            for one in self.kubectl.items("deployments", namespace):
                name, replicas = one["metadata"]["name"], one["spec"].get("replicas", 1)
                if name in KEPT_RUNNING or not replicas:
                    continue
                where = ["deployment", name, "--namespace", namespace]
                self.kubectl("annotate", *where, "--overwrite", f"{REPLICAS}={replicas}")
                self.kubectl("scale", *where, "--replicas=0")
        try:
            wait_until("the stack's services have stopped", lambda: not self._writers(), 180)
        except RecoveryError as error:
            left = ", ".join(self._writers())
            raise RecoveryError(f"{error}: {left}; end that, then run this again") from None
        self.kubectl(
            "delete", "jobs", "--namespace", self.hub, "--selector", "mlhub.io/kind", "--wait=true"
        )
        self.kubectl(
            "delete", "pods", "--namespace", self.hub, "--selector", "component=singleuser-server",
            "--wait=true",
        )  # fmt: skip

    def _writers(self) -> list[str]:
        """Pods of Deployments that were stopped and have not ended, each with its namespace.

        One that failed, as when it was evicted, is there for good and writes nothing.
        """
        stopped = {
            (namespace, one["metadata"]["name"])
            for namespace in self.namespaces
            for one in self.kubectl.items("deployments", namespace)
            if not one["spec"].get("replicas", 1)
        }
        return [
            f"{namespace}/{pod['metadata']['name']}"
            for namespace in self.namespaces
            for pod in self.kubectl.items("pods", namespace)
            if pod["status"]["phase"] not in ("Succeeded", "Failed")
            for owner in pod["metadata"].get("ownerReferences", [])
            if (namespace, owner["name"].rpartition("-")[0]) in stopped
        ]

    def stopped(self) -> list[str]:
        """What `stop` has stopped, and nobody has started."""
        return [
            f"{namespace}/{one['metadata']['name']}"
            for namespace in self.namespaces
            for kind, mark in (("deployments", REPLICAS), ("cronjobs", SUSPENDED))
            for one in self.kubectl.items(kind, namespace)
            if mark in one["metadata"].get("annotations", {})
        ]

    def start(self, *only: str) -> None:
        """Starts what was stopped, `only` those where any is named, and waits until it is ready."""
        started = []
        for namespace in self.namespaces:
            for one in self.kubectl.items("deployments", namespace):
                name, marks = one["metadata"]["name"], one["metadata"].get("annotations", {})
                if REPLICAS not in marks or (only and name not in only):
                    continue
                where = ["deployment", name, "--namespace", namespace]
                self.kubectl("scale", *where, f"--replicas={marks[REPLICAS]}")
                self.kubectl("annotate", *where, f"{REPLICAS}-")
                started.append(where)
        for where in started:
            self.kubectl("rollout", "status", *where, "--timeout=300s")
        for namespace in () if only else self.namespaces:
            for one in self.kubectl.items("cronjobs", namespace):
                if SUSPENDED in one["metadata"].get("annotations", {}):
                    self._suspend(one, f"{SUSPENDED}-", suspended=False)

    def _suspend(self, cron_job: dict[str, Any], mark: str, *, suspended: bool) -> None:
        """The mark is there for as long as the suspension is, whatever ends this in between."""
        meta = cron_job["metadata"]
        where = ["cronjob", meta["name"], "--namespace", meta["namespace"]]
        steps = [
            ["annotate", *where, "--overwrite", mark],
            ["patch", *where, f'--patch={{"spec":{{"suspend":{str(suspended).lower()}}}}}'],
        ]
        for step in steps if suspended else reversed(steps):
            self.kubectl(*step)


def being_deleted(item: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in item["metadata"]


def readable(claim: Mapping[str, Any]) -> bool:
    """Whether its files are people's and a pod of ours gets them."""
    return claim["metadata"]["name"] not in HELD_ELSEWHERE and not being_deleted(claim)


def of_one_node(claim: Mapping[str, Any]) -> bool:
    """Whether pods of two nodes cannot have its volume at once, as with a disk."""
    return bool(claim["spec"].get("accessModes") == ["ReadWriteOnce"])


def claim_of(item: Mapping[str, Any]) -> Claim:
    return Claim(item["metadata"]["namespace"], item["metadata"]["name"])


def again(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim as it is made anew: no volume yet, and nothing that the cluster wrote on it.

    A static volume keeps its name, which the stack chose.
    """
    meta, spec = claim["metadata"], dict(claim["spec"])
    if spec.get("storageClassName"):
        spec.pop("volumeName", None)
    spec.pop("dataSource", None)
    spec.pop("dataSourceRef", None)
    marks = {
        key: value
        for key, value in meta.get("annotations", {}).items()
        if "kubernetes.io/" not in key and "pulumi.com/" not in key
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": meta.get("labels", {}),
            "annotations": marks,
        },
        "spec": spec,
    }
