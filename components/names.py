"""Names that people and systems rely on, and the rules that make one name of another.

Here and nowhere else: a name that two components spell for themselves is one that some day differs.
"""

from urllib.parse import urlsplit

EMBEDDED_KUBECONFIG = ".mlhub/cluster/kubeconfig"
EMBEDDED_CONTEXT = "mlhub-local"
"""The node that `make up` brings up, where a stack names no context."""

HUB_NAMESPACE = "jupyterhub"
FOUNDATION_NAMESPACE = "foundation"
"""Where a stack file names no other."""

RESTORING = "mlhub.io/restoring"
"""On the hub's namespace while a restore is under way: the archive's name."""
FILLED = "mlhub.io/filled"
"""Beside it once all its data are in: the archive's name again, and the volumes of databases and
buckets that have them."""

HUB_RELEASE = "jupyterhub"
OIDC_CLIENT = "jupyterhub"
PEOPLE_CLIENT = "mlhub-hub"
"""With which the hub looks people up at Keycloak."""
PEOPLE_KEY = "mlhub.people.client_secret"
"""Of the hub's Secret."""

OIDC_SECRET = "jupyterhub-oidc-secret"  # noqa: S105 (names of Secrets, not secrets)
HUB_SECRET = "mlhub-hub"  # noqa: S105
KEYCLOAK_ADMIN_SECRET = "keycloak-admin"  # noqa: S105
KEYCLOAK_UNASKED = "MLHUB_KEYCLOAK_UNASKED"
"""A variable with which an update of one secret alone asks Keycloak nothing (tools/rotate.py)."""
POSTGRES_SECRET = "postgres"  # noqa: S105
DEMO_USERS_SECRET = "demo-users"  # noqa: S105
MLFLOW_SECRET = "mlflow"  # noqa: S105
MLFLOW_S3_SECRET = "mlflow-s3"  # noqa: S105

FINGERPRINT = "mlhub.io/fingerprint"
"""On a pod: the fingerprint of the secrets it was started with."""

PULL_SECRET = "mlhub-registry"  # noqa: S105

KEYCLOAK = "keycloak"
KEYCLOAK_PORT = 8080
POSTGRES = "postgres"
POSTGRES_PORT = 5432
POSTGRES_CLAIM = "postgres-data"

MLFLOW = "mlflow"
MLFLOW_SERVICE = "mlflow-service"
"""With its namespace `mlflow` the documented address (row J3)."""
MLFLOW_PORT = 5000
MLFLOW_PATH = "/services/mlflow"
"""Where the hub's proxy has MLflow, for browsers and for programs outside the cluster."""

SEAWEEDFS = "seaweedfs"
"""Also the headless Service by which volumes are mounted: a name that outlives the pod."""
SEAWEEDFS_S3 = "seaweedfs-s3"
SEAWEEDFS_S3_PORT = 8333
SEAWEEDFS_SECRET = "seaweedfs-s3"  # noqa: S105
SEAWEEDFS_STATE = "seaweedfs-state"
"""The Service by which Pulumi's state is reached, and the Secret with the keys to it."""
SEAWEEDFS_CLAIM = "seaweedfs-data"
SEAWEEDFS_PROGRAMS = ".mlhub/programs/seaweedfs"
"""Where `make up` leaves what goes into the image."""
MLFLOW_BUCKET = "mlflow"

SEAWEEDFS_CSI = "seaweedfs-csi-driver"
"""The provisioner whose volumes the program lays over one path by itself."""
LOCAL_PATH = "rancher.io/local-path"
BLOCK_CSI = (
    "cinder.csi.openstack.org",
    "disk.csi.azure.com",
    "ebs.csi.aws.com",
    "pd.csi.storage.gke.io",
    "rbd.csi.ceph.com",
)
"""Well-known drivers whose file systems one node mounts at a time. Rook's name for the last begins
with a namespace."""
HOME = "/home/jovyan"
SCRATCH_MOUNT = f"{HOME}/scratch"
TMP_MOUNTS = ("/tmp", "/var/tmp")  # noqa: S108
"""What everybody may write to in our images, beside the home and Debian's `/run/lock`: one folder
by two names."""

EXECUTION = "execution"
EXECUTION_TRIGGER = "execution-trigger"
"""What schedules call the API from."""
EXECUTION_PORT = 8002
EXECUTION_SECRET = "mlhub-execution"  # noqa: S105
EXECUTION_PATH = "/services/execution"
"""Where the hub's proxy has the execution API."""
EXECUTION_AUDIENCE = "mlhub-execution"
"""What a Keycloak token for the execution API is for, and the id of its own client."""

WORKSPACES = "workspaces"
WORKSPACES_PORT = 8003
WORKSPACES_SECRET = "mlhub-workspaces"  # noqa: S105
WORKSPACES_PATH = "/services/workspaces"
"""Where the hub's proxy has the workspaces' API."""
WORKSPACES_CLIENT = "mlhub-workspaces"
"""The service's own client in Keycloak."""

VERIFY = "verify"
"""The CronJob that tries the stack, and all that belongs to it."""
VERIFY_SECRET = "mlhub-verify"  # noqa: S105
VERIFY_CLIENT = "mlhub-verify"
"""Its client in Keycloak, which makes the person."""

