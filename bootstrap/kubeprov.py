"""What the Kubernetes provider's build needs beside its module: generated files, a slim SDK.

The provider embeds its schema, and needs three packages of its own Go SDK. The table of kinds in
yaml/v2 would pull in all of the SDK, most of the build; only the component resources yaml.v2 and
helm.v4 use it, and the program uses neither.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bootstrap.errors import BootstrapError

PROVIDER = "github.com/pulumi/pulumi-kubernetes/provider/v4@v4.0.0-20260115033456-f47bc2d6f199"
SDK = "github.com/pulumi/pulumi-kubernetes/sdk/v4@v4.25.0"
VERSION = "4.25.0"
SDK_PACKAGES = ("utilities", "helm/v4", "yaml/v2")


def _module(go: str, module: str, folder: Path, env: Mapping[str, str]) -> Path:
    done = subprocess.run(
        [go, "mod", "download", "-json", module],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **env},
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"Error": done.stderr.strip()}
    if "Error" in answer:
        raise BootstrapError(f"The Go module {module} cannot be had: {answer['Error']}")
    return Path(answer["Dir"])


def prepare(folder: Path, go: str, env: Mapping[str, str]) -> None:
    """Lays the embedded files and the slim SDK beside main.go."""
    provider = _module(go, PROVIDER, folder, env) / "cmd" / "pulumi-resource-kubernetes"
    sdk = _module(go, SDK, folder, env)
    schema = json.loads((provider / "schema.json").read_text())
    schema["version"] = VERSION
    (folder / "schema-embed.json").write_text(json.dumps(schema))
    shutil.copyfile(provider / "terraform-mapping.json", folder / "terraform-mapping-embed.json")
    slim = folder / "sdk"
    source, target = sdk / "go" / "kubernetes", slim / "go" / "kubernetes"
    target.mkdir(parents=True)
    for name in ("go.mod", "go.sum"):
        shutil.copyfile(sdk / name, slim / name)
    for file in (*source.glob("*.go"), source / "pulumi-plugin.json"):
        shutil.copyfile(file, target / file.name)
    for package in SDK_PACKAGES:
        shutil.copytree(source / package, target / package, copy_function=shutil.copyfile)
    for path in slim.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    shutil.copyfile(folder / "kinds.go.txt", target / "yaml" / "v2" / "kinds.go")
