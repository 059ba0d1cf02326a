"""What the containers of a deployment do until one of them answers."""

from __future__ import annotations

import threading
from typing import Any, Iterable, List, Set

from .context import Context
from .errors import OciNodeError
from .printable import printable
from .progress import Progress
from .wire import Message, Node

ENDED = ("EXITED", "FAILED", "STOPPED")


class Follower:
    """A line for each step of each container, from a thread of its own: whoever waits for the deployment waits for more."""

    def __init__(self, context: Context, deployment_id: str, progress: Progress) -> None:
        self._context = context
        self._deployment_id = deployment_id
        self._progress = progress
        self._seen: Set[str] = set()
        self._ended = False

    def see(self, container_ids: Iterable[Any]) -> None:
        for id in map(str, container_ids):
            if id not in self._seen:
                self._seen.add(id)
                threading.Thread(target=self._follow, args=(id,), daemon=True).start()

    def end(self) -> None:
        """Nothing is told any more; a thread that waits ends with its stream, or with the program."""
        self._ended = True

    def _follow(self, id: str) -> None:
        try:
            with Node(self._context) as node:
                for event in node.stream("ContainerService/WatchContainer", {"id": id}):
                    container = event.get("container") or {}
                    if self._ended or container.get("deploymentId") != self._deployment_id:
                        return
                    state = str(container.get("state") or "").replace("CONTAINER_STATE_", "")
                    if state == "PENDING":
                        container = (
                            node.call("ContainerService/GetContainer", {"id": id}).get("container") or {}
                        )
                    if self._ended or container.get("readyAt") or state in ENDED:
                        return
                    self._progress.step("container: %s" % _told(state, container))
        except OciNodeError:
            # Whoever waits for the deployment tells what there is to be told.
            return


def _told(state: str, container: Message) -> str:
    if state != "PENDING":
        return state.lower()
    events: List[Message] = container.get("events") or []
    waits = [str(event.get("message")) for event in events if event.get("kind") == "queue"]
    return printable(waits[-1], 300) if waits else "queued"
