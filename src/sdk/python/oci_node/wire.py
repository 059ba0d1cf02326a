"""Connect over HTTP/1.1 with JSON, as far as the node's API needs it (https://connectrpc.com/docs/protocol)."""

from __future__ import annotations

import base64
import json
import socket
import struct
import urllib.request
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Dict, Iterable, Iterator, Optional, Type

import httpx

from .context import Context
from .errors import OciNodeError
from .printable import printable

__all__ = ["Message", "Node", "http_client", "translated"]

Message = Dict[str, Any]

END = 0x02
COMPRESSED = 0x01
#: Of a message that the node sends; what it says of an image or an endpoint is far smaller.
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
UNARY_SECONDS = 120.0
CONNECT_SECONDS = 10.0

#: A peer that is gone without a word is noticed in about 45 s, however long a stream may be silent.
KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
]


def http_client(context: Context, read_seconds: Optional[float]) -> httpx.Client:
    """Requests with the token. Proxies of the environment are for TLS only: they would read the token otherwise."""
    secure = context.url.startswith("https:")
    verify: Any = context.ssl_context() if secure else True
    proxied = secure and bool(urllib.request.getproxies().get("https"))
    return httpx.Client(
        base_url=context.url,
        headers={"authorization": "Bearer %s" % context.token, "user-agent": "oci-node-python"},
        verify=verify,
        trust_env=secure,
        follow_redirects=False,
        timeout=httpx.Timeout(read_seconds, connect=CONNECT_SECONDS),
        transport=None if proxied else httpx.HTTPTransport(verify=verify, socket_options=KEEPALIVE),
    )


class Node:
    """The node's API. Every call raises OciNodeError."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self._client = http_client(context, None)

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._client.close()

    def call(self, method: str, message: Message) -> Message:
        """One message for another. method: `EndpointService/GetEndpoint`."""
        with translated(self.context):
            response = self._client.post(
                path_of(method),
                json=message,
                headers={"connect-protocol-version": "1"},
                timeout=httpx.Timeout(UNARY_SECONDS, connect=CONNECT_SECONDS),
            )
        if response.status_code != 200:
            raise error_of(_json(response.content), response.status_code)
        return _message(_json(response.content))

    def stream(self, method: str, message: Message) -> Iterator[Message]:
        """One message for many. Ending the iteration early ends the call."""
        with translated(self.context), self._open(method, [envelope(message)]) as response:
            yield from _answers(response)

    def upload(self, method: str, messages: Iterable[Message]) -> Message:
        """Many messages for one."""
        envelopes = (envelope(message) for message in messages)
        with translated(self.context), self._open(method, envelopes) as response:
            answers = list(_answers(response))
        if len(answers) != 1:
            raise OciNodeError("the node's answer to %s is not what it should be" % method, "protocol")
        return answers[0]

    @contextmanager
    def _open(self, method: str, envelopes: Iterable[bytes]) -> Iterator[httpx.Response]:
        headers = {"content-type": "application/connect+json", "connect-protocol-version": "1"}
        with self._client.stream(
            "POST", path_of(method), content=iter(envelopes), headers=headers
        ) as response:
            if response.status_code != 200:
                raise error_of(_json(response.read()), response.status_code)
            yield response


def path_of(method: str) -> str:
    return "/oci_node.v1.%s" % method


def envelope(message: Message) -> bytes:
    data = json.dumps(message).encode("utf-8")
    return struct.pack(">BI", 0, len(data)) + data


def _answers(response: httpx.Response) -> Iterator[Message]:
    """The messages of a stream; the last envelope says whether it went well."""
    buffer = b""
    for chunk in response.iter_bytes():
        buffer += chunk
        while len(buffer) >= 5:
            flags, size = struct.unpack(">BI", buffer[:5])
            if size > MESSAGE_BYTES_MAX or flags & COMPRESSED:
                raise OciNodeError("the node sent a message that cannot be read", "protocol")
            if len(buffer) < 5 + size:
                break
            data, buffer = buffer[5 : 5 + size], buffer[5 + size :]
            if flags & END:
                error = _message(_json(data)).get("error")
                if error is not None:
                    raise error_of(error, 200)
                return
            yield _message(_json(data))
    raise OciNodeError("the connection to the node broke off", "unavailable", "Try again.")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data) if data else {}
    except ValueError:
        return None


def _message(value: Any) -> Message:
    if not isinstance(value, dict):
        raise OciNodeError("what answers at OCI_NODE_URL is no oci-node", "protocol", "Check OCI_NODE_URL.")
    return value


def error_of(said: Any, status: int) -> OciNodeError:
    """A Connect error with the node's own code and next step, which stand in its details."""
    if not isinstance(said, dict) or not isinstance(said.get("code"), str):
        return OciNodeError(
            "what answers at OCI_NODE_URL is no oci-node (HTTP status %d)" % status,
            "protocol",
            "Check OCI_NODE_URL.",
        )
    code = said["code"]
    message = printable(str(said.get("message") or code), 2000)
    for detail in said.get("details") or []:
        if isinstance(detail, dict) and detail.get("type") == "oci_node.v1.ErrorDetail":
            fields = _strings(str(detail.get("value") or ""))
            return OciNodeError(message, fields.get(2) or code, printable(fields.get(3, ""), 2000) or None)
    known = {
        "unauthenticated": "Check OCI_NODE_TOKEN. An owner or an administrator makes another: `oci-node token create`.",
        "unimplemented": "Upgrade the node: it is of an earlier version than this package.",
        "unavailable": "Start the node with `oci-node dev`, or check OCI_NODE_URL.",
    }
    return OciNodeError(message, code, known.get(code))


def _strings(encoded: str) -> Dict[int, str]:
    """The string fields of a protobuf message in base64, by number; what is damaged has none."""
    try:
        data = base64.b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        return {}
    fields: Dict[int, str] = {}
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            if tag & 7 != 2:
                return fields
            size, at = _varint(data, at)
            fields[tag >> 3] = data[at : at + size].decode("utf-8", "replace")
            at += size
    except IndexError:
        pass
    return fields


def _varint(data: bytes, at: int) -> "tuple[int, int]":
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


@contextmanager
def translated(context: Context) -> Iterator[None]:
    """httpx's errors as ours: a message of theirs may hold a URL, never a token."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        if "CERTIFICATE" in str(error).upper():
            raise OciNodeError(
                "the certificate of %s is not one that this machine trusts (%s)" % (context.url, error),
                "tls",
                "Set OCI_NODE_CA_FILE to a PEM file with its authority's certificate, and check the name in OCI_NODE_URL.",
            ) from None
        raise OciNodeError(
            "the node at %s does not answer" % context.url,
            "unavailable",
            "Start it with `oci-node dev`, or check OCI_NODE_URL.",
        ) from None
    except httpx.TimeoutException:
        raise OciNodeError(
            "the node at %s did not answer in time" % context.url, "timeout", "Try again."
        ) from None
    except httpx.HTTPError as error:
        raise OciNodeError(
            "the connection to %s broke off (%s)" % (context.url, type(error).__name__),
            "unavailable",
            "Try again.",
        ) from None
