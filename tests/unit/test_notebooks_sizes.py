"""From what a session needs to the smallest size that the hub offers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notebooks.models import ResourceConfig
from notebooks.sizes import GIB, NoSize, cores, gib, smallest

CPUS, MEMORIES, GPUS = (1, 2, 4), (2, 4, 8, 16), (0, 1, 4)


def profile(
    slug: str, cpu: float, memory: float, gpu: int = 0, options: Any = None
) -> dict[str, Any]:
    size = {"cpu": cpu, "memory": memory * GIB, "gpu": gpu}
    return {"slug": slug, "name": slug.title(), "size": size, "options": options or {}}


def option(**choices: dict[str, float]) -> dict[str, Any]:
    return {"choices": {slug: {"size": size} for slug, size in choices.items()}}


KINDS = ["NVIDIA-A100-SXM4-80GB", "NVIDIA-A100-PCIE-40GB", "Tesla-V100-SXM2-16GB"]
PLACES = {
    "node": option(any={}, gpu1={}),
    "gpu_type": option(any={}, **{kind: {} for kind in KINDS}),
}
OFFERS = [
    profile("standard", 4, 8),
    profile("small", 1, 2),
    profile("auto", 8, 16, 1, PLACES),
    profile(
        "own",
        1,
        2,
        options={
            "cpu": option(**{f"{n}": {"cpu": n} for n in CPUS}),
            "memory": option(**{f"{n}G": {"memory": n * GIB} for n in MEMORIES}),
            "gpu": option(**{f"{n}": {"gpu": n} for n in GPUS}),
            **PLACES,
        },
    ),
]


@pytest.mark.parametrize(
    ("wanted", "options"),
    [
        ({}, {}),
        ({"cpu_cores": 1}, {"profile": "small"}),
        ({"cpu_cores": 0.5, "memory_gb": 2}, {"profile": "small"}),
        ({"memory_gb": 14.9}, {"profile": "own", "cpu": "1", "memory": "16G", "gpu": "0"}),
        (
            {"cpu_cores": 3, "memory_gb": 3},
            {"profile": "own", "cpu": "4", "memory": "4G", "gpu": "0"},
        ),
        ({"cpu_cores": 4, "memory_gb": 8}, {"profile": "standard"}),
        ({"gpu_count": 1}, {"profile": "own", "cpu": "1", "memory": "2G", "gpu": "1"}),
        ({"gpu_count": 1, "cpu_cores": 8}, {"profile": "auto"}),
        (
            {"gpu_count": 0, "cpu_cores": 2, "memory_gb": 5},
            {"profile": "own", "cpu": "2", "memory": "8G", "gpu": "0"},
        ),
        (
            {"gpu_type": "nvidia-tesla-v100"},
            {
                "profile": "own",
                "cpu": "1",
                "memory": "2G",
                "gpu": "1",
                "gpu_type": "Tesla-V100-SXM2-16GB",
            },
        ),
        (
            {"gpu_type": "nvidia-a100-sxm4-80gb", "gpu_count": 4, "cpu_cores": 4},
            {
                "profile": "own",
                "cpu": "4",
                "memory": "2G",
                "gpu": "4",
                "gpu_type": "NVIDIA-A100-SXM4-80GB",
            },
        ),
    ],
)
def test_M4_the_smallest_size_that_holds_what_is_asked(wanted, options):
    assert smallest(OFFERS, ResourceConfig(**wanted)) == {**options}


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"cpu_cores": 9}, "holds 9 CPU. The largest is 4 CPU, 16 GiB, 4 GPUs (Own)."),
        ({"memory_gb": 17, "gpu_count": 2}, "holds 17 GiB, 2 GPUs."),
        ({"memory_gb": 17, "gpu_count": 1}, "holds 17 GiB, 1 GPU."),
        ({"gpu_type": "H100"}, "no GPU of the kind H100. There are: NVIDIA-A100-PCIE-40GB,"),
        ({"gpu_type": "a100"}, "may be any of NVIDIA-A100-PCIE-40GB, NVIDIA-A100-SXM4-80GB;"),
    ],
)
def test_what_nothing_holds_is_a_sentence_with_what_there_is(wanted, sentence):
    with pytest.raises(NoSize) as error:
        smallest(OFFERS, ResourceConfig(**wanted))
    assert sentence in str(error.value)


def test_a_hub_that_offers_nothing_says_whom_to_ask():
    with pytest.raises(NoSize, match="Ask your administrator"):
        smallest([], ResourceConfig(cpu_cores=1))
    with pytest.raises(NoSize, match="no kind of GPU to choose"):
        smallest(OFFERS[:2], ResourceConfig(gpu_type="a100"))


def test_a_profile_that_is_named_bounds_the_choice():
    assert smallest(OFFERS, ResourceConfig(), "auto") == {"profile": "auto"}
    assert smallest(OFFERS, ResourceConfig(cpu_cores=1), "standard") == {"profile": "standard"}
    with pytest.raises(NoSize, match="no profile 'fine'"):
        smallest(OFFERS, ResourceConfig(), "fine")


@given(
    st.floats(0.1, 12) | st.none(),
    st.floats(0.1, 20) | st.none(),
    st.integers(0, 5) | st.none(),
)
def test_M9_what_is_chosen_holds_what_is_asked_and_nothing_smaller_does(cpu, memory, gpu):
    wanted = ResourceConfig(cpu, memory, gpu)
    every = {
        ("standard", 4, 8, 0),
        ("small", 1, 2, 0),
        ("auto", 8, 16, 1),
        *(("own", c, m, g) for c in CPUS for m in MEMORIES for g in GPUS),
    }
    holding = [
        size
        for size in every
        if size[1] >= (cpu or 0) and size[2] >= (memory or 0) and size[3] >= (gpu or 0)
    ]
    try:
        chosen = smallest(OFFERS, wanted)
    except NoSize:
        assert not holding
        return
    if wanted == ResourceConfig():
        assert chosen == {}
        return
    slug = chosen["profile"]
    sizes = {size[0]: size[1:] for size in every if size[0] != "own"}
    if slug == "own":
        sizes[slug] = int(chosen["cpu"]), int(chosen["memory"][:-1]), int(chosen["gpu"])
    found = sizes[slug]
    assert (slug, *found) in holding
    assert (found[2], found[1], found[0]) == min((g, m, c) for _, c, m, g in holding)


@pytest.mark.parametrize(("given", "number"), [("4", 4), ("0.5", 0.5), ("500m", 0.5), (".5", 0.5)])
def test_cores_are_read_as_kubernetes_reads_them(given, number):
    assert cores(given) == number


@pytest.mark.parametrize(
    ("given", "number"), [("16Gi", 16), ("512Mi", 0.5), ("1Ti", 1024), ("16G", 16e9 / GIB)]
)
def test_memory_is_read_as_kubernetes_reads_it(given, number):
    assert gib(given) == pytest.approx(number)


@pytest.mark.parametrize("given", ["", "four", "-1", "4 cores", "0", "4Gi", "1e3", "nan"])
def test_what_is_no_number_of_cores_is_said_to_be_none(given):
    with pytest.raises(ValueError, match="is not a number of cores such as 4"):
        cores(given)


@pytest.mark.parametrize("given", ["", "16Q", "16 Gigs", "-1Gi", "0Gi", "Gi", "16gi"])
def test_what_is_no_memory_is_said_to_be_none(given):
    with pytest.raises(ValueError, match="is not an amount of memory such as 16Gi"):
        gib(given)
    with pytest.raises(ValueError, match="write 16Gi for 16 GiB"):
        gib("16")


@pytest.mark.parametrize(
    "given",
    [
        {"cpu_cores": 0},
        {"cpu_cores": float("nan")},
        {"memory_gb": -1},
        {"memory_gb": "16Gi"},
        {"gpu_count": 1.5},
        {"gpu_count": -1},
        {"gpu_count": True},
        {"gpu_count": 0, "gpu_type": "a100"},
        {"gpu_type": ""},
    ],
)
def test_a_size_that_nothing_can_have_is_refused(given):
    with pytest.raises(ValueError, match=r"required|needs a name"):
        ResourceConfig(**given)