BACKUP_RECORD = "mlhub-backup"
"""The ConfigMap in the hub's namespace that says when a backup last succeeded, and the Role."""

METRICS_PORT = 9400
"""Of the hub and the services beside it; no proxy leads there (`mlhub.metrics`)."""

CLAIM_ANNOTATIONS = {"pulumi.com/skipAwait": "true"}
"""Of every claim. Of one that is bound already, as after `make destroy`, no word comes any more, so
that the provider waits until its time is up. What mounts the volume is waited for."""

HUB_SERVICE = "hub"
HUB_PORT = 8081
"""The hub's API, as both charts name it."""
PROXY_SERVICE = "proxy-public"
"""Where people come in, on port 80, as both charts name it."""

GROUPS_CLAIM = "groups"

HUB_DATABASE = "jupyterhub"
"""The hub's database and the role that owns it."""

KEYCLOAK_DATABASE = "keycloak"
MLFLOW_DATABASE = "mlflow"
EXECUTION_DATABASE = "execution"
WORKSPACES_DATABASE = "workspaces"


def execution_client(client: str) -> str:
    """The Secret with the id and secret of a service's client."""
    return f"execution-client-{client}"


def labels(component: str) -> dict[str, str]:
    """The recommended labels of Kubernetes for everything that the program makes itself."""
    return {
        "app.kubernetes.io/name": component,
        "app.kubernetes.io/part-of": "mlhub",
        "app.kubernetes.io/managed-by": "pulumi",
    }


def selector(component: str) -> dict[str, str]:
    """The part of `labels` that finds a component's pods; a workload's selector never changes."""
    return {"app.kubernetes.io/name": component, "app.kubernetes.io/part-of": "mlhub"}


def address(host: str, port: int) -> str:
    """What a person types into a browser."""
    return f"http://{host}:{port}"


def in_cluster(service: str, namespace: str) -> str:
    """The Service's name as every pod of the cluster resolves it."""
    return f"{service}.{namespace}.svc.cluster.local"


def namespace_of(url: str) -> str | None:
    """The namespace of a Service's address, such as `http://s3.seaweedfs.svc:8333`."""
    parts = (urlsplit(url).hostname or "").split(".")
    return parts[1] if parts[2:3] == ["svc"] else None


def port_of(url: str) -> int:
    """The port of an http(s) address, its scheme's own where it names none."""
    parts = urlsplit(url)
    return parts.port or {"http": 80, "https": 443}[parts.scheme]


def database_url(database: str, namespace: str) -> str:
    """A database of ours, as its owner, whose password libpq takes from the environment.

    The driver is named since SQLAlchemy 2.1 reads a bare `postgresql://` as psycopg 3.
    """
    host = in_cluster(POSTGRES, namespace)
    return f"postgresql+psycopg2://{database}@{host}:{POSTGRES_PORT}/{database}"


def callback_url(hub_url: str) -> str:
    """Where Keycloak may send people back to, and nowhere else (row T1)."""
    return f"{hub_url}/hub/oauth_callback"


def after_logout_url(hub_url: str) -> str:
    """Where Keycloak may send people who logged out."""
    return f"{hub_url}/hub/login"


def home_class(hub_namespace: str) -> str:
    """The StorageClass of homes. Classes have no namespace, so the hub's is in the name."""
    return f"{hub_namespace}-homes"


def shared_class(hub_namespace: str) -> str:
    """The StorageClass of workspaces and shared volumes, where homes have one of their own."""
    return f"{hub_namespace}-shared"


def data_class(foundation_namespace: str) -> str:
    """The StorageClass of databases, where they are not of the homes' kind."""
    return f"{foundation_namespace}-data"


CACHE_REPOSITORY = "cache"
"""Where builds of Harbor stacks leave their layers, a tag for each image."""

PLATFORM_IMAGES = frozenset(
    {"base", "project", "hub", "proxy", POSTGRES, KEYCLOAK, SEAWEEDFS, MLFLOW, EXECUTION}
)
"""The folders of images/ that are not for people's servers."""

IN_USE = "in-use-"
"""Tags that begin so name what a stack runs; retention keeps them (docs/registry.md)."""


def in_use_tag(stack: str) -> str:
    """The tag by which a stack holds on to the digest that it deployed."""
    return f"{IN_USE}{stack}"


def ran_tag(stack: str, tag: str) -> str:
    """The tag that a stack gives to what it promoted by `tag`, once it runs."""
    return f"ran-{stack}-{tag}"


def hub_nodes(hub_namespace: str) -> str:
    """The ClusterRole by which the hub looks for GPU nodes. Cluster roles have no namespace."""
    return f"{hub_namespace}-hub-nodes"


def image(repository: str, name: str) -> str:
    return f"{repository}/{name}"


def group_chain(path: str) -> list[str]:
    """A Keycloak group's path and those of its ancestors, the eldest first.

    `/mlhub/users` gives `["/mlhub", "/mlhub/users"]`.
    """
    parts = path.strip("/").split("/")
    return ["/" + "/".join(parts[: depth + 1]) for depth in range(len(parts))]


def group_slug(path: str) -> str:
    """A group's path as a resource's name. `--` keeps `/a/b-c` and `/a-b/c` apart."""
    return path.strip("/").replace("/", "--")
