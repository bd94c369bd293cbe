import base64
import string
import uuid

import bcrypt
import pytest

from bootstrap.plugins.random import RandomId, RandomPassword, RandomUuid, random_word
from bootstrap.plugins.schema import Call, PluginError
from bootstrap.plugins.values import UNKNOWN

CALL = Call(urn="urn:pulumi:local::mlhub::random:index/randomPassword:RandomPassword::word")


def made(resource: RandomPassword | RandomId | RandomUuid, **given: object) -> dict[str, object]:
    """The state after `check` and `create`, as the engine does it."""
    assert resource.check(given) == []
    return resource.create({**given, **resource.defaults(given)}, CALL).state


def test_a_password_has_its_length_and_only_what_is_allowed() -> None:
    word = made(RandomPassword(), length=4000, special=False)["result"]
    assert isinstance(word, str)
    assert len(word) == 4000
    assert set(word) == set(string.ascii_letters + string.digits)


def test_a_hex_key_is_a_password_over_sixteen_characters() -> None:
    state = made(RandomPassword(), length=400, lower=False, upper=False, overrideSpecial="abcdef")
    assert set(str(state["result"])) == set("0123456789abcdef")


def test_minima_are_kept_however_short_the_word() -> None:
    given = {"length": 4, "minUpper": 1, "minLower": 1, "minNumeric": 1, "minSpecial": 1}
    inputs = {**given, **RandomPassword().defaults(given)}
    kinds = [str.isupper, str.islower, str.isdigit, lambda c: not c.isalnum()]
    for _ in range(50):
        assert all(sum(map(kind, random_word(inputs))) == 1 for kind in kinds)


def test_two_passwords_differ() -> None:
    assert (
        made(RandomPassword(), length=32)["result"] != made(RandomPassword(), length=32)["result"]
    )


def test_the_hash_is_of_the_password_even_beyond_what_bcrypt_reads() -> None:
    state = made(RandomPassword(), length=100)
    assert bcrypt.checkpw(str(state["result"]).encode()[:72], str(state["bcryptHash"]).encode())


def test_the_id_of_a_password_is_not_the_password() -> None:
    """Ids are not secret in a state file."""
    assert (
        RandomPassword().create({"length": 1, **RandomPassword().defaults({})}, CALL).id == "none"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"length": 0}, "length"),
        ({"length": 3, "minLower": 2, "minUpper": 2}, "length"),
        ({"length": 8, "number": True, "numeric": False}, "number"),
        (
            {"length": 8, "upper": False, "lower": False, "numeric": False, "special": False},
            "upper",
        ),
    ],
)
def test_a_password_that_cannot_be_made_is_refused(given: dict[str, object], named: str) -> None:
    assert [failure.property for failure in RandomPassword().check(given)] == [named]


def test_number_is_the_older_name_of_numeric() -> None:
    state = made(RandomPassword(), length=400, number=False, special=False)
    assert state["numeric"] is False
    assert not set(str(state["result"])) & set(string.digits)


def test_an_unknown_length_is_no_failure_in_a_preview() -> None:
    assert RandomPassword().check({"length": UNKNOWN, "minLower": 3}) == []
    preview = RandomPassword().preview({"length": UNKNOWN}, {})
    assert preview["result"] is UNKNOWN


def test_a_second_up_changes_nothing() -> None:
    given = {"length": 24, "special": False, "keepers": {"since": "2026"}}
    state = made(RandomPassword(), **given)
    inputs = {**given, **RandomPassword().defaults(given)}
    assert RandomPassword().diff(state, inputs) == {}


def test_another_keeper_makes_another_value() -> None:
    state = made(RandomId(), byteLength=8, keepers={"key": "old"})
    changes = RandomId().diff(state, {"byteLength": 8, "keepers": {"key": "new"}})
    assert changes["keepers"].replace


def test_a_refresh_leaves_a_value_as_it_is() -> None:
    state = made(RandomPassword(), length=24)
    read = RandomPassword().read("none", state)
    assert read is not None
    assert (read.id, read.state) == ("none", state)


def test_every_form_of_an_id_is_the_same_number() -> None:
    state = made(RandomId(), byteLength=9, prefix="hub-")
    raw = bytes.fromhex(str(state["hex"]).removeprefix("hub-"))
    assert len(raw) == 9
    assert state["dec"] == f"hub-{int.from_bytes(raw, 'big')}"
    assert state["b64Std"] == "hub-" + base64.b64encode(raw).decode()
    assert state["b64Url"] == "hub-" + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_values_that_exist_can_be_imported() -> None:
    word = RandomPassword().read("old-password", {})
    assert word is not None
    assert (word.id, word.state["result"], word.state["length"]) == ("none", "old-password", 12)
    number = RandomId().read("hub-,_-8", {})
    assert number is not None
    assert (number.id, number.state["hex"]) == ("_-8", "hub-ffef")
    name = str(uuid.uuid4())
    unique = RandomUuid().read(name, {})
    assert unique is not None
    assert unique.state == {"result": name}


@pytest.mark.parametrize(("resource", "id"), [(RandomId(), "not base64!"), (RandomUuid(), "x")])
def test_what_cannot_be_imported_says_what_can(resource: RandomId | RandomUuid, id: str) -> None:
    with pytest.raises(PluginError, match="cannot be imported; give"):
        resource.read(id, {})
