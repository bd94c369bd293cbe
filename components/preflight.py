"""What must be there before the first resource is registered, so that nothing is left half made.

The only module of the program that looks at files, sockets and a cluster. Each check answers with
sentences for a person; an empty list is a yes.
"""

import base64
import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from components import names
from components.config import Project, StackFile
from components.reach import silences
from components.stackfile import path_of, unprefixed, written

CONNECT_SECONDS = 5
FREE_BYTES = 2 * 2**30
"""Below this a build or a database would fail in the middle, and not say that it was the disk."""

OPERATOR = "monitoring.coreos.com"
OPERATOR_KINDS = ("servicemonitors", "prometheusrules")

CERT_MANAGER = {"cert-manager.io/cluster-issuer", "cert-manager.io/issuer"}
"""With one of these annotations cert-manager makes the Secret once the ingress is there."""


@dataclass(frozen=True)
class Context:
    """A kubeconfig's context, as far as the checks need it."""

    kubeconfig: Path
    name: str
    server: str
    trust: ssl.SSLContext
    direct: bool
    """Whether a plain connection says anything: no proxy, and an authority to trust."""


def problems(name: str, stack: StackFile, root: Path) -> list[str]:
    """All that keeps the stack `name` from being applied from the checkout at `root`."""
    found = [
        f"{path_of(name)}: {sentence}"
        for sentence in (*bare_keys(root / path_of(name)), *missing_files(stack, root))
    ]
    context = find_context(stack, root)
    if isinstance(context, str):
        return [*found, context]
    if stack.cluster.context is None:
        found += full_disk(root)
    if silence := unanswered(context):
        return [*found, silence]
    for reference in secret_references(stack):
        found += missing_secret(path_of(name), reference, stack.hub.namespace, context)
    if stack.monitoring is not None:
        found += no_operator(path_of(name), context)
    return found + [f"{path_of(name)}: {sentence}" for sentence in silences(stack)]


def bare_keys(file: Path) -> Iterator[str]:
    """Keys without a prefix: Pulumi gives them one before the program sees them."""
    if file.is_file():
        yield from unprefixed(written(file))


def builds(file: Path) -> bool:
    """Whether another stack's file, where the checkout has it, builds images."""
    images = written(file).get("mlhub:images") if file.is_file() else None
    return bool((images or {}).get("build"))


def missing_files(stack: StackFile, root: Path) -> Iterator[str]:
    """What the stack file names and the checkout lacks."""
    path = stack.hub.chart.path
    if path is not None and not (root / path / "Chart.yaml").is_file():
        yield (
            f"hub.chart.path is {path}, where no Chart.yaml is; "
            "give the folder of a chart, relative to the project"
        )
    promote = stack.images.promote
    if promote is not None and promote.after is not None and builds(root / path_of(promote.after)):
        yield (
            f"images.promote.after is {promote.after}, which builds its images and marks none as "
            "run; a stack that promotes is required, or leave it out"
        )
    if stack.images.build is None:
        return
    if stack.foundation.seaweedfs is not None and not (root / names.SEAWEEDFS_PROGRAMS).is_dir():
        yield (
            f"foundation.seaweedfs is built from {names.SEAWEEDFS_PROGRAMS}, which is not there; "
            "build on a machine where `make up` has run, or promote what another stack has built"
        )
    folders = sorted(dockerfile.parent.name for dockerfile in root.glob("images/*/Dockerfile"))
    for_people = [folder for folder in folders if folder not in names.PLATFORM_IMAGES]
    projects = stack.images.build.projects
    for number, project in enumerate(projects):
        yield from unbuildable(
            f"images.build.projects[{number}]", project, folders, for_people, root
        )
    known = [*for_people, *(project.name for project in projects)]
    for number, profile in enumerate(stack.profiles):
        if profile.image not in known:
            yield (
                f"profiles[{number}].image is {profile.image}; one of {', '.join(known)} is "
                "required, the folders of images/ with a Dockerfile for people's servers or "
                "images.build.projects"
            )


