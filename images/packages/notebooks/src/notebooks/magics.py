"""`%mlflow_start_run`, `%mlflow_log_param`, `%mlflow_log_metric`, `%mlflow_log_notebook`.

User images load them into every kernel (images/jupyter/ipython_config.py); elsewhere `%load_ext
notebooks` does. MLflow itself is imported by the first magic, so a kernel starts as fast as before.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-call"

import re
import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionInfo, InteractiveShell
from IPython.core.magic import Magics, line_magic, magics_class
from IPython.core.magic_arguments import argument, magic_arguments

if TYPE_CHECKING:
    from notebooks.mlflow_integration import MLflowNotebookIntegration

KEY_AND_VALUE = re.compile(
    r"""(?P<key> "[^"]+"(?=\s) | '[^']+'(?=\s) | \S+ ) \s+ (?P<value> .+)""", re.VERBOSE | re.DOTALL
)
QUOTED = re.compile(r"""(?P<quote>["'])(?P<inside>((?!(?P=quote)).)*)(?P=quote)""", re.DOTALL)
STEP = re.compile(r"(?:^|(?<=\s))(?:--step(?:\s+|=)|-s\s*)(?P<step>\S+)")


@magics_class
class MLflowMagics(Magics):
    """The magics of one kernel, and what it has executed since it started."""

    def __init__(self, shell: InteractiveShell):
        super().__init__(shell)
        self.executed: dict[str, str] = {}
        """Source of each cell as it was last run, by cell id."""
        self.running = ""

    def before_cell(self, info: ExecutionInfo) -> None:
        self.running = info.raw_cell or ""
        if info.cell_id:
            self.executed[info.cell_id] = self.running

    @magic_arguments()
    @argument("name", nargs="?", help="of the run; MLflow makes one up otherwise")
    @argument("--experiment", "-e", help="where the run goes; by default the notebook's own")
    @line_magic
    def mlflow_start_run(self, line: str) -> None:
        """Start a run for this notebook; a run that is still active ends first."""
        given = _arguments(self.mlflow_start_run, line)
        import mlflow  # noqa: PLC0415 -- seconds, that a kernel without MLflow does not spend

        tracking = self._tracking()
        if (before := mlflow.active_run()) is not None:
            tracking.end_run()
            print(f"ended run {before.info.run_name} ({before.info.run_id})")
        run = tracking.start_run(given.name, experiment=given.experiment)
        experiment = mlflow.get_experiment(run.info.experiment_id).name
        print(f"run {run.info.run_name} ({run.info.run_id}) in experiment {experiment}")

    @magic_arguments()
    @argument("key")
    @argument("value", nargs="+", help="`{name}` stands for a variable's value")
    @line_magic
    def mlflow_log_param(self, line: str) -> None:
        """Log a parameter of the active run."""
        key, value = _key_and_value(line)
        self._tracking().log_param(key, value)

    @magic_arguments()
    @argument("key")
    @argument("value", help="a number; `{name}` stands for a variable's value")
    @argument("--step", "-s", type=int)
    @line_magic
    def mlflow_log_metric(self, line: str) -> None:
        """Log a metric of the active run."""
        found = STEP.search(line)
        step = found["step"] if found else None
        key, said = _key_and_value(STEP.sub(" ", line, count=1))
        try:
            value = float(said)
        except ValueError:
            raise UsageError(
                f"{said!r} is no number; a metric is one. For a variable x write {{x}}."
            ) from None
        try:
            number = None if step is None else int(step)
        except ValueError:
            raise UsageError(f"argument --step/-s: invalid int value: {step!r}") from None
        self._tracking().log_metric(key, value, number)

    @magic_arguments()
    @argument("path", nargs="?", help="another notebook's file; by default this one's")
    @argument("--message", "-m", nargs="+", default=(), help="kept with the version")
    @line_magic
    def mlflow_log_notebook(self, line: str) -> None:
        """Keep this notebook, as it is saved, with the active run."""
        given = _arguments(self.mlflow_log_notebook, line)
        tracking = self._tracking(given.path)
        snapshot = tracking.log_notebook(" ".join(given.message))
        print(f"{snapshot.notebook_path}: version {snapshot.version}, run {snapshot.run_id}")
        for finding in tracking.found:
            print(f"left out, since it looks like a secret: {finding}")
        if given.path is None and (unsaved := self._unsaved(tracking)):
            print(
                f"Not all is saved: {unsaved}. The version is the file as it was last saved; save "
                "the notebook (Ctrl+S) and run this cell again for the present one."
            )

    def _tracking(self, path: str | None = None) -> "MLflowNotebookIntegration":
        from notebooks.mlflow_integration import MLflowNotebookIntegration  # noqa: PLC0415

        return MLflowNotebookIntegration(path)

    def _unsaved(self, tracking: "MLflowNotebookIntegration") -> str:
        """Which cells ran with a source that the saved file lacks, as words; empty for none.

        That is what a kernel can know: a cell that was changed and not run stays unseen.
        """
        from notebooks.this_notebook import saved_sources  # noqa: PLC0415

        saved = saved_sources(tracking.notebook)
        if saved is None:
            return ""
        changed = sum(cell in saved and saved[cell] != ran for cell, ran in self.executed.items())
        if self.running.strip() not in map(str.strip, saved.values()):
            return f"this cell, and {changed} others that ran" if changed > 1 else "this cell"
        return f"{changed} cells ran with other content" if changed else ""


def _arguments(magic: Any, line: str) -> Any:
    """The arguments of a magic's line, quoted as in a shell; UsageError where they are wrong."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{error}: a quotation mark too few or too many in {line!r}") from None
    return magic.parser.parse_args(words)


def _key_and_value(line: str) -> tuple[str, str]:
    """The first word of a magic's line, and the rest as it is; UsageError where one is missing.

    Neither argparse nor a shell reads them: a value may begin with a minus, as -2e-07 does, and
    IPython has put variables' values in, with whatever quotes and backslashes they have.
    """
    given = KEY_AND_VALUE.fullmatch(line.strip())
    if given is None:
        missing = "value" if line.strip() else "key, value"
        raise UsageError(f"the following arguments are required: {missing}")
    return _unquoted(given["key"]), _unquoted(given["value"])


def _unquoted(word: str) -> str:
    quoted = QUOTED.fullmatch(word)
    return quoted["inside"] if quoted else word


def load_ipython_extension(shell: InteractiveShell) -> None:
    """For `%load_ext notebooks`; loading it twice is without effect."""
    if "MLflowMagics" in shell.magics_manager.registry:
        return
    magics = MLflowMagics(shell)
    shell.register_magics(magics)
    shell.events.register("pre_run_cell", magics.before_cell)
