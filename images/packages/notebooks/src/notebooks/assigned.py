"""Where in a line something is given to a name such as `password` or `api_key`.

detect-secrets has a detector for that. It tells of the first place in a line alone, knows no
annotation, no prefix such as `b` and no shell, and lets go what begins with a sign or has a quote
of the other kind in it. Its list of names and its patterns are used here.
"""

import re
from collections.abc import Iterator, Sequence

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

IN_TOKEN = re.compile(
    r"""
    token (?: ["'\]\\]{0,4} \s* (?: (?: :[\w.|\[\] ]{1,40} )? = | : | => | ={2,3} | !==? )
            | ["'] \s* , )
    \s* [bfru]{0,2} (?P<quote> \\? ["'] )
    (?P<value> (?!\w+://) (?= [\w./+=:~-]*\d ) (?= [\w./+=:~-]*[a-z] ) [\w./+=:~-]{16,} )
    (?P=quote)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Words are called tokens as well, so what looks like a credential: 16 characters and more, some of
them digits and some of them letters."""

KEY = rf"(?: {NAMES} | (?:access|account|secret) [._-]? key )"
SET = re.compile(
    rf"""
    \b (?: setdefault | (?:put|set|get)env | get | set | option | config ) \( \s*
    [bru]? ["'] [\w.-]{{0,60}} {KEY} (?: \.[\w.-]{{0,60}} )? ["'] \s* , \s*
    [bru]? (?P<quote>["']) (?P<value> (?: (?!(?P=quote)) . )+ ) (?P=quote)
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""As `os.environ.setdefault("DB_PASSWORD", …)` and Spark's `option("password", …)`."""

OPTION = re.compile(
    rf"""
    (?<![\w-]) --[\w-]{{0,40}} (?i: {KEY} | token ) =
    (?! [%?:$`({{<\[] | [A-Z_]+\b ) (?P<value> [^\s"'`\\,;&|()\]]+ )
    """,
    re.VERBOSE,
)
"""Of a command that is called by code."""

STRING = re.compile(
    r"""(?P<quote>["'])(?P<inside>(?:\\.|(?!(?P=quote))[^\\])*+)(?P=quote)?""", re.DOTALL
)
CONNECTION = re.compile(
    r"\b(?:host|server|data\ ?source|user|user\ ?id|uid|dbname|database|port|driver)\s*=",
    re.IGNORECASE,
)
IN_CONNECTION = re.compile(
    r"""
    (?<![\w.-]) (?: password | passwd | pwd ) \s*=\s*
    (?! [%?:$({<] ) (?: '(?P<value>[^']+)' | (?P<word>[^\s'";&\\]+) )
    """,
    re.IGNORECASE | re.VERBOSE,
)
"""Of what a string such as `host=db user=me password=…` has."""

SHELL_LINE = re.compile(
    r"""
    \s* (?: ! | %(?:set_)?env\s | %%?(?:bash|sh|sx|system)\s )
    | [^=!#]* = \s* (?: !(?!=) | %(?:sx|system)\s )  # rows = !psql …
    | .* \bexport\s+\w+=
    """,
    re.VERBOSE,
)
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

SETTINGS_NAMES = NAMES.replace("|secret|", "|(?<=[_.-])secret|token|")
"""Kubernetes' `secret: db` is another thing."""

IN_SETTINGS = re.compile(
    rf"""
    \s* (?: -\s+ )? ["']? [\w.-]{{0,60}}? (?: {SETTINGS_NAMES} ) ["']? \s*[=:]\s*
    (?! ["']?[$`({{<\[] | [|>!&*]
      | (?: true | false | null | none | ~ | \d{{1,5}} ) \s* (?: \#|\Z ) )
    (?: (?P<quote>["']) (?P<value> (?: (?!(?P=quote)) . )+ )
      | (?P<word> [^\s"'\#] (?: \S | [ \t]++(?![\s\#]) )* )
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)

CELL = re.compile(
    r"""
    \s* (?: %%(?:capture|time)\b [^\n]* \n \s* )*
    %% (?: (?P<shell> ! | (?: script\s+(?:-\S+\s+)*\S*?)?(?:bash|zsh|sh)\b | (?:sx|system)\b )
         | (?:write)?file \s+ (?:-a\s+)? ["']? (?: [^\s"']*/ )? (?P<file>[^\s"'/]+) )
    """,
    re.VERBOSE,
)
SCRIPT = re.compile(r".*\.(ba|z)?sh")
SETTINGS = re.compile(
    r"\.?[^.]+|\.env.*|.*\.(env|ini|cfg|cnf|conf|properties|toml|ya?ml)", re.IGNORECASE
)
"""Names of files, of which other ones have code in them."""

REFERENCE = re.compile(
    r"\{.*\} | <.*> | \$\{?[A-Z_][A-Z0-9_]*\}? | ~?/.* | (\W)\1* | \[redacted:\ [^]]*\]", re.VERBOSE
)
"""Of a value: a place for one, a file that has it, or one that is hidden already."""


def beside_code(lines: Sequence[str]) -> Iterator[tuple[re.Pattern[str], ...]]:
    """For each line of a cell what to look for where it is no code: a shell's, or settings."""
    whole: tuple[re.Pattern[str], ...] = ()
    if (cell := CELL.match("".join(lines[:20]))) is not None:
        if cell["shell"] or SCRIPT.fullmatch(cell["file"]):
            whole = (IN_SHELL,)
        elif SETTINGS.fullmatch(cell["file"]):
            whole = (IN_SHELL, IN_SETTINGS)
    goes_on = False
    for line in lines:
        yield whole or (IN_SHELL,) * goes_on
        if line.endswith(("\\\n", "\\\r\n")):
            goes_on = goes_on or SHELL_LINE.match(line) is not None
        else:
            goes_on = False


def assigned(line: str, beside: tuple[re.Pattern[str], ...] = ()) -> list[tuple[int, int]]:
    """Begin and end of each value, without its quotes; some may overlap.

    `beside` is what `beside_code` says of the line.
    """
    found = [
        match.span("value")
        for pattern in (IN_CODE, IN_TOKEN, SET, OPTION)
        for match in pattern.finditer(line)
    ]
    for pattern, group in QUOTES_REQUIRED_DENYLIST_REGEX_TO_GROUP.items():
        found += [match.span(group) for match in pattern.finditer(line)]
    for string in STRING.finditer(line):
        inside = string.span("inside")
        if CONNECTION.search(line, *inside):
            found += _spans(IN_CONNECTION, line, inside)
    if not beside and SHELL_LINE.match(line):
        beside = (IN_SHELL,)
    if IN_SHELL in beside:
        found += _spans(IN_SHELL, line)
    if IN_SETTINGS in beside and (match := IN_SETTINGS.match(line)):
        found.append(match.span(match.lastgroup or 0))
    return [place for place in found if not REFERENCE.fullmatch(line, *place)]


def _spans(
    pattern: re.Pattern[str], line: str, within: tuple[int, ...] = ()
) -> list[tuple[int, int]]:
    return [match.span(match.lastgroup or 0) for match in pattern.finditer(line, *within)]
