"""Each rule over the Release's values: a stack that breaks it, and one at the edge that passes."""

from typing import Any

import pytest

from tests.policies.stack import (
    GONE,
    HUB,
    UNKNOWN,
    Place,
    changed,
    marked,
    program,
    refusals,
    remarks,
)

V = "values"
PROFILE = (V, "singleuser", "profileList", 1)
OVERRIDE = (*PROFILE, "kubespawner_override")
GPU = "nvidia.com/gpu"
QUOTAS = (V, "custom", "mlhub", "quotas")
DIGEST = "@sha256:" + 64 * "a"
READ_ONLY = {"readOnlyRootFilesystem": True}
NO_RESOURCES = (
    "none is required: what a server takes is said by limits of its own, which a rule reads"
)
PRIVATE = (
    "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16",
    "198.18.0.0/15", "240.0.0.0/4",
)  # fmt: skip
CHOICE = {
    "size": {
        "display_name": "Size",
        "choices": {"big": {"display_name": "Big", "kubespawner_override": {"cpu_limit": 8}}},
    }
}

NGINX = "nginx.ingress.kubernetes.io"
INGRESS = {
    "enabled": True,
    "hosts": ["hub.example.org"],
    "tls": [{"hosts": ["hub.example.org"], "secretName": "hub-tls"}],
}


def broken(*changes: tuple[Place, Any]) -> list[tuple[str, str]]:
    told = refusals(changed(program("local"), HUB, dict(changes)))
    head = "Release jupyterhub: "
    assert all(message.startswith(head) for _, message in told)
    return [(rule, message.removeprefix(head)) for rule, message in told]


