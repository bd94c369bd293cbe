"""What code of a person does every day, in a server and in a run, whose image is read-only."""

import zipfile
from pathlib import Path

INTERNET = "198.51.100.5"
"""Of TEST-NET-2 (RFC 5737), as public as any; a mirror of packages is put there."""
WHEEL = "mlhub_e2e_mirrored-1.0-py3-none-any.whl"

WRITES = """
import errno, json, os
def tried(folder):
    path = os.path.join(folder, ".mlhub-e2e")
    try:
        open(path, "w").close()
        os.unlink(path)
        return "written"
    except OSError as error:
        return errno.errorcode[error.errno]
print(json.dumps(dict((folder, tried(folder)) for folder in {folders!r})))
"""
IMAGE = ("/", "/etc", "/opt", "/run", "/srv", "/usr", "/usr/local/bin", "/var", "/var/cache")
WRITABLE = ("/home/jovyan", "/home/jovyan/scratch", "/tmp", "/var/tmp", "/dev/shm")  # noqa: S108
WRITTEN = dict.fromkeys((*IMAGE, "/datasets"), "EROFS") | dict.fromkeys(WRITABLE, "written")
"""What WRITES finds in every pod of a person's. Root's folders in an image that could be written to
would be EACCES."""

WORKS = """
import io, json, subprocess, sys
import matplotlib, matplotlib.pyplot as plt
def ran(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
picture = io.BytesIO()
plt.plot([1, 3, 2])
plt.title("a plot")
plt.savefig(picture)
ran(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
    "--index-url", {mirror!r} + "/simple", "--trusted-host", "198.51.100.5", "mlhub-e2e-mirrored")
found = ran(sys.executable, "-c", "import mlhub_e2e_mirrored as m; print(m.__file__, m.ANSWER)")
ran(sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "mlhub-e2e-mirrored")
ran("sh", "-c", "rm -rf ~/e2e-git && git init -q ~/e2e-git && cd ~/e2e-git && touch a && "
    "git add a && git -c user.name=a -c user.email=a@example.com commit -qm a && "
    "rm -r ~/e2e-git")
print(json.dumps({{
    "plot": picture.getvalue()[1:4].decode(),
    "caches in the home": matplotlib.get_cachedir().startswith("/home/jovyan/"),
    "packages in the home": found.startswith("/home/jovyan/.local/"),
    "answer": found.split()[1],
}}))
"""
"""What a person does every day, where nothing of the image can be written to."""
WORKED = {
    "plot": "PNG",
    "caches in the home": True,
    "packages in the home": True,
    "answer": "42",
}


def index_of_packages(folder: Path) -> Path:
    """The folder with an index of one package (PEP 503), where a web server lists folders."""
    place = folder / "simple" / "mlhub-e2e-mirrored"
    place.mkdir(parents=True)
    info = "mlhub_e2e_mirrored-1.0.dist-info"
    files = {
        "mlhub_e2e_mirrored.py": "ANSWER = 42",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: mlhub-e2e-mirrored\nVersion: 1.0",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any",
    }
    files[f"{info}/RECORD"] = "\n".join(f"{name},," for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(place / WHEEL, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, f"{text}\n")
    return folder
