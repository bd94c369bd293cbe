"""Our plug-ins against the official SDKs that the program imports: the same names, types, secrecy.

What cannot be read from the SDK (which change replaces a resource) is held here as a table, taken
from the official schemas (pulumi-keycloak 6.14.1, pulumi-random 4.21.4,
pulumi-harbor 3.10.21).
"""

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pulumi
import pulumi_docker as docker
import pulumi_keycloak as keycloak
import pulumi_random as random
import pulumiverse_harbor as harbor
import pytest
from pulumi._types import input_type_py_to_pulumi_names
from pulumi.runtime import mocks, settings

from bootstrap.plugins import harbor_retention, harbor_robots
from bootstrap.plugins.docker import Docker
from bootstrap.plugins.harbor import Harbor
from bootstrap.plugins.keycloak import Keycloak
from bootstrap.plugins.provider import Package
from bootstrap.plugins.random import Random
from bootstrap.plugins.schema import ResourceType

OFFICIAL: dict[str, type[pulumi.CustomResource]] = {
    "random:index/randomPassword:RandomPassword": random.RandomPassword,
    "random:index/randomId:RandomId": random.RandomId,
    "random:index/randomUuid:RandomUuid": random.RandomUuid,
    "keycloak:index/realm:Realm": keycloak.Realm,
    "keycloak:openid/client:Client": keycloak.openid.Client,
    "keycloak:openid/groupMembershipProtocolMapper:GroupMembershipProtocolMapper": (
        keycloak.openid.GroupMembershipProtocolMapper
    ),
    "keycloak:openid/audienceProtocolMapper:AudienceProtocolMapper": (
        keycloak.openid.AudienceProtocolMapper
    ),
    "keycloak:openid/clientDefaultScopes:ClientDefaultScopes": keycloak.openid.ClientDefaultScopes,
    "keycloak:openid/clientServiceAccountRole:ClientServiceAccountRole": (
        keycloak.openid.ClientServiceAccountRole
    ),
    "keycloak:index/group:Group": keycloak.Group,
    "keycloak:index/user:User": keycloak.User,
    "keycloak:index/userGroups:UserGroups": keycloak.UserGroups,
    "keycloak:index/role:Role": keycloak.Role,
    "keycloak:index/groupRoles:GroupRoles": keycloak.GroupRoles,
    "harbor:index/project:Project": harbor.Project,
    "harbor:index/robotAccount:RobotAccount": harbor.RobotAccount,
    "harbor:index/retentionPolicy:RetentionPolicy": harbor.RetentionPolicy,
}

REPLACED_WHEN_CHANGED = {
    "keycloak:index/realm:Realm": {"realm", "internalId"},
    "keycloak:openid/client:Client": {"realmId", "import"},
    "keycloak:openid/groupMembershipProtocolMapper:GroupMembershipProtocolMapper": {
        "realmId", "name", "clientId", "clientScopeId",
    },
    "keycloak:openid/audienceProtocolMapper:AudienceProtocolMapper": {
        "realmId", "name", "clientId", "clientScopeId",
    },
    "keycloak:openid/clientDefaultScopes:ClientDefaultScopes": {"realmId", "clientId"},
    "keycloak:openid/clientServiceAccountRole:ClientServiceAccountRole": {
        "realmId", "serviceAccountUserId", "clientId", "role",
    },
    "keycloak:index/group:Group": {"realmId", "parentId"},
    "keycloak:index/user:User": {"realmId", "username", "import"},
    "keycloak:index/userGroups:UserGroups": {"realmId", "userId"},
    "keycloak:index/role:Role": {"realmId", "clientId", "import"},
    "keycloak:index/groupRoles:GroupRoles": {"realmId", "groupId"},
    "harbor:index/project:Project": {"name"},
    "harbor:index/robotAccount:RobotAccount": {"name", "level"},
    "harbor:index/retentionPolicy:RetentionPolicy": {"scope"},
}  # fmt: skip