BREACHES: dict[str, tuple[Place, Any, str, str]] = {
    "more cores than allowed": (
        (*OVERRIDE, "cpu_limit"), 8.5, "server-limits",
        "singleuser.profileList[1].kubespawner_override.cpu_limit is 8.5; "
        "a limit above 0 and at most 8 cores is required",
    ),
    "no limit of cores": (
        (*OVERRIDE, "cpu_limit"), GONE, "server-limits",
        "singleuser.profileList[1].kubespawner_override.cpu_limit is not given; "
        "a limit above 0 and at most 8 cores is required",
    ),
    "a limit of 0, which is none": (
        (*OVERRIDE, "cpu_limit"), 0, "server-limits",
        "singleuser.profileList[1].kubespawner_override.cpu_limit is 0; "
        "a limit above 0 and at most 8 cores is required",
    ),
    "a limit that is no number": (
        (*OVERRIDE, "cpu_limit"), "lots", "server-limits",
        "singleuser.profileList[1].kubespawner_override.cpu_limit is lots; "
        "a limit above 0 and at most 8 cores is required",
    ),
    "more memory than allowed": (
        (*OVERRIDE, "mem_limit"), "16.5G", "server-limits",
        "singleuser.profileList[1].kubespawner_override.mem_limit is 16.5G; "
        "a limit above 0 and at most 16 GiB is required",
    ),
    "no limit of memory": (
        (*OVERRIDE, "mem_limit"), GONE, "server-limits",
        "singleuser.profileList[1].kubespawner_override.mem_limit is not given; "
        "a limit above 0 and at most 16 GiB is required",
    ),
    "memory in a unit that KubeSpawner does not know": (
        (*OVERRIDE, "mem_limit"), "5Gi", "server-limits",
        "singleuser.profileList[1].kubespawner_override.mem_limit is 5Gi; "
        "a limit above 0 and at most 16 GiB is required",
    ),
    "a GPU where there is none": (
        (*OVERRIDE, "extra_resource_limits", GPU), "1", "server-limits",
        'singleuser.profileList[1].kubespawner_override.extra_resource_limits["nvidia.com/gpu"] '
        "is 1; a whole number of GPUs from 0 to 0 is required",
    ),
    "GPUs not stated": (
        (*OVERRIDE, "extra_resource_limits"), {}, "server-limits",
        'singleuser.profileList[1].kubespawner_override.extra_resource_limits["nvidia.com/gpu"] '
        "is not given; a whole number of GPUs from 0 to 0 is required, "
        "for a profile without it keeps another's",
    ),
    "a part of a GPU by another name": (
        (*OVERRIDE, "extra_resource_limits", "nvidia.com/mig-1g.5gb"), 1, "server-limits",
        "singleuser.profileList[1].kubespawner_override."
        'extra_resource_limits["nvidia.com/mig-1g.5gb"] is 1; '
        "a whole number of GPUs from 0 to 0 is required",
    ),
    "a profile that overrides nothing": (
        OVERRIDE, {"cpu_limit": 1, "mem_limit": "1G"}, "server-limits",
        'singleuser.profileList[1].kubespawner_override.extra_resource_limits["nvidia.com/gpu"] '
        "is not given; a whole number of GPUs from 0 to 0 is required, "
        "for a profile without it keeps another's",
    ),
    "a default server without a limit": (
        (V, "singleuser", "memory", "limit"), GONE, "server-limits",
        "singleuser.memory.limit is not given; a limit above 0 and at most 16 GiB is required",
    ),
    "a default server with a GPU": (
        (V, "singleuser", "extraResource"), {"limits": {GPU: "1"}}, "server-limits",
        'singleuser.extraResource.limits["nvidia.com/gpu"] is 1; '
        "a whole number of GPUs from 0 to 0 is required",
    ),
    "a choice beyond the limit": (
        (*PROFILE, "profile_options"),
        {"size": {"choices": {"big": {"kubespawner_override": {"cpu_limit": 9}}}}},
        "server-limits",
        "singleuser.profileList[1].profile_options.size.choices.big.kubespawner_override."
        "cpu_limit is 9; a limit above 0 and at most 8 cores is required",
    ),
    "a choice that takes the limit away": (
        (*PROFILE, "profile_options"),
        {"size": {"choices": {"all": {"kubespawner_override": {"mem_limit": None}}}}},
        "server-limits",
        "singleuser.profileList[1].profile_options.size.choices.all.kubespawner_override."
        "mem_limit is not given; a limit above 0 and at most 16 GiB is required",
    ),
    "more of everything by way of the container": (
        (*OVERRIDE, "extra_container_config"), {"resources": {"limits": {"cpu": "64"}}},
        "server-limits",
        "singleuser.profileList[1].kubespawner_override.extra_container_config.resources "
        f"is {{'limits': {{'cpu': '64'}}}}; {NO_RESOURCES}",
    ),
    "no limit by way of a choice's container": (
        (*PROFILE, "profile_options"),
        {"size": {"choices": {"x": {"kubespawner_override": {
            "extra_container_config": {"resources": {}}}}}}},
        "server-limits",
        "singleuser.profileList[1].profile_options.size.choices.x.kubespawner_override."
        f"extra_container_config.resources is {{}}; {NO_RESOURCES}",
    ),
    "more by way of a container beside": (
        (*OVERRIDE, "extra_containers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}", "securityContext": READ_ONLY,
          "resources": {"limits": {GPU: "8"}}}],
        "server-limits",
        "singleuser.profileList[1].kubespawner_override.extra_containers[0].resources is "
        f"{{'limits': {{'nvidia.com/gpu': '8'}}}}; {NO_RESOURCES}",
    ),
    "more by way of a container before": (
        (*OVERRIDE, "init_containers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}", "securityContext": READ_ONLY,
          "resources": {"limits": {"memory": "512Gi"}}}],
        "server-limits",
        "singleuser.profileList[1].kubespawner_override.init_containers[0].resources is "
        f"{{'limits': {{'memory': '512Gi'}}}}; {NO_RESOURCES}",
    ),
    "more by way of the pod": (
        (*OVERRIDE, "extra_pod_config"), {"resources": {"limits": {"cpu": "64"}}},
        "server-limits",
        "singleuser.profileList[1].kubespawner_override.extra_pod_config.resources is "
        f"{{'limits': {{'cpu': '64'}}}}; {NO_RESOURCES}",
    ),
    "more by way of every pod": (
        (V, "singleuser", "extraPodConfig"), {"resources": {"limits": {"cpu": "64"}}},
        "server-limits",
        "singleuser.extraPodConfig.resources is "
        f"{{'limits': {{'cpu': '64'}}}}; {NO_RESOURCES}",
    ),
    "more by way of a container in every pod": (
        (V, "singleuser", "extraContainers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}", "securityContext": READ_ONLY,
          "resources": {"limits": {"cpu": "64"}}}],
        "server-limits",
        "singleuser.extraContainers[0].resources is "
        f"{{'limits': {{'cpu': '64'}}}}; {NO_RESOURCES}",
    ),
    "cores among the GPUs": (
        (*OVERRIDE, "extra_resource_limits", "cpu"), "64", "server-limits",
        'singleuser.profileList[1].kubespawner_override.extra_resource_limits["cpu"] is 64; '
        "none is required: it would take the place of the limit that a rule reads",
    ),
    "memory among the GPUs of the default server": (
        (V, "singleuser", "extraResource"), {"limits": {"memory": "512Gi"}}, "server-limits",
        'singleuser.extraResource.limits["memory"] is 512Gi; '
        "none is required: it would take the place of the limit that a rule reads",
    ),
    "an admission of larger servers": (
        (*QUOTAS, "server", "cpu"), 9, "admission-limits",
        "custom.mlhub.quotas.server.cpu is 9; a limit above 0 and at most 8 cores is required",
    ),
    "an admission of more memory": (
        (*QUOTAS, "server", "memory"), "17Gi", "admission-limits",
        "custom.mlhub.quotas.server.memory is 17Gi; "
        "a limit above 0 and at most 16 GiB is required",
    ),
    "an admission without a bound": (
        (*QUOTAS, "server", "gpu"), GONE, "admission-limits",
        "custom.mlhub.quotas.server.gpu is not given; at most 0 GPUs are required",
    ),
    "too many servers for a person": (
        (*QUOTAS, "user", "servers"), 4, "admission-limits",
        "custom.mlhub.quotas.user.servers is 4; at most 3 is required",
    ),
    "a profile that idles too long": (
        (V, "custom", "mlhub", "profiles"), {"small-cpu": {"idle_timeout": 7200}}, "idle-culling",
        "custom.mlhub.profiles.small-cpu.idle_timeout is 7200; "
        "a number of seconds from 1 to 3600 is required",
    ),
    "a choice that people type": (
        (*PROFILE, "profile_options"),
        {"image": {"unlisted_choice": {"enabled": True}}},
        "listed-choices",
        "singleuser.profileList[1].profile_options.image.unlisted_choice.enabled is true; "
        "list the choices instead: no rule sees what people type",
    ),
    "a privileged container in a profile": (
        (*OVERRIDE, "privileged"), True, "no-privilege",
        "singleuser.profileList[1].kubespawner_override.privileged is true; "
        "a pod without privileges is required",
    ),
    "privilege beneath an option that is called labels": (
        (*PROFILE, "profile_options"),
        {"labels": {"choices": {"x": {"kubespawner_override": {"privileged": True}}}}},
        "no-privilege",
        "singleuser.profileList[1].profile_options.labels.choices.x.kubespawner_override."
        "privileged is true; a pod without privileges is required",
    ),
    "a moving image beneath a choice that is called data": (
        (*PROFILE, "profile_options"),
        {"image": {"choices": {"data": {"kubespawner_override": {
            "image": "localhost:5000/mlhub/data:1"}}}}},
        "images-by-digest",
        "singleuser.profileList[1].profile_options.image.choices.data.kubespawner_override.image "
        "is localhost:5000/mlhub/data:1; "
        "an image by its digest (…@sha256:…) is required: a tag can move",
    ),
    "privilege in what every pod has": (
        (V, "singleuser", "extraPodConfig"), {"hostNetwork": True}, "no-privilege",
        "singleuser.extraPodConfig.hostNetwork is true; "
        "a pod with a network of its own is required",
    ),
    "the node's processes": (
        (V, "singleuser", "extraPodConfig"), {"hostPID": True}, "no-privilege",
        "singleuser.extraPodConfig.hostPID is true; a pod with processes of its own is required",
    ),
    "privilege by way of a choice": (
        (*PROFILE, "profile_options"),
        {"size": {"choices": {"x": {"kubespawner_override": {
            "cpu_limit": 1, "extra_pod_config": {"hostIPC": True}}}}}},
        "no-privilege",
        "singleuser.profileList[1].profile_options.size.choices.x.kubespawner_override."
        "extra_pod_config.hostIPC is true; a pod with memory of its own is required",
    ),
    "escalation in an init container": (
        (V, "singleuser", "initContainers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}",
          "securityContext": {"allowPrivilegeEscalation": True, **READ_ONLY}}],
        "no-privilege",
        "singleuser.initContainers[0].securityContext.allowPrivilegeEscalation is true; "
        "false is required",
    ),
    "an added capability in an extra container": (
        (V, "singleuser", "extraContainers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}",
          "securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}, **READ_ONLY}}],
        "no-privilege",
        "singleuser.extraContainers[0].securityContext.capabilities.add is ['SYS_ADMIN']; "
        "a container that adds no capability is required",
    ),
    "a folder of the node": (
        (V, "singleuser", "storage", "extraVolumes"),
        [{"name": "docker", "hostPath": {"path": "/run"}}], "no-privilege",
        "singleuser.storage.extraVolumes[0].hostPath is {'path': '/run'}; "
        "a volume that is no folder of the node is required",
    ),
    "root": (
        (V, "singleuser", "uid"), 0, "no-privilege",
        "singleuser.uid is 0; a user other than root is required",
    ),
    "root in the hub": (
        (V, "hub", "containerSecurityContext", "runAsUser"), 0, "no-privilege",
        "hub.containerSecurityContext.runAsUser is 0; a user other than root is required",
    ),
    "a profile that replaces what the hub says of its servers": (
        (*OVERRIDE, "container_security_context"), {"capabilities": {"drop": ["ALL"]}},
        "read-only-images",
        "singleuser.profileList[1].kubespawner_override.container_security_context."
        "readOnlyRootFilesystem is not given; true is required: what is written to has a volume",
    ),
    "a choice that writes to its image": (
        (*PROFILE, "profile_options"),
        {"size": {"choices": {"x": {"kubespawner_override": {
            "extra_container_config": {"security_context": {"readOnlyRootFilesystem": False}}}}}}},
        "read-only-images",
        "singleuser.profileList[1].profile_options.size.choices.x.kubespawner_override."
        "extra_container_config.security_context.readOnlyRootFilesystem is false; "
        "true is required: what is written to has a volume",
    ),
    "a container of one's own in a pod that says nothing": (
        (V, "singleuser", "extraContainers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}"}], "read-only-images",
        "singleuser.extraContainers[0].securityContext.readOnlyRootFilesystem is not given; "
        "true is required: what is written to has a volume",
    ),
    "a hub that writes to its image": (
        (V, "hub", "containerSecurityContext", "readOnlyRootFilesystem"), False,
        "read-only-images",
        "hub.containerSecurityContext.readOnlyRootFilesystem is false; "
        "true is required: what is written to has a volume",
    ),
    "a proxy of which nothing is said": (
        (V, "proxy", "chp", "containerSecurityContext"), GONE, "read-only-images",
        "proxy.chp.containerSecurityContext.readOnlyRootFilesystem is not given; "
        "true is required: what is written to has a volume",
    ),
    "escalation for every user": (
        (V, "singleuser", "allowPrivilegeEscalation"), True, "no-privilege",
        "singleuser.allowPrivilegeEscalation is true; false is required",
    ),
    "a privileged container against the metadata address": (
        (V, "singleuser", "cloudMetadata", "blockWithIptables"), True, "no-privilege",
        "singleuser.cloudMetadata.blockWithIptables is true; "
        "false is required, for it adds a privileged container",
    ),
    "the same by default": (
        (V, "singleuser", "cloudMetadata"), GONE, "no-privilege",
        "singleuser.cloudMetadata.blockWithIptables is not given; "
        "false is required, for it adds a privileged container",
    ),
    "a service account for users": (
        (V, "singleuser", "serviceAccountName"), "hub", "no-cluster-access",
        "singleuser.serviceAccountName is hub; "
        "none is required: a user's pod has no business with the cluster",
    ),
    "a mounted token": (
        (V, "singleuser", "extraPodConfig"), {"automountServiceAccountToken": True},
        "no-cluster-access",
        "singleuser.extraPodConfig.automountServiceAccountToken is true; false is required",
    ),
    "a service account by way of a profile": (
        (*OVERRIDE, "service_account"), "admin", "no-cluster-access",
        "singleuser.profileList[1].kubespawner_override.service_account is admin; "
        "none is required: a user's pod has no business with the cluster",
    ),
    "an image by its tag": (
        (V, "hub", "image", "tag"), "1.0", "images-by-digest",
        "hub.image is localhost:5000/mlhub/hub:1.0; "
        "an image by its digest (…@sha256:…) is required: a tag can move",
    ),
    "a profile's image from elsewhere": (
        (*OVERRIDE, "image"), f"quay.io/jupyter/base:1{DIGEST}", "images-by-digest",
        f"singleuser.profileList[1].kubespawner_override.image is quay.io/jupyter/base:1{DIGEST}"
        "; an image from localhost:5000/mlhub is required",
    ),
    "a registry whose name begins alike": (
        (V, "hub", "image", "name"), "localhost:5000/mlhub-evil/hub", "images-by-digest",
        "an image from localhost:5000/mlhub is required",
    ),
    "the chart's own image": (
        (V, "hub", "image"), GONE, "images-by-digest",
        "hub.image is not given; "
        "a name and a tag are required, for the chart's own image is unseen",
    ),
    "a part of the chart that brings its image": (
        (V, "scheduling", "userScheduler"), {}, "images-by-digest",
        "scheduling.userScheduler.image is not given; a name and a tag are required, or "
        "scheduling.userScheduler.enabled: false, for the chart's own image is unseen",
    ),
    "an image to pull ahead": (
        (V, "prePuller", "extraImages"), {"x": {"name": "localhost:5000/mlhub/x", "tag": "1"}},
        "images-by-digest",
        "prePuller.extraImages.x is localhost:5000/mlhub/x:1; "
        "an image by its digest (…@sha256:…) is required: a tag can move",
    ),
    "another authenticator": (
        (V, "hub", "config", "JupyterHub", "authenticator_class"), "dummy", "access-by-group",
        "hub.config.JupyterHub.authenticator_class is dummy; "
        "mlhub.hub.KeycloakAuthenticator is required, and no fallback",
    ),
    "no authenticator, which is the dummy": (
        (V, "hub", "config", "JupyterHub"), {}, "access-by-group",
        "hub.config.JupyterHub.authenticator_class is not given; "
        "mlhub.hub.KeycloakAuthenticator is required, and no fallback",
    ),
    "no group": (
        (V, "custom", "mlhub", "identity", "access_groups"), [], "access-by-group",
        "custom.mlhub.identity.access_groups is []; "
        "a list of at least one Keycloak group is required",
    ),
    "a group's short name": (
        (V, "custom", "mlhub", "identity", "access_groups", 0), "users", "access-by-group",
        "custom.mlhub.identity.access_groups[0] is users; "
        "a group's whole path such as /mlhub/users is required",
    ),
    "everybody": (
        (V, "hub", "config", "KeycloakAuthenticator"), {"allow_all": True}, "access-by-group",
        "hub.config.KeycloakAuthenticator.allow_all is true; groups alone decide who comes in",
    ),
    "one person by name": (
        (V, "hub", "config", "Authenticator"), {"allowed_users": ["eve"]}, "access-by-group",
        "hub.config.Authenticator.allowed_users is ['eve']; groups alone decide who comes in",
    ),
    "no network policy for users": (
        (V, "singleuser", "networkPolicy", "enabled"), False, "network-policies",
        "singleuser.networkPolicy.enabled is false; true is required",
    ),
    "no network policy for the hub": (
        (V, "hub", "networkPolicy", "enabled"), GONE, "network-policies",
        "hub.networkPolicy.enabled is not given; true is required",
    ),
    "no network policy for the proxy": (
        (V, "proxy", "chp", "networkPolicy", "enabled"), False, "network-policies",
        "proxy.chp.networkPolicy.enabled is false; true is required",
    ),
    "an egress rule to everywhere": (
        (V, "singleuser", "networkPolicy", "egress"), [{}], "network-policies",
        "singleuser.networkPolicy.egress[0] is {}; a rule that names peers or ports is required",
    ),
    "an egress rule to all private addresses": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
        "network-policies",
        "singleuser.networkPolicy.egress[0].to[0].ipBlock.cidr is 10.0.0.0/8; at most 256 "
        "addresses are required, and none of 169.254.0.0/16",
    ),
    "an egress rule to the cloud's metadata": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}],
        "network-policies",
        "singleuser.networkPolicy.egress[0].to[0].ipBlock.cidr is 169.254.169.254/32; at most 256 "
        "addresses are required, and none of 169.254.0.0/16",
    ),
    "a range of ports that begins with that of DNS": (
        (V, "hub", "networkPolicy", "egress"), [{"ports": [{"port": 53, "endPort": 65535}]}],
        "network-policies",
        "hub.networkPolicy.egress[0].to is not given; pods or addresses are required: "
        "without, it means everywhere",
    ),
    "an egress rule to a port of everybody": (
        (V, "singleuser", "networkPolicy", "egress"), [{"ports": [{"port": 443}]}],
        "network-policies",
        "singleuser.networkPolicy.egress[0].to is not given; pods or addresses are required: "
        "without, it means everywhere",
    ),
    "an egress rule of the hub without an address": (
        (V, "hub", "networkPolicy", "egress"), [{"to": [], "ports": [{"port": 443}]}],
        "network-policies",
        "hub.networkPolicy.egress[0].to is []; pods or addresses are required: "
        "without, it means everywhere",
    ),
    "the cloud's metadata": (
        (V, "singleuser", "networkPolicy", "egressAllowRules", "cloudMetadataServer"), True,
        "network-policies",
        "singleuser.networkPolicy.egressAllowRules.cloudMetadataServer is true; "
        "false is required: the node's credentials are there",
    ),
    "the chart's own rule for the internet": (
        (V, "singleuser", "networkPolicy", "egressAllowRules", "nonPrivateIPs"), True,
        "network-policies",
        "singleuser.networkPolicy.egressAllowRules.nonPrivateIPs is true; "
        "false is required: pods and agents of clouds are in 100.64.0.0/10 and 169.254.0.0/16",
    ),
    "the chart's default for it": (
        (V, "singleuser", "networkPolicy", "egressAllowRules", "nonPrivateIPs"), GONE,
        "network-policies",
        "singleuser.networkPolicy.egressAllowRules.nonPrivateIPs is not given; "
        "false is required: pods and agents of clouds are in 100.64.0.0/10 and 169.254.0.0/16",
    ),
    "an egress rule to all addresses": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}], "network-policies",
        f"singleuser.networkPolicy.egress[0].to[0].ipBlock.except is not given; "
        f"{', '.join(PRIVATE)} are required in it, or it means everywhere",
    ),
    "an egress rule to the internet and the addresses of some clouds' pods": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [
            net for net in PRIVATE if net != "100.64.0.0/10"]}}]}],
        "network-policies",
        "100.64.0.0/10 is required in it, or it means everywhere",
    ),
    "an egress rule of the hub to all addresses": (
        (V, "hub", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "::/0"}}], "ports": [{"port": 443}]}], "network-policies",
        "hub.networkPolicy.egress[0].to[0].ipBlock.cidr is ::/0; "
        "fewer addresses are required: it means everywhere",
    ),
    "an egress rule to every namespace": (
        (V, "hub", "networkPolicy", "egress"),
        [{"to": [{"namespaceSelector": {}}], "ports": [{"port": 8080}]}], "network-policies",
        "hub.networkPolicy.egress[0].to[0].namespaceSelector is {}; "
        "a namespace's label is required: without, it means every one",
    ),
    "half of the internet": (
        (V, "hub", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "0.0.0.0/1"}}], "ports": [{"port": 443}]}],
        "network-policies",
        "hub.networkPolicy.egress[0].to[0].ipBlock.except is not given; "
        "10.0.0.0/8, 100.64.0.0/10 are required in it, or it means everywhere",
    ),
    "a port of users' that is open to everybody": (
        (V, "singleuser", "networkPolicy", "allowedIngressPorts"), [8888], "network-policies",
        "singleuser.networkPolicy.allowedIngressPorts is [8888]; "
        "none is required: it would be open to everybody",
    ),
    "users' pods that others of them reach": (
        (V, "singleuser", "networkPolicy", "ingress"),
        [{"from": [{"podSelector": {"matchLabels": {"app": "jupyterhub"}}}]}], "network-policies",
        "singleuser.networkPolicy.ingress[0].from[0].podSelector is "
        "{'matchLabels': {'app': 'jupyterhub'}}; labels are required that no user's pod has",
    ),
    "many addresses in ranges of a few": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": f"10.0.{n}.0/24"}} for n in (1, 2)]},
         {"to": [{"ipBlock": {"cidr": "10.0.1.7/32"}}], "ports": [{"port": 443}]}],
        "network-policies",
        "singleuser.networkPolicy.egress names 512 addresses; at most 256 in all are required",
    ),
    "an ingress that tells another what it is asked": (
        (V, "ingress"),
        {**INGRESS, "annotations": {f"{NGINX}/mirror-target": "http://mirror.example.org"}}, "tls",
        f"ingress.annotations.{NGINX}/mirror-target is http://mirror.example.org; "
        "none is required: it is for others to read, or for no rule",
    ),
    "an ingress with a configuration of its own": (
        (V, "ingress"),
        {**INGRESS, "annotations": {f"{NGINX}/configuration-snippet": "return 302 http://a;"}},
        "tls",
        f"ingress.annotations.{NGINX}/configuration-snippet is return 302 http://a;; "
        "none is required: it is for others to read, or for no rule",
    ),
    "an ingress without TLS": (
        (V, "ingress"), {"enabled": True, "hosts": ["hub.example.org"]}, "tls",
        "ingress.hosts[0] is hub.example.org; "
        "ingress.tls has to name it with a secretName, or it has no TLS",
    ),
    "a secret in a value": (
        (V, "hub", "config", "KeycloakAuthenticator"), {"client_secret": "hush"},
        "no-readable-secret",
        "hub.config.KeycloakAuthenticator.client_secret is readable; "
        "a Secret is required with only its name here, for a chart's values are read by many",
    ),
    "a secret in a value, even marked": (
        (V, "hub", "config", "KeycloakAuthenticator"), {"client_id": marked("hush")},
        "no-readable-secret",
        "hub.config.KeycloakAuthenticator.client_id is a secret; "
        "a Secret is required with only its name here, for a chart's values are read by many",
    ),
    "the hub's encryption keys": (
        (V, "hub", "config", "CryptKeeper"), {"keys": "hush"}, "no-readable-secret",
        "hub.config.CryptKeeper.keys is readable; "
        "a Secret is required with only its name here, for a chart's values are read by many",
    ),
    "a password in the environment": (
        (V, "hub", "extraEnv", "DB_PASSWORD"), "hush", "no-readable-secret",
        "hub.extraEnv.DB_PASSWORD is readable; "
        "a Secret is required with only its name here, for a chart's values are read by many",
    ),
    "a password in an address": (
        (V, "hub", "db", "url"), "postgresql+psycopg2://hub:hush@db/hub", "no-readable-secret",
        "hub.db.url holds a password in an address; "
        "a Secret is required with only its name here, for a chart's values are read by many",
    ),
    "an unprotected release": (
        ("protect",), False, "data-kept",
        "protect is false; true is required, for with it would go people's work",
    ),
    "homes that go with the pod": (
        (V, "singleuser", "storage", "type"), "none", "data-kept",
        "singleuser.storage.type is none; "
        "dynamic or static is required, or homes go with the pod",
    ),
    "the cluster's default class": (
        (V, "singleuser", "storage", "dynamic", "storageClass"), GONE, "data-kept",
        "singleuser.storage.dynamic.storageClass is not given; "
        "a class that retains is required: a cluster's default may delete",
    ),
    "servers that idle too long": (
        (V, "cull", "timeout"), 3601, "idle-culling",
        "cull.timeout is 3601; a number of seconds from 1 to 3600 is required",
    ),
    "no culling": (
        (V, "cull", "enabled"), False, "idle-culling",
        "cull.enabled is false; true is required",
    ),
    "a chart that nobody knows": (
        ("chart",), "jupyterhub", "pinned-chart",
        "chart is jupyterhub; charts/jupyterhub-lite is required: "
        "no rule can read another chart's values",
    ),
    "a chart of no version": (
        ("version",), ">=1", "pinned-chart",
        "version is >=1; a whole version such as 4.4.0 is required",
    ),
    "a chart of that name from elsewhere": (
        ("repositoryOpts",), {"repo": "https://charts.example.org"}, "pinned-chart",
        "any from charts/jupyterhub-lite is required",
    ),
    "values from a file": (
        ("valueYamlFiles",), ["more.yaml"], "values-in-sight",
        "valueYamlFiles is ['more.yaml']; "
        "values are required in the program, where the rules see them",
    ),
    "code in the values": (
        (V, "hub", "extraConfig", "more"), "c.KubeSpawner.privileged = True", "values-in-sight",
        "hub.extraConfig.more is c.KubeSpawner.privileged = True; "
        "'from mlhub.hub import configure\\nconfigure(c)\\n' is required, "
        "and nothing else: the rest is in images/",
    ),
    "code that is no mapping": (
        (V, "hub", "extraConfig"), "c.JupyterHub.authenticator_class = 'dummy'", "values-in-sight",
        "is required, and nothing else: the rest is in images/",
    ),
    "a hub without ours": (
        (V, "hub", "extraConfig"), {}, "values-in-sight",
        "hub.extraConfig is {}; 'from mlhub.hub import configure\\nconfigure(c)\\n' is required, "
        "and nothing else: the rest is in images/",
    ),
    "a service that the hub runs": (
        (V, "hub", "services"), {"x": {"command": ["sh"]}}, "values-in-sight",
        "hub.services.x.command is ['sh']; what runs in the hub's pod is decided by its image",
    ),
    "a service that the hub runs, in its own configuration": (
        (V, "hub", "config", "JupyterHub", "services"), [{"name": "x", "command": ["sh"]}],
        "values-in-sight",
        "hub.config.JupyterHub.services[0].command is ['sh']; "
        "what runs in the hub's pod is decided by its image",
    ),
    "a command when the hub begins": (
        (V, "hub", "lifecycle"), {"postStart": {"exec": {"command": ["sh"]}}}, "values-in-sight",
        "hub.lifecycle is {'postStart': {'exec': {'command': ['sh']}}}; "
        "what the hub runs is decided by its image",
    ),
    "settings from another folder": (
        (V, "hub", "extraEnv", "MLHUB_HUB_ETC"), "/srv", "values-in-sight",
        "hub.extraEnv.MLHUB_HUB_ETC is /srv; "
        "none is required: the hub's settings are in custom.mlhub",
    ),
    "settings from another folder, in a list": (
        (V, "hub", "extraEnv"), [{"name": "MLHUB_HUB_ETC", "value": "/srv"}], "values-in-sight",
        "hub.extraEnv[0] is {'name': 'MLHUB_HUB_ETC', 'value': '/srv'}; "
        "none is required: the hub's settings are in custom.mlhub",
    ),
    "files over those of the hub's image": (
        (V, "hub", "extraVolumes"), [{"name": "c", "configMap": {"name": "c"}}],
        "values-in-sight",
        "hub.extraVolumes[0] is {'name': 'c', 'configMap': {'name': 'c'}}; "
        "emptyDir is required: files could take the place of the image's",
    ),
    "a token of the cluster's in a volume": (
        (V, "singleuser", "storage", "extraVolumes", 0),
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        "no-cluster-access",
        "singleuser.storage.extraVolumes[0].projected.sources[0].serviceAccountToken is "
        "{'path': 't'}; a volume without a token of the cluster's is required",
    ),
    "an image by KubeSpawner's old name for it": (
        (*OVERRIDE, "image_spec"), "busybox", "values-in-sight",
        "singleuser.profileList[1].kubespawner_override.image_spec is busybox; "
        "no rule reads it; its name in KubeSpawner today is required",
    ),
    "privilege by its old name": (
        (*OVERRIDE, "singleuser_privileged"), True, "values-in-sight",
        "no rule reads it; its name in KubeSpawner today is required",
    ),
    "a namespace without a quota": (
        (*PROFILE, "profile_options"),
        {"where": {"choices": {"x": {"kubespawner_override": {"namespace": "kube-system"}}}}},
        "values-in-sight",
        "singleuser.profileList[1].profile_options.where.choices.x.kubespawner_override."
        "namespace is kube-system; no rule reads it; its name in KubeSpawner today is required",
    ),
    "another command": (
        (V, "hub", "command"), ["sh"], "values-in-sight",
        "hub.command is ['sh']; what the hub runs is decided by its image",
    ),
    "a spawner behind the rules' back": (
        (V, "hub", "config", "KubeSpawner"), {"cpu_limit": 99}, "values-in-sight",
        "hub.config.KubeSpawner is {'cpu_limit': 99}; "
        "say it under singleuser, where the rules look",
    ),
    "a spawner of another kind": (
        (V, "hub", "config", "JupyterHub", "spawner_class"), "simple", "values-in-sight",
        "hub.config.JupyterHub.spawner_class is simple; "
        "none is required: mlhub.hub sets the one that checks quotas",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BREACHES)
