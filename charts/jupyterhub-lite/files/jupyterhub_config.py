"""The chart's values as JupyterHub's configuration.

Nothing in this file is templated: it reads the values from the file in which the chart mounts
them, so that it can be executed and tested as it is.
"""

import os
import sys
from pathlib import Path

import yaml

c = get_config()  # noqa: F821

ETC = Path(os.environ.get("MLHUB_HUB_ETC", "/usr/local/etc/jupyterhub"))

values = yaml.safe_load((ETC / "secret" / "values.yaml").read_text())
hub, singleuser, cull = values["hub"], values["singleuser"], values["cull"]
storage = singleuser["storage"]


def secret(key):
    """The value of `key` in hub.existingSecret; ends the hub when it is not there."""
    try:
        return (ETC / "existing-secret" / key).read_text()
    except OSError:
        sys.exit(f"The Secret {hub['existingSecret']} (hub.existingSecret) has no key {key}.")


def image(given):
    return f"{given['name']}:{given['tag']}"


def listed(given):
    """A list, whether the values hold a list or a mapping of names to its items."""
    return list(given.values()) if isinstance(given, dict) else list(given or [])


def given(**traits):
    """The traits that have a value; the others keep the class's default."""
    return {name: value for name, value in traits.items() if value is not None}


# The proxy is a pod of its own: it and the user servers go on while the hub restarts.
c.JupyterHub.update(
    base_url=hub["baseUrl"],
    hub_bind_url="http://:8081",
    hub_connect_url="http://hub:8081",
    cleanup_servers=False,
    last_activity_interval=60,
    db_url=hub["db"]["url"],
    cookie_secret=bytes.fromhex(secret("hub.config.JupyterHub.cookie_secret")),
    spawner_class="kubespawner.KubeSpawner",
)
c.ConfigurableHTTPProxy.update(
    api_url="http://proxy-api:8001",
    should_start=False,
    auth_token=secret("hub.config.ConfigurableHTTPProxy.auth_token"),
)
c.CryptKeeper.keys = secret("hub.config.CryptKeeper.keys").split(";")
# libpq reads the password here, so that no URL carries it.
os.environ["PGPASSWORD"] = secret("hub.db.password")

if values["debug"]["enabled"]:
    c.JupyterHub.log_level = "DEBUG"
    c.Spawner.debug = True

release, chart = values["Release"]["Name"], values["Chart"]
c.KubeSpawner.update(
    namespace=os.environ["POD_NAMESPACE"],
    common_labels={
        # The names that Zero to JupyterHub gives, for its network policies select by them, too.
        "app": "jupyterhub",
        "release": release,
        "chart": f"{chart['Name']}-{chart['Version']}",
        "app.kubernetes.io/name": "jupyterhub",
        "app.kubernetes.io/instance": release,
        "app.kubernetes.io/managed-by": "kubespawner",
        "helm.sh/chart": f"{chart['Name']}-{chart['Version']}",
    },
    extra_labels={"hub.jupyter.org/network-access-hub": "true"},
    image=image(singleuser["image"]),
    image_pull_secrets=values["imagePullSecrets"],
    cmd=singleuser["cmd"],
    uid=singleuser["uid"],
    fs_gid=singleuser["fsGid"],
    allow_privilege_escalation=singleuser["allowPrivilegeEscalation"],
    start_timeout=singleuser["startTimeout"],
    environment=singleuser["extraEnv"],
    extra_pod_config=singleuser["extraPodConfig"],
    profile_list=singleuser["profileList"],
    **given(
        image_pull_policy=singleuser["image"]["pullPolicy"],
        default_url=singleuser["defaultUrl"],
        cpu_limit=singleuser["cpu"]["limit"],
        cpu_guarantee=singleuser["cpu"]["guarantee"],
        mem_limit=singleuser["memory"]["limit"],
        mem_guarantee=singleuser["memory"]["guarantee"],
    ),
)

volumes, volume_mounts = [], []
if storage["type"] == "dynamic":
    dynamic = storage["dynamic"]
    name = dynamic["volumeNameTemplate"]
    volumes.append({"name": name, "persistentVolumeClaim": {"claimName": "{pvc_name}"}})
    volume_mounts.append({"name": name, "mountPath": storage["homeMountPath"]})
    c.KubeSpawner.update(
        storage_pvc_ensure=True,
        storage_capacity=storage["capacity"],
        storage_access_modes=dynamic["storageAccessModes"],
        **given(
            storage_class=dynamic["storageClass"],
            pvc_name_template=dynamic["pvcNameTemplate"],
        ),
    )
c.KubeSpawner.volumes = volumes + listed(storage["extraVolumes"])
c.KubeSpawner.volume_mounts = volume_mounts + listed(storage["extraVolumeMounts"])

c.JupyterHub.services = [
    {"name": name, "api_token": secret(f"hub.services.{name}.apiToken"), **service}
    for name, service in hub["services"].items()
]
c.JupyterHub.load_roles = [{"name": name, **role} for name, role in hub["loadRoles"].items()]
if cull["enabled"]:
    culler = "jupyterhub-idle-culler"
    command = [
        # Not by the Service: no network policy lets the hub reach itself through one.
        f"--url=http://127.0.0.1:8081{hub['baseUrl'].rstrip('/')}/hub/api",
        f"--timeout={cull['timeout']}",
        f"--cull-every={cull['every']}",
        f"--concurrency={cull['concurrency']}",
        f"--max-age={cull['maxAge']}",
        f"--cull-users={cull['users']}",
        f"--cull-admin-users={cull['adminUsers']}",
        f"--remove-named-servers={cull['removeNamedServers']}",
    ]
    c.JupyterHub.services.append(
        {
            "name": culler,
            "command": [sys.executable, "-m", "jupyterhub_idle_culler", *command],
            "api_token": secret(f"hub.services.{culler}.apiToken"),
        }
    )
    scopes = ["list:users", "read:users:activity", "read:servers", "delete:servers"]
    c.JupyterHub.load_roles.append(
        {
            "name": culler,
            "services": [culler],
            "scopes": [*scopes, "admin:users"] if cull["users"] else scopes,
        }
    )

for section, traits in hub["config"].items():
    c[section].update(traits)

for name, code in sorted(hub["extraConfig"].items()):
    exec(compile(code, f"hub.extraConfig.{name}", "exec"), {"c": c})  # noqa: S102
