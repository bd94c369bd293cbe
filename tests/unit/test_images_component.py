"""Images built and images promoted: the same shape for whoever runs them."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pulumi
import pytest
from pulumi.runtime import mocks

from components import names, preflight
from components.config import Promote
from components.images import PromotedImages, PromotedImagesArgs, docker_provider
from components.registry import Login
from tests.unit import recorder
from tests.unit.recorder import is_secret

IMAGE = "docker-build:index:Image"
INDEX = "docker-build:index:Index"
REFERENCE = re.compile(r"harbor\.example\.com/mlhub/([a-z-]+):2026\.11\.0@sha256:[0-9a-f]{64}")


def by_name(stack: str, token: str) -> dict[str, Any]:
    return {r.name: r for r in recorder.platform(stack).of_type(token)}


def test_J7_a_cluster_stack_builds_both_architectures_into_one_index() -> None:
    for image in by_name("dev", IMAGE).values():
        assert image.plain["platforms"] == ["linux/amd64", "linux/arm64"]
        assert image.plain["push"] is True
        assert image.retain_on_delete


def test_layers_are_kept_in_harbor_whole_and_a_cache_never_fails_a_build() -> None:
    for name, image in by_name("dev", IMAGE).items():
        ref = f"harbor.example.com/mlhub/cache:{name}"
        assert image.plain["cacheFrom"] == [{"registry": {"ref": ref}}]
        (to,) = image.plain["cacheTo"]
        wanted = {"ref": ref, "mode": "max", "imageManifest": True, "ignoreError": True}
        assert wanted.items() <= to["registry"].items()


def test_a_push_has_its_own_account_and_a_secret_password() -> None:
    for image in by_name("dev", IMAGE).values():
        (registry,) = image.inputs["registries"]
        assert registry["address"] == "harbor.example.com"
        assert registry["username"] == "robot$dev-push"
        assert is_secret(registry["password"])


def test_the_embedded_registry_has_neither_accounts_nor_a_cache_nor_marks() -> None:
    for name, image in by_name("local", IMAGE).items():
        assert image.plain["tags"] == [f"localhost:5000/mlhub/{name}:local"]
        assert not {"registries", "cacheFrom", "cacheTo"} & image.plain.keys()


def test_what_is_built_is_marked_as_in_use() -> None:
    for name, image in by_name("dev", IMAGE).items():
        repository = f"harbor.example.com/mlhub/{name}"
        assert image.plain["tags"] == [f"{repository}:2026.11.0", f"{repository}:in-use-dev"]


RUNS = (
    "kubernetes:apps/v1:Deployment",
    "kubernetes:apps/v1:StatefulSet",
    "kubernetes:batch/v1:CronJob",
    "kubernetes:helm.sh/v3:Release",
)


@pytest.mark.parametrize("stack", ["local", "dev"])
def test_T10_nothing_moves_to_an_image_before_all_are_built(stack: str) -> None:
    """Else one that fails leaves services of the new version beside a hub of the old one."""
    monitor = recorder.platform(stack)
    known = {r.urn: r for r in monitor.registrations}

    def waits_for(urn: str) -> set[str]:
        """A resource is registered after its parent, and a component after what it depends on."""
        seen, todo = set(), [urn]
        while todo:
            one = todo.pop()
            if one in known and one not in seen:
                seen.add(one)
                todo += [*known[one].dependencies, known[one].parent]
        return seen

    images = {r.urn for r in monitor.of_type(IMAGE)}
    running = [r for token in RUNS for r in monitor.of_type(token)]
    early = {r.name: len(images - waits_for(r.urn)) for r in running}
    assert running
    assert not any(early.values()), early


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_a_promotion_builds_nothing_and_runs_what_was_built(stack: str) -> None:
    assert not by_name(stack, IMAGE)
    outputs = recorder.platform(stack).outputs
    (found,) = [value for urn, value in outputs.items() if urn.endswith("PromotedImages::images")]
    references = found["references"]
    assert {"base", "hub", "proxy", "postgres", "ml-cpu", "ml-gpu"} <= set(references)
    for name, reference in references.items():
        match = REFERENCE.fullmatch(reference)
        assert match
        assert match[1] == name


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_what_is_promoted_is_marked_by_its_digest_and_the_mark_never_deletes(stack: str) -> None:
    marks = {n: mark for n, mark in by_name(stack, INDEX).items() if n.endswith("-in-use")}
    assert set(marks) >= {"base-in-use", "hub-in-use", "ml-gpu-in-use"}
    for mark in marks.values():
        image = mark.name.removesuffix("-in-use")
        repository = f"harbor.example.com/mlhub/{image}"
        assert mark.plain["tag"] == f"{repository}:{names.in_use_tag(stack)}"
        (source,) = mark.plain["sources"]
        assert re.fullmatch(rf"{repository}@sha256:[0-9a-f]{{64}}", source)
        # pulumi-docker-build deletes an index by its digest, and so the image.
        assert mark.retain_on_delete
        assert is_secret(mark.inputs["registry"]["password"])


def test_J7_prod_asks_for_nothing_but_what_staging_tagged_once_it_ran() -> None:
    given = by_name("staging", INDEX)
    ran = {mark.plain["tag"] for name, mark in given.items() if name.endswith("-ran")}
    assert "harbor.example.com/mlhub/hub:ran-staging-2026.11.0" in ran
    outputs = recorder.platform("prod").outputs
    (found,) = [value for urn, value in outputs.items() if urn.endswith("PromotedImages::images")]
    # The recorder's digest is that of the reference that was asked for.
    asked = {hashlib.sha256(tag.encode()).hexdigest(): tag for tag in ran}
    for image, reference in found["references"].items():
        tag = asked[reference.rpartition(":")[2]]
        assert tag == f"harbor.example.com/mlhub/{image}:ran-staging-2026.11.0"


def test_J7_an_image_is_said_to_have_run_only_when_the_hub_does() -> None:
    monitor = recorder.platform("staging")
    (release,) = monitor.of_type("kubernetes:helm.sh/v3:Release")
    references = {m.plain["sources"][0] for m in monitor.of_type(INDEX) if "in-use" in m.name}
    marks = [m for m in monitor.of_type(INDEX) if m.name.endswith("-ran")]
    assert {m.plain["sources"][0] for m in marks} == references
    for mark in marks:
        assert release.urn in mark.dependencies
        assert mark.retain_on_delete
        # Each version has another, and a protected one could not be replaced.
        assert not mark.protect


@pytest.mark.parametrize("stack", ["staging", "prod"])
def test_look_ups_need_no_daemon_and_their_password_is_secret(stack: str) -> None:
    (provider,) = by_name(stack, "pulumi:providers:docker").values()
    assert provider.plain["disableDockerDaemonCheck"] == "true"
    assert provider.plain["host"] == "unix:///var/run/docker.sock"
    assert is_secret(provider.inputs["registryAuth"])
    assert '"https://harbor.example.com"' in provider.plain["registryAuth"]


# Look-ups that fail


class RefusedError(grpc.RpcError):
    def __init__(self, said: str):
        super().__init__(said)
        self.said = said

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNKNOWN

    def details(self) -> str:
        return self.said


class Registry(mocks.Mocks):
    """Answers look-ups as `digest` does."""

    def __init__(self, digest: Callable[[str], str]):
        self.digest = digest

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return args.name, args.inputs

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        return {"sha256Digest": self.digest(args.args["name"]), **args.args}


def promoted(
    digest: Callable[[str], str], *wanted: str, after: str | None = None
) -> PromotedImages:
    pulumi.runtime.set_mocks(Registry(digest))
    made = []

    @pulumi.runtime.test
    def program() -> None:
        config = Promote(repository="harbor.example.com/mlhub", tag="v1", after=after)
        opts = pulumi.ResourceOptions(
            providers=[docker_provider(config.repository, Login("a", "b"))]
        )
        made.append(PromotedImages("images", PromotedImagesArgs(config, wanted), opts))

    program()
    return made[0]


def test_a_tag_that_moved_is_another_reference() -> None:
    first = promoted(lambda name: "sha256:" + "a" * 64, "hub").built["hub"]
    then = promoted(lambda name: "sha256:" + "b" * 64, "hub").built["hub"]
    assert first.tag == f"v1@sha256:{'a' * 64}"
    assert first.tag != then.tag


def test_every_image_that_cannot_be_had_is_a_sentence_of_its_own() -> None:
    def digest(name: str) -> str:
        if "/hub:" in name or "/base:" in name:
            return "sha256:" + "a" * 64
        raise RefusedError(
            "invocation of docker:index/getRegistryImage:getRegistryImage returned an error: "
            f"{name} is not there"
        )

    with pytest.raises(pulumi.RunError) as refusal:
        promoted(digest, "hub", "proxy", "ml-cpu")
    assert str(refusal.value).splitlines() == [
        f"harbor.example.com/mlhub/{image}:v1 cannot be promoted: harbor.example.com/mlhub/{image}"
        ":v1 is not there; see that the registry answers and that the stack which builds has been "
        "applied, or correct images.promote"
        for image in ("ml-cpu", "proxy")
    ]


def test_J7_what_has_not_run_where_it_must_is_refused_with_who_has_to_be_applied() -> None:
    def digest(name: str) -> str:
        if name.endswith("/hub:ran-staging-v1"):
            raise RefusedError(f"{name} is not there")
        return "sha256:" + "a" * 64

    with pytest.raises(pulumi.RunError) as refusal:
        promoted(digest, "hub", "proxy", after="staging")
    assert str(refusal.value) == (
        "harbor.example.com/mlhub/hub:ran-staging-v1 cannot be promoted: harbor.example.com/mlhub/"
        "hub:ran-staging-v1 is not there; see that the registry answers and that the stack staging "
        "has been applied with the tag v1, or correct images.promote"
    )


def test_J7_a_stack_that_builds_marks_nothing_as_run_so_that_none_can_come_after_it() -> None:
    prod = recorder.stack_file("prod")
    assert prod.images.promote is not None
    assert not [n for n in by_name("dev", INDEX) if n.endswith("-ran")]
    assert list(preflight.missing_files(prod, recorder.ROOT)) == []
    after_dev = prod.images.promote.model_copy(update={"after": "dev"})
    images = prod.images.model_copy(update={"promote": after_dev})
    stack = prod.model_copy(update={"images": images})
    assert list(preflight.missing_files(stack, recorder.ROOT)) == [
        "images.promote.after is dev, which builds its images and marks none as run; a stack that "
        "promotes is required, or leave it out"
    ]


@pytest.mark.parametrize(
    ("repository", "address"),
    [
        ("localhost:5000/mlhub", "https://localhost:5000"),
        ("harbor.example.com/mlhub", "https://harbor.example.com"),
    ],
)
def test_every_registry_is_asked_over_tls(repository: str, address: str) -> None:
    monitor = recorder.run(lambda: docker_provider(repository, None))
    (provider,) = monitor.of_type("pulumi:providers:docker")
    assert f'"{address}"' in str(provider.plain["registryAuth"])


@pytest.mark.parametrize(
    "dockerfile",
    sorted((recorder.ROOT / "images").glob("*/Dockerfile")),
    ids=lambda p: p.parent.name,
)
def test_a_base_that_the_program_gives_is_no_build_warning(dockerfile: Path) -> None:
    """BuildKit reads the directive on the first line alone (docs.docker.com/build/checks)."""
    lines = dockerfile.read_text().splitlines()
    skips = lines[0] == "# check=skip=InvalidDefaultArgInFrom"
    assert skips == ("ARG BASE_IMAGE" in lines)


def test_a_registry_that_is_away_is_one_sentence_for_all_images() -> None:
    def digest(name: str) -> str:
        raise RefusedError("the registry https://harbor.example.com does not answer")

    with pytest.raises(pulumi.RunError) as refusal:
        promoted(digest, "hub")
    (said,) = str(refusal.value).splitlines()
    assert said.startswith("harbor.example.com/mlhub/base:v1, harbor.example.com/mlhub/hub:v1 cann")


def test_a_stack_that_uses_neither_harbor_nor_promotion_waits_for_neither_import() -> None:
    """Together they cost a quarter of a second at each start of the program."""
    code = (
        "import sys, components.platform; "
        "sys.exit(bool({'pulumi_docker', 'pulumiverse_harbor'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=recorder.ROOT, check=False)
    assert done.returncode == 0
