"""The checks, in the order in which a person would meet the platform."""

import secrets
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any

from mlhub.verify.certificate import look
from mlhub.verify.notebook import notebook
from mlhub.verify.people import temporary
from mlhub.verify.person import Busy, Person, Refused, log_in, said
from mlhub.verify.report import Failed, NotTried, Report
from mlhub.verify.settings import TEMPORARY, Settings
from mlhub.verify.web import ask, session

RUN_SECONDS = 240

OF_NODE = "--"
"""In the slug of an offer of one GPU node, before the node's name (`mlhub.hub.offers`)."""


def verify(settings: Settings, report: Report) -> None:
    """Every check; the person is gone afterwards, whatever happened."""
    certificates(settings, report)
    with report.check("hub and Keycloak answer"):
        for url in (f"{settings.hub_url}/hub/health", f"{settings.keycloak_url}/realms/"
                    f"{settings.realm}/.well-known/openid-configuration"):  # fmt: skip
            answer = ask(session(settings.via), "GET", url)
            if not answer.ok:
                raise Failed(f"{url} is HTTP {answer.status_code}")
    if report.last_failed:
        return
    with ExitStack() as stay:
        with report.check("a person is made"):
            password = stay.enter_context(temporary(settings, report.tell))
        if report.last_failed:
            return
        try:
            as_person(settings, report, password)
        finally:
            with report.check("the person is removed"):
                stay.close()


def certificates(settings: Settings, report: Report) -> None:
    """What browsers meet before any page. One that ends within days stops no other check."""
    for url in dict.fromkeys((settings.hub_url, settings.keycloak_url)):
        if not url.startswith("https://"):
            continue
        with report.check(f"the certificate of {url}"):
            if url in settings.via:
                raise NotTried("it is not met in the cluster; `make verify` looks, from outside")
            look(url)


def as_person(settings: Settings, report: Report, password: str) -> None:
    with report.check("a wrong password is refused"):
        try:
            log_in(settings, secrets.token_urlsafe(8))
        except Refused:
            pass
        else:
            raise Failed("it was let in")
    web = None
    with report.check("log-in"):
        web = log_in(settings, password)
    if web is None:
        return
    person = None
    with report.check("a token of one's own"):
        person = Person(settings, web)
    if person is None:
        return
    try:
        refusals(person, report)
        serve_and_run(person, report, offered(person, report))
    finally:
        with report.check("the token is taken back"):
            person.close()


def refusals(person: Person, report: Report) -> None:
    """What nobody may do, whoever they are."""
    asked = {
        "nobody without a log-in": (None, "/hub/api/users"),
        "the routes of everybody's servers": (person, "/hub/api/proxy"),
        "the list of people": (person, "/hub/api/users"),
    }
    for what, (who, path) in asked.items():
        with report.check(f"refused: {what}"):
            plain = session(person.settings.via)
            answer = (
                who.call("GET", path) if who else ask(plain, "GET", person.settings.hub_url + path)
            )
            if answer.status_code not in (HTTPStatus.FORBIDDEN, HTTPStatus.UNAUTHORIZED):
                raise Failed(f"GET {path} is HTTP {answer.status_code}")
    with report.check("refused: a profile that does not exist"):
        person.stop()  # what a killed verification began to start
        path = f"/hub/api/users/{TEMPORARY}/server"
        answer = person.call("POST", path, json={"profile": "verify-no-such"})
        if answer.status_code not in (HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN):
            raise Failed(f"it is HTTP {answer.status_code}: {said(answer)}")


def offered(person: Person, report: Report) -> list[dict[str, Any]]:
    wanted = person.settings.profiles
    found: list[dict[str, Any]] = []
    with report.check("profiles are offered"):
        offers = person.profiles()
        found = [each for each in offers if not wanted or any(map(of(each), wanted))]
        missing = [slug for slug in wanted if not any(of(each)(slug) for each in offers)]
        if missing or not found:
            raise Failed(f"not {', '.join(missing) or 'one'}, to a member of the access groups")
    return found


def of(offer: dict[str, Any]) -> Callable[[str], bool]:
    """Whether an offer is of a profile; of one for each GPU node it has the node in its slug."""
    return lambda slug: offer["slug"] == slug or offer["slug"].startswith(slug + OF_NODE)


def serve_and_run(person: Person, report: Report, profiles: list[dict[str, Any]]) -> None:
    """A server of each, then a run of one that starts: the one with the fewest GPUs."""
    served = [profile for profile in profiles if serve(person, report, profile)]
    if profiles:
        run(person, report, min(served, key=gpus, default=None))


def gpus(offer: dict[str, Any]) -> float:
    return float(offer["size"].get("gpu") or 0)


def start(person: Person, profile: dict[str, Any]) -> None:
    """Raises NotTried where others have the GPUs that it takes."""
    try:
        person.start(profile["slug"])
    except Busy as busy:
        if not gpus(profile):
            raise
        raise NotTried(str(busy)) from busy


def serve(person: Person, report: Report, profile: dict[str, Any]) -> bool:
    """A server of one profile: start, write, read, stop; returns whether all of it went well."""
    slug, word = profile["slug"], secrets.token_hex(8)
    path = f"verify-{word}.txt"
    with report.check(f"profile {slug}: start, write and read"):
        start(person, profile)
        try:
            person.write(path, "file", word)
            if person.read(path) != word:
                raise Failed(f"{path} was not read as it was written")
            person.delete(path)
        finally:
            person.stop()
    return report.lines[-1].outcome == "ok"


def run(person: Person, report: Report, profile: dict[str, Any] | None) -> None:
    """A notebook by the execution API, which talks to MLflow; the home is kept over a stop.

    Of the default profile, where `profile` is of one GPU node: a run is sent to none.
    """
    word = secrets.token_hex(8)
    path, target = f"verify-{word}.ipynb", f"verify-{word}.txt"
    mlflow = person.settings.mlflow
    what = "a run of a notebook" + (", with MLflow" if mlflow else "")
    with report.check(what):
        if not person.settings.execution:
            raise NotTried("the stack has no execution API")
        if profile is None:
            raise NotTried("no server has started")
        start(person, profile)
        person.write(path, "notebook", notebook(mlflow=mlflow))
        person.stop()
        body: dict[str, Any] = {
            "username": TEMPORARY,
            "notebook_name": f"./{path}",
            "parameters": {"word": word, "target": target},
        }
        if OF_NODE not in profile["slug"]:
            body["profile"] = profile["slug"]
        ended = person.must(
            "POST", f"/services/execution/execute?wait={RUN_SECONDS}", json=body,
            timeout=(5, RUN_SECONDS + 30),
        )  # fmt: skip
        if ended["status"] != "succeeded":
            raise Failed(f"the run {ended['status']}: {ended.get('message')}")
        start(person, profile)
        try:
            if person.read(target) != word:
                raise Failed(f"{target} is not what the run wrote")
        finally:
            for left in (path, target, ended["output_notebook"]):
                person.delete(left)
            person.stop()
