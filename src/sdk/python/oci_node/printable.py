"""Text of foreign origin on a terminal."""

from __future__ import annotations

import unicodedata


def printable(text: str, length_max: int) -> str:
    """Characters that do not show as themselves are written as `\\u{…}`; what is longer is cut."""
    cut = text if len(text) <= length_max else "%s… (%d characters)" % (text[:length_max], len(text))
    return "".join(
        char
        if char == "\n" or unicodedata.category(char) not in ("Cc", "Cf", "Zl", "Zp", "Cs")
        else "\\u{%x}" % ord(char)
        for char in cut
    )


def format_size(size_bytes: int) -> str:
    """`0 B`, `18.2 MiB`."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return "%d B" % size_bytes if unit == "B" else "%.1f %s" % (value, unit)
