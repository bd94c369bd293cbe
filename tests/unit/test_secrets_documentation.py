"""docs/secrets.md names every secret that a stack generates or asks for."""

import pytest

from components.config import SECRET_KEYS
from tests.unit.recorder import ROOT, STACKS, platform

PAGE = (ROOT / "docs" / "secrets.md").read_text()


@pytest.mark.parametrize("stack", STACKS)
def test_V9_every_generated_secret_says_what_its_rotation_does(stack: str) -> None:
    made = [r.name for r in platform(stack).registrations if r.type.endswith(":RandomPassword")]
    assert len(made) > 8
    missing = [n for n in made if f"`{n}`" not in PAGE and not n.startswith("user-")]
    assert missing == []


def test_every_secret_that_is_asked_for_is_described() -> None:
    assert [key for key in SECRET_KEYS if f"`mlhub:{key}`" not in PAGE] == []