def unbuildable(
    key: str, project: Project, folders: Collection[str], for_people: Collection[str], root: Path
) -> Iterator[str]:
    """What keeps a project's image from being built, or from being an image of its own."""
    if project.name in (*folders, names.CACHE_REPOSITORY):
        yield (
            f"{key}.name is {project.name}, which the registry has for an image of images/ or for "
            "the builds' cache; another is required"
        )
    if project.base not in for_people:
        yield (
            f"{key}.base is {project.base}; one of {', '.join(for_people)} is required, the "
            "folders of images/ with a Dockerfile for people's servers"
        )
    lock = root / project.requirements
    if not lock.is_file():
        yield (
            f"{key}.requirements is {project.requirements}, which is not there; write its "
            "requirements.in and run `make lock`"
        )
    elif not lock.with_suffix(".in").is_file():
        yield (
            f"{key}.requirements is {project.requirements}, which has no requirements.in beside "
            "it; write there what the project needs and run `make lock`"
        )


def full_disk(root: Path) -> Iterator[str]:
    free = shutil.disk_usage(root).free
    if free < FREE_BYTES:
        yield (
            f"{root} has {free / 2**30:.1f} GiB free; at least {FREE_BYTES / 2**30:.0f} GiB are "
            "needed for images and volumes, so make room and run the same command again"
        )


def find_context(stack: StackFile, root: Path) -> Context | str:
    """The stack's context in the first kubeconfig that has it, or why there is none."""
    wanted = stack.cluster.context
    if wanted is None:
        files = [root / names.EMBEDDED_KUBECONFIG]
        advice = "start the embedded node with `make up`, or set cluster.context to one of yours"
    else:
        given = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
        files = [Path(part) for part in given.split(os.pathsep) if part]
        # To the provider another name is another cluster, on which all is to be made anew.
        advice = (
            "`kubectl config rename-context` gives the cluster's that name, or point KUBECONFIG at "
            "the file that has it (cluster.context itself may change before the first `up` alone)"
        )
    name = wanted or names.EMBEDDED_CONTEXT
    seen: list[str] = []
    for file in files:
        if not file.is_file():
            continue
        content = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        contexts = _named(content, "contexts")
        seen += contexts
        if name in contexts:
            cluster = _named(content, "clusters").get(contexts[name]["context"]["cluster"])
            if cluster is None:
                return f"{file}: context {name} names a cluster that the file lacks; {advice}"
            details = cluster["cluster"]
            direct = not {"proxy-url", "insecure-skip-tls-verify"} & set(details)
            return Context(file, name, details["server"], _trust(details, file), direct)
    where = ", ".join(map(str, files))
    if seen:
        there = f"it has {', '.join(seen)}"
    else:
        there = "it has none" if any(file.is_file() for file in files) else "no such file"
    return f"no Kubernetes context {name} in {where} ({there}); {advice}"


def _trust(cluster: Mapping[str, Any], kubeconfig: Path) -> ssl.SSLContext:
    """The authority of a kubeconfig's cluster; the machine's own where it names none."""
    if data := cluster.get("certificate-authority-data"):
        return ssl.create_default_context(cadata=base64.b64decode(data).decode())
    file = cluster.get("certificate-authority")
    return ssl.create_default_context(cafile=kubeconfig.parent / file if file else None)


def _named(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A kubeconfig's list of named things, by name."""
    return {item["name"]: item for item in content.get(key) or []}


def unanswered(context: Context) -> str | None:
    """Why the API server cannot be reached, or None. A preview needs it, too.

    Any HTTP answer will do: who is asking and what they may is for the provider.
    """
    if not context.direct:
        return None
    who = f"the cluster of context {context.name}"
    try:
        urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context.trust)
        ).open(f"{context.server}/version", timeout=CONNECT_SECONDS)
    except urllib.error.HTTPError:
        return None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            return (
                f"what answers at {context.server} is not {who} ({error.reason.verify_message}); "
                "another cluster may have taken its address, so start the right one again or "
                f"renew {context.kubeconfig}"
            )
        return _silent(who, context, error.reason)
    except OSError as error:
        return _silent(who, context, error)
    return None


