"""The spawn form: the offered profiles with what each costs, and why one is out of reach.

A template of our own, since KubeSpawner's cannot show a choice as unavailable. Compiled once, and
lists of choices that profiles share are written once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from mlhub.admission import Answer, Ask, Quotas, Size
from mlhub.admission.decision import SIZES, judge
from mlhub.admission.sizes import say
from mlhub.hub.offers import Offers, Profile, unavailable

_template = Environment(
    loader=PackageLoader("mlhub.hub", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
).get_template("form.html")


def render(
    profiles: Sequence[Profile],
    offers: Offers,
    state: Answer,
    quotas: Quotas,
    chosen: Mapping[str, Any],
    *,
    roles: Mapping[str, str],
    names: Mapping[str, str],
) -> str:
    """HTML. `state` answers an ask for nothing at all; `chosen` is what was taken last time;
    `roles` are the person's own workspaces, by slug as their `names`."""
    writer = _Writer(state, quotas, chosen)
    shown = [writer.profile(profile, offers.least(profile)) for profile in profiles]
    available = [each["slug"] for each in shown if not each["reason"]]
    default = [profile["slug"] for profile in profiles if profile.get("default")]
    wished = [chosen.get("profile"), *default, *available]
    return _template.render(
        profiles=shown,
        checked=next((slug for slug in wished if slug in available), ""),
        sentence="" if state.admitted else state.sentence,
        remains=remains(state),
        roles=roles,
        names=names,
        workspace=chosen.get("workspace", ""),
    )


def remains(state: Answer) -> list[str]:
    """What is left of each limit, in words; the person's own first."""
    lines = []
    for account in state.accounts:
        left = [
            f"{account.remains(dimension):.3g} of {say(dimension, limit)}"
            if dimension != "memory"
            else f"{say(dimension, account.remains(dimension))} of {say(dimension, limit)}"
            for dimension, limit in account.limit.items()
        ]
        if left:
            whose = "You have" if account.charge.kind == "user" else _shared(account.charge)
            lines.append(f"{whose} left: {', '.join(left)}{_week(account.limit)}.")
    return lines


def _shared(charge: Any) -> str:
    return f"The {charge.kind} {charge.name} has"


def _week(limit: Mapping[str, float]) -> str:
    return " this week" if "gpu_hours" in limit else ""


class _Writer:
    """Turns profiles into what the template shows; one for each form."""

    def __init__(self, state: Answer, quotas: Quotas, chosen: Mapping[str, Any]):
        self._state = state
        self._quotas = quotas
        self._largest = quotas.server.amounts()
        self._chosen = chosen
        self._reasons: dict[Size, str] = {}
        self._written: dict[tuple[int, Any], Markup] = {}

    def profile(self, profile: Profile, least: Size) -> dict[str, Any]:
        options = profile.get("profile_options", {})
        sizes = [say(name, getattr(least, name)) for name in SIZES if getattr(least, name)]
        last = self._chosen if self._chosen.get("profile") == profile["slug"] else {}
        return {
            "slug": profile["slug"],
            "name": profile["display_name"],
            "description": profile.get("description", ""),
            "cost": f"Takes {'at least ' if options else ''}{', '.join(sizes)} of your quota.",
            "free": profile.get("free", ""),
            "reason": self._reason(least),
            "options": [
                (key, option["display_name"], self._choices(option, last.get(key)))
                for key, option in options.items()
            ],
        }

    def _reason(self, size: Size) -> str:
        if size not in self._reasons:
            ask = Ask(self._state.ask.name, self._state.ask.owner, size, self._state.ask.charges)
            self._reasons[size] = judge(ask, self._state.accounts, self._quotas).sentence
        return self._reasons[size]

    def _choices(self, option: Profile, last: Any) -> Markup:
        """The `<option>` elements of a select; one that can be had is selected."""
        choices: Mapping[str, Profile] = option["choices"]
        key = (id(option), last if last in choices else None)
        if key not in self._written:
            fits = self._state.fits or {}
            reasons = {
                slug: unavailable(choice, fits, self._largest) for slug, choice in choices.items()
            }
            wished = [last, *(slug for slug, c in choices.items() if c.get("default")), *choices]
            taken = next((slug for slug in wished if not reasons.get(slug, True)), None)
            self._written[key] = Markup("").join(
                _option(slug, choice["display_name"], reasons[slug], slug == taken)
                for slug, choice in choices.items()
            )
        return self._written[key]


def _option(slug: str, name: str, reason: str, selected: bool) -> Markup:
    state = " disabled" if reason else " selected" if selected else ""
    text = f"{name} (unavailable: {reason})" if reason else name
    return Markup(f'<option value="{escape(slug)}"{state}>{escape(text)}</option>')  # noqa: S704
