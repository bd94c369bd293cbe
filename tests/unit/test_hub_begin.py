"""M10: which repositories and templates a session may begin with."""

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.config import Chart, Hub
from mlhub.hub.begin import LONGEST_URL, environment, wrong_repository
from mlhub.hub.refusal import Refusal

HOSTS = Hub.model_fields["git_hosts"].default


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/owner/name",
        "https://github.com/owner/name.git",
        "https://GitHub.com/owner/name/",
        "https://gitlab.com/group/sub-group/name_1.2",
    ],
)
def test_M10_a_repository_of_an_allowed_host_reaches_the_server(url):
    assert environment({"git_repo": url, "profile": "x"}, HOSTS) == {"MLHUB_GIT_REPO": url}


def test_M10_nothing_asked_is_nothing_set():
    assert environment({"profile": "x", "git_repo": ""}, HOSTS) == {}


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("http://github.com/o/n", "https://"),
        ("ssh://git@github.com/o/n", "https://"),
        ("git@github.com:o/n.git", "https://"),
        ("ext::sh -c touch% /tmp/x", "character"),
        ("file:///etc", "https://"),
        ("--upload-pack=/bin/sh", "https://"),
        ("HTTPS://github.com/o/n", "https://"),
        ("https://token@github.com/o/n", "password"),
        ("https://u:hunter2@github.com/o/n", "password"),
        ("https://github.com@evil.example/o/n", "password"),
        ("https://evil.example/o/n", "another"),
        ("https://github.com.evil.example/o/n", "another"),
        ("https://github.com:8443/o/n", "another"),
        ("https://127.0.0.1/o/n", "another"),
        ("https://[::1]/o/n", "another"),
        ("https://[::1/o/n", "such as"),
        ("https://169.254.169.254/latest/meta-data", "another"),
        ("https://10.0.0.1/o/n", "another"),
        ("https://2130706433/o/n", "another"),
        ("https:///o/n", "another"),
        ("https://github.com\\@evil.example/o/n", "character"),
        ("https://github.com/o/n\n--config", "character"),
        ("https://github.com/o/\tn", "character"),
        ("https://g\u0131thub.com/o/n", "character"),
        ("https://github.com/o/n?x=1", "'?'"),
        ("https://github.com/o/n#", "'?'"),
        ("https://github.com/o", "such as"),
        ("https://github.com/o/..", "such as"),
        ("https://github.com/o/.ssh", "such as"),
        ("https://github.com/o/-n", "such as"),
        ("https://github.com/o//n", "such as"),
        ("https://github.com/o/%2e%2e", "such as"),
        ("https://github.com/o/" + "n" * LONGEST_URL, "longer"),
    ],
)
def test_M10_any_other_address_is_refused_without_being_repeated(url, word):
    with pytest.raises(Refusal) as refusal:
        environment({"git_repo": url}, HOSTS)
    assert refusal.value.status_code == 400
    assert word in str(refusal.value)
    assert "hunter2" not in str(refusal.value)


@given(st.text() | st.from_regex(r"https://[^/]{0,20}github\.com[^/]{0,20}/.*", fullmatch=True))
@example("https://github.com/owner/name")
def test_M10_what_is_taken_is_a_repository_of_an_allowed_host(url):
    if wrong_repository(url, HOSTS):
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc.lower() in HOSTS) == ("https", True)
    assert (parts.username, parts.port, parts.query, parts.fragment) == (None, None, "", "")
    assert url.isascii()
    assert not any(c.isspace() for c in url)
    assert all(each and each[0] not in ".-" for each in parts.path.strip("/").split("/"))


@pytest.mark.parametrize("name", ["../x", "X", "a" * 64, "-a", "a b", "a/b", "a-"])
def test_a_template_that_has_no_templates_name_is_refused(name):
    with pytest.raises(Refusal, match="no template's name"):
        environment({"template": name}, HOSTS)
    assert environment({"template": "data-exploration"}, HOSTS) == {
        "MLHUB_TEMPLATE": "data-exploration"
    }


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.1:443", "localhost", "[::1]", "GitHub.com"])
def test_M10_the_stack_file_allows_no_address_in_place_of_a_name(host):
    with pytest.raises(ValidationError, match="git_hosts"):
        Hub(chart=Chart(path="charts/x"), node_port=30888, git_hosts=(host,))


def test_M10_a_host_of_ones_own_may_have_a_port():
    url = "https://git.example.com:8443/team/name"
    hub = Hub(chart=Chart(path="charts/x"), node_port=30888, git_hosts=("git.example.com:8443",))
    assert wrong_repository(url, hub.git_hosts) == ""
    assert wrong_repository("https://git.example.com/team/name", hub.git_hosts)
