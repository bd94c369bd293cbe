"""What a new session may begin with: a repository to clone, a template to copy.

Checked here, before anything starts; done in the person's own server by `notebooks.start`, which
finds it in its environment. Not by a link: a link that somebody else sends would put their code
into a person's home (`MlhubSpawner.options_from_query`).
"""

import re
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from mlhub.hub.refusal import Refusal

GIT_REPO = "git_repo"
TEMPLATE = "template"
OPTIONS = {GIT_REPO: "MLHUB_GIT_REPO", TEMPLATE: "MLHUB_TEMPLATE"}
"""User options, and the variable of a server's environment that carries each."""

LONGEST_URL = 300
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.~-]*")
"""A first dot would hide a folder or climb out, a first dash would be an option of git's."""
_TEMPLATE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""As `notebooks.templates` names them."""


def environment(user_options: Mapping[str, str], hosts: Collection[str]) -> dict[str, str]:
    """Variables for what the options ask to begin with; raises Refusal (400)."""
    found = {name: user_options.get(name, "") for name in OPTIONS}
    wrong = found[GIT_REPO] and wrong_repository(found[GIT_REPO], hosts)
    name = found[TEMPLATE]
    if name and not _TEMPLATE.fullmatch(name):
        wrong = f"{name[:63]!r} is no template's name: small letters, digits and '-'."
    if wrong:
        raise Refusal(wrong, reason="choice", status=400)
    return {OPTIONS[name]: given for name, given in found.items() if given}


def wrong_repository(url: str, hosts: Collection[str]) -> str:
    """Why `url` is not cloned, in a sentence without it, for it may hold a password; or nothing."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "git_repo takes a repository's address, such as https://github.com/owner/name."
    segments = parts.path.removesuffix("/").split("/")[1:]
    faults = {
        f"The address in git_repo is longer than {LONGEST_URL} characters.": (
            len(url) > LONGEST_URL
        ),
        "The address in git_repo holds a character that no address of a repository has.": (
            not (url.isascii() and url.isprintable()) or " " in url or "\\" in url
        ),
        "git_repo takes an address that begins with https://.": not url.startswith("https://"),
        "The address in git_repo holds a name or a password, which would be kept and shown. "
        "Leave it out, and clone a private repository in your server's terminal.": (
            "@" in parts.netloc
        ),
        f"Repositories are cloned from {', '.join(sorted(hosts)) or 'no host'}, and git_repo names "
        "another. Your administrator can allow it (hub.git_hosts in the stack file).": (
            parts.netloc.lower() not in hosts
        ),
        "The address in git_repo has a '?' or a '#'; give the repository's own.": (
            "?" in url or "#" in url
        ),
        "git_repo takes a repository's address, such as https://github.com/owner/name.": (
            len(segments) < 2 or not all(map(_SEGMENT.fullmatch, segments))
        ),
    }
    return next((sentence for sentence, wrong in faults.items() if wrong), "")
