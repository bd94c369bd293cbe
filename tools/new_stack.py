"""Writes a commented stack file to begin with: `make new-stack NAME=team-a`.

What it holds is the least that the model takes for a cluster of one's own; the file is checked by
the model before it is written, and none that is there is ever overwritten.
"""

import json
import re
import sys
from pathlib import Path

import yaml

from components.config import SECRET_KEYS
from components.stackfile import PREFIX, load

STACKS = Path(__file__).resolve().parent.parent / "stacks"
NAME = re.compile(r"[a-z]([a-z0-9-]{0,29}[a-z0-9])?")

TEMPLATE = """\
# yaml-language-server: $schema=schema.json
# Go through it from top to bottom: example.com and 10.0.… stand for what is yours. An editor that
# knows the schema says what each key takes, and which others there are.
config:
  # A context of your kubeconfig; the workflows call theirs so.
  mlhub:cluster: {{context: mlhub-{name}}}
  # The hub will be https://jupyter.<domain>.
  mlhub:domain: {name}.example.com
  mlhub:identity:
    # A Keycloak that is there, with a realm for this stack alone: names of clients and groups are
    # the same in every stack. Without one: foundation.keycloak instead.
    keycloak:
      url: https://keycloak.example.com
      client_id: mlhub-pulumi
    realm: mlhub-{name}
    # Only members of these groups may log in. The stack makes them; at one that others have made
    # `up` stops, and says how to take it over.
    access_groups: [/mlhub/users, /mlhub/admins]
    admin_groups: [/mlhub/admins]
  mlhub:registry:
    repository: harbor.example.com/mlhub
    harbor:
      url: https://harbor.example.com
      username: robot$mlhub
      keep_tags: 20
      storage: 500Gi
  mlhub:images:
    # What another stack has built. The first stack of a registry builds, and has no promote:
    # build: {{tag: 2026.11.0, builder: mlhub, debian: "docker.io/library/debian:bookworm-slim"}}
    promote: {{repository: harbor.example.com/mlhub, tag: 2026.11.0}}
  mlhub:storage:
    # A CSI driver; volumes are kept when a claim is deleted.
    provisioner: seaweedfs-csi-driver
    home: 10Gi
  mlhub:hub:
    # The TLS Secret has to be in the hub's namespace, unless cert-manager is named in annotations.
    ingress: {{class_name: nginx, tls_secret: jupyter-tls}}
    chart: {{repository: https://hub.jupyter.org/helm-chart, name: jupyterhub, version: 4.4.0}}
  # The choices of the spawn form. Each stays within quotas.user and quotas.namespace.
  mlhub:profiles:
    - slug: standard-cpu
      name: Standard (CPU)
      description: JupyterLab with pandas and scikit-learn.
      default: true
      image: ml-cpu
      cpu: {{limit: 4, guarantee: 1}}
      memory: {{limit: 8G, guarantee: 2G}}
      gpu: 0
  mlhub:quotas:
    # All servers together; how many one person has at once, and how large each may be.
    namespace: {{cpu: 64, memory: 256Gi, gpu: 0, storage: 2Ti, pods: 100}}
    user: {{servers: 3, cpu: 16, memory: 64Gi, gpu: 0}}
  # An MLflow whose artifacts go to a bucket that is there, with network.s3 below. Its secret:
  # pulumi config set --secret mlhub:s3_secret_key --stack {name}
  # mlhub:mlflow:
  #   artifacts:
  #     endpoint: https://s3.example.com
  #     bucket: mlflow-{name}
  #     access_key: mlflow-{name}
  # A temporary person tries the stack after each `up` and every night.
  mlhub:verify: {{}}
  mlhub:network:
    # What `kubectl -n default get endpoints kubernetes` prints, and what keycloak.url resolves to.
    kubernetes_api: [10.0.0.1/32]
    keycloak: [10.0.8.10/32]
    # s3: [10.0.9.0/24]
  mlhub:foundation:
    # The databases. Any CSI driver of block volumes: on SeaweedFS's mounts none is safe.
    postgres: {{volume: 20Gi}}
    provisioner: ebs.csi.aws.com
"""

LIMITS = """\
  {name}:
    at_least: staging
    server: {{cpu: 16, memory: 64Gi, gpu: 0}}
    user_servers: 3
    namespace: {{cpu: 64, memory: 256Gi, gpu: 0, storage: 2Ti, pods: 100}}
    registries: [harbor.example.com/mlhub]
    charts: *released
    idle_timeout: 3600
    plain_http: false
    demo_users: false
"""
"""What the owners of `policies/limits.yaml` are asked to add, fit for the file above."""


def new_stack(name: str, folder: Path) -> Path:
    """The file made for the stack `name`; ValueError for a bad name or one that is taken."""
    if not NAME.fullmatch(name):
        raise ValueError(
            f"NAME is {name!r}; up to 31 small letters, digits and `-` are required, beginning "
            "with a letter and not ending with `-`: make new-stack NAME=team-a"
        )
    file = folder / f"Pulumi.{name}.yaml"
    if file.exists():
        raise ValueError(f"stacks/{file.name} is there already; edit it, or choose another name")
    text = TEMPLATE.format(name=name)
    checked(name, text)
    file.write_text(text, encoding="utf-8")
    return file


def checked(name: str, text: str) -> list[str]:
    """The secrets that the stack needs; StackFileError for a template out of date."""
    config = yaml.safe_load(text)["config"]
    raw = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in config.items()
    }
    given = {PREFIX + key: "" for key in SECRET_KEYS}
    return [*load(name, raw | given, given).secret_keys]


def main() -> int:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    try:
        file = new_stack(name, STACKS)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote stacks/{file.name}; edit it, then:")
    print(f"  pulumi stack init {name}")
    for key in checked(name, file.read_text(encoding="utf-8")):
        print(f"  pulumi config set --secret {PREFIX}{key} --stack {name}")
    print(f"  make preview STACK={name}")
    print("and put this at the end of policies/limits.yaml, or every preview is refused:")
    print(LIMITS.format(name=name), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
