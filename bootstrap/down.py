"""`down`: stops what `up` started, and takes its traces off the machine. Data stays."""

import shutil

from bootstrap import leftovers, processes
from bootstrap.console import say
from bootstrap.errors import BootstrapError
from bootstrap.paths import Layout

DATA = ("cluster", "registry", "buildkit", "state", "stacks", "pulumi", "passphrase", "buildx")
"""Everything that a person or the platform has put in; parts and caches are none of it."""


def run(layout: Layout, *, purge_data: bool, sure: bool) -> None:
    if purge_data and not sure:
        raise BootstrapError(
            f"--purge-data removes volumes, images, the stack's state and its secrets below "
            f"{layout.data}; nothing brings them back. Say so: "
            "`make down ARGS='--purge-data --yes'`."
        )
    ours = {
        identity: mark
        for identity, mark in processes.marked().items()
        if mark.checkout == str(layout.checkout)
    }
    owner = leftovers.read_owner()
    if owner and owner.checkout != str(layout.checkout):
        processes.stop(ours)
        leftovers.unmount([layout.data])
        say(f"nothing of this checkout runs; the cluster on this machine is {owner.checkout}'s")
    else:
        unmounted = leftovers.end_everything(ours, [layout.data])
        leftovers.remove_from_machine(layout.bin / "kube-proxy")
        for record in layout.run.glob("*.json"):
            record.unlink()
        say(f"stopped {len(ours)} processes, unmounted {unmounted}, removed device and rules")
    if purge_data:
        for name in DATA:
            path = layout.data / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        say(f"removed the data below {layout.data}")
    else:
        say(f"data stays in {layout.data}")
