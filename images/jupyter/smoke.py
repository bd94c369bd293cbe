"""What a user image must be able to do, asked at build: `smoke.py MODULE …`.

A project's image is asked `smoke.py --requirements FILE`: each package that FILE names is imported.
The home is an empty folder here, as it is at a person's first log-in: a volume mounted over
/home/jovyan must hide nothing.
"""

# ruff: noqa: S101, PT018, S310, PLW1510, RUF005

import argparse
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import websocket
from packaging.requirements import Requirement

home = Path(tempfile.mkdtemp())
os.environ["HOME"] = str(home)
AUTHORIZED = {"Authorization": "token smoke"}


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"
    return done.stdout


def modules_of(requirements: Path) -> list[str]:
    """The modules of the packages that a requirements file names itself."""
    found = []
    provided = packages_distributions()
    for line in requirements.read_text().splitlines():
        if not re.match(r"[A-Za-z0-9]", line):
            continue
        wanted = Requirement(line.split("#")[0])
        if wanted.marker and not wanted.marker.evaluate():
            continue
        name = canonical(wanted.name)
        modules = [
            module
            for module, distributions in provided.items()
            if name in map(canonical, distributions) and not module.startswith("_")
        ]
        assert modules, f"{requirements}: {wanted.name} brings no module that can be imported"
        found += modules
    return found


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


parser = argparse.ArgumentParser()
parser.add_argument("--requirements", type=Path)
parser.add_argument("modules", nargs="*")
given = parser.parse_args()

skeleton = {file.name for file in Path("/etc/skel").iterdir()}
ours = {file.name for file in Path("/home/jovyan").iterdir()} - skeleton
assert not ours, f"{ours} in the home, where a volume will hide it"

# Triton compiles at run time; nothing else in a user image may.
compiles = importlib.util.find_spec("triton") is not None
for tool in ("g++", "make", "node", "npm", "sudo", *(() if compiles else ("gcc", "cc"))):
    assert shutil.which(tool) is None, f"{tool} does not belong in a user image"
if compiles:
    (home / "launcher.c").write_text("#include <Python.h>\n")
    headers = sysconfig.get_paths(scheme="posix_prefix")["include"]
    library = str(home / "launcher.so")
    output("gcc", "-shared", "-fPIC", f"-I{headers}", str(home / "launcher.c"), "-o", library)

output("uv", "pip", "check", "--system", "--quiet", "--no-cache")
print("jupyterhub-singleuser", output("jupyterhub-singleuser", "--version").strip())
modules = given.modules + (modules_of(given.requirements) if given.requirements else [])
for module in (
    *modules,
    *(f"notebooks.{each}" for each in ("activity", "ending", "patience", "start")),
):
    start = time.monotonic()
    importlib.import_module(module)
    print(f"import {module} ({time.monotonic() - start:.1f} s)", flush=True)

lab = Path(sysconfig.get_path("data"), "share/jupyter/labextensions/@mlhub/ending")
assert (lab / "static/remoteEntry.js").is_file(), "the lab would not say when its server ends"

# J6: what a person installs goes to the home and is imported by their kernels.
wheel = home / "mine-1.0-py3-none-any.whl"
with zipfile.ZipFile(wheel, "w") as archive:
    info = "mine-1.0.dist-info"
    archive.writestr("mine.py", "answer = 42\n")
    archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    archive.writestr(f"{info}/RECORD", f"mine.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n")
output("pip", "install", "--quiet", "--no-index", str(wheel))
assert (home / ".local/lib/python3.11/site-packages/mine.py").exists()

# A cell executes in the kernel that the image offers.
cell = {"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}
kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}}
magics = "'mlflow_start_run' in get_ipython().magics_manager.magics['line']"
notebook["cells"] = [
    {**cell, "source": "import mine\nprint(mine.answer)"},
    {**cell, "id": "b", "source": magics},
]
(home / "cell.ipynb").write_text(json.dumps(notebook))
output("papermill", str(home / "cell.ipynb"), str(home / "executed.ipynb"))
executed = json.loads((home / "executed.ipynb").read_text())
texts = [out.get("text") for cell in executed["cells"] for out in cell.get("outputs", ())]
assert ["42\n"] in texts, texts

# M6: the kernel has the magics.
(magics,) = (cell["outputs"] for cell in executed["cells"] if "magics" in cell["source"][0])
assert "True" in magics[0]["data"]["text/plain"][0], magics

# The server comes up through the start command, seeded, with Lab and our extension.
log = home / "server.log"
with log.open("w") as stream:
    server = subprocess.Popen(
        [sys.executable, "-s", shutil.which("mlhub-start") or "", "jupyter-lab", "--no-browser"]
        + [
            "--ip=127.0.0.1",
            "--port=0",
            "--IdentityProvider.token=smoke",
            f"--ServerApp.root_dir={home}",
        ],
        stderr=stream,
        stdout=stream,
    )
try:
    deadline = time.monotonic() + 120
    while "is running at" not in log.read_text():
        assert server.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    (found,) = Path(os.environ["JUPYTER_RUNTIME_DIR"]).glob("jpserver-*.json")
    url = json.loads(found.read_text())["url"]

    def get(path: str) -> bytes:
        request = urllib.request.Request(url + path, headers=AUTHORIZED)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.read()

    # The server says where it runs before it listens there (jupyter_server, `_bind_http_server`).
    # Asked as the image's health check does, without a token.
    while True:
        try:
            urllib.request.urlopen(url + "api", timeout=20).close()
            break
        except urllib.error.URLError:
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
    assert b"JupyterLab" in get("lab")
    assert "python3" in json.loads(get("api/kernelspecs"))["kernelspecs"]
    examples = {entry["name"] for entry in json.loads(get("api/contents/examples"))["content"]}
    assert "getting-started.ipynb" in examples, examples

    # V5: a terminal is a shell with git.
    request = urllib.request.Request(url + "api/terminals", b"{}", AUTHORIZED, method="POST")
    with urllib.request.urlopen(request, timeout=20) as answer:
        name = json.load(answer)["name"]
    address = f"{url.replace('http', 'ws')}terminals/websocket/{name}"
    socket = websocket.create_connection(address, header=AUTHORIZED, timeout=20)
    socket.send(json.dumps(["stdin", "git --version; echo $BASH_VERSION-$((6 * 7))\n"]))
    said = ""
    while not re.search(r"git version .*\n5\.[^\n]*-42", said, re.DOTALL):
        said += json.loads(socket.recv())[1] or ""
    socket.close()
finally:
    server.terminate()
    server.wait(20)
assert "A busy kernel keeps this server active." in log.read_text(), log.read_text()
databases = [str(file) for file in home.rglob("*.sqlite")] + [str(f) for f in home.rglob("*.db")]
assert not databases, f"SQLite in the home: {databases}"
