"""Images, built from `images/` by BuildKit, pushed to the registry and known by digest.

Each folder with a Dockerfile is an image. `base` stands on the stack's Debian, every other one on
`base` by its digest, so that a change of the base goes through all of them.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_docker_build as docker_build

from components import names
from components.config import Images as ImagesConfig
from components.values import BuiltImage

CONTEXT = "images"
BASE = "base"


def machine_trust() -> str | None:
    """The PEM bundle of SSL_CERT_FILE, for a machine behind a gateway with an authority of its own.

    Only where that is set: the bundle is in the state, encrypted, once for each image and property.
    """
    bundle = os.environ.get("SSL_CERT_FILE")
    return Path(bundle).read_text(encoding="utf-8") if bundle else None


@dataclass(frozen=True)
class ImagesArgs:
    repository: str
    """Where images go: host[:port]/project."""
    config: ImagesConfig
    wanted: Iterable[str]
    """The folders to build beside `base`."""


class Images(pulumi.ComponentResource):
    """The images of the stack."""

    built: dict[str, BuiltImage]
    """By folder."""

    def __init__(self, name: str, args: ImagesArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("mlhub:images:Images", name, {}, opts)
        self._args = args
        config = args.config.build
        if config is None:
            raise ValueError("images.promote is not supported yet; give images.build")
        self._config = config
        self._trust = machine_trust()
        base = self._build(BASE, {"DEBIAN_IMAGE": config.debian})
        on_base = {"BASE_IMAGE": base.reference}
        self.built = {BASE: base} | {
            image: self._build(image, on_base) for image in sorted(args.wanted)
        }
        self.register_outputs(
            {"references": {image: built.reference for image, built in self.built.items()}}
        )

    def _build(self, image: str, build_args: Mapping[str, pulumi.Input[str]]) -> BuiltImage:
        config = self._config
        repository = names.image(self._args.repository, image)
        trust = {} if self._trust is None else {"ca": pulumi.Output.secret(self._trust)}
        made = docker_build.Image(
            image,
            builder={"name": config.builder},
            context={"location": CONTEXT},
            dockerfile={"location": f"{CONTEXT}/{image}/Dockerfile"},
            build_args=build_args,
            secrets=trust,
            # Another machine's authorities are no reason to build again.
            ignore_secrets_in_diff_calculation=list(trust),
            platforms=[docker_build.Platform(platform) for platform in config.platforms],
            tags=[f"{repository}:{config.tag}"],
            push=True,
            # A preview says what would be built; on a runner it has no builder.
            build_on_preview=False,
            # A running pod, or the release that one rolls back to, may still need the digest.
            opts=pulumi.ResourceOptions(parent=self, retain_on_delete=True),
        )
        return BuiltImage(repository, pulumi.Output.concat(config.tag, "@", made.digest))
