"""Profiles, quotas and nodes: from the stack file to what the hub reads and may."""

from typing import Any

import pytest

from components.config import Cpu, MemoryRange, Profile
from components.profiles import hub_settings, options, profile_list
from mlhub.hub import settings
from mlhub.hub.offers import in_bytes
from tests.unit.recorder import platform, stack_file
from tests.unit.test_config import profile, sentences

ROLE = "kubernetes:rbac.authorization.k8s.io/v1:ClusterRole"
OWN = profile(
    cpu={"limit": 4.0},
    memory={"limit": "8G"},
    options={"cpu": (4.0, 0.5), "memory": ("8G", "512M"), "gpu": (0, 2)},
)


def test_T5_a_quarter_of_a_limit_is_set_aside_where_nothing_else_is_said():
    assert Cpu(limit=4).guarantee == 1
    assert MemoryRange(limit="5G").guarantee == "1.25G"
    assert MemoryRange(limit="512M", guarantee="100M").guarantee == "100M"


def test_T5_each_size_brings_its_own_guarantee_and_the_first_is_the_default():
    found = options(Profile.model_validate(OWN))
    assert list(found) == ["cpu", "memory", "gpu"]
    assert found["cpu"]["choices"]["0.5"] == {
        "display_name": "0.5 CPU",
        "default": False,
        "kubespawner_override": {"cpu_limit": 0.5, "cpu_guarantee": 0.125},
    }
    assert found["memory"]["choices"]["512M"]["kubespawner_override"] == {
        "mem_limit": "512M",
        "mem_guarantee": "128M",
    }
    two = found["gpu"]["choices"]["2"]["kubespawner_override"]
    assert two["extra_resource_limits"] == two["extra_resource_guarantees"]
    for option in found.values():
        assert [choice["default"] for choice in option["choices"].values()] == [True, False]


def test_T5_a_profile_without_options_has_none():
    (found,) = profile_list([Profile.model_validate(profile())], {"ml-cpu": "image"})
    assert "profile_options" not in found


GPU = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
SKU = {"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"}


def tolerated(override: dict[str, Any]) -> list[dict[str, Any]]:
    """Beside the taints of nodes for users' pods, which the official chart's servers tolerate."""
    dedicated, rest = override["tolerations"][:2], override["tolerations"][2:]
    assert [one["key"] for one in dedicated] == [
        "hub.jupyter.org/dedicated",
        "hub.jupyter.org_dedicated",
    ]
    return rest


def test_T6_a_server_with_a_GPU_tolerates_the_taint_of_GPU_nodes_and_what_its_profile_says():
    given = [
        profile(slug="cpu"),
        profile(slug="gpu", gpu=1),
        profile(slug="pool", gpu=1, tolerations=(SKU,)),
    ]
    each = profile_list([Profile.model_validate(one) for one in given], {"ml-cpu": "image"})
    found = [tolerated(one["kubespawner_override"]) for one in each]
    assert found == [[], [GPU], [SKU, GPU]]


def test_T6_a_size_without_a_GPU_stays_off_nodes_tainted_for_GPUs():
    choices = options(Profile.model_validate(OWN | {"tolerations": (SKU,)}))["gpu"]["choices"]
    found = {key: tolerated(one["kubespawner_override"]) for key, one in choices.items()}
    assert found == {"0": [SKU], "2": [SKU, GPU]}


def test_M9_the_quotas_reach_the_hub_as_it_reads_them():
    found = settings.parse({"identity": IDENTITY, **hub_settings(stack_file("dev"))})
    assert found.quotas.server.amounts() == {"cpu": 16, "memory": 64 * 2**30, "gpu": 4}
    assert (found.quotas.user.servers, found.quotas.user.gpu_hours) == (3, 20)
    assert found.quotas.user.amounts() == {"servers": 3}
    assert found.quotas.groups["/mlhub/gpu"].gpu == 2
    assert found.quotas.workspace.gpu == 1
    assert found.profiles["gpu-node"].each_node
    assert found.profiles["own-size"].idle_timeout == 1200
    assert found.gpu.max_age == 28800
    assert "github.com" in found.git_hosts


