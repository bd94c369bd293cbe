"""Where in a line something is assigned to a name such as `password` or `api_key`.

detect-secrets has a detector for that. It tells of the first place in a line alone, knows no
annotation, no prefix such as `b` and no shell, and lets go what begins with a sign or has a quote
of the other kind in it. Its list of names and its patterns are used here.
"""

import re

from detect_secrets.plugins.keyword import DENYLIST, QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP

NAMES = "|".join(DENYLIST).replace("_?", "[_-]?")

OPERATOR = r"""
    (?: \s* : [\w.|\[\]\s]* \b (?:Secret)?(?:str|bytes) \b [\w.|\[\]\s]* =  # `: str | None =`
      | \s* (?: :=? | =>? | ={2,3} | !==? )
    ) \s*
"""

IN_CODE = re.compile(
    rf"""
    (?:{NAMES}) \w{{0,40}} [\]'"\\]{{0,4}} {OPERATOR} [bfru]{{0,2}}
    (?P<quote> \\? (?: \"\"\" | ''' | ["'`] ))  # `\"` where code or JSON is in a string itself
    (?![\s,.:;+%=)\]}}])  # then the quote was the end of a string: "password: " + typed + "."
    (?P<value> (?: (?!(?P=quote)) (?: \\. | [^\\] ) )+ )
    (?P=quote)
    """,
    re.IGNORECASE | re.VERBOSE,
)

SHELL_LINE = re.compile(r"\s*(!|%(set_)?env\s|%%?(bash|sh|sx|system)\s)|.*\bexport\s+\w+=")
IN_SHELL = re.compile(
    rf"""
    (?: (?<![\w-]) [\w-]* (?: {NAMES} | token(?![\w-]) ) [\w-]* =
      | %(?:set_)?env \s+ \w* (?: {NAMES} | token\b ) \w* (?: \s*=\s* | \s+ )
    )
    (?! ["']?[$`({{<] | = | \[redacted: )  # a variable's value, or what a command prints; a version
    (?: (?P<quote>["']) (?P<value> (?: (?!(?P=quote)) . )+ ) | (?P<word> [^\s"';&|]+ ) )
    """,
    re.IGNORECASE | re.VERBOSE,
)

REFERENCE = re.compile(
    r"\{.*\} | <.*> | \$\{?[A-Z_][A-Z0-9_]*\}? | ~?/.* | (\W)\1* | \[redacted:\ [^]]*\]", re.VERBOSE
)
"""Of a value: a place for one, a file that has it, or one that is hidden already."""


def assigned(line: str) -> list[tuple[int, int]]:
    """Begin and end of each value, without its quotes; some may overlap."""
    found = [match.span("value") for match in IN_CODE.finditer(line)]
    for pattern, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
        found += [match.span(group) for match in pattern.finditer(line)]
    if SHELL_LINE.match(line):
        found += [match.span(match.lastgroup or 0) for match in IN_SHELL.finditer(line)]
    return [place for place in found if not REFERENCE.fullmatch(line, *place)]
