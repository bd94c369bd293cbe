"""The package mirrors of the machine that builds: the steps of a build that fetch ask them, too."""

import os
import shlex

import pulumi

READ = {
    "PIP_INDEX_URL": ("PIP_INDEX_URL",),
    # uv reads none of pip's settings.
    "UV_DEFAULT_INDEX": ("UV_DEFAULT_INDEX", "PIP_INDEX_URL"),
    "NPM_CONFIG_REGISTRY": ("NPM_CONFIG_REGISTRY",),
    "MAVEN_MIRROR_URL": ("MAVEN_MIRROR_URL",),
}
"""What a build step has, and which of the machine's variables gives it, the first that is set."""


def machine_mirrors() -> str:
    """Lines for a shell, empty where the machine has no mirror.

    An address may have an account in it. Raises `pulumi.RunError` for what is no address.
    """
    lines = []
    for name, sources in READ.items():
        source = next((source for source in sources if os.environ.get(source)), None)
        if source is None:
            continue
        address = os.environ[source]
        if not address.startswith(("https://", "http://")) or len(address.split()) != 1:
            raise pulumi.RunError(
                f"{source} is no address of a package mirror; give one that begins with https://, "
                "or unset it"
            )
        lines.append(f"export {name}={shlex.quote(address)}\n")
    return "".join(lines)
