"""The organization's limits: a file of the pack, checked, and stricter as stacks matter more."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlhub_policies.limits import FILE, Limits, LimitsError, load, of_stack
from mlhub_policies.quantities import kubernetes, kubespawner_bytes

STAGING: dict[str, Any] = {
    "server": {"cpu": 16, "memory": "64Gi", "gpu": 4},
    "user_servers": 3,
    "namespace": {"cpu": 64, "memory": "256Gi", "gpu": 8, "storage": "2Ti", "pods": 200},
    "registries": ["harbor.example.org/mlhub"],
    "charts": [
        {"chart": "jupyterhub", "repository": "https://charts.example.org", "version": "4.4"}
    ],
    "idle_timeout": 3600,
    "plain_http": False,
    "demo_users": False,
}
PROD = {**STAGING, "at_least": "staging", "idle_timeout": 1800}


def read(folder: Path, **stacks: Any) -> Limits:
    file = folder / "limits.yaml"
    file.write_text(yaml.safe_dump({"stacks": stacks}))
    return load(file)


def refused(folder: Path, **stacks: Any) -> str:
    with pytest.raises(LimitsError) as raised:
        read(folder, **stacks)
    return str(raised.value)


def test_the_file_of_the_pack_is_right() -> None:
    assert of_stack(load(), "local").server.gpu == 0


def test_prod_may_be_as_safe_as_staging_or_safer(tmp_path: Path) -> None:
    assert read(tmp_path, staging=STAGING, prod=PROD).stacks["prod"].idle_timeout == 1800
    assert read(tmp_path, staging=STAGING, prod={**PROD, "idle_timeout": 3600})


@pytest.mark.parametrize(
    ("looser", "message"),
    [
        ({"idle_timeout": 3601}, "idle_timeout is 3601, there 3600"),
        ({"plain_http": True}, "plain_http is true, there false"),
        ({"demo_users": True}, "demo_users is true, there false"),
        ({"charts": [{"chart": "x"}]}, "charts names one that is not there"),
    ],
)
def test_prod_may_not_be_less_safe_than_staging(
    tmp_path: Path, looser: dict[str, Any], message: str
) -> None:
    told = refused(tmp_path, staging=STAGING, prod=PROD | looser)
    assert told == (
        "policies/limits.yaml: stacks: stacks.prod has to be at least as safe as staging, and its "
        f"{message}; tighten it, or loosen staging first"
    ).replace("yaml: stacks: ", "yaml: the file: ")


def test_a_stack_that_another_is_compared_with_has_to_be_there(tmp_path: Path) -> None:
    assert "at_least is staging, which stacks lacks" in refused(tmp_path, prod=PROD)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"idle_timeout": None}, "stacks.staging.idle_timeout"),
        ({"idle_timeout": "3600"}, "stacks.staging.idle_timeout"),
        ({"registries": []}, "stacks.staging.registries"),
        ({"surplus": 1}, "stacks.staging.surplus"),
        ({"server": {"cpu": 0, "memory": "64Gi", "gpu": 4}}, "stacks.staging.server.cpu"),
        ({"server": {"cpu": 16, "memory": "64G", "gpu": 4}}, "stacks.staging.server.memory"),
        ({"server": {"cpu": 65, "memory": "64Gi", "gpu": 4}}, "stacks.staging"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(
    tmp_path: Path, change: dict[str, Any], place: str
) -> None:
    told = refused(tmp_path, staging=copy.deepcopy(STAGING) | change)
    assert told.startswith(f"policies/limits.yaml: {place}: ")


def test_a_file_that_is_no_yaml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "limits.yaml").write_text("stacks: [")
    with pytest.raises(LimitsError, match="cannot be read"):
        load(tmp_path / "limits.yaml")


def test_the_limits_lie_in_the_pack_and_not_in_the_stack_file() -> None:
    assert FILE.parent.name == "policies"


@pytest.mark.parametrize(
    ("given", "amount"),
    [
        ("500m", 0.5), (2, 2), ("2", 2), ("1.5", 1.5), ("1k", 1000), ("1G", 10**9),
        ("1Gi", 2**30), ("64Gi", 2**36), ("", None), ("1g", None), ("-1", None), (True, None),
        (None, None), (float("inf"), None), (-1, None), ("1 Gi", None),
    ],
)  # fmt: skip
def test_a_quantity_is_read_as_kubernetes_reads_it(given: Any, amount: float | None) -> None:
    assert kubernetes(given) == amount


@pytest.mark.parametrize(
    ("given", "amount"),
    [("1G", 2**30), ("0.5G", 2**29), (1024, 1024), ("1T", 2**40), ("1Gi", None), ("1m", None)],
)
def test_memory_is_read_as_kubespawner_reads_it(given: Any, amount: float | None) -> None:
    assert kubespawner_bytes(given) == amount
