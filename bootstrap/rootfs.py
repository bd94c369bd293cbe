"""The Debian that every image of the platform begins with, made from the machine's own mirrors."""

import hashlib
import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bootstrap.commands import run, tail
from bootstrap.errors import BootstrapError
from bootstrap.oci import Repository
from bootstrap.paths import REGISTRY, Layout
from bootstrap.schedule import Task

NAME = "mlhub/debian"
SUITE = "bookworm"
PACKAGES = (
    "ca-certificates",
    "curl",
    "git",
    "less",
    "locales",
    "nano",
    "openssh-client",
    "procps",
    "python3",
    "python3-pip",
    "python3-venv",
    "tini",
)
EXCLUDED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/lintian/*")
FORMAT = "$(CREATED_BY)|$(ORIGIN)|$(CODENAME)|$(SITE)|$(RELEASE)|$(COMPONENT)"
KEPT = ("/usr/share/doc/*/copyright",)


def tar(layout: Layout) -> Path:
    return layout.cache / f"debian-{inputs()}.tar"


def sources(listing: str) -> list[str]:
    """The machine's own sources of the suite, from `apt-get indextargets` in FORMAT.

    Only Debian's: what else a machine installs from has no place in its images.
    """
    lines = [line.split("|") for line in listing.splitlines()]
    return sorted(
        {
            f"deb {site} {release} {component}"
            for created_by, origin, codename, site, release, component in lines
            if created_by == "Packages"
            and origin == "Debian"
            and codename.partition("-")[0] == SUITE
            and "backports" not in codename
        }
    )


def command(target: Path, mirrors: Sequence[str]) -> list[str]:
    """mmdebstrap's command line: minimal, no recommended packages, no documentation."""
    options = [f'--dpkgopt=path-exclude="{path}"' for path in EXCLUDED]
    options += [f'--dpkgopt=path-include="{path}"' for path in KEPT]
    return [
        "mmdebstrap",
        "--variant=minbase",
        "--mode=root",
        "--format=tar",
        '--aptopt=Apt::Install-Recommends "false"',
        *options,
        f"--include={','.join(PACKAGES)}",
        "--customize-hook=rm -rf $1/var/cache/apt/* $1/var/log/* $1/etc/machine-id",
        '--customize-hook=dpkg-query --root="$1" -W',
        SUITE,
        str(target),
        *mirrors,
    ]


def inputs() -> str:
    """The name of what is made from these inputs: the same inputs, the same root file system."""
    return hashlib.sha256(json.dumps(command(Path("x"), ())).encode()).hexdigest()[:16]


def ensure(layout: Layout, task: Task) -> str:
    """Makes the root file system as a tar where it is not there: whole, or not at all."""
    target = tar(layout)
    if target.exists():
        return "there"
    for old in layout.cache.glob("debian-*"):
        old.unlink()
    aside = target.with_suffix(".part")
    log = layout.log / "rootfs.log"
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", FORMAT], capture_output=True, text=True, check=False
    )
    mirrors = sources(listing.stdout)

    def tell() -> None:
        task.note = f"mmdebstrap {SUITE}, {len(PACKAGES)} packages and what they need"

    if run(layout, task, command(aside, mirrors), log=log, each=tell):
        aside.unlink(missing_ok=True)
        raise BootstrapError(
            f"mmdebstrap could not make a Debian {SUITE} from "
            f"{'; '.join(mirrors) or 'its own default mirror'}; a mirror that has {SUITE} is "
            f"needed. The end of {log}:\n{tail(log)}"
        )
    versions = re.findall(r"^(\S+)\t(\S+)$", log.read_text(errors="replace"), flags=re.MULTILINE)
    if not versions:
        raise BootstrapError(f"mmdebstrap listed no package; see {log}.")
    packages = "".join(f"{name} {version}\n" for name, version in sorted(versions))
    target.with_suffix(".packages").write_text(packages)
    aside.replace(target)
    return f"made of {len(versions)} packages"


def push(layout: Layout) -> str:
    """Pushes it as mlhub/debian:bookworm; returns its digest."""
    label = hashlib.sha256(tar(layout).with_suffix(".packages").read_bytes()).hexdigest()
    return Repository(NAME, layout.registry_authority).push(
        SUITE,
        tar(layout),
        env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        labels={"mlhub.packages": label},
    )


def image(layout: Layout) -> str:
    """The image that is in the registry now, by digest."""
    digest = Repository(NAME, layout.registry_authority).digest(SUITE)
    if digest is None:
        raise BootstrapError(f"{REGISTRY}/{NAME}:{SUITE} is not in the registry.")
    return f"{REGISTRY}/{NAME}@{digest}"
