"""What a handler may be given and may return beside plain values.

The same text stands in the package `oci_node` and in the runner: it needs Python 3.8 and the standard library.
"""

from __future__ import annotations

import json

# What only types need is not imported where handlers run: a start is a matter of milliseconds.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple, Union

    _Fields = Mapping[str, str]
else:
    from collections.abc import Mapping

    _Fields = Mapping

__all__ = ["Headers", "Request", "Response"]


class Headers(_Fields):
    """Header fields by name, upper and lower case alike; fields of one name are joined by a comma."""

    __slots__ = ("_fields",)

    def __init__(self, fields: List[Tuple[str, str]]) -> None:
        self._fields: Dict[str, str] = {}
        for name, value in fields:
            key = name.lower()
            known = self._fields.get(key)
            self._fields[key] = value if known is None else "%s, %s" % (known, value)

    def __getitem__(self, name: str) -> str:
        return self._fields[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        # Values may be cookies or tokens of the caller.
        return "Headers(%s)" % ", ".join(self._fields)


class Request:
    """An HTTP request as it came: given to a handler whose one parameter is named `request`.

    path: what stands behind the endpoint's name, percent-encoded as it came; query_string: behind `?`, likewise.
    """

    __slots__ = ("method", "path", "query_string", "headers", "body", "id")

    def __init__(
        self,
        method: str = "GET",
        path: str = "/",
        query_string: str = "",
        headers: Optional[Mapping[str, str]] = None,
        body: bytes = b"",
        id: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers: Mapping[str, str] = Headers(list((headers or {}).items()))
        self.body = body
        self.id = id

    @property
    def query(self) -> Dict[str, str]:
        """Of a name that stands there more than once, the last value."""
        from urllib.parse import parse_qsl

        return dict(parse_qsl(self.query_string, keep_blank_values=True))

    def text(self) -> str:
        """The body as UTF-8. Raises UnicodeDecodeError."""
        return self.body.decode("utf-8")

    def json(self) -> Any:
        """The body as JSON. Raises ValueError."""
        return json.loads(self.body)

    def __repr__(self) -> str:
        return "Request(%s %s, %d bytes)" % (self.method, self.path, len(self.body))


class Response:
    """An answer with a status and header fields of its own.

    body: bytes as they are, str as UTF-8 text, anything else as JSON, a generator piece by piece.
    """

    __slots__ = ("body", "status", "headers")
    __oci_node_response__ = True

    def __init__(
        self,
        body: Any = b"",
        status: int = 200,
        headers: Optional[Union[Mapping[str, str], List[Tuple[str, str]]]] = None,
        content_type: Optional[str] = None,
    ) -> None:
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise ValueError("the status is %r: it must be a number from 200 to 599" % (status,))
        fields = list(headers.items()) if isinstance(headers, Mapping) else list(headers or [])
        if content_type is not None:
            fields = [field for field in fields if field[0].lower() != "content-type"]
            fields.append(("content-type", content_type))
        self.body = body
        self.status = status
        self.headers: List[Tuple[str, str]] = fields

    def __repr__(self) -> str:
        return "Response(status=%d)" % self.status
