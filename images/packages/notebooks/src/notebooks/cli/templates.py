"""`templates list|show|copy|create`."""

from pathlib import Path
from typing import Annotated

import typer

from notebooks import templates
from notebooks.cli import output
from notebooks.models import NotebookTemplate

app = typer.Typer(no_args_is_help=True, help="Notebooks to begin with: list, show, copy, create.")

Name = Annotated[str, typer.Argument(metavar="TEMPLATE", help="a name of `templates list`")]


@app.command("list")
def list_templates() -> None:
    """The templates that come with mlhub, and yours."""
    found = templates.templates()
    rows = [(each.name, _of(each), each.title) for each in found]
    output.show(found, output.table(("template", "of", "title"), rows))
    for error in templates.broken():
        output.warn(error.sentence)


@app.command()
def show(name: Name) -> None:
    """What a template is, and the parameters that it takes."""
    template = templates.find(name)
    parameters = templates.parameters(template)
    said = f"{template.title}: {', '.join(template.tags)}\n\n{template.description}"
    output.show(
        {**vars(template), "parameters": parameters},
        f"{said}\n\n{parameters}".rstrip(),
    )


@app.command()
def copy(
    name: Name,
    target: Annotated[Path, typer.Argument(help="a new file or a folder; nothing is overwritten")],
) -> None:
    """Copy a template to begin with it."""
    file = templates.copy(name, target)
    output.show({"path": str(file)}, f"copied to {file}")


@app.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="small letters, digits and hyphens")],
    from_notebook: Annotated[Path, typer.Option(help="a notebook of yours; it stays as it is")],
    yes: Annotated[
        bool, typer.Option("--yes", help="replace what looks like a secret, rather than refuse")
    ] = False,
) -> None:
    """Make a template from a notebook: its cells, without outputs and secrets."""
    template = templates.create(name, from_notebook, redacted=yes)
    output.show(template, f"template {template.name}: {template.path}")


def _of(template: NotebookTemplate) -> str:
    return "mlhub" if Path(template.path).parent == templates.BUILT_IN else "you"