OURS: dict[str, ResourceType] = {
    **Random().types, **Keycloak().types, **Harbor().types,
}  # fmt: skip
KINDS = {"str": "string", "bool": "boolean", "int": "integer", "Sequence": "set", "Mapping": "map"}


def args_class(official: type[pulumi.CustomResource]) -> Any:
    return getattr(inspect.getmodule(official), f"{official.__name__}Args")


def official_inputs(official: type[pulumi.CustomResource]) -> dict[str, str]:
    """Input names as the engine sees them, each with the kind of its annotation."""
    args = args_class(official)
    kinds = {}
    for python_name, name in input_type_py_to_pulumi_names(args).items():
        annotation = str(inspect.signature(getattr(args, python_name).fget).return_annotation)
        found = [kind for word, kind in KINDS.items() if re.search(rf"\b{word}\b", annotation)]
        # A mapping or sequence of strings has both words; the container is the kind.
        kinds[name] = found[-1] if found else "object"
        if kinds[name] == "set" and "Args" in annotation:
            kinds[name] = "list"
    return kinds


def official_required(official: type[pulumi.CustomResource]) -> set[str]:
    args = args_class(official)
    names = input_type_py_to_pulumi_names(args)
    parameters = inspect.signature(args.__init__).parameters.values()
    return {names[p.name] for p in parameters if p.name in names and p.default is p.empty}


def official_outputs(official: type[pulumi.CustomResource]) -> set[str]:
    """Every property that the SDK reads from the state."""
    return {
        getattr(member.fget, "_pulumi_name", name)
        for name, member in inspect.getmembers(official, lambda m: isinstance(m, property))
    } - {"id", "urn", "pulumi_resource_name", "pulumi_resource_type"}


class SecretsRecorder(mocks.MockMonitor):
    """Keeps what a registration says of secret outputs, which `Mocks` does not pass on."""

    def __init__(self) -> None:
        super().__init__(Nothing())
        self.secret_outputs: dict[str, set[str]] = {}

    def RegisterResource(self, request):  # type: ignore[no-untyped-def]
        self.secret_outputs[request.type] = set(request.additionalSecretOutputs)
        return super().RegisterResource(request)


