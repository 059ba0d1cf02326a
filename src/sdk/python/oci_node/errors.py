"""What goes wrong, and what to do about it."""

from __future__ import annotations

from typing import Optional

__all__ = ["OciNodeError", "RemoteError"]


class OciNodeError(Exception):
    """Something that cannot be done as asked.

    message: what, and which; code: the node's own word for it, or `usage`, `no_context`, …; next: what to do, if known.
    """

    def __init__(self, message: str, code: str = "failed", next: Optional[str] = None) -> None:
        super().__init__(message if next is None else "%s. %s" % (message.rstrip("."), next))
        self.message = message
        self.code = code
        self.next = next


class RemoteError(OciNodeError):
    """A handler that raised, in its container.

    type: the exception's class; traceback: as Python printed it there; empty where the caller may not see it.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:
        super().__init__(message, "exception")
        self.type = type
        self.traceback = traceback

    def __str__(self) -> str:
        told = "%s: %s" % (self.type, self.message) if self.message else self.type
        return "%s\n\nIn the container:\n%s" % (told, self.traceback) if self.traceback else told