def test_a_release_that_breaks_a_rule_is_refused_and_told_what_and_where(case: str) -> None:
    place, value, rule, message = BREACHES[case]
    ((told_rule, told),) = broken((place, value))
    assert (told_rule, told[-len(message) :]) == (rule, message)


EDGES: dict[str, tuple[Place, Any]] = {
    "all the cores": ((*OVERRIDE, "cpu_limit"), 8),
    "cores in thousandths": ((*OVERRIDE, "cpu_limit"), "8000m"),
    "all the memory": ((*OVERRIDE, "mem_limit"), "16G"),
    "all the memory in bytes": ((*OVERRIDE, "mem_limit"), 16 * 2**30),
    "no GPU as a number": ((*OVERRIDE, "extra_resource_limits", GPU), 0),
    "a choice at the limit": ((*PROFILE, "profile_options"), CHOICE),
    "an annotation that reads like privilege": (
        (V, "hub", "annotations"), {"privileged": "true", "hostPath": "/srv"},
    ),
    "a container beside that takes the namespace's default": (
        (*OVERRIDE, "extra_containers"),
        [{"name": "a", "image": f"localhost:5000/mlhub/a{DIGEST}", "securityContext": READ_ONLY}],
    ),
    "a mirror's addresses": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "10.0.7.0/24"}}], "ports": [{"port": 443}]}],
    ),
    "a mirror's addresses, in two ways and twice": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "10.0.7.0/25"}}], "ports": [{"port": 80}]},
         {"to": [{"ipBlock": {"cidr": "10.0.7.0/25"}}, {"ipBlock": {"cidr": "10.0.8.0/25"}}]}],
    ),
    "users' pods that Prometheus reaches": (
        (V, "singleuser", "networkPolicy", "ingress"),
        [{"from": [{"namespaceSelector": {
            "matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]}],
    ),
    "users' pods that the hub reaches": (
        (V, "singleuser", "networkPolicy", "ingress"),
        [{"from": [{"podSelector": {"matchLabels": {"component": "hub"}}}]}],
    ),
    "half of the internet without the private addresses": (
        (V, "hub", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {
            "cidr": "0.0.0.0/1", "except": ["10.0.0.0/8", "100.64.0.0/10"]}}]}],
    ),
    "a variable that is no setting of the hub's": ((V, "hub", "extraEnv", "TZ"), "Europe/Bern"),
    "all addresses but the private ones": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [*PRIVATE, "192.0.2.0/24"]}}]}],
    ),
    "all of it in larger parts": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": [
            "10.0.0.0/8", "100.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/8",
            "198.0.0.0/8", "224.0.0.0/3"]}}]}],
    ),
    "a namespace by its name": (
        (V, "hub", "networkPolicy", "egress"),
        [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kc"}}}],
          "ports": [{"port": 8080}]}],
    ),
    "a resolver on the node": (
        (V, "singleuser", "networkPolicy", "egress"),
        [{"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}],
          "ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}],
    ),
    "no escalation, said twice": ((*OVERRIDE, "allow_privilege_escalation"), False),
    "a profile that says the same again": (
        (*OVERRIDE, "container_security_context"), READ_ONLY,
    ),
    "a profile for nodes that are tainted": (
        (*OVERRIDE, "tolerations"),
        [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    ),
    "all capabilities dropped": (
        (V, "singleuser", "extraPodConfig"),
        {"securityContext": {"capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}},
    ),
    "a volume that is no folder of the node": (
        (V, "singleuser", "storage", "extraVolumes"), [{"name": "scratch", "emptyDir": {}}],
    ),
    "no token, said twice": (
        (V, "singleuser", "extraPodConfig"), {"automountServiceAccountToken": False},
    ),
    "an image by its digest alone": (
        (*OVERRIDE, "image"), f"localhost:5000/mlhub/deeper/ml-cpu{DIGEST}",
    ),
    "a scheduler whose image is stated": (
        (V, "scheduling", "userScheduler"),
        {"enabled": True, "image": {"name": "localhost:5000/mlhub/s", "tag": f"1{DIGEST}"}},
    ),
    "allow_all switched off": (
        (V, "hub", "config", "KeycloakAuthenticator"), {"allow_all": False},
    ),
    "an ingress with TLS for its host": ((V, "ingress"), INGRESS),
    "an ingress that a certificate is made for": (
        (V, "ingress"),
        {**INGRESS, "annotations": {
            "cert-manager.io/cluster-issuer": "site", f"{NGINX}/force-ssl-redirect": "true"}},
    ),
    "an ingress of a demonstration without redirection": (
        (V, "ingress"), {**INGRESS, "annotations": {f"{NGINX}/ssl-redirect": "false"}},
    ),
    "a secret by reference": (
        (V, "hub", "extraEnv", "DB_PASSWORD"),
        {"valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
    ),
    "an address without a password": ((V, "hub", "db", "url"), "postgresql+psycopg2://hub@db/hub"),
    "an idle hour": ((V, "cull", "timeout"), 3600),
    "the largest server that is admitted": ((*QUOTAS, "server", "memory"), "16Gi"),
    "a profile that stops sooner": (
        (V, "custom", "mlhub", "profiles"), {"small-cpu": {"idle_timeout": 3600}},
    ),
    "no more files": (("valueYamlFiles",), []),
}  # fmt: skip


@pytest.mark.parametrize("case", EDGES)
def test_a_release_at_the_edge_passes(case: str) -> None:
    assert broken(EDGES[case]) == []


def test_every_breach_is_told_at_once() -> None:
    told = broken(
        ((*OVERRIDE, "cpu_limit"), 99),
        ((*OVERRIDE, "image"), "busybox"),
        ((V, "singleuser", "networkPolicy", "enabled"), False),
        ((V, "hub", "image", "tag"), UNKNOWN),
    )
    assert [rule for rule, _ in told] == [
        "server-limits", "images-by-digest", "images-by-digest", "network-policies",
    ]  # fmt: skip


UNKNOWNS: dict[str, tuple[Place, str]] = {
    "singleuser.profileList[1].kubespawner_override.cpu_limit": (
        (*OVERRIDE, "cpu_limit"), "server-limits",
    ),
    "singleuser.profileList[1].kubespawner_override.extra_resource_limits": (
        (*OVERRIDE, "extra_resource_limits"), "server-limits",
    ),
    "singleuser.profileList[1].kubespawner_override.extra_container_config": (
        (*OVERRIDE, "extra_container_config"), "server-limits",
    ),
    "singleuser.profileList": ((V, "singleuser", "profileList"), "server-limits"),
    "singleuser.extraPodConfig": ((V, "singleuser", "extraPodConfig"), "no-privilege"),
    "singleuser.allowPrivilegeEscalation": (
        (V, "singleuser", "allowPrivilegeEscalation"), "no-privilege",
    ),
    "singleuser.storage.extraVolumes[0].projected.serviceAccountToken": (
        (V, "singleuser", "storage", "extraVolumes", 0, "projected", "serviceAccountToken"),
        "no-cluster-access",
    ),
    "singleuser.serviceAccountName": ((V, "singleuser", "serviceAccountName"), "no-cluster-access"),
    "hub.image.tag": ((V, "hub", "image", "tag"), "images-by-digest"),
    "custom.mlhub.identity.access_groups": (
        (V, "custom", "mlhub", "identity", "access_groups"), "access-by-group",
    ),
    "singleuser.networkPolicy.enabled": (
        (V, "singleuser", "networkPolicy", "enabled"), "network-policies",
    ),
    "singleuser.networkPolicy.egress[1].to[0].ipBlock.except": (
        (V, "singleuser", "networkPolicy", "egress", 1, "to", 0, "ipBlock", "except"),
        "network-policies",
    ),
    "singleuser.networkPolicy.egress[0].to": (
        (V, "singleuser", "networkPolicy", "egress", 0, "to"), "network-policies",
    ),
    "hub.extraEnv.DB_PASSWORD": ((V, "hub", "extraEnv", "DB_PASSWORD"), "no-readable-secret"),
    "custom.mlhub.quotas.server.cpu": ((*QUOTAS, "server", "cpu"), "admission-limits"),
    "cull.timeout": ((V, "cull", "timeout"), "idle-culling"),
    "chart": (("chart",), "pinned-chart"),
    "hub.extraConfig.mlhub": ((V, "hub", "extraConfig", "mlhub"), "values-in-sight"),
}  # fmt: skip


@pytest.mark.parametrize("path", UNKNOWNS)
def test_what_is_not_known_yet_is_remarked_and_never_passed_over(path: str) -> None:
    place, rule = UNKNOWNS[path]
    resources = changed(program("local"), HUB, {place: UNKNOWN})
    assert refusals(resources) == []
    assert (rule, path) in remarks(resources)


def test_a_digest_that_a_preview_leaves_out_is_remarked_and_refused_in_the_update() -> None:
    """The kubernetes plug-in takes unknown values out of a Release's inputs."""
    resources = changed(program("local"), HUB, {(V, "hub", "image", "tag"): GONE})
    assert refusals(resources) == []
    assert remarks(resources) == [("images-by-digest", "hub.image.tag")]
