"""Runs in the pod of the stack's own SeaweedFS: a bucket as a tar, and back.

    filer.py out BUCKET     a tar of the bucket's objects goes to standard output
    filer.py in BUCKET      objects come from a tar on standard input; what is there goes first
    filer.py empty BUCKET   what is there goes

The filer listens on loopback and asks nobody for keys, which is why its pod lets nobody else in.
"""

import json
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import IO, Any, cast

BUCKETS = "http://127.0.0.1:8888/buckets"
PAGE = 1000
DIRECTORY = 1 << 31
"""Go's os.ModeDir, by which the filer marks folders."""


def ask(
    path: str,
    query: str = "",
    *,
    method: str = "GET",
    body: IO[bytes] | None = None,
    headers: dict[str, str] | None = None,
) -> HTTPResponse:
    url = f"{BUCKETS}{urllib.parse.quote(path)}{query}"
    request = urllib.request.Request(url, method=method, data=body, headers=headers or {})  # noqa: S310
    return cast(HTTPResponse, urllib.request.urlopen(request, timeout=60))  # noqa: S310


def entries(folder: str) -> Iterator[dict[str, Any]]:
    """What lies in a folder, page after page."""
    last = ""
    while True:
        query = "/?" + urllib.parse.urlencode({"limit": PAGE, "lastFileName": last})
        try:
            with ask(folder, query, headers={"Accept": "application/json"}) as answer:
                found = json.load(answer).get("Entries") or []
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return  # a bucket that nobody has made yet, or a folder that went meanwhile
        yield from found
        if len(found) < PAGE:
            return
        last = found[-1]["FullPath"].rpartition("/")[2]


def objects(folder: str) -> Iterator[str]:
    """Each object's path below `/buckets`. Parts of unfinished uploads are none."""
    for entry in entries(folder):
        path = entry["FullPath"].removeprefix("/buckets")
        if not entry["Mode"] & DIRECTORY:
            yield path
        elif not path.endswith("/.uploads"):
            yield from objects(path)


def out(bucket: str) -> None:
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for path in objects(f"/{bucket}"):
            name = f".{path.removeprefix(f'/{bucket}')}"
            try:
                with ask(path) as answer:
                    info = tarfile.TarInfo(name)
                    info.size = int(answer.headers["Content-Length"])
                    info.pax_headers = {"mlhub.type": answer.headers.get("Content-Type") or ""}
                    tar.addfile(info, answer)
                print(name, file=sys.stderr)
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                print(f"tar: {name}: File removed before we read it", file=sys.stderr)


def empty(bucket: str) -> None:
    for entry in list(entries(f"/{bucket}")):
        path = entry["FullPath"].removeprefix("/buckets")
        ask(path, "?recursive=true", method="DELETE").close()


def into(bucket: str) -> None:
    empty(bucket)
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as tar:
        for member in tar:
            headers = {"Content-Length": str(member.size)}
            if kind := member.pax_headers.get("mlhub.type"):
                headers["Content-Type"] = kind
            path = f"/{bucket}/{member.name.removeprefix('./')}"
            ask(path, method="PUT", body=tar.extractfile(member), headers=headers).close()


if __name__ == "__main__":
    {"out": out, "in": into, "empty": empty}[sys.argv[1]](sys.argv[2])
