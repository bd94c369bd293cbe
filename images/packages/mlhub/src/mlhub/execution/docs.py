"""/docs: the OpenAPI document as a plain page.

The usual page loads scripts from elsewhere, which would run at the hub's own address; and where
there is no internet it stays empty.
"""

import html
import json
from typing import Any

from fastapi.responses import HTMLResponse

STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{background:#f3f3f3;padding:.1em .3em;overflow-x:auto}pre{padding:.7em}"
    "td,th{text-align:left;vertical-align:top;padding:.2em 1em .2em 0}"
    "@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}code,pre{background:#222}}"
)
TOKEN = "$TOKEN"  # noqa: S105 (a shell variable for the reader to set)


def page(document: dict[str, Any], base: str) -> HTMLResponse:
    endpoints = [
        _endpoint(path, method, operation, document, base)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    title = html.escape(document["info"]["title"])
    text = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head><body>
<h1>{title}</h1><p>{html.escape(document["info"]["description"])}
Machine-readable: <a href="{base}/openapi.json">openapi.json</a>. Every call but <code>/</code> and
<code>/health</code> takes a token of the Hub's: <code>Authorization: Bearer …</code>. A refusal is
<code>application/problem+json</code>, whose <code>detail</code> says what to do.</p>
{"".join(endpoints)}</body></html>"""
    return HTMLResponse(
        text,
        headers={
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
            "X-Content-Type-Options": "nosniff",
        },
    )


def _endpoint(
    path: str, method: str, operation: dict[str, Any], document: dict[str, Any], base: str
) -> str:
    rows = [
        _row(p["name"], p["in"], p.get("required", False), p["schema"], p.get("description"))
        for p in operation.get("parameters", [])
    ]
    example = ""
    if body := operation.get("requestBody"):
        schema = body["content"]["application/json"]["schema"]
        found = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        for name, field in found["properties"].items():
            needed = name in found.get("required", [])
            rows.append(_row(name, "body", needed, field, field.get("description")))
        given = {
            name: (found["properties"][name].get("examples") or ["alice"])[0]
            for name in found.get("required", [])
        }
        example = f" -H 'Content-Type: application/json' -d '{json.dumps(given)}'"
    command = f"curl -X {method.upper()} -H 'Authorization: Bearer {TOKEN}'{example} …{base}{path}"
    answers = ", ".join(
        f"{status} {answer['description']}" for status, answer in operation["responses"].items()
    )
    return (
        f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation.get('description', ''))}</p>"
        f"<table>{''.join(rows)}</table><pre>{html.escape(command)}</pre>"
        f"<p>Answers: {html.escape(answers)}.</p>"
    )


def _row(
    name: str, place: str, needed: bool, schema: dict[str, Any], description: str | None
) -> str:
    kind = schema.get("type") or next(
        (s.get("type", "") for s in schema.get("anyOf", []) if s.get("type") != "null"), ""
    )
    about = html.escape(description or schema.get("description") or "")
    must = "required" if needed else ""
    cells = "".join(f"<td>{cell}</td>" for cell in (place, kind, must, about))
    return f"<tr><th>{html.escape(name)}</th>{cells}</tr>"
