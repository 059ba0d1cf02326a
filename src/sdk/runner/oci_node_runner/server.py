"""The server: a thread for each connection, which calls the handler itself.

A gateway's connections are few and are kept, and no more requests come at once than the endpoint's concurrency: there is
nothing that a thread would have to be handed over to, which is what a call costs most.
"""

import contextvars
import socket
import sys
import threading
import time

from .answer import send_failure, send_refusal, send_result
from .call import arguments_of
from .process import end_process
from .target import Target
from .watchdog import Watchdog
from .wire import BadRequest, Gone, Reply, Wire

#: Connections beside those that have a request: pooled ones, a worker that looks whether the port answers.
SPARE_CONNECTIONS = 128
STACK_BYTES = 8 << 20

request_id = contextvars.ContextVar("oci_node_request_id", default="")


class Peer:
    """A connection as the server keeps it."""

    def __init__(self, sock):
        self.sock = sock
        #: It has a request: from that one's first byte to the end of its answer.
        self.busy = False
        #: Nothing more is read from it.
        self.shut = False

    def is_gone(self):
        """Whether the other end has hung up; what it has sent stays where it is."""
        if self.shut:
            return False
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def shut_down(self):
        self.shut = True
        shut(self.sock, socket.SHUT_RD)


class Server:
    """Listens from its making; `start` takes connections. port: 0 is any free one."""

    def __init__(self, function, host, port, concurrency, timeout_seconds):
        self.target = Target(function)
        self.slots = threading.BoundedSemaphore(concurrency)
        self.room = threading.BoundedSemaphore(concurrency + SPARE_CONNECTIONS)
        self.watchdog = Watchdog(timeout_seconds, concurrency)
        self.changed = threading.Condition()
        self.peers = set()
        self.stopping = False
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind((host, port))
        self.listener.listen(1024)
        # As much as the main thread has: with some C libraries threads have far less, which a deep recursion finds out.
        threading.stack_size(STACK_BYTES)
        self.port = self.listener.getsockname()[1]

    def start(self):
        threading.Thread(target=self._accept, name="oci-node-accept", daemon=True).start()

    def stop(self):
        """Takes no new connection; returns once what was asked is answered."""
        with self.changed:
            self.stopping = True
            for peer in self.peers:
                # A request that has arrived already is still read.
                if not peer.busy:
                    peer.shut_down()
        shut(self.listener, socket.SHUT_RDWR)
        self.listener.close()
        with self.changed:
            while self.peers:
                self.changed.wait()

    def _accept(self):
        while not self.stopping:
            self.room.acquire()
            try:
                sock, _ = self.listener.accept()
            except OSError:
                self.room.release()
                # Out of file descriptors, most likely: some are closed in time.
                time.sleep(0 if self.stopping else 0.05)
                continue
            peer = Peer(sock)
            with self.changed:
                self.peers.add(peer)
                if self.stopping:
                    peer.shut_down()
            try:
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()
            except RuntimeError as error:
                sys.stderr.write("oci-node: no thread for a connection: %s\n" % error)
                self._forget(peer)

    def _forget(self, peer):
        # A process that the handler has forked may have the socket, too: the other end must see the end all the same.
        shut(peer.sock, socket.SHUT_RDWR)
        peer.sock.close()
        with self.changed:
            self.peers.discard(peer)
            self.changed.notify_all()
        self.room.release()

    def _serve(self, peer):
        try:
            wire = Wire(peer.sock)
            while self._one(wire, peer):
                pass
        except (Gone, OSError):
            pass
        finally:
            self._forget(peer)

    def _begin(self, peer):
        peer.busy = True

    def _one(self, wire, peer):
        """One request; gives whether there may be another."""
        try:
            found = wire.next(lambda: self._begin(peer))
        except BadRequest as refused:
            # Where the next request would begin is not known.
            send_refusal(refused, Reply(wire, False, False, True))
            return False
        if found is None:
            return False
        request, keep, chunked = found
        reply = Reply(wire, request.method == "HEAD", keep and not self.stopping, chunked)
        if not self.slots.acquire(blocking=False):
            self.slots.acquire()
            if peer.is_gone():
                self.slots.release()
                return False
        self.watchdog.begin(peer, request)
        try:
            # What a handler keeps for its request is not there for the next.
            contextvars.copy_context().run(self._handle, request, reply, peer)
        finally:
            self.watchdog.end(peer)
            self.slots.release()
        with self.changed:
            peer.busy = False
            return reply.keep and not self.stopping

    def _handle(self, request, reply, peer):
        request_id.set(request.id)
        try:
            args, kwargs = arguments_of(self.target, request)
        except BadRequest as refused:
            return send_refusal(refused, reply)
        try:
            result = self.target.function(*args, **kwargs)
            if hasattr(type(result), "__await__"):
                from .loop import wait_for

                result = wait_for(result, peer)
            send_result(result, request, reply, peer)
        except Gone:
            raise
        except SystemExit as error:
            end_process(error.code)
        except BaseException as error:
            if peer.is_gone():
                raise Gone() from None
            send_failure(error, request, reply)


def shut(sock, how):
    try:
        sock.shutdown(how)
    except OSError:
        pass
