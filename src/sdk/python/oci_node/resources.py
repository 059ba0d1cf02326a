"""How much of a machine: `cpu=0.5`, `memory="512Mi"`."""

from __future__ import annotations

import re
from typing import Optional, Union

from .errors import OciNodeError

UNITS = {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
}


def parse_cpu(value: Union[int, float, str, None]) -> int:
    """Thousandths of a CPU of `1`, `0.5`, `"500m"`, `"1.5"`; 0: no limit. Raises OciNodeError."""
    millis: Optional[float] = None
    if value is None:
        return 0
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        millis = value * 1000
    elif isinstance(value, str):
        match = re.fullmatch(r"(\d+)m|(\d+(?:\.\d+)?)", value.strip())
        if match is not None:
            millis = float(match.group(1)) if match.group(1) else float(match.group(2)) * 1000
    if millis is None or not 1 <= millis <= 1_000_000:
        raise OciNodeError(
            "cpu is %r" % (value,), "usage", 'Write a number of CPUs, such as 1, 0.5 or "500m".'
        )
    return round(millis)


def parse_memory(value: Union[int, str, None]) -> int:
    """Bytes of `"512Mi"`, `"1.5Gi"`, `"2G"`; a number without a unit is of MiB; 0: no limit. Raises OciNodeError."""
    size: Optional[float] = None
    if value is None:
        return 0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value * UNITS["Mi"]
    elif isinstance(value, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]|[KMGT]i)B?", value.strip())
        if match is not None:
            size = float(match.group(1)) * UNITS[match.group(2)]
    if size is None or not UNITS["Mi"] <= size <= 1 << 50:
        raise OciNodeError(
            "memory is %r" % (value,), "usage", 'Write it with its unit, such as "512Mi" or "2Gi".'
        )
    return round(size)


def parse_seconds(name: str, value: Union[int, float, None]) -> int:
    """Milliseconds; 0: the node's default. Raises OciNodeError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.001 <= value <= 86_400:
        raise OciNodeError(
            "%s is %r" % (name, value), "usage", "Write seconds, more than 0 and at most 86400."
        )
    return round(value * 1000)


def parse_count(name: str, value: Optional[int], least: int) -> int:
    """0: the node's default. Raises OciNodeError."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 1_000_000:
        raise OciNodeError("%s is %r" % (name, value), "usage", "Write a whole number from %d." % least)
    return value
