"""Property values on the wire and in Python.

`pulumi.provider.experimental` passes unknown values as ordinary strings and turns every error into
"Unexpected <class …>", so the plug-ins speak the protocol's own messages through this module.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import struct_pb2
from pulumi.runtime import rpc

SIGNATURE: Final = rpc._special_sig_key
SECRET: Final = rpc._special_secret_sig
OUTPUT: Final = rpc._special_output_value_sig


class Unknown:
    """A value that only the next `up` will know."""

    def __repr__(self) -> str:
        return "<unknown>"


UNKNOWN: Final = Unknown()


def decode(value: struct_pb2.Value) -> Any:  # noqa: PLR0911 - one return for each kind
    """The plain value: secrets unwrapped, whole numbers as int, unknowns as `UNKNOWN`."""
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == rpc.UNKNOWN else value.string_value
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "bool_value":
        return value.bool_value
    if kind == "list_value":
        return [decode(item) for item in value.list_value.values]
    if kind == "struct_value":
        fields = value.struct_value.fields
        if SIGNATURE not in fields:
            return {key: decode(item) for key, item in fields.items()}
        if fields[SIGNATURE].string_value in (SECRET, OUTPUT):
            return decode(fields["value"]) if "value" in fields else UNKNOWN
        raise ValueError("assets, archives and resource references are no inputs of this plug-in")
    return None


def decode_map(struct: struct_pb2.Struct) -> dict[str, Any]:
    """As `decode`; nulls are dropped, for the protocol does not tell them from absence."""
    plain = {key: decode(value) for key, value in struct.fields.items()}
    return {key: value for key, value in plain.items() if value is not None}


def holds_secret(value: struct_pb2.Value) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return any(holds_secret(item) for item in value.list_value.values)
    if kind != "struct_value":
        return False
    fields = value.struct_value.fields
    if SIGNATURE in fields:
        if fields[SIGNATURE].string_value == SECRET:
            return True
        if fields[SIGNATURE].string_value == OUTPUT:
            return fields["secret"].bool_value or holds_secret(fields["value"])
    return any(holds_secret(item) for item in fields.values())


def secret_keys(struct: struct_pb2.Struct) -> set[str]:
    return {key for key, value in struct.fields.items() if holds_secret(value)}


def encode(value: Any) -> struct_pb2.Value:  # noqa: PLR0911 - one return for each kind
    if value is UNKNOWN:
        return struct_pb2.Value(string_value=rpc.UNKNOWN)
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    if isinstance(value, list | tuple):
        return struct_pb2.Value(
            list_value=struct_pb2.ListValue(values=[encode(item) for item in value])
        )
    if isinstance(value, Mapping):
        return struct_pb2.Value(
            struct_value=struct_pb2.Struct(fields={k: encode(v) for k, v in value.items()})
        )
    raise TypeError(f"no property value: {type(value).__name__}")


def as_secret(value: struct_pb2.Value) -> struct_pb2.Value:
    """`value`, wrapped unless it is or holds a secret already."""
    if holds_secret(value):
        return value
    signature = struct_pb2.Value(string_value=SECRET)
    wrapped = struct_pb2.Struct(fields={SIGNATURE: signature, "value": value})
    return struct_pb2.Value(struct_value=wrapped)


def encode_map(plain: Mapping[str, Any], secrets: Iterable[str] = ()) -> struct_pb2.Struct:
    """`plain` on the wire, the properties named in `secrets` wrapped as secrets."""
    hidden = set(secrets)
    fields = {}
    for key, item in plain.items():
        value = encode(item)
        fields[key] = as_secret(value) if key in hidden else value
    return struct_pb2.Struct(fields=fields)


def has_unknown(value: Any) -> bool:
    if value is UNKNOWN:
        return True
    if isinstance(value, Mapping):
        return any(has_unknown(item) for item in value.values())
    if isinstance(value, list | tuple):
        return any(has_unknown(item) for item in value)
    return False
