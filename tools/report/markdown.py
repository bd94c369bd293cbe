"""The report as Markdown: one comment for all stacks, short enough for GitHub.

What a reviewer must see comes first and stays: each stack's counts, errors and dangers. Details
follow, folded, as many as there is room for; what was left out is said.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tools.report import charts, dangers, images
from tools.report.charts import ChartChange
from tools.report.dangers import Danger, code, prose
from tools.report.images import ImageChange
from tools.report.previews import Preview, Step
from tools.report.properties import Change, of_step, shown

MARKER = "<!-- mlhub-preview -->"
"""By it the workflow finds its own comment again."""

GITHUB_LIMIT = 65_536
"""Longest body of a comment, in characters (GitHub: "body is too long"). Counted here in bytes of
UTF-8, which are never fewer."""

MOST_ERRORS = 100
MOST_ROWS = 60
"""Of one error, such as a chart's that cannot be rendered."""
MOST_DANGERS = 40
MOST_CHANGES = 60
OPS = {
    "create": "to create",
    "update": "to change",
    "replace": "to replace",
    "delete": "to delete",
    "import": "to import",
    "read": "to read",
}


@dataclass(frozen=True)
class Stack:
    """What is known of one stack."""

    name: str
    preview: Preview
    charts: Sequence[ChartChange] = ()
    against: str = "what is deployed"


@dataclass
class Fold:
    """A section that opens by a click."""

    title: str
    lines: list[str] = field(default_factory=list)
    language: str | None = None
    """The lines are code of it; None for Markdown."""

    def text(self, html: bool, most: int | None = None) -> str:
        """The section in at most `most` bytes; empty where not even its beginning fits."""
        lines = self.lines
        fence = "`" * max(
            3, 1 + max((len(run) for run in re.findall("`+", "\n".join(lines))), default=0)
        )
        top = f"<details><summary>{self.title}</summary>\n\n" if html else f"#### {self.title}\n\n"
        end = "\n\n</details>\n" if html else "\n"
        if self.language is not None:
            top, end = f"{top}{fence}{self.language}\n", f"\n{fence}{end}"
        if most is None or size(top + "\n".join(lines) + end) <= most:
            return f"{top}{chr(10).join(lines)}{end}"
        room = most - size(top) - size(end) - size(f"\n\n… {len(lines)} more lines")
        sizes = itertools.accumulate(size(line) + 1 for line in lines)
        kept = sum(taken <= room for taken in sizes)
        if kept > 2:
            rest = f"… {len(lines) - kept} more lines"
            return f"{top}{chr(10).join([*lines[:kept], '', rest])}{end}"
        return ""


def size(text: str) -> int:
    return len(text.encode())


def comment(stacks: Sequence[Stack], limit: int | None = GITHUB_LIMIT, html: bool = True) -> str:
    """All stacks in one Markdown text of at most `limit` bytes; None is no limit.

    `html` folds the details; without it they stand open, for a terminal.
    """
    heads = [head(stack, html) for stack in stacks]
    folds = [list(details(stack)) for stack in stacks]
    lead = f"{MARKER}\n## What this would change\n" if html else ""
    room = None if limit is None else limit - size(lead) - sum(size(h) + 2 for h in heads) - 300
    if room is not None and limit is not None and room < 0:
        return cut(lead + "\n".join(heads), limit)
    kept: list[list[str]] = [[] for _ in stacks]
    left_out = 0
    for rank in range(max((len(each) for each in folds), default=0)):
        for number, sections in enumerate(folds):
            if rank >= len(sections):
                continue
            text = sections[rank].text(html, room)
            left_out += not text
            if text:
                kept[number].append(text)
                room = None if room is None else room - size(text) - 1
    body = [lead]
    for top, sections_kept in zip(heads, kept, strict=True):
        body += [top, *sections_kept]
    if left_out:
        body.append(
            f"\n_{left_out} more sections did not fit into a comment; the job's summary has all, "
            "and `make preview STACK=…` prints them._\n"
        )
    return "\n".join(part for part in body if part)


def cut(text: str, limit: int) -> str:
    note = "\n\n_The rest did not fit into a comment; see the job's summary._\n"
    return text.encode()[: limit - size(note)].decode(errors="ignore") + note


def head(stack: Stack, html: bool) -> str:
    """The part that is never folded."""
    lines = [f"### {stack.name}: {counts(stack.preview)}", ""]
    preview = stack.preview
    if preview.errors or (preview.failed and not mandatory(preview)):
        lines += ["**The preview failed.** What it got to see is below.", ""]
        said = preview.errors or ("It gave no reason; see the job's log.",)
        lines += fenced(list(errors(said)), "text")
    found = every_danger(stack)
    if found:
        lines += ["> [!CAUTION]" if html else "Dangers"]
        for kind, heading in dangers.HEADINGS.items():
            of_kind = [danger for danger in found if danger.kind == kind]
            if of_kind:
                lines.append(f"> **{heading}**")
                lines += [f"> - {danger.text}" for danger in of_kind[:MOST_DANGERS]]
                if len(of_kind) > MOST_DANGERS:
                    lines.append(f"> - and {len(of_kind) - MOST_DANGERS} more of this kind")
                lines.append(">")
        lines[-1] = ""
    return "\n".join(lines).rstrip("\n") + "\n"


def errors(said: Sequence[str]) -> Iterator[str]:
    """The lines of all errors: who mends a stack file wants each at once."""
    for error in said[:MOST_ERRORS]:
        rows = error.splitlines()
        yield from rows[:MOST_ROWS]
        if len(rows) > MOST_ROWS:
            yield f"… and {len(rows) - MOST_ROWS} more lines"
    if len(said) > MOST_ERRORS:
        yield f"… and {len(said) - MOST_ERRORS} more errors"


