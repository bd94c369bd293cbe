"""Wrong settings end the hub with a sentence, before it serves anybody."""

import pytest
from traitlets.config import Config

from mlhub.hub import configure, settings
from mlhub.hub.settings import SettingsError
from tests.services.hub import IDENTITY, VALUES, merged, mount


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"realm": None}, "custom.mlhub.identity.realm: Input should be a valid string"),
        ({"relam": "mlhub"}, "custom.mlhub.identity.relam: Extra inputs are not permitted"),
        ({"public_url": "localhost:30880"}, "custom.mlhub.identity.public_url: an http(s) address"),
        ({"public_url": "http://kc/"}, "without a slash at its end is required"),
        ({"access_groups": []}, "custom.mlhub.identity.access_groups: List should have at least 1"),
        (
            {"access_groups": ["mlhub/users"]},
            "custom.mlhub.identity.access_groups.0: String should",
        ),
        ({"access_groups": ["/mlhub/users"]}, "admin_groups holds ['/mlhub/admins'], which access"),
        ({"callback_url": "http://hub/x"}, "it must end in /hub/oauth_callback"),
        ({"refresh_seconds": 0}, "custom.mlhub.identity.refresh_seconds: Input should be greater"),
    ],
)
def test_a_wrong_setting_is_named_with_its_key(changed, sentence):
    with pytest.raises(SettingsError) as refused:
        settings.parse({"identity": {**IDENTITY, **changed}})
    assert sentence in str(refused.value)


def test_values_without_settings_end_the_hub_and_say_where_they_belong(hub_pod):
    mount(hub_pod, merged(VALUES, {"custom": {"mlhub": None}}) | {"custom": {}})
    with pytest.raises(
        SystemExit, match=r"custom\.mlhub is missing; mlhub\.hub takes its settings"
    ):
        configure(Config())


def test_a_chart_that_mounts_no_values_is_named(hub_pod):
    with pytest.raises(
        SystemExit, match=r"No such file or directory; the chart mounts its values there"
    ):
        configure(Config())