IDENTITY = {
    "public_url": "https://keycloak.example.com",
    "internal_url": "https://keycloak.example.com",
    "realm": "mlhub",
    "callback_url": "https://hub.example.com/hub/oauth_callback",
    "access_groups": ["/mlhub/users"],
}


@pytest.mark.parametrize("stack", ["dev", "staging", "prod"])
def test_T5_each_stack_has_the_five_kinds_of_the_table_with_its_resources(stack):
    table = {
        "standard-cpu": (4, 8, 0),
        "gpu": (8, 16, 1),
        "fine-tuning": (8, 32, 1),
        "agent-dev": (4, 8, 0),
        "gpu-node": (8, 16, 1),
    }
    found = {
        given.slug: (given.cpu.limit, in_bytes(given.memory.limit) / 2**30, given.gpu)
        for given in stack_file(stack).profiles
    }
    assert table.items() <= found.items()


def test_T6_the_hub_may_look_at_nodes_and_at_nothing_else_of_the_cluster():
    (role,) = platform("dev").of_type(ROLE)
    assert role.plain["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]}
    ]
    (binding,) = platform("dev").of_type(f"{ROLE}Binding")
    assert binding.plain["roleRef"]["name"] == role.plain["metadata"]["name"]
    assert binding.plain["subjects"] == [
        {"kind": "ServiceAccount", "name": "hub", "namespace": "jupyterhub"}
    ]


def test_T6_a_stack_without_GPUs_gives_the_hub_no_role_in_the_cluster():
    assert not platform("local").of_type(ROLE)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"groups": ["/mlhub/gpu"], "default": False},
            "profiles[1].groups names /mlhub/gpu; one of identity.access_groups "
            "(/mlhub/users, /mlhub/admins) is required",
        ),
        (
            {"each_node": True, "default": False},
            "profiles[1].each_node is true and gpu is 0; a profile for each GPU node takes a GPU",
        ),
        (
            {"idle_timeout": 7200, "default": False},
            "profiles[1].idle_timeout is 7200 and hub.idle_timeout is 3600; at most that is "
            "required, since it holds for all",
        ),
        (
            {"options": {"cpu": [1, 12]}, "default": False},
            "profiles[1].cpu.limit is 12 and quotas.user.cpu is 8; a profile within the quota is "
            "required, or its servers could never start",
        ),
        (
            {"tolerations": [{"operator": "Exists"}], "default": False},
            "profiles[1].tolerations[0].key is missing; give a taint's key, such as sku",
        ),
        (
            {"tolerations": [{"key": "sku", "operator": "Exists", "value": "gpu"}]}
            | {"default": False},
            "profiles[1].tolerations[0] needs no value with the operator Exists",
        ),
        (
            {"cpu": {"guarantee": 1}, "default": False},
            "profiles[1].cpu.limit is missing; give a number of cores above 0",
        ),
    ],
)
def test_a_profile_that_could_not_work_is_said(changes: dict[str, Any], sentence: str):
    given = [profile(slug="first", name="First"), profile(**changes)]
    assert sentences(profiles=given, verify=None) == [f"stacks/Pulumi.local.yaml: {sentence}"]


def test_a_default_is_for_everybody():
    given = [profile(groups=["/mlhub/users"])]
    (said,) = sentences(profiles=given, verify=None)
    assert "the default has no groups, no each_node and no GPU" in said


def test_a_quota_is_for_a_group_that_can_log_in():
    quotas = {
        "namespace": {"cpu": 16, "memory": "32Gi", "gpu": 0, "storage": "200Gi", "pods": 30},
        "user": {"servers": 3, "cpu": 8, "memory": "16Gi", "gpu": 0},
        "groups": [{"group": "/mlhub/x", "cpu": 1}],
    }
    (said,) = sentences(quotas=quotas)
    assert "quotas.groups[0].group is /mlhub/x; one of identity.access_groups" in said
