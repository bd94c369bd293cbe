"""The rules as policies of Pulumi's SDK. The one module that imports it.

Two things of the SDK are gone around. It takes the marks off secrets before a policy sees them
(pulumi-policy 1.21.0, `deserialize_properties`), and a policy that touches an unknown value ends
there, with what it found after that value lost. Here a rule looks at everything; breaches are
reported first, and only then is the SDK told of the first unknown, which it prints as a remark:
the rule runs again in the update, where the value is known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pulumi
import pulumi_policy
from pulumi_policy.proxy import UnknownValueError

from mlhub_policies.limits import Limits
from mlhub_policies.rule import Finding, Resource, Rule, StackRule
from mlhub_policies.rules import RULES, STACK_RULES, findings, stack_findings

Report = Callable[..., None]
ANY_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
"""A string that is not known, as the SDK would say it of any value."""


def keep_marks() -> None:
    """Makes the SDK hand over properties as they are on the wire."""
    original = pulumi_policy.policy.deserialize_properties
    if original.__module__ != "pulumi_policy.deserialize":
        raise RuntimeError("pulumi-policy reads properties another way; secrets would go unseen")
    pulumi_policy.policy.deserialize_properties = _as_they_are


def _as_they_are(properties: dict[str, Any], _proxy_secrets: bool = False) -> dict[str, Any]:
    return properties


def raw(value: Any) -> Any:
    """Plain dicts and lists of the SDK's, which raises where a value is unknown."""
    if isinstance(value, Mapping):
        return {key: _part(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_part(value, number) for number in range(len(value))]
    return value


def _part(of: Any, key: Any) -> Any:
    try:
        return raw(of[key])
    except UnknownValueError:
        return ANY_UNKNOWN


def resource(args: Any) -> Resource:
    return Resource(args.urn, args.resource_type, args.name, raw(args.props), args.opts.protect)


def tell(found: Iterable[tuple[Resource, Finding]], report: Report, *, preview: bool) -> None:
    """Reports every breach; an unknown is a remark in a preview, and else a breach."""
    unknown: list[tuple[Resource, Finding]] = []
    for of, finding in found:
        if finding.unknown and preview:
            unknown.append((of, finding))
        else:
            report(finding.message(of), of.urn)
    for of, finding in unknown[:1]:
        place = f"{of.kind} {of.name}: {finding.path}"
        raise UnknownValueError(ANY_UNKNOWN, [place])


def policy(rule: Rule, limits: Limits) -> Any:
    def validate(args: Any, report: Report) -> None:
        of = resource(args)
        found = ((of, finding) for finding in findings(rule, of, limits))
        tell(found, report, preview=pulumi.runtime.is_dry_run())

    return pulumi_policy.ResourceValidationPolicy(
        name=rule.name,
        description=rule.description,
        enforcement_level=pulumi_policy.EnforcementLevel.MANDATORY,
        validate=validate,
    )


def stack_policy(rule: StackRule, limits: Limits) -> Any:
    def validate(args: Any, report: Report) -> None:
        all_of_them = [resource(each) for each in args.resources]
        found = stack_findings(rule, all_of_them, limits)
        tell(found, report, preview=pulumi.runtime.is_dry_run())

    return pulumi_policy.StackValidationPolicy(
        name=rule.name,
        description=rule.description,
        enforcement_level=pulumi_policy.EnforcementLevel.MANDATORY,
        validate=validate,
    )


def run(limits: Limits) -> None:
    """Serves the pack until the engine ends it."""
    keep_marks()
    policies = [policy(rule, limits) for rule in RULES]
    policies += [stack_policy(rule, limits) for rule in STACK_RULES]
    pulumi_policy.PolicyPack(name="mlhub", policies=policies)
