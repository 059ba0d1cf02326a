"""How far a long piece of work is, on standard error: one line that is redrawn on a terminal, plain lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from typing import Dict, Optional, Set, TextIO, Tuple

from .printable import format_size, printable

REDRAW_SECONDS = 0.1


class Progress:
    def __init__(self, quiet: bool = False, out: Optional[TextIO] = None) -> None:
        self._out = sys.stderr if out is None else out
        self._quiet = quiet
        self._terminal = self._out.isatty()
        self._lock = threading.Lock()
        self._drawn = False
        self._drawn_at = 0.0
        self._last = ""
        self._parts: Dict[str, Tuple[int, int]] = {}
        self._told: Set[str] = set()

    def step(self, text: str) -> None:
        """Something that has begun, or has been done; from any thread. A text that is the last one's is told once."""
        with self._lock:
            if self._quiet or text == self._last:
                return
            self._last = text
            self.clear()
            self._out.write("%s\n" % printable(text, 500))
            self._out.flush()

    def part(self, label: str, done: int, total: int) -> None:
        """One of the things that go on side by side; told as a whole on a terminal, once it is done elsewhere."""
        if self._quiet or total <= 0:
            return
        self._parts[label] = (min(done, total), total)
        if not self._terminal:
            if done >= total and label not in self._told:
                self._told.add(label)
                self._out.write("%s: %s\n" % (printable(label, 100), format_size(total)))
            return
        now = time.monotonic()
        if now - self._drawn_at >= REDRAW_SECONDS:
            self._drawn_at = now
            self._draw()

    def end(self) -> None:
        self.clear()
        self._parts.clear()

    def clear(self) -> None:
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()
            self._drawn = False

    def _draw(self) -> None:
        done = sum(part for part, _ in self._parts.values())
        total = sum(whole for _, whole in self._parts.values())
        finished = sum(part >= whole for part, whole in self._parts.values())
        filled = 24 * done // total
        line = "%s%s %s of %s, %d of %d layers" % (
            "█" * filled, "░" * (24 - filled), format_size(done), format_size(total), finished, len(self._parts),
        )  # fmt: skip
        columns = shutil.get_terminal_size().columns
        self._out.write("\r\x1b[K%s" % line[: max(1, columns - 1)])
        self._out.flush()
        self._drawn = True
