"""Imports what the program and its plug-ins import, so that Python keeps it compiled.

pulumi-kubernetes loads a part when it is first named; these are those that the program names.
"""

import importlib

PARTS = ("apps", "batch", "core", "helm", "meta", "networking", "rbac", "storage", "yaml")
PLUGINS = ("docker", "harbor", "keycloak", "language_host", "random")

for name in (
    "components.platform",
    "pulumi.dynamic",
    "pulumi_docker",
    "pulumiverse_harbor",
    *(f"pulumi_kubernetes.{part}" for part in PARTS),
    *(f"bootstrap.plugins.{plugin}" for plugin in PLUGINS),
):
    importlib.import_module(name)
