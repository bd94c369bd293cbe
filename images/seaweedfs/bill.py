"""The base's bill of materials, and SeaweedFS, which no package manager knows of."""

import subprocess
import sys

sys.path.insert(0, "/usr/local/lib/mlhub")
import sbom


def seaweedfs() -> dict[str, str]:
    """`weed version` says `version 30GB 3.39  linux amd64`."""
    said = subprocess.run(["weed", "version"], check=True, capture_output=True, text=True).stdout
    return sbom.component("golang", "seaweedfs", said.split()[2], "github.com/seaweedfs")


others = sbom.programs
sbom.programs = lambda: [*others(), seaweedfs()]
sbom.main()
