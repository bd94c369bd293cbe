"""What a pull request would change, as text that a reviewer reads.

`pulumi preview --json` in (`previews`), dangers first (`dangers`), charts as the manifests that
they render to (`charts`), Markdown out (`markdown`). Nothing here writes to a stack.
docs/previews.md shows it.
"""
