"""Calls of an endpoint as it is deployed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, AsyncIterator, Dict, Iterator, List, Mapping, Optional, Sequence

import httpx

from .context import Context, read_context
from .errors import OciNodeError, RemoteError
from .printable import printable
from .wire import CONNECT_SECONDS, http_client, translated

CALL_TYPE = "application/vnd.oci-node.call+json"
LINES_TYPE = "application/x-ndjson"
#: The node ends a call in time by itself; this is for one that does not.
GRACE_SECONDS = 30.0
DEFAULT_TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Call:
    """name: the endpoint's; timeout_ms: its own, 0 is the node's default, None: as long as the node lets it be."""

    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    timeout_ms: Optional[int]

    @property
    def seconds(self) -> Optional[float]:
        return (
            None
            if self.timeout_ms is None
            else (self.timeout_ms or DEFAULT_TIMEOUT_MS) / 1000 + GRACE_SECONDS
        )

    def request(self, client: "httpx.Client | httpx.AsyncClient") -> httpx.Request:
        try:
            body = json.dumps({"args": list(self.args), "kwargs": dict(self.kwargs)}, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise OciNodeError(
                "an argument of %s is no JSON (%s)" % (self.name, error),
                "usage",
                "Give dict, list, str, int, float, bool or None.",
            ) from None
        headers = {"content-type": CALL_TYPE, "accept": "application/json, application/x-ndjson, */*"}
        return client.build_request("POST", "/endpoint/%s" % self.name, content=body, headers=headers)


def run(call: Call) -> Any:
    """What the function returns. Raises RemoteError, OciNodeError."""
    context = read_context()
    with http_client(context, call.seconds) as client, translated(context):
        return _value(call.name, client.send(call.request(client)))


async def run_async(call: Call) -> Any:
    """As `run`, without blocking."""
    context = read_context()
    async with _async_client(context, call.seconds) as client:
        with translated(context):
            return _value(call.name, await client.send(call.request(client)))


def stream(call: Call) -> Iterator[Any]:
    """What the function yields, as it comes; of one that returns, that alone. Raises RemoteError, OciNodeError."""
    context = read_context()
    with http_client(context, call.seconds) as client, translated(context):
        response = client.send(call.request(client), stream=True)
        try:
            if not _is_stream(response):
                response.read()
                yield _value(call.name, response)
                return
            items = _Items(response)
            for piece in response.iter_bytes():
                yield from items.of(piece)
        finally:
            response.close()


async def stream_async(call: Call) -> AsyncIterator[Any]:
    """As `stream`, without blocking."""
    context = read_context()
    async with _async_client(context, call.seconds) as client:
        with translated(context):
            response = await client.send(call.request(client), stream=True)
            try:
                if not _is_stream(response):
                    await response.aread()
                    yield _value(call.name, response)
                    return
                items = _Items(response)
                async for piece in response.aiter_bytes():
                    for item in items.of(piece):
                        yield item
            finally:
                await response.aclose()


class _Items:
    """Bytes are given as they come; of anything else each line is one value."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = _type(response) == LINES_TYPE
        self._rest = b""

    def of(self, piece: bytes) -> List[Any]:
        if not self._lines:
            return [piece]
        *lines, self._rest = (self._rest + piece).split(b"\n")
        return [json.loads(line) for line in lines]


def _async_client(context: Context, seconds: Optional[float]) -> httpx.AsyncClient:
    secure = context.url.startswith("https:")
    return httpx.AsyncClient(
        base_url=context.url,
        headers={"authorization": "Bearer %s" % context.token, "user-agent": "oci-node-python"},
        verify=context.ssl_context() if secure else True,
        trust_env=secure,
        timeout=httpx.Timeout(seconds, connect=CONNECT_SECONDS),
    )


def _type(response: httpx.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _is_stream(response: httpx.Response) -> bool:
    whole = "content-length" in response.headers or _type(response) == "application/json"
    return response.is_success and not whole


def _value(name: str, response: httpx.Response) -> Any:
    if not response.is_success:
        raise _failure(name, response)
    kind = _type(response)
    if kind == "application/json":
        return response.json()
    if kind == LINES_TYPE:
        return _Items(response).of(response.content)
    return response.text if kind.startswith("text/") else response.content


def _failure(name: str, response: httpx.Response) -> OciNodeError:
    try:
        said = response.json()
    except ValueError:
        said = None
    error: Dict[str, Any] = (
        said["error"] if isinstance(said, dict) and isinstance(said.get("error"), dict) else {}
    )
    message = printable(str(error.get("message") or ""), 4000)
    if response.headers.get("oci-node-error") == "exception" and "type" in error:
        return RemoteError(str(error["type"]), message, printable(str(error.get("traceback") or ""), 65536))
    if response.status_code in (401, 403, 404) and error.get("code") in (
        None,
        "not_found",
        "unauthenticated",
    ):
        return OciNodeError(
            message or "there is no endpoint %s" % name,
            str(error.get("code") or "not_found"),
            "Deploy it: oci-node-py deploy FILE.py:FUNCTION; and check OCI_NODE_TOKEN.",
        )
    shown = message or "the endpoint %s answered with status %d" % (name, response.status_code)
    id = error.get("id")
    return OciNodeError(
        shown + (" (%s)" % printable(str(id), 100) if id else ""), str(error.get("code") or "failed")
    )