def every_danger(stack: Stack) -> list[Danger]:
    """Those of the program and those that only a chart's manifests show."""
    rendered = [danger for change in stack.charts for danger in change.dangers]
    return list(dict.fromkeys([*dangers.of(stack.preview), *rendered]))


def mandatory(preview: Preview) -> bool:
    return any(violation.mandatory for violation in preview.violations)


def counts(preview: Preview) -> str:
    """`2 to create, 1 to change; 64 unchanged`."""
    said = [f"{len(preview.of(op))} {verb}" for op, verb in OPS.items() if preview.of(op)]
    if weaker := sum(step.op == "same" for step in preview.steps):
        said.append(f"{weaker} to lose protection")
    if not said:
        return "failed" if preview.failed else "no changes"
    same = f"; {preview.unchanged} unchanged" if preview.unchanged else ""
    return ", ".join(said) + same + (" — **failed**" if preview.failed else "")


def details(stack: Stack) -> Iterator[Fold]:
    """The folded sections, the most useful first."""
    preview = stack.preview
    pictures = images.of(preview)
    if remarks := [v for v in preview.violations if not v.mandatory]:
        lines = [f"- {code(v.policy)}{dangers.at(v.urn)}: {prose(v.message)}" for v in remarks]
        yield Fold(f"{stack.name}: {len(lines)} remarks of the policy pack", lines)
    if pictures:
        yield Fold(f"{stack.name}: {plural(len(pictures), 'image')}", list(image_table(pictures)))
    for change in stack.charts:
        yield from chart_folds(stack.name, change)
    changed = [step for op in ("replace", "update", "import") for step in preview.of(op)]
    lines = list(changed_lines(changed, pictures))
    if lines:
        yield Fold(f"{stack.name}: what changes, property by property", lines)
    for op, word in (("delete", "deleted"), ("create", "created")):
        steps = preview.of(op)
        if steps:
            yield Fold(f"{stack.name}: {len(steps)} {word}", list(listed(steps)))


def plural(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def image_table(changes: Iterable[ImageChange]) -> Iterator[str]:
    yield from ("| image | now | then |", "|---|---|---|")
    for change in changes:
        cells = (cell(each) for each in (change.repository, change.old, change.new))
        yield f"| {' | '.join(cells)} |"


def cell(value: str) -> str:
    if " " in value or value in ("none", "unknown"):
        return value
    return code(value).replace("|", r"\|")


def chart_folds(name: str, change: ChartChange) -> Iterator[Fold]:
    what = f"{name}: chart of Release {change.step.name}"
    if change.problem:
        yield Fold(f"{what}: manifests not compared", [prose(change.problem)])
        return
    if not change.objects:
        yield Fold(f"{what}: manifests stay the same", [change.title])
        return
    summary = [change.title, ""]
    summary += [f"- `{c.sign}` {c.key[0]} {code(c.key[2])}" for c in change.objects]
    if anew := charts.restarts(change):
        summary += ["", f"Pods that start anew: {', '.join(code(each) for each in anew)}."]
    yield Fold(f"{what}: {plural(len(change.objects), 'manifest')} changed", summary)
    lines = []
    for each in change.objects:
        lines += [f"# {each.sign} {each.key[0]} {each.key[2]}", *each.diff.splitlines(), ""]
    yield Fold(f"{what}: diff of the rendered manifests", lines, "diff")


def changed_lines(steps: Iterable[Step], pictures: Sequence[ImageChange]) -> Iterator[str]:
    """A list for each resource; images are left to their table."""
    quiet = []
    for step in steps:
        changes = [c for c in of_step(step) if not (pictures and images.about_image(c))]
        changes = [c for c in changes if not c.path.startswith("description")]
        if not changes and step.op != "replace":
            quiet.append(step)
            continue
        yield f"**{step.kind}** {code(step.name)}{within(step)}{reason(step)}"
        if not changes:
            yield "- nothing that can be shown"
        for change in changes[:MOST_CHANGES]:
            yield f"- {line(change)}"
        if len(changes) > MOST_CHANGES:
            yield f"- and {len(changes) - MOST_CHANGES} more properties"
        yield ""
    if quiet:
        names = ", ".join(f"{step.kind} {code(step.name)}" for step in quiet[:MOST_CHANGES])
        rest = f" and {len(quiet) - MOST_CHANGES} more" if len(quiet) > MOST_CHANGES else ""
        yield f"Only images, secrets or what the provider computes: {names}{rest}."


def within(step: Step) -> str:
    return f" of {step.component}" if step.component and step.component != step.name else ""


def reason(step: Step) -> str:
    if step.op != "replace":
        return ""
    why = ", ".join(code(key) for key in step.replaced_for)
    return f" — replaced{f' because of {why}' if why else ''}"


def line(change: Change) -> str:
    path = change.path.removesuffix("[]")
    if change.added:
        return f"`{shown(path)}` + {code(change.new)}"
    if change.removed:
        return f"`{shown(path)}` is gone: {code(change.old)}"
    return f"`{shown(path)}`: {code(change.old)} → {code(change.new)}"


def listed(steps: Iterable[Step]) -> Iterator[str]:
    """A line for each component: what of it is created or deleted."""
    by_component: dict[str, list[Step]] = {}
    for step in steps:
        by_component.setdefault(step.component or "the stack", []).append(step)
    for component in sorted(by_component):
        things = ", ".join(f"{s.kind} {code(s.name)}" for s in by_component[component])
        yield f"- **{component}**: {things}"


def fenced(lines: Sequence[str], language: str) -> list[str]:
    longest = max((len(run) for run in re.findall("`+", "\n".join(lines))), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}{language}", *lines, fence, ""]
