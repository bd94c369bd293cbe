"""pulumi-resource-random for machines where the official plug-in cannot be had.

The three types that the program generates its secrets with. Everything about a random value is
decided once, so every change of an input replaces the resource.
"""

import base64
import secrets
import string
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import bcrypt

from bootstrap.plugins.process import EngineLog
from bootstrap.plugins.provider import Package, main
from bootstrap.plugins.schema import Call, Failure, Made, PluginError, Property, ResourceType
from bootstrap.plugins.values import has_unknown

SPECIAL = "!@#$%&*()-_=+[]{}<>:?"
"""The official plug-in's default for `overrideSpecial`."""

BCRYPT_MAX_BYTES = 72
PASSWORD_ID = "none"  # noqa: S105 - a password must not be its own id: ids are not secret

KEEPERS = Property("keepers", "map", replace=True)


class RandomResource(ResourceType):
    """What no random value needs: an update, a server, a delete."""

    one_at_a_time = False

    def read(self, id: str, state: dict[str, Any]) -> Made | None:
        return Made(id, state) if state else self.imported(id)

    def imported(self, id: str) -> Made:
        raise NotImplementedError

    def update(
        self, id: str, state: dict[str, Any], inputs: dict[str, Any], call: Call
    ) -> dict[str, Any]:
        return {**state, **inputs}

    def delete(self, id: str, state: dict[str, Any]) -> None:
        pass


def bcrypt_hash(word: str) -> str:
    return bcrypt.hashpw(word.encode()[:BCRYPT_MAX_BYTES], bcrypt.gensalt(10)).decode()


CLASSES = {  # switch, minimum, characters
    "upper": ("minUpper", string.ascii_uppercase),
    "lower": ("minLower", string.ascii_lowercase),
    "numeric": ("minNumeric", string.digits),
    "special": ("minSpecial", SPECIAL),
}


def random_word(inputs: Mapping[str, Any]) -> str:
    """A word of `inputs["length"]` characters, uniform over what the switches and minima allow."""
    chooser = secrets.SystemRandom()
    chosen: list[str] = []
    allowed = ""
    for switch, (minimum, usual) in CLASSES.items():
        characters = usual
        if switch == "special":
            characters = inputs.get("overrideSpecial") or usual
        chosen += chooser.choices(characters, k=inputs[minimum])
        if inputs[switch]:
            allowed += characters
    chosen += chooser.choices(allowed, k=inputs["length"] - len(chosen))
    chooser.shuffle(chosen)
    return "".join(chosen)


class RandomPassword(RandomResource):
    type = "random:index/randomPassword:RandomPassword"
    properties = (
        Property("length", "integer", required=True, replace=True),
        KEEPERS,
        Property("lower", "boolean", default=True, replace=True),
        Property("upper", "boolean", default=True, replace=True),
        Property("special", "boolean", default=True, replace=True),
        Property("numeric", "boolean", replace=True, computed=True),
        Property("number", "boolean", replace=True, computed=True),
        Property("minLower", "integer", default=0, replace=True),
        Property("minUpper", "integer", default=0, replace=True),
        Property("minNumeric", "integer", default=0, replace=True),
        Property("minSpecial", "integer", default=0, replace=True),
        Property("overrideSpecial", replace=True),
        Property("result", output=True, secret=True),
        Property("bcryptHash", output=True, secret=True),
    )

    def defaults(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """`number` is the older name of `numeric`; the two are always the same."""
        numeric = inputs.get("numeric", inputs.get("number", True))
        return {**super().defaults(inputs), "numeric": numeric, "number": numeric}

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        full = {**self.defaults(inputs), **inputs}
        if has_unknown({k: v for k, v in full.items() if k != "keepers"}):
            return
        if full["numeric"] != full["number"]:
            yield Failure("number", f"{self.type}: number and numeric differ; give numeric alone")
        least = sum(full[minimum] for minimum, _ in CLASSES.values())
        if full["length"] < max(1, least):
            yield Failure(
                "length",
                f"{self.type}: length is {full['length']}; at least {max(1, least)} is required "
                "(the sum of the minima)",
            )
        if not any(full[switch] for switch in CLASSES) and least < full["length"]:
            yield Failure("upper", f"{self.type}: every kind of character is switched off")

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        word = random_word(inputs)
        return Made(PASSWORD_ID, {**inputs, "result": word, "bcryptHash": bcrypt_hash(word)})

    def imported(self, id: str) -> Made:
        inputs: dict[str, Any] = {"length": len(id)}
        inputs |= self.defaults(inputs)
        state = {**inputs, "result": id, "bcryptHash": bcrypt_hash(id)}
        return Made(PASSWORD_ID, state)


class RandomId(RandomResource):
    type = "random:index/randomId:RandomId"
    properties = (
        Property("byteLength", "integer", required=True, replace=True),
        KEEPERS,
        Property("prefix", replace=True),
        Property("hex", output=True),
        Property("dec", output=True),
        Property("b64Std", output=True),
        Property("b64Url", output=True),
    )

    def validate(self, inputs: Mapping[str, Any]) -> Iterable[Failure]:
        length = inputs["byteLength"]
        if not has_unknown(length) and length < 1:
            yield Failure("byteLength", f"{self.type}: byteLength is {length}; at least 1")

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        return self.made(secrets.token_bytes(inputs["byteLength"]), inputs)

    @staticmethod
    def made(raw: bytes, inputs: dict[str, Any]) -> Made:
        prefix = inputs.get("prefix", "")
        url = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        state = {
            **inputs,
            "hex": prefix + raw.hex(),
            "dec": prefix + str(int.from_bytes(raw, "big")),
            "b64Std": prefix + base64.b64encode(raw).decode(),
            "b64Url": prefix + url,
        }
        return Made(url, state)

    def imported(self, id: str) -> Made:
        prefix, _, url = id.rpartition(",")
        try:
            raw = base64.b64decode(url + "=" * (-len(url) % 4), altchars=b"-_", validate=True)
        except ValueError:
            raise PluginError(
                f'{self.type}: "{id}" cannot be imported; give [prefix,]value in URL-safe base64'
            ) from None
        inputs: dict[str, Any] = {"byteLength": len(raw)}
        return self.made(raw, inputs | ({"prefix": prefix} if prefix else {}))


class RandomUuid(RandomResource):
    type = "random:index/randomUuid:RandomUuid"
    properties = (KEEPERS, Property("result", output=True))

    def create(self, inputs: dict[str, Any], call: Call) -> Made:
        result = str(uuid.uuid4())
        return Made(result, {**inputs, "result": result})

    def imported(self, id: str) -> Made:
        try:
            return Made(str(uuid.UUID(id)), {"result": str(uuid.UUID(id))})
        except ValueError:
            raise PluginError(f'{self.type}: "{id}" cannot be imported; give a UUID') from None


class Random(Package):
    name = "random"
    version = "4.21.4"

    def __init__(self) -> None:
        self.types = {t.type: t for t in (RandomPassword(), RandomId(), RandomUuid())}

    def configure(self, config: dict[str, Any], log: EngineLog) -> None:
        pass


def run() -> None:
    main(Random())
