#!/usr/bin/python3 -I
"""Start one part of SeaweedFS: `mlhub-seaweedfs master|volume|filer|s3`, each in its container.

The four are in one pod and speak to each other on loopback. Only the volume server says another
address of itself, `SEAWEEDFS_ADDRESS`: a name that outlives the pod, since whoever has mounted a
volume keeps it. `SEAWEEDFS_BUCKETS` (names with commas between them) are there before the gateway
listens; `/run/secrets/seaweedfs/identities.json` says who may do what in them.
"""

import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

DATA = Path("/data")
MASTER, FILER = "127.0.0.1:9333", "127.0.0.1:8888"
IDENTITIES = os.environ.get("SEAWEEDFS_IDENTITIES", "/run/secrets/seaweedfs/identities.json")
BUCKETS = f"http://{FILER}/buckets"

VOLUME_FILE_MB = 1024
"""How large one file of data grows before the next is begun."""


def arguments(part: str, address: str) -> list[str]:
    """What weed is given for a part. The ports are its own defaults."""
    inside = ["-ip=127.0.0.1", "-ip.bind=0.0.0.0"]
    return {
        "master": [
            *inside,
            f"-mdir={DATA}/master",
            f"-volumeSizeLimitMB={VOLUME_FILE_MB}",
            "-defaultReplication=000",
        ],
        "volume": [
            f"-ip={address}",
            "-ip.bind=0.0.0.0",
            f"-mserver={MASTER}",
            f"-dir={DATA}/volume",
            # Files of data grow as they are written, so their number bounds nothing.
            "-max=100000",
            # Below it all volumes are read-only, and what is there stays whole.
            "-minFreeSpace=1GiB",
            "-preStopSeconds=1",
        ],
        "filer": [
            *inside,
            f"-master={MASTER}",
            f"-defaultStoreDir={DATA}/filer",
            # Or its page for browsers deletes a folder at a click.
            "-ui.deleteDir=false",
        ],
        "s3": [
            "-ip.bind=0.0.0.0",
            f"-filer={FILER}",
            f"-config={IDENTITIES}",
            # A bucket with something in it is not deleted by one request.
            "-allowDeleteBucketNotEmpty=false",
        ],
    }[part]


def make_bucket(name: str) -> None:
    """A bucket is a folder of the filer's; one that is there is left alone."""
    for method in ("HEAD", "POST"):
        request = urllib.request.Request(f"{BUCKETS}/{name}/", method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=10):  # noqa: S310
                return
        except urllib.error.HTTPError:
            if method == "POST":
                raise


def make_buckets(names: list[str]) -> None:
    """Waits until the filer answers, however long that takes: the kubelet watches."""
    while True:
        try:
            for name in names:
                make_bucket(name)
        except OSError as error:  # HTTPError is one
            print(f"mlhub-seaweedfs: the filer makes no buckets yet: {error}", flush=True)
            time.sleep(1)
        else:
            return


def main() -> None:
    part = sys.argv[1]
    if part == "s3":
        make_buckets([name for name in os.environ["SEAWEEDFS_BUCKETS"].split(",") if name])
    else:
        (DATA / part).mkdir(exist_ok=True)
    address = os.environ.get("SEAWEEDFS_ADDRESS", "127.0.0.1")
    os.execvp("weed", ["weed", "-logtostderr", part, *arguments(part, address)])  # noqa: S606


if __name__ == "__main__":
    main()
