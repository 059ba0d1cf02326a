"""Which files stay here: patterns as in `.gitignore` (gitignore(5)), of one file at the folder's top."""

from __future__ import annotations

import re
from typing import List, Optional, Pattern, Tuple

FILE_NAME = ".ocinodeignore"

#: What no handler needs, and what holds secrets on most machines. `!NAME` in the file takes one back.
DEFAULTS = """
.git/
.hg/
.svn/
__pycache__/
*.py[co]
.venv/
venv/
node_modules/
.env
.env.*
.mypy_cache/
.pytest_cache/
.ruff_cache/
.tox/
.DS_Store
/.ocinodeignore
"""


class Ignore:
    """Patterns, of which the last that fits decides."""

    def __init__(self, text: str) -> None:
        self._rules: List[Tuple[Pattern[str], bool, bool]] = []
        for line in text.splitlines():
            rule = parse_rule(line)
            if rule is not None:
                self._rules.append(rule)

    def matches(self, path: str, is_dir: bool) -> bool:
        """path: from the top, with `/`. Of what is below an ignored folder nothing is asked: it stays here as a whole."""
        for pattern, negated, only_dirs in reversed(self._rules):
            if (is_dir or not only_dirs) and pattern.fullmatch(path) is not None:
                return not negated
        return False


def parse_rule(line: str) -> Optional[Tuple[Pattern[str], bool, bool]]:
    """A pattern, whether it takes back, whether it is for folders alone; None for a line without one."""
    line = line.rstrip("\r\n")
    # Spaces at the end count only behind a backslash.
    while line.endswith(" ") and not _escaped(line, len(line) - 1):
        line = line[:-1]
    if not line or line.startswith("#"):
        return None
    negated = line.startswith("!")
    if negated:
        line = line[1:]
    only_dirs = line.endswith("/")
    if only_dirs:
        line = line[:-1]
    if not line:
        return None
    anchored = "/" in line
    if line.startswith("/"):
        line = line[1:]
    expression = _translate(line)
    if expression is None:
        return None
    return re.compile(expression if anchored else "(?:.*/)?" + expression, re.DOTALL), negated, only_dirs


def _escaped(text: str, at: int) -> bool:
    count = 0
    while at - count > 0 and text[at - count - 1] == "\\":
        count += 1
    return count % 2 == 1


def _translate(pattern: str) -> Optional[str]:
    """A regular expression; None for a pattern that fits nothing, such as one that ends in a lone backslash."""
    out: List[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            end = at
            while end < len(pattern) and pattern[end] == "*":
                end += 1
            whole = end - at >= 2 and (at == 0 or pattern[at - 1] == "/")
            if whole and end == len(pattern):
                out.append(".+")
                at = end
            elif whole and pattern[end] == "/":
                out.append("(?:.*/)?")
                at = end + 1
            else:
                out.append("[^/]*")
                at = end
        elif char == "?":
            out.append("[^/]")
            at += 1
        elif char == "[":
            found = _bracket(pattern, at)
            if found is None:
                return None
            expression, at = found
            out.append(expression)
        elif char == "\\":
            if at + 1 == len(pattern):
                return None
            out.append(re.escape(pattern[at + 1]))
            at += 2
        else:
            out.append(re.escape(char))
            at += 1
    return "".join(out)


CLASSES = {
    "alnum": "a-zA-Z0-9", "alpha": "a-zA-Z", "digit": "0-9", "lower": "a-z", "upper": "A-Z", "xdigit": "0-9a-fA-F",
    "space": r" \t\n\r\f\v", "blank": r" \t", "punct": r"!-/:-@\[-`{-~", "print": " -~", "graph": "!-~", "cntrl": r"\0-\x1f\x7f",
}  # fmt: skip


def _bracket(pattern: str, start: int) -> Optional[Tuple[str, int]]:
    """`[a-z]`, `[!a]`, `[[:digit:]]` as a regular expression, and where it ends."""
    at = start + 1
    negated = at < len(pattern) and pattern[at] in "!^"
    if negated:
        at += 1
    parts: List[str] = []
    first = True
    while at < len(pattern):
        char = pattern[at]
        if char == "]" and not first:
            if not parts:
                return ("[^/]" if negated else "(?!)", at + 1)
            # Nothing but the separator itself parts folders.
            return ("(?!/)[%s%s]" % ("^" if negated else "", "".join(parts)), at + 1)
        first = False
        named = re.match(r"\[:([a-z]+):\]", pattern[at:])
        if named is not None:
            if named.group(1) not in CLASSES:
                return None
            parts.append(CLASSES[named.group(1)])
            at += named.end()
            continue
        low, at = _member(pattern, at)
        if low is None:
            return None
        if at + 1 < len(pattern) and pattern[at] == "-" and pattern[at + 1] != "]":
            high, at = _member(pattern, at + 1)
            if high is None:
                return None
            # A range the wrong way round has nothing in it.
            if low <= high:
                parts.append("%s-%s" % (re.escape(low), re.escape(high)))
        else:
            parts.append(re.escape(low))
    return None


def _member(pattern: str, at: int) -> Tuple[Optional[str], int]:
    if pattern[at] == "\\":
        at += 1
        if at == len(pattern):
            return None, at
    return pattern[at], at + 1
