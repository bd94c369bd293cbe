"""A crowd's runs through kills of the service and of runs: each is accounted for (tests.e2e.crowd).

Twenty runs of four people here; by hand, two hundred of twenty.
"""

import pytest

from tests.e2e.crowd import crowd
from tests.e2e.platform import Kubectl


@pytest.mark.long
@pytest.mark.timeout(900)
def test_P7_P8_every_run_of_a_crowd_is_accounted_for_through_kills(kubectl: Kubectl):
    account = crowd(kubectl, count=4, runs=20, kills=1, minutes=9)
    print(account.table())
    assert not account.wrong(), account.table()
    assert account.killed
    assert ("succeeded", None) in account.ends.values()
