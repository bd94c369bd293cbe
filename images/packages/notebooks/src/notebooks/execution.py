"""Run notebooks unattended: the client of the execution API (docs/execution.md).

Each call says what the service says: a refusal is `Refused` with its word and sentence. A run, a
schedule or a sweep is a dataclass with what a program asks for; `plain` has all that was told.
"""

import math
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import quote

from notebooks.connection import Connection
from notebooks.errors import NotebooksError, Refused, Unreachable

BASE = "/services/execution"
ENDED = ("succeeded", "failed", "cancelled", "lost")
PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
"""Whatever a service says of when to ask again."""

TRIES = 5
"""Of a request that starts something: the same key is the same run, however often it is sent."""

SILENT_SECONDS = 300.0
"""For so long a wait outlasts silence: of a proxy, a hub or a database that restarts."""

PASSING = (429, 502, 503, 504)
"""What a part says that is silent, or asked too much, for the moment."""


class RunFailed(NotebooksError):  # noqa: N818 -- named for what it is, as in `notebooks.errors`
    """A run that was waited for and did not succeed; `run` is what it became."""

    def __init__(self, run: "Run"):
        self.run = run
        self.type = run.reason or run.status
        said = f"Run {run.run_id} {run.status}: {run.message or 'its log says how.'}"
        # A run that never began has no cells, and no output either.
        left = f"\nAs far as it came: {run.output_notebook}" if run.cells else ""
        super().__init__(said + left)

    def plain(self) -> dict[str, object]:
        return {**super().plain(), "run": self.run.plain}


@dataclass(frozen=True)
class Run:
    """One run; paths are in the home, `cells` are those done and all, once it is known."""

    run_id: str
    status: str
    input_notebook: str
    output_notebook: str
    cells: tuple[int, int] | None
    reason: str | None
    message: str | None
    error: Mapping[str, Any] | None
    plain: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        cells = told.get("cells")
        return cls(
            run_id=told["run_id"],
            status=told["status"],
            input_notebook=told["input_notebook"],
            output_notebook=told["output_notebook"],
            cells=(cells["done"], cells["total"]) if cells else None,
            reason=told.get("reason"),
            message=told.get("message"),
            error=told.get("error"),
            plain=told,
        )

    @property
    def ended(self) -> bool:
        return self.status in ENDED


def counts_of(sweep: Mapping[str, Any]) -> str:
    """How many of a sweep's runs are what, in words."""
    return ", ".join(f"{count} {what}" for what, count in sweep["counts"].items())


class SweepFailed(NotebooksError):  # noqa: N818 -- as RunFailed
    """A sweep that was waited for and of which not every run succeeded; `sweep` is as it ended."""

    def __init__(self, sweep: Mapping[str, Any]):
        self.sweep = sweep
        self.type = sweep["status"]
        super().__init__(f"Sweep {sweep['sweep_id']} {sweep['status']}: {counts_of(sweep)}.")

    def plain(self) -> dict[str, object]:
        return {**super().plain(), "sweep": self.sweep}


def _patience(error: NotebooksError, *, heard: bool) -> float:
    """For how many seconds a wait outlasts it: for none where asking again would not help, and for
    a few where nobody has ever answered, since the address may be wrong.
    """
    if isinstance(error, Refused):
        return SILENT_SECONDS if error.status in PASSING else 0
    return SILENT_SECONDS if heard else TRIES * PAUSE_SECONDS


def _nobody(_: object) -> None:
    """Tell nobody."""


