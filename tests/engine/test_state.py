"""State in an S3 bucket, as the cluster stacks keep it: one writer at a time, nothing in plain."""

import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from tests.engine.stack import Stack

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SLOW = """
import time, pulumi, pulumi_random as random
word = random.RandomPassword("word", length=32, opts=pulumi.ResourceOptions(
    provider=random.Provider("random")))
pulumi.export("word", word.result)
time.sleep(pulumi.Config().require_int("seconds"))
"""


@pytest.fixture
def bucket() -> Iterator[Any]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    s3 = boto3.resource(
        "s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    # What moto holds outlives its server.
    yield s3.create_bucket(Bucket=f"state-{uuid.uuid4().hex[:8]}")
    server.stop()


@pytest.fixture
def stack(tmp_path: Path, bin_dir: Path, bucket: Any) -> Iterator[Stack]:
    endpoint = bucket.meta.client.meta.endpoint_url.removeprefix("http://")
    options = f"region=us-east-1&endpoint={endpoint}&disableSSL=true&s3ForcePathStyle=true"
    made = Stack(
        tmp_path / "stack", bin_dir, SLOW,
        PULUMI_BACKEND_URL=f"s3://{bucket.name}?{options}",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
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
