"""Handlers that never return.

A thread cannot be ended from outside. Its caller has been answered by the gateway when the request's time was over, but the
handler would keep its place for ever. So the program ends once nothing else is in work, and another container takes over.
"""

import sys
import threading
import time

from .process import end_now

#: As timeout(1) has it.
EXIT_CODE = 124
LOOK_SECONDS = 0.2


class Watchdog:
    """timeout_seconds: the endpoint's, from a request's arrival to the end of its answer."""

    def __init__(self, timeout_seconds, concurrency):
        self.timeout_seconds = timeout_seconds
        self.concurrency = concurrency
        self.in_work = {}
        self.awake = threading.Event()
        threading.Thread(target=self._watch, name="oci-node-watchdog", daemon=True).start()

    def begin(self, peer, request):
        self.in_work[peer] = (time.monotonic(), threading.get_ident(), request)
        if not self.awake.is_set():
            self.awake.set()

    def end(self, peer):
        self.in_work.pop(peer, None)

    def _watch(self):
        while True:
            self.awake.wait()
            if not self.in_work:
                self.awake.clear()
            if self.in_work:
                self.awake.set()
            time.sleep(min(LOOK_SECONDS, self.timeout_seconds))
            self._look(list(self.in_work.items()))

    def _look(self, in_work):
        over = time.monotonic() - self.timeout_seconds
        stuck = [(peer, work) for peer, work in in_work if work[0] < over and peer.is_gone()]
        if not stuck or (len(stuck) < len(in_work) and len(stuck) < self.concurrency):
            return
        import traceback

        frames = sys._current_frames()
        for peer, (_, thread, request) in stuck:
            if peer not in self.in_work:
                return
            stack = "".join(traceback.format_stack(frames[thread])) if thread in frames else ""
            sys.stderr.write(
                "oci-node: the handler has not returned after %g s, and nobody waits any more%s\n%s"
                % (
                    self.timeout_seconds,
                    " (request %s)" % request.id[:100] if request.id else "",
                    own_part(stack),
                )
            )
        sys.stderr.write("oci-node: the program ends with %d: a thread cannot be ended alone\n" % EXIT_CODE)
        end_now(EXIT_CODE)


def own_part(stack):
    """What is below the runner's last line: the handler's."""
    lines = stack.splitlines(True)
    starts = [at for at, line in enumerate(lines) if line.startswith("  File ")]
    own = [at for at in starts if "oci_node_runner" not in lines[at] and "threading.py" not in lines[at]]
    return "".join(lines[own[0] :]) if own else ""