def _silent(who: str, context: Context, reason: object) -> str:
    timed_out = isinstance(reason, TimeoutError)
    why = "timed out" if timed_out else getattr(reason, "strerror", None) or reason
    return (
        f"{who} does not answer at {context.server} ({why}); start it or connect to its network, "
        "then run the same command again (a preview compares with the cluster, so it needs it, too)"
    )


@dataclass(frozen=True)
class SecretReference:
    """A Secret that the stack says exists."""

    key: str
    """Where the stack file names it."""
    name: str
    keys: frozenset[str]
    how: str
    """How a person makes it: what comes after `kubectl create secret `, and what else would do."""


def secret_references(stack: StackFile) -> Iterator[SecretReference]:
    """The Secrets in the hub's namespace that others make."""
    if name := stack.identity.existing_secret:
        how = (
            f"generic {name} --from-literal=client_id=… --from-file=client_secret=…`, or leave "
            "the option out"
        )
        keys = frozenset({"client_id", "client_secret"})
        yield SecretReference("identity.existing_secret", name, keys, how)
    ingress = stack.hub.ingress
    if ingress is not None and not CERT_MANAGER & set(ingress.annotations):
        name = ingress.tls_secret
        how = f"tls {name} --cert=… --key=…`, or name an issuer in hub.ingress.annotations"
        keys = frozenset({"tls.crt", "tls.key"})
        yield SecretReference("hub.ingress.tls_secret", name, keys, how)


def missing_secret(
    file: str, reference: SecretReference, namespace: str, context: Context
) -> Iterator[str]:
    """What is wrong with a Secret that the stack says exists. Its values are never read."""
    keys = "{{range $key, $value := .data}}{{$key}} {{end}}"
    command = ["kubectl", "--kubeconfig", str(context.kubeconfig), "--context", context.name]
    command += ["--namespace", namespace, "--request-timeout", "10s"]
    command += ["get", "secret", reference.name, "--output", f"go-template={keys}"]
    place = f"{file}: {reference.key} is {reference.name}"
    advice = f"create it with `kubectl -n {namespace} create secret {reference.how}"
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except FileNotFoundError:
        yield f"{place}, and kubectl, which would look for it, is not on PATH; install kubectl"
    except subprocess.CalledProcessError as error:
        yield f"{place}, which cannot be read ({error.stderr.strip()}); {advice}"
    else:
        lacking = reference.keys - set(answer.stdout.split())
        if lacking:
            yield f"{place}, which lacks the key {' and '.join(sorted(lacking))}; {advice}"


def no_operator(file: str, context: Context) -> Iterator[str]:
    """Whether the cluster knows what `monitoring` makes; a missing kind would end an `up` half-way.

    Anybody may ask a cluster for its kinds.
    """
    command = ["kubectl", "--kubeconfig", str(context.kubeconfig), "--context", context.name]
    command += ["--request-timeout", "10s", "api-resources", "--output", "name"]
    command += ["--api-group", OPERATOR]
    advice = "install the operator, or leave the section out"
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    except FileNotFoundError:
        yield f"{file}: monitoring needs kubectl, which is not on PATH, for a look; install kubectl"
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()
        yield f"{file}: monitoring is there; the cluster's kinds cannot be read ({said}); {advice}"
    else:
        known = set(answer.stdout.split())
        lacking = [kind for kind in OPERATOR_KINDS if f"{kind}.{OPERATOR}" not in known]
        if lacking:
            yield (
                f"{file}: monitoring is there and the cluster has no {' and no '.join(lacking)} of "
                f"the Prometheus operator; {advice}"
            )
