"""The images of the stack, each known by its digest: built here, or promoted.

Built ones come from `images/` by BuildKit. Each folder with a Dockerfile is an image: `base` stands
on the stack's Debian, every other one on `base` by its digest, so that a change of the base goes
through all of them. A project's image is `images/project` on a user image, with the project's lock.
Promoted ones are what another stack built: looked up by tag, taken by digest. Where they have to
run somewhere first, the tag is the one that the stack there gives them when they do.
"""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import certifi
import pulumi
import pulumi_docker_build as docker_build

from components import names, provenance
from components.config import Build, Project, Promote
from components.mirrors import machine_mirrors
from components.registry import Login
from components.values import BuiltImage

ROOT = Path(__file__).resolve().parent.parent
CONTEXT = "images"
BASE = "base"
PROJECT = "project"

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
DISTRIBUTED = Path("/usr/share/ca-certificates")
"""Where Debian's package puts its authorities; those of an administrator lie elsewhere."""
WRAPPED = re.compile(r".*(returned an error|getRegistryImage failed): ", re.DOTALL)
"""What engine and SDK put before a plug-in's own words."""


def machine_trust() -> str:
    """The authorities that SSL_CERT_FILE has beyond the public ones, as PEM, for a machine behind a
    gateway with an authority of its own; empty where there is none.

    Public ones come with the images (base/trust.sh). The rest is in the state, encrypted, twice for
    each image, and Pulumi writes the state down after each resource: a whole bundle would be most
    of it. Raises `pulumi.RunError` where the file cannot be read.
    """
    named = os.environ.get("SSL_CERT_FILE")
    if not named:
        return ""
    try:
        bundle = Path(named).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise pulumi.RunError(
            f"SSL_CERT_FILE names {named}, which cannot be read ({error}); give it a bundle of "
            "certificates as PEM, or unset it"
        ) from None
    public = {one for file in public_bundles() for one in certificates(file)}
    own = [block for one, block in certificates(bundle).items() if one not in public]
    return "\n".join([*own, ""]) if own else ""


def public_bundles() -> Iterator[str]:
    """Mozilla's authorities, as certifi has them, and those of the machine's distribution."""
    yield Path(certifi.where()).read_text(encoding="utf-8")
    for file in DISTRIBUTED.rglob("*.crt"):
        yield file.read_text(encoding="utf-8", errors="replace")


def certificates(bundle: str) -> dict[str, str]:
    """Each as it is written, by itself without line breaks, which differ from file to file."""
    return {"".join(block.split()): block for block in CERTIFICATE.findall(bundle)}


def registry_login(repository: str, login: Login) -> docker_build.RegistryArgsDict:
    """The account as pulumi-docker-build wants it."""
    return {
        "address": repository.partition("/")[0],
        "username": login.username,
        "password": pulumi.Output.secret(login.password),
    }


def cache(repository: str, image: str) -> dict[str, Any]:
    """The image's layers, those of inner stages too, kept in the registry from build to build."""
    ref = f"{names.image(repository, names.CACHE_REPOSITORY)}:{image}"
    to = docker_build.CacheToRegistryArgs(
        ref=ref,
        mode=docker_build.CacheMode.MAX,
        # As an image of its own: Harbor and others refuse a cache in the form of an index.
        image_manifest=True,
        oci_media_types=True,
        # A cache that cannot be written makes the next build slower and this one no worse.
        ignore_error=True,
    )
    return {
        "cache_from": [
            docker_build.CacheFromArgs(registry=docker_build.CacheFromRegistryArgs(ref=ref))
        ],
        "cache_to": [docker_build.CacheToArgs(registry=to)],
    }


@dataclass(frozen=True)
class ImagesArgs:
    repository: str
    """Where images go: host[:port]/project."""
    config: Build
    wanted: Iterable[str]
    """The folders and projects to build beside `base`."""
    login: Login | None = None
    """Who pushes. Without it the registry has to take pushes from anyone."""
    cached: bool = False
    """Whether the registry keeps the layers of builds as well."""
    in_use_tag: str | None = None
    """A second tag, by which the registry's retention knows what this stack runs."""
    programs: Mapping[str, str] = field(default_factory=dict)
    """By image, the folder with the programs that were built for it (`make up`)."""