class Nothing(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        return args.name, {}

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def secret_outputs() -> Iterator[dict[str, set[str]]]:
    recorder = SecretsRecorder()
    mocks.set_mocks(Nothing(), monitor=recorder)

    @pulumi.runtime.test
    def register() -> None:
        fill = {"string": "CONFIDENTIAL", "set": [], "list": [], "integer": 1}
        for official in OFFICIAL.values():
            names = {v: k for k, v in input_type_py_to_pulumi_names(args_class(official)).items()}
            kinds = official_inputs(official)
            given = {names[name]: fill[kinds[name]] for name in official_required(official)}
            official("x", **given)

    register()
    yield recorder.secret_outputs
    settings.reset_options()


def test_every_type_of_ours_has_its_official_class_here() -> None:
    assert set(OURS) == set(OFFICIAL)


@pytest.mark.parametrize("token", OURS)
def test_inputs_have_the_official_names_and_kinds(token: str) -> None:
    official = official_inputs(OFFICIAL[token])
    ours = {name: p.type for name, p in OURS[token].inputs.items()}
    assert ours.items() <= official.items()


@pytest.mark.parametrize("token", OURS)
def test_what_is_required_is_what_the_official_plug_in_requires(token: str) -> None:
    ours = {name for name, p in OURS[token].inputs.items() if p.required}
    assert ours == official_required(OFFICIAL[token])


@pytest.mark.parametrize("token", OURS)
def test_names_that_we_never_make_up_are_those_the_official_plug_in_would_make_up(
    token: str,
) -> None:
    named = {name for name, p in OURS[token].inputs.items() if p.named}
    assert named <= {"name", "clientId", "realm"}
    assert not named & official_required(OFFICIAL[token])


@pytest.mark.parametrize("token", OURS)
def test_every_property_is_one_that_the_sdk_reads(token: str) -> None:
    assert {p.name for p in OURS[token].properties} <= official_outputs(OFFICIAL[token])


@pytest.mark.parametrize("token", OURS)
def test_secrecy_is_the_official_one_or_stricter(
    token: str, secret_outputs: dict[str, set[str]]
) -> None:
    official = secret_outputs[token] & {p.name for p in OURS[token].properties}
    stricter = {"initialPassword"} if token.endswith(":User") else set()
    assert OURS[token].secrets == official | stricter


@pytest.mark.parametrize("token", REPLACED_WHEN_CHANGED)
def test_what_replaces_is_what_the_official_schema_says(token: str) -> None:
    assert {p.name for p in OURS[token].properties if p.replace} == REPLACED_WHEN_CHANGED[token]


@pytest.mark.parametrize("token", [token for token in OURS if token.startswith("random:")])
def test_every_input_of_a_random_value_replaces_it(token: str) -> None:
    assert all(p.replace for p in OURS[token].inputs.values())


@pytest.mark.parametrize(
    ("official", "ours"),
    [
        (keycloak.Provider, Keycloak()),
        (random.Provider, Random()),
        (harbor.Provider, Harbor()),
        (docker.Provider, Docker()),
    ],
)
def test_provider_settings_have_the_official_names(
    official: type[pulumi.ProviderResource], ours: Package
) -> None:
    names = set(input_type_py_to_pulumi_names(args_class(official)).values())
    assert {p.name for p in ours.config} <= names


@pytest.mark.parametrize("token", OURS)
def test_an_unknown_property_is_refused_by_name(token: str) -> None:
    failures = OURS[token].check({"lenght": 3})
    assert "lenght" in failures[0].reason
    assert "pulumi plugin install resource" in failures[0].reason


@pytest.mark.parametrize("token", OURS)
def test_what_is_missing_is_named(token: str) -> None:
    missing = {failure.property for failure in OURS[token].check({})}
    assert missing == {p.name for p in OURS[token].inputs.values() if p.required or p.named}


@pytest.mark.parametrize(
    ("token", "name", "value"),
    [
        ("random:index/randomPassword:RandomPassword", "length", "16"),
        ("random:index/randomPassword:RandomPassword", "length", True),
        ("keycloak:index/realm:Realm", "enabled", "yes"),
        ("keycloak:index/user:User", "requiredActions", "UPDATE_PASSWORD"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(token: str, name: str, value: object) -> None:
    reasons = [f.reason for f in OURS[token].check({name: value}) if f.property == name]
    assert len(reasons) == 1
    assert "is required" in reasons[0]


# Functions and what is nested in lists: the SDK's own names


def test_a_look_up_takes_and_gives_what_the_sdk_does() -> None:
    (function,) = Docker().functions.values()
    sent = inspect.getsource(docker.get_registry_image)
    assert f"'{function.token}'" in sent
    assert {p.name for p in function.arguments} == set(re.findall(r"__args__\['(\w+)'\]", sent))
    read = official_outputs(docker.GetRegistryImageResult) | {"id"}
    assert read == {"id", "name", "sha256Digest", "insecureSkipVerify"}


def test_rules_and_permissions_have_the_official_names() -> None:
    rules = set(input_type_py_to_pulumi_names(harbor.RetentionPolicyRuleArgs).values())
    ours = {*harbor_retention.TEMPLATES, *harbor_retention.REPOSITORIES, *harbor_retention.TAGS}
    assert ours | {"disabled", "untaggedArtifacts"} == rules
    permission = input_type_py_to_pulumi_names(harbor.RobotAccountPermissionArgs).values()
    access = input_type_py_to_pulumi_names(harbor.RobotAccountPermissionAccessArgs).values()
    given = [{"kind": "k", "namespace": "n", "accesses": [{"resource": "r", "action": "a"}]}]
    assert harbor_robots.accesses(given) == {("k", "n", "r", "a", "allow")}
    assert set(permission) == set(given[0])
    assert set(access) == {"resource", "action", "effect"}
