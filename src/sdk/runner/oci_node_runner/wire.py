"""HTTP/1.1 on a socket: requests read, answers written (RFC 9112). Knows nothing of handlers."""

import socket
import struct

from .messages import Headers, Request

HEAD_BYTES_MAX = 65536
BODY_BYTES_MAX = 1 << 30
READ_BYTES = 65536
#: Between two reads of one request, and for an answer that nobody takes.
STALLED_SECONDS = 300

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
REASONS = {
    200: "OK", 201: "Created", 202: "Accepted", 204: "No Content", 206: "Partial Content",
    301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified", 307: "Temporary Redirect",
    308: "Permanent Redirect", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 409: "Conflict", 413: "Content Too Large", 415: "Unsupported Media Type",
    422: "Unprocessable Content", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
}  # fmt: skip


class BadRequest(Exception):
    """A request that is answered by a status and nothing more: what comes behind it cannot be understood."""

    def __init__(self, status, message):
        Exception.__init__(self, message)
        self.status = status
        self.message = message


class Gone(Exception):
    """Nobody is at the other end any more."""


class Wire:
    """One connection: a request, its answer, the next request."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The kernel's own limits: Python's would ask the kernel twice for each read.
        stalled = struct.pack("ll", STALLED_SECONDS, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, stalled)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, stalled)

    def next(self, began):
        """The next request with whether the connection goes on behind it; None: there is no other.

        began: called when its first byte has come. Raises BadRequest, Gone.
        """
        head = self._head(began)
        if head is None:
            return None
        first, _, rest = head.partition(b"\r\n")
        parts = first.split(b" ")
        if len(parts) != 3 or not parts[0] or not all(byte in TOKEN for byte in parts[0]):
            raise BadRequest(400, "the request line is damaged")
        if parts[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise BadRequest(400, "this is not HTTP/1.1")
        fields = parse_fields(rest)
        headers = Headers(fields)
        keep = parts[2] == b"HTTP/1.1"
        tokens = [token.strip().lower() for token in headers.get("connection", "").split(",")]
        keep = (keep and "close" not in tokens) or (not keep and "keep-alive" in tokens)
        body = self._body(headers, fields)
        path, _, query = parts[1].decode("latin-1").partition("?")
        request = Request(
            parts[0].decode("latin-1"), path, query, None, body, headers.get("x-request-id", "")
        )
        request.headers = headers
        return request, keep, parts[2] == b"HTTP/1.1"

    def send(self, data):
        """Raises Gone."""
        try:
            self.sock.sendall(data)
        except OSError:
            raise Gone()

    def _more(self):
        try:
            data = self.sock.recv(READ_BYTES)
        except OSError:
            raise Gone()
        if not data:
            raise Gone()
        self.buffer += data

    def _head(self, began):
        """Up to the empty line; a connection without a request may idle as long as its other end likes."""
        while not self.buffer:
            try:
                self.buffer = self.sock.recv(READ_BYTES)
            except BlockingIOError:
                continue
            except OSError:
                return None
            if not self.buffer:
                return None
        began()
        while True:
            end = self.buffer.find(b"\r\n\r\n")
            if end > HEAD_BYTES_MAX or (end < 0 and len(self.buffer) > HEAD_BYTES_MAX):
                raise BadRequest(431, "the header is longer than %d bytes" % HEAD_BYTES_MAX)
            if end >= 0:
                head, self.buffer = self.buffer[: end + 2], self.buffer[end + 4 :]
                return head
            self._more()

    def _body(self, headers, fields):
        coding = headers.get("transfer-encoding")
        length = headers.get("content-length")
        if coding is None and length is None:
            return b""
        if coding is not None:
            if length is not None:
                raise BadRequest(400, "both Content-Length and Transfer-Encoding are given")
            if coding.lower() != "chunked":
                raise BadRequest(501, "the transfer coding %s is not known" % coding[:40])
        elif not (length.isascii() and length.isdigit()) or len(length) > 18:
            raise BadRequest(400, "Content-Length is no number")
        elif int(length) > BODY_BYTES_MAX:
            raise BadRequest(413, "the body is larger than %d bytes" % BODY_BYTES_MAX)
        if headers.get("expect", "").lower() == "100-continue":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return self._chunks() if coding is not None else self._exactly(int(length))

    def _exactly(self, size):
        if len(self.buffer) >= size:
            body, self.buffer = self.buffer[:size], self.buffer[size:]
            return body
        parts = bytearray(self.buffer)
        self.buffer = b""
        while len(parts) < size:
            try:
                data = self.sock.recv(min(1 << 20, size - len(parts)))
            except OSError:
                raise Gone()
            if not data:
                raise Gone()
            parts += data
        return bytes(parts)

    def _line(self):
        while True:
            end = self.buffer.find(b"\r\n")
            if end >= 0:
                line, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
                return line
            if len(self.buffer) > HEAD_BYTES_MAX:
                raise BadRequest(400, "a line of the chunked body is too long")
            self._more()

    def _chunks(self):
        body = bytearray()
        while True:
            size = self._line().partition(b";")[0].strip()
            if not size or len(size) > 16 or not all(byte in b"0123456789abcdefABCDEF" for byte in size):
                raise BadRequest(400, "the size of a chunk is damaged")
            length = int(size, 16)
            if length == 0:
                while self._line():
                    pass
                return bytes(body)
            if len(body) + length > BODY_BYTES_MAX:
                raise BadRequest(413, "the body is larger than %d bytes" % BODY_BYTES_MAX)
            body += self._exactly(length)
            if self._exactly(2) != b"\r\n":
                raise BadRequest(400, "a chunk does not end where it says")


def parse_fields(data):
    """Header lines as (name, value), names in lower case. Raises BadRequest."""
    fields = []
    for line in data.split(b"\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(b":")
        if (
            not colon
            or not name
            or not all(byte in TOKEN for byte in name)
            or b"\0" in value
            or b"\n" in value
        ):
            raise BadRequest(400, "a header line is damaged")
        fields.append((name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")))
    counted = [name for name, _ in fields if name in ("content-length", "transfer-encoding", "host")]
    if len(counted) != len(set(counted)):
        raise BadRequest(400, "a header that may stand once is there twice")
    return fields


class Reply:
    """The answer to one request: whole, or begun and then piece by piece."""

    def __init__(self, wire, head_only, keep, chunked):
        self.wire = wire
        self.head_only = head_only
        self.keep = keep
        self.chunked = chunked
        self.begun = False

    def whole(self, status, fields, body):
        """Raises Gone."""
        self.begun = True
        length = [] if status in (204, 304) else [("content-length", str(len(body)))]
        head = self._head(status, fields + length)
        self.wire.send(head if self.head_only or status in (204, 304) else head + body)

    def begin(self, status, fields):
        """Raises Gone. An older client is told the end by the connection's."""
        self.begun = True
        if not self.chunked:
            self.keep = False
        self.wire.send(
            self._head(status, fields + ([("transfer-encoding", "chunked")] if self.chunked else []))
        )

    def piece(self, data):
        """Raises Gone."""
        if data and not self.head_only:
            self.wire.send(b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def end(self):
        """Raises Gone."""
        if self.chunked and not self.head_only:
            self.wire.send(b"0\r\n\r\n")

    def _head(self, status, fields):
        lines = ["HTTP/1.1 %d %s" % (status, REASONS.get(status, ""))]
        lines += ["%s: %s" % field for field in fields]
        if not self.keep:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
