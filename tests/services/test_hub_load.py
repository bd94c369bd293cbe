"""What our hub costs beside a plain one, coarsely: the figures are in docs/hub.md."""

from tests.services.load import compare, ratio

GROSS = 3.0
"""Far above what is measured: a busy machine is no finding."""


async def test_our_hub_is_not_grossly_dearer_than_a_plain_one():
    pairs = await compare(10, 1)
    assert ratio(pairs) < GROSS, pairs
