"""The client against servers that answer as the protocol says, and as it does not."""

import base64
import json
import struct
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from oci_node import OciNodeError
from oci_node.context import Context
from oci_node.wire import Node


def envelope(message: Any, flags: int = 0) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack(">BI", flags, len(data)) + data


@contextmanager
def node(answer: Callable[[bytes], Tuple[int, bytes]]) -> Iterator[Node]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = b""
            if self.headers.get("transfer-encoding") == "chunked":
                while True:
                    size = int(self.rfile.readline(), 16)
                    body += self.rfile.read(size)
                    self.rfile.readline()
                    if size == 0:
                        break
            else:
                body = self.rfile.read(int(self.headers["content-length"]))
            status, data = answer(body)
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        with Node(Context("http://127.0.0.1:%d" % server.server_port, "planted")) as client:
            yield client
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(call: Callable[[], Any]) -> OciNodeError:
    with pytest.raises(OciNodeError) as caught:
        call()
    assert "planted" not in str(caught.value)
    return caught.value


def test_errors_carry_the_nodes_own_code_and_next_step() -> None:
    fields = [b"\x0a\x05image", b"\x12\x09not_found", b"\x1a\x0cBuild it: a."]
    detail = {
        "type": "oci_node.v1.ErrorDetail",
        "value": base64.b64encode(b"".join(fields)).decode().rstrip("="),
    }
    error = {"code": "not_found", "message": "there is no image\x1b[2J", "details": [detail]}
    with node(lambda _: (404, json.dumps(error).encode())) as client:
        told = refused(lambda: client.call("ImageService/GetImage", {}))
    assert (told.message, told.code, told.next) == (
        "there is no image\\u{1b}[2J",
        "not_found",
        "Build it: a.",
    )
    with node(lambda _: (200, envelope({}) + envelope({"error": error}, 2))) as client:
        messages: List[Any] = []
        told = refused(lambda: messages.extend(client.stream("ImageService/BuildImage", {})))
        assert told.code == "not_found"
    with node(lambda _: (401, b'{"code":"unauthenticated","message":"the token is not known"}')) as client:
        assert "OCI_NODE_TOKEN" in (refused(lambda: client.call("A/B", {})).next or "")


def test_streams_go_both_ways_in_envelopes() -> None:
    seen: List[bytes] = []

    def answer(body: bytes) -> Tuple[int, bytes]:
        seen.append(body)
        return 200, envelope({"n": 1}) + envelope({"n": 2}) + envelope({}, 2)

    with node(answer) as client:
        assert list(client.stream("A/B", {"q": 1})) == [{"n": 1}, {"n": 2}]
        assert refused(lambda: client.upload("A/B", [{"a": 1}])).code == "protocol"
    assert seen == [envelope({"q": 1}), envelope({"a": 1})]
    with node(lambda _: (200, envelope({"ok": True}) + envelope({}, 2))) as client:
        assert client.upload("A/B", ({"i": i} for i in range(3))) == {"ok": True}


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (200, b"<html>", "protocol"),
        (502, b"<html>", "protocol"),
        (200, b"[]", "protocol"),
        (302, b"", "protocol"),
    ],
)
def test_what_is_no_node_is_told(status: int, body: bytes, code: str) -> None:
    with node(lambda _: (status, body)) as client:
        assert refused(lambda: client.call("A/B", {})).code == code


def test_a_stream_that_breaks_off_or_lies_about_its_size_is_an_error() -> None:
    for body in [
        b"",
        envelope({"n": 1}),
        envelope({"n": 1})[:-1],
        struct.pack(">BI", 0, 1 << 31),
        b"\x01\x00\x00\x00\x00",
    ]:
        with node(lambda _, body=body: (200, body)) as client:
            assert refused(lambda: list(client.stream("A/B", {}))).code in ("unavailable", "protocol")


def test_a_node_that_does_not_answer_is_told() -> None:
    with Node(Context("http://127.0.0.1:1", "planted")) as client:
        assert (
            refused(lambda: client.call("A/B", {})).message
            == "the node at http://127.0.0.1:1 does not answer"
        )