class ExecutionClient:
    """Runs of one hub; without a connection, of the hub that `Connection.find()` finds."""

    def __init__(self, connection: Connection | None = None):
        self._connection = connection or Connection.find()

    # Runs

    def run(
        self,
        notebook: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        user: str | None = None,
        output: str | None = None,
        key: str | None = None,
        **how: Any,
    ) -> Run:
        """Start a run of a notebook: a name, looked for in every folder, or a path `./a.ipynb`.

        `output` is a path that is new or a former run's output, and wants the notebook's path.
        `how` is `profile`, `time_limit`, `cell_timeout` (seconds) and `workspace`. A lost answer is
        asked for again with the same key, so that nothing runs twice.
        """
        body = self._body(user, notebook, parameters, how)
        if output is None:
            return Run.of(self._start("/execute", body, key))
        body |= {"input_path": body.pop("notebook_name"), "params": body.pop("parameters")}
        return Run.of(self._start("/run-notebook", body | {"output_path": output}, key))

    def get(self, run_id: str) -> Run:
        return Run.of(self._call("GET", f"/runs/{run_id}"))

    def list(
        self,
        *,
        user: str | None = None,
        status: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Run]:
        """The newest first; `before` is a moment, such as the `timestamp` of the page's last."""
        asked = {"username": user, "status": status, "limit": limit, "before": before}
        given = {name: value for name, value in asked.items() if value is not None}
        return [Run.of(told) for told in self._call("GET", "/runs", params=given)["runs"]]

    def wait(
        self,
        run: Run | str,
        *,
        timeout: float | None = None,
        tell: Callable[[Run], None] = _nobody,
    ) -> Run:
        """The run once it has ended; raises RunFailed where that is no success, and TimeoutError.

        `timeout` is in seconds. `tell` hears of the run each second. A service that is silent
        meanwhile is asked again for five minutes; what is raised then names the run.
        """
        run_id = run if isinstance(run, str) else run.run_id
        found: Run = self._end_of(
            "run",
            run_id,
            lambda: self.get(run_id),
            lambda run: run.status,
            timeout=timeout,
            tell=tell,
            heard=isinstance(run, Run),
        )
        if found.status != "succeeded":
            raise RunFailed(found)
        return found

    def log(self, run_id: str, *, follow: bool = False) -> Iterator[str]:
        """What the cells print, line by line; with `follow` as they print it, to the end."""
        params = {"follow": "true"} if follow else {}
        yield from self._connection.lines(f"{BASE}/runs/{run_id}/log", params)

    def cancel(self, run_id: str) -> Run:
        return Run.of(self._call("POST", f"/runs/{run_id}/cancel"))

    def artifacts(self, run_id: str) -> Sequence[Mapping[str, Any]]:
        """What the run has left: `kind`, and `path` and `size` in bytes, or `mlflow_run_id`."""
        found: Sequence[Mapping[str, Any]] = self._call("GET", f"/runs/{run_id}/artifacts")[
            "artifacts"
        ]
        return found

    def notebooks(self, *, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        """Those in the home, at most 15 s old: `relative_path`, `size` in bytes, `modified`."""
        whose = quote(user or self._connection.user, safe="")
        found: Sequence[Mapping[str, Any]] = self._call("GET", f"/list-notebooks/{whose}")[
            "notebooks"
        ]
        return found

    # Schedules

    def schedule(
        self,
        name: str,
        notebook: str,
        cron: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        time_zone: str = "UTC",
        suspended: bool = False,
        user: str | None = None,
        **how: Any,
    ) -> Mapping[str, Any]:
        """Run a notebook again and again: `cron` is minute, hour, day, month, day of the week."""
        body = self._body(user, notebook, parameters, how)
        when = {"name": name, "cron": cron, "time_zone": time_zone, "suspended": suspended}
        return self._call("POST", "/schedules", body | when)

    def schedules(self, *, user: str | None = None) -> Sequence[Mapping[str, Any]]:
        found: Sequence[Mapping[str, Any]] = self._call(
            "GET", "/schedules", params={"username": user} if user else None
        )["schedules"]
        return found

    def get_schedule(self, schedule_id: str) -> Mapping[str, Any]:
        return self._call("GET", f"/schedules/{schedule_id}")

    def change_schedule(self, schedule_id: str, **changes: Any) -> Mapping[str, Any]:
        """`cron`, `time_zone`, `parameters`, `suspended`."""
        return self._call("PATCH", f"/schedules/{schedule_id}", changes)

    def delete_schedule(self, schedule_id: str) -> None:
        self._call("DELETE", f"/schedules/{schedule_id}")

    # Sweeps

    def sweep(
        self,
        notebook: str,
        grid: Mapping[str, Sequence[Any]],
        parameters: Mapping[str, Any] | None = None,
        *,
        parallel: int = 2,
        user: str | None = None,
        key: str | None = None,
        **how: Any,
    ) -> Mapping[str, Any]:
        """A run for each combination of `grid`, `parallel` at once at most."""
        body = self._body(user, notebook, parameters, how)
        given = {name: list(values) for name, values in grid.items()}
        return self._start("/sweeps", body | {"grid": given, "parallel": parallel}, key)

    def get_sweep(self, sweep_id: str) -> Mapping[str, Any]:
        return self._call("GET", f"/sweeps/{sweep_id}")

    def sweeps(self, *, user: str | None = None, limit: int = 10) -> Sequence[Mapping[str, Any]]:
        """The newest first."""
        asked = {"limit": limit} | ({"username": user} if user else {})
        found: Sequence[Mapping[str, Any]] = self._call("GET", "/sweeps", params=asked)["sweeps"]
        return found

    def wait_sweep(
        self,
        sweep_id: str,
        *,
        timeout: float | None = None,
        tell: Callable[[Mapping[str, Any]], None] = _nobody,
    ) -> Mapping[str, Any]:
        """The sweep once all its runs have ended; raises SweepFailed where that is no success, and
        TimeoutError.

        As `wait` does it for a run.
        """
        found: Mapping[str, Any] = self._end_of(
            "sweep",
            sweep_id,
            lambda: self.get_sweep(sweep_id),
            lambda sweep: sweep["status"],
            timeout=timeout,
            tell=tell,
        )
        if found["status"] != "succeeded":
            raise SweepFailed(found)
        return found

    def cancel_sweep(self, sweep_id: str) -> Mapping[str, Any]:
        return self._call("POST", f"/sweeps/{sweep_id}/cancel")

    def _body(
        self,
        user: str | None,
        notebook: str,
        parameters: Mapping[str, Any] | None,
        how: Mapping[str, Any],
    ) -> dict[str, Any]:
        return {
            "username": user or self._connection.user,
            "notebook_name": notebook,
            "parameters": dict(parameters or {}),
            **{name: value for name, value in how.items() if value is not None},
        }

    def _start(self, path: str, body: Mapping[str, Any], key: str | None) -> dict[str, Any]:
        headers = {"Idempotency-Key": key or secrets.token_hex(16)}
        found: dict[str, Any] = self._again(lambda: self._call("POST", path, body, headers=headers))
        return found

    def _end_of(
        self,
        kind: str,
        identifier: str,
        look: Callable[[], Any],
        status: Callable[[Any], str],
        *,
        timeout: float | None,
        tell: Callable[[Any], None],
        heard: bool = False,
    ) -> Any:
        """What `look` finds once its status is a last one; raises TimeoutError.

        `heard` says that the service has told of it before.
        """
        begun = last = time.monotonic()
        while True:
            pause, silence = PAUSE_SECONDS, ""
            try:
                found = look()
            except (Refused, Unreachable) as error:
                if time.monotonic() - last >= _patience(error, heard=heard):
                    what = f"{kind.capitalize()} {identifier} was not seen to end"
                    raise error.within(what, **{f"{kind}_id": identifier}) from None
                pause = max(pause, min(error.after, LONGEST_PAUSE_SECONDS))
                silence = f" {error}"
            else:
                heard, last = True, time.monotonic()
                tell(found)
                if status(found) in ENDED:
                    return found
            left = math.inf if timeout is None else begun + timeout - time.monotonic()
            if left < 0:
                what = f"{kind.capitalize()} {identifier}"
                raise TimeoutError(f"{what} goes on after {timeout:.0f} s.{silence}")
            time.sleep(min(pause, left))

    def _again(self, call: Callable[[], Any]) -> Any:
        """`call`, tried anew while the service is silent; raises Unreachable after TRIES."""
        for left in reversed(range(TRIES)):
            try:
                return call()
            except Unreachable:
                if not left:
                    raise
                time.sleep(PAUSE_SECONDS)
        raise AssertionError("the last try raises")

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        # A name is looked for by a pod of the person's, which has a minute.
        told: dict[str, Any] = self._connection.request(
            method, BASE + path, body, params=params, headers=headers, timeout=90
        )
        return told
