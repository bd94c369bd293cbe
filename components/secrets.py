"""Generated secrets and the Kubernetes Secrets that hold them.

A value is made once by pulumi-random and stays the same from one `up` to the next; only the name of
the Secret that holds it goes anywhere else.
"""

import hashlib
from collections.abc import Mapping

import pulumi
import pulumi_kubernetes as k8s
import pulumi_random as random

from components import names


def password(name: str, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """190 bits of letters and digits, safe in every URL, file and shell."""
    made: pulumi.Output[str] = random.RandomPassword(
        name, length=32, special=False, opts=opts
    ).result
    return made


def hex_key(name: str, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """256 bits as 64 hexadecimal digits.

    A password over that alphabet, because a RandomId is not secret and its id gives it away.
    """
    made: pulumi.Output[str] = random.RandomPassword(
        name, length=64, lower=False, upper=False, override_special="abcdef", opts=opts
    ).result
    return made


def secret(
    name: str,
    *,
    namespace: pulumi.Input[str],
    data: Mapping[str, pulumi.Input[str]],
    opts: pulumi.ResourceOptions,
) -> k8s.core.v1.Secret:
    """A Secret of that very name, which is also its logical one; every value is marked secret."""
    return k8s.core.v1.Secret(
        name,
        metadata={"name": name, "namespace": namespace, "labels": names.labels(name)},
        string_data={key: pulumi.Output.secret(value) for key, value in data.items()},
        opts=opts,
    )


def fingerprint(*generated: pulumi.Output[str]) -> pulumi.Output[str]:
    """64 bits that change when one of these secrets does, so that a pod with them starts anew.

    For generated secrets alone: nobody can try out 190 bits, as they could a person's password.
    """
    digest = pulumi.Output.all(*generated).apply(
        lambda values: hashlib.sha256("\0".join(values).encode()).hexdigest()[:16]
    )
    return pulumi.Output.unsecret(digest)
