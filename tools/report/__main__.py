"""`python -m tools.report`: preview stacks, or write the comment from previews that were kept."""

import argparse
import subprocess
import sys
from pathlib import Path

from tools.report import charts
from tools.report.markdown import GITHUB_LIMIT, Stack, comment
from tools.report.previews import NotAPreviewError, Preview, read
from tools.report.run import PreviewError, against, deployed, reduced, tree_of

CHECKOUT = Path(__file__).resolve().parents[2]


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m tools.report", description=__doc__)
    verbs = main.add_subparsers(dest="verb", required=True)
    one = verbs.add_parser("preview", help="what the working tree would change in one stack")
    one.add_argument("--stack", required=True)
    one.add_argument("--base", help="against this commit's program, instead of what is deployed")
    one.add_argument("--policy-pack", action="append", default=[], metavar="FOLDER")
    one.add_argument("--keep", type=Path, metavar="FILE", help="write the preview, without secrets")
    one.add_argument("--whole", action="store_true", help="Markdown for a job's summary, uncut")
    many = verbs.add_parser("comment", help="one comment from files that `preview --keep` wrote")
    many.add_argument("previews", nargs="+", type=Path, metavar="STACK.jsonl")
    many.add_argument("--whole", action="store_true", help="uncut, for a job's summary")
    return main


def preview(given: argparse.Namespace) -> int:
    if given.base:
        with tree_of(CHECKOUT, given.base) as base:
            found = against(CHECKOUT, base, given.stack, given.policy_pack)
            changed = charts.of(found, base, CHECKOUT)
    else:
        found, events = deployed(CHECKOUT, given.stack, given.policy_pack)
        changed = charts.of(found, CHECKOUT, CHECKOUT)
        if given.keep:
            given.keep.write_text(reduced(events) + charts.kept(changed), encoding="utf-8")
    stack = Stack(given.stack, found, changed, given.base or "what is deployed")
    print(comment([stack], None, html=given.whole))
    return failed([found])


def write_comment(given: argparse.Namespace) -> int:
    stacks = []
    for file in given.previews:
        # A job that ended before its preview began has left none.
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        found = read(text) if text.strip() else Preview(failed=True)
        stacks.append(Stack(file.stem, found, charts.of_kept(text, found)))
    print(comment(stacks, None if given.whole else GITHUB_LIMIT))
    return 0


def failed(previews: list[Preview]) -> int:
    return int(any(each.failed for each in previews))


def main() -> int:
    given = parser().parse_args()
    try:
        return preview(given) if given.verb == "preview" else write_comment(given)
    except (PreviewError, NotAPreviewError, subprocess.TimeoutExpired) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main())
