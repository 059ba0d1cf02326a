"""Against git itself, which defines what the patterns mean."""

import itertools
import os
import subprocess
from pathlib import Path
from typing import Set

from oci_node.ignore import Ignore

PATHS = [
    "a", "b.py", "a.pyc", "logs/x.log", "logs/keep.log", "logs/deep/x.log", "build/out.bin", "src/build/out.bin",
    "src/a/b/c.txt", "src/a/c.txt", "src/c.txt", "doc/frotz/a", "frotz/b", "x y", "trail ", "#hash", "!bang", "back\\slash",
    "[x]", "f1.txt", "f2.txt", "fa.txt", "ü/ö.txt", ".env", ".env.local", "sub/.env", "sub/dir/file", "dir/file", "a-b",
    "]x", "deep/er/node_modules/p/i.js", "node_modules/q.js", "*star", "star", "A/B.PY",
]  # fmt: skip

PATTERNS = [
    "*.pyc", "logs/", "/logs", "logs/*\n!logs/keep.log", "logs\n!logs/keep.log", "*.log\n!keep.log", "**/build", "build/**",
    "src/**/c.txt", "src/*/c.txt", "**/c.txt", "doc/frotz", "frotz/", "/frotz", "frotz", "x y", "trail\\ ", "trail ",
    "\\#hash", "#hash", "\\!bang", "!bang", "back\\\\slash", "\\[x\\]", "[[]x]", "f[0-9].txt", "f[!0-9].txt", "f[^0-9].txt",
    "f?.txt", "f[[:digit:]].txt", "f[[:alpha:]].txt", "[]]x", "a[+--]b", "ü", "*/ö.txt", ".env*", "/sub/*", "/*\n!/sub", "*",
    "**", "/**", "sub/**/file", "**/dir/file", "**dir/file", "dir", "node_modules/", "/node_modules", "\\*star", "a\\",
    "f[z-a].txt", "f[9-0].txt", "f[!z-a].txt", "*.PY", "A/", "[a-", "\n\n  \n# only\n", "deep/**/p", "***/file", "sub/**\n!sub/dir",
]  # fmt: skip


def ours(text: str) -> Set[str]:
    """What is left: below an ignored folder nothing is asked."""
    ignore = Ignore(text)
    left = set()
    for path in PATHS:
        parts = path.split("/")
        steps = list(itertools.accumulate(parts, lambda a, b: a + "/" + b))
        if not any(ignore.matches(step, step != path) for step in steps):
            left.add(path)
    return left


def test_every_pattern_means_what_it_means_to_git(tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    for path in PATHS:
        file = tmp_path / "tree" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    tree = str(tmp_path / "tree")
    subprocess.run(["git", "init", "-q", tree], check=True, env=env)
    wrong = []
    for text in PATTERNS:
        (tmp_path / "patterns").write_text(text + "\n")
        listed = subprocess.run(
            ["git", "-C", tree, "ls-files", "-z", "--others", "--exclude-from", str(tmp_path / "patterns")],
            check=True, env=env, capture_output=True,
        )  # fmt: skip
        theirs = {path.decode() for path in listed.stdout.split(b"\0") if path}
        if theirs != ours(text):
            wrong.append((text, sorted(theirs ^ ours(text))))
    assert wrong == []
