"""State in an S3 bucket, as the cluster stacks keep it: one writer at a time, nothing in plain."""

import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer

from bootstrap import paths
from components.seaweedfs import identities
from tests import ports
from tests.engine.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

BUCKET = "pulumi-state"
SLOW = """
import time, pulumi, pulumi_random as random
word = random.RandomPassword("word", length=32, opts=pulumi.ResourceOptions(
    provider=random.Provider("random")))
pulumi.export("word", word.result)
time.sleep(pulumi.Config().require_int("seconds"))
"""


def test_nothing_is_written_beside_a_state_that_a_kill_could_leave_empty(
    tmp_path: Path, bin_dir: Path
):
    """Pulumi then says `failed to load checkpoint: EOF`, whatever it is asked."""
    layout = paths.Layout(tmp_path / "checkout")
    (layout.data / "state").mkdir(parents=True)
    url = paths.environment(layout)["PULUMI_BACKEND_URL"]
    stack = Stack(tmp_path, bin_dir, "", PULUMI_BACKEND_URL=url)
    (state,) = (layout.data / "state").rglob("stacks/*/*.json")
    stack.up()
    assert not list(layout.data.rglob("*.attrs"))
    attributes = state.with_name(f"{state.name}.attrs")
    attributes.write_text("")
    assert "EOF" in stack.fails("stack", "export"), "then the setting is needed no more"


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory, bin_dir: Path) -> Iterator[str]:
    """The gateway of a SeaweedFS of one process, as the foundation's image has it, with the
    identity that the foundation makes; its address."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    maker = {
        "name": "maker",
        "credentials": [{"accessKey": "maker", "secretKey": "maker"}],
        "actions": ["Admin"],
    }
    known = json.loads(identities({BUCKET: ("test", "test")}))["identities"]
    config = folder / "identities.json"
    config.write_text(json.dumps({"identities": [maker, *known]}))
    given = {part: free_port() for part in ("master", "volume", "filer", "s3")}
    process = subprocess.Popen(
        [
            str(bin_dir / "weed"), "-logtostderr", "server", "-ip=127.0.0.1", f"-dir={folder}",
            "-filer", "-s3", f"-s3.config={config}", "-volume.max=100",
            "-master.volumeSizeLimitMB=64", "-volume.preStopSeconds=0",
            *(f"-{part}.port={port}" for part, port in given.items()),
        ],
        stdout=subprocess.DEVNULL, stderr=(folder / "log").open("w"),
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{given['s3']}"
    deadline = time.monotonic() + 60
    while not stores(endpoint):
        assert process.poll() is None, (folder / "log").read_text()[-2000:]
        assert time.monotonic() < deadline, (folder / "log").read_text()[-2000:]
        time.sleep(0.5)
    yield endpoint
    process.kill()
    process.wait()


def free_port() -> int:
    """One whose neighbour for gRPC, 10000 above, is of those that the system gives to nobody else,
    as it is itself: until SeaweedFS listens, a connection of another test's could have either."""
    while True:
        port = ports.free_port() - 10_000
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)):
                return port


def client(endpoint: str, key: str = "test") -> Any:
    return boto3.resource(
        "s3", endpoint_url=endpoint, region_name="us-east-1",
        aws_access_key_id=key, aws_secret_access_key=key,
        config=Config(
            request_checksum_calculation="when_required", s3={"addressing_style": "path"}
        ),
    )  # fmt: skip


def stores(endpoint: str) -> bool:
    try:
        maker = client(endpoint, "maker")
        made = maker.Bucket(BUCKET)
        if made not in maker.buckets.all():
            made.create()
        made.put_object(Key="x", Body=b"x")
    except (BotoCoreError, ClientError):
        return False
    return True


@pytest.fixture
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["moto", "seaweedfs"])
def bucket(request: pytest.FixtureRequest) -> Any:
    # What moto holds outlives its server, and its buckets are made by whoever comes.
    endpoint = request.getfixturevalue(request.param)
    found = client(endpoint).Bucket(BUCKET)
    if request.param == "moto":
        found.create()
    found.objects.all().delete()
    return found


@pytest.fixture
def stack(tmp_path: Path, bin_dir: Path, bucket: Any) -> Iterator[Stack]:
    endpoint = bucket.meta.client.meta.endpoint_url.removeprefix("http://")
    options = f"region=us-east-1&endpoint={endpoint}&disableSSL=true&s3ForcePathStyle=true"
    made = Stack(
        tmp_path / "stack", bin_dir, SLOW,
        PULUMI_BACKEND_URL=f"s3://{bucket.name}?{options}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_REQUEST_CHECKSUM_CALCULATION="when_required",
    )  # fmt: skip
    made.configure(seconds="0")
    yield made
    made.wait_for_no_process()


def locks(bucket: Any) -> list[str]:
    return [o.key for o in bucket.objects.all() if "/locks/" in o.key]


def running(stack: Stack, bucket: Any) -> Any:
    """An `up` that holds the lock for a minute."""
    stack.configure(seconds="60")
    process = stack.start("up", "--yes", "--skip-preview")
    deadline = time.monotonic() + 60
    while not locks(bucket):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, stack.kill(process)
        time.sleep(0.2)
    return process


def test_state_in_a_bucket_is_kept_and_holds_no_secret_in_plain(stack: Stack, bucket: Any) -> None:
    stack.up()
    word = stack.secret("word").splitlines()[-1]
    assert len(word) == 32
    assert stack.changes() == {}
    stored = [o.get()["Body"].read().decode(errors="replace") for o in bucket.objects.all()]
    assert any("RandomPassword" in text for text in stored)
    assert not any(word in text for text in stored)
    assert locks(bucket) == []


def test_a_second_writer_is_refused_while_the_first_one_writes(stack: Stack, bucket: Any) -> None:
    first = running(stack, bucket)
    assert "locked" in stack.fails("up", "--yes", "--skip-preview")
    first.send_signal(signal.SIGINT)
    first.communicate()
    assert locks(bucket) == []


def test_the_lock_of_a_killed_up_is_cleared_by_cancel_and_nothing_is_doubled(
    stack: Stack, bucket: Any
) -> None:
    first = running(stack, bucket)
    time.sleep(3)
    stack.kill(first)
    stack.end_processes()
    stack.configure(seconds="0")
    assert "locked" in stack.fails("up", "--yes", "--skip-preview")
    stack("cancel", "--yes")
    stack.up()
    assert [r["type"] for r in stack.resources()].count(
        "random:index/randomPassword:RandomPassword"
    ) == 1