class Images(pulumi.ComponentResource):
    """The images that this stack builds."""

    built: dict[str, BuiltImage]
    """By folder or project."""

    def __init__(self, name: str, args: ImagesArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:images:Images", name, {}, opts)
        self._args = args
        self._secrets = {"ca": machine_trust(), "mirrors": machine_mirrors()}
        base = self._build(BASE, {"DEBIAN_IMAGE": args.config.debian})
        on_base = {"BASE_IMAGE": base.reference}
        projects = {p.name: p for p in args.config.projects if p.name in args.wanted}
        folders = {*args.wanted, *(p.base for p in projects.values())} - projects.keys()
        self.built = {BASE: base} | {
            image: self._build(image, on_base) for image in sorted(folders)
        }
        for image, project in projects.items():
            given: dict[str, pulumi.Input[str]] = {"PROJECT": image}
            given["BASE_IMAGE"] = self.built[project.base].reference
            self.built[image] = self._build(image, given, project)
        self.register_outputs({"references": references(self.built)})

    def _build(
        self,
        image: str,
        build_args: Mapping[str, pulumi.Input[str]],
        project: Project | None = None,
    ) -> BuiltImage:
        args, config = self._args, self._args.config
        folder, named, labels, beside = image, None, {}, []
        if project is not None:
            lock = project.requirements.rpartition("/")[0]
            folder, named = PROJECT, {"project": docker_build.ContextArgs(location=lock)}
            labels, beside = {provenance.TITLE: f"mlhub {image}"}, [ROOT / lock]
        if (programs := args.programs.get(image)) is not None:
            named = {"programs": docker_build.ContextArgs(location=programs)}
        labels |= provenance.labels(ROOT / CONTEXT / folder, config.tag, beside)
        repository = names.image(args.repository, image)
        tags = [config.tag, args.in_use_tag] if args.in_use_tag else [config.tag]
        made = docker_build.Image(
            image,
            builder={"name": config.builder},
            context=docker_build.BuildContextArgs(location=CONTEXT, named=named),
            dockerfile={"location": f"{CONTEXT}/{folder}/Dockerfile"},
            labels=labels,
            build_args=build_args,
            # Empty ones, too: another machine's are no reason to build again, and docker-build
            # ignores none that comes or goes.
            secrets={name: pulumi.Output.secret(given) for name, given in self._secrets.items()},
            ignore_secrets_in_diff_calculation=[*self._secrets],
            # All in one index, which has one digest.
            platforms=[docker_build.Platform(platform) for platform in config.platforms],
            tags=[f"{repository}:{tag}" for tag in tags],
            push=True,
            registries=[registry_login(args.repository, args.login)] if args.login else None,
            **(cache(args.repository, image) if args.cached else {}),
            # A preview says what would be built; on a runner it has no builder.
            build_on_preview=False,
            # A running pod, or the release that one rolls back to, may still need the digest.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        return BuiltImage(repository, pulumi.Output.concat(config.tag, "@", made.digest))


@dataclass(frozen=True)
class PromotedImagesArgs:
    config: Promote
    wanted: Iterable[str]
    """Beside `base`, as with `ImagesArgs`."""
    in_use_tag: str | None = None
    """As with `ImagesArgs`; needs `login`, and a registry that speaks HTTPS."""
    login: Login | None = None


class PromotedImages(pulumi.ComponentResource):
    """Images that another stack has built: the same digests, and nothing is built.

    Among the providers it needs docker (`docker_provider`). Looked up in previews too, so that a
    tag which names another digest now is seen before it is applied. Raises `pulumi.RunError` with a
    sentence for each reason why images cannot be had.
    """

    built: dict[str, BuiltImage]
    """By folder."""
    sources: dict[str, str]
    """By folder, the same as `<repository>@sha256:…`."""

    def __init__(
        self, name: str, args: PromotedImagesArgs, opts: pulumi.ResourceOptions | None = None
    ):
        super().__init__("mlhub:images:PromotedImages", name, {}, opts)
        self.built, self.sources = {}, {}
        child = pulumi.ResourceOptions(parent=self)
        config = args.config
        missing: dict[str, list[str]] = {}
        tag = names.ran_tag(config.after, config.tag) if config.after else config.tag
        for image in sorted({BASE, *args.wanted}):
            repository = names.image(config.repository, image)
            reference = f"{repository}:{tag}"
            try:
                digest = self._digest(reference)
            except LookUpError as error:
                missing.setdefault(str(error), []).append(reference)
                continue
            self.built[image] = BuiltImage(repository, f"{config.tag}@{digest}")
            self.sources[image] = f"{repository}@{digest}"
            if args.in_use_tag is not None and args.login is not None:
                # So that the registry keeps it when its tag moves on.
                mark(f"{image}-in-use", self.sources[image], args.in_use_tag, args.login, child)
        if missing:
            told = [sentence(config, why, images) for why, images in missing.items()]
            raise pulumi.RunError("\n".join(told))
        self.register_outputs({"references": references(self.built)})

    def _digest(self, reference: str) -> str:
        import pulumi_docker as docker  # noqa: PLC0415 - 165 ms for stacks that build

        try:
            found = docker.get_registry_image(
                name=reference, opts=pulumi.InvokeOptions(parent=self)
            )
        except Exception as error:
            raise LookUpError(WRAPPED.sub("", str(error)).strip().rstrip(".")) from None
        digest: str = found.sha256_digest
        return digest


@dataclass(frozen=True)
class RanImagesArgs:
    sources: Mapping[str, str]
    """By folder, what `PromotedImages` took."""
    tag: str
    login: Login
    after: pulumi.Resource
    """What runs them: nothing is said before all of it does."""


class RanImages(pulumi.ComponentResource):
    """Says in the registry of promoted images that this stack has run them, for the stack that
    takes no others.
    """

    def __init__(self, name: str, args: RanImagesArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:images:RanImages", name, {}, opts)
        opts = pulumi.ResourceOptions(parent=self, depends_on=[args.after])
        for image, source in args.sources.items():
            mark(f"{image}-ran", source, args.tag, args.login, opts)
        self.register_outputs({})


def mark(name: str, source: str, tag: str, login: Login, opts: pulumi.ResourceOptions) -> None:
    """One more tag for `source`, by an index of one that has the digest of what it points to."""
    repository = source.partition("@")[0]
    docker_build.Index(
        name,
        tag=f"{repository}:{tag}",
        sources=[source],
        push=True,
        registry=registry_login(repository, login),
        # Deleting it would delete the image itself, not the tag.
        opts=pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(retain_on_delete=True)),
    )


class LookUpError(Exception):
    """Why a tag names no digest, in the words of the plug-in."""


def sentence(promote: Promote, why: str, references: list[str]) -> str:
    """What a person reads of images that cannot be had for one and the same reason."""
    applied = "the stack which builds has been applied"
    if promote.after is not None:
        applied = f"the stack {promote.after} has been applied with the tag {promote.tag}"
    return (
        f"{', '.join(references)} cannot be promoted: {why}; see that the registry answers and "
        f"that {applied}, or correct images.promote"
    )


def references(built: Mapping[str, BuiltImage]) -> dict[str, pulumi.Output[str]]:
    return {image: made.reference for image, made in built.items()}


def docker_provider(repository: str, login: Login | None) -> pulumi.ProviderResource:
    """For look-ups at the registry of `repository`, over HTTPS. Needs no Docker daemon."""
    import pulumi_docker as docker  # noqa: PLC0415

    entry: dict[str, Any] = {"address": f"https://{repository.partition('/')[0]}"}
    if login is None:
        entry["auth_disabled"] = True
    else:
        entry |= {"username": login.username, "password": pulumi.Output.secret(login.password)}
    return docker.Provider(
        "docker",
        # Said, so that the machine's DOCKER_HOST is not part of the stack.
        host="unix:///var/run/docker.sock",
        disable_docker_daemon_check=True,
        registry_auth=[docker.ProviderRegistryAuthArgs(**entry)],
    )
