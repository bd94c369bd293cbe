"""Where `pulumi up` begins: the stack file, what it relies on, then the platform."""

import os
import sys
from pathlib import Path

import pulumi
from pulumi.runtime import config

from components.config import StackFile
from components.platform import Platform
from components.preflight import problems
from components.reach import CHART_VARIABLE
from components.stackfile import StackFileError, load, with_chart

SAID = 32
"""The exit status after which Pulumi's language host adds no sentence of its own."""


ONLY_A_PREVIEW = (
    f"{CHART_VARIABLE} is set, which points a preview at a local chart; unset it, or name the "
    "folder as hub.chart.path, since what is applied stands in the stack file"
)


def stack_file(stack: str) -> StackFile:
    """The checked stack file; ends the program with everything that is wrong."""
    try:
        found = load(stack, config.get_config_env(), config.get_config_secret_keys_env())
        if folder := os.environ.get(CHART_VARIABLE):
            if not pulumi.runtime.is_dry_run():
                raise StackFileError([ONLY_A_PREVIEW])
            found = with_chart(found, folder)
        sentences = problems(stack, found, Path.cwd())
    except StackFileError as error:
        sentences = error.sentences
    for sentence in sentences:
        pulumi.log.error(sentence)
    if sentences:
        sys.exit(SAID)
    return found


try:
    platform = Platform(stack_file(pulumi.get_stack()))
except pulumi.RunError as error:
    pulumi.log.error(str(error))
    sys.exit(SAID)
pulumi.export("hub_url", platform.hub_url)
pulumi.export("keycloak_url", platform.keycloak_url)
pulumi.export("hub_namespace", platform.hub_namespace)
pulumi.export("hub_release", platform.hub_release)
