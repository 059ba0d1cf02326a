"""From what a handler returns, or raises, to the answer."""

import json
import os
import re
import sys
from types import GeneratorType

from .call import CALL_TYPE
from .wire import TOKEN, Gone

HERE = os.path.dirname(os.path.abspath(__file__))
TRACEBACK_LENGTH_MAX = 65536
MESSAGE_LENGTH_MAX = 4096

JSON = ("content-type", "application/json")
BYTES = ("content-type", "application/octet-stream")
TEXT = ("content-type", "text/plain; charset=utf-8")
EVENTS = ("content-type", "text/event-stream")
LINES = ("content-type", "application/x-ndjson")
END = object()
LINE_END = re.compile("\r\n|\r|\n")


class BadResult(Exception):
    """What the handler returned is nothing that can be sent."""


def send_result(result, request, reply, peer):
    """Sends what a handler returned. Raises Gone, BadResult, and whatever a generator raises."""
    status, fields, text = 200, [], None
    if getattr(type(result), "__oci_node_response__", False):
        status, fields = result.status, checked_fields(result.headers)
        result = result.body
        # Said by the author: this is the text itself.
        if isinstance(result, str):
            result, text = result.encode("utf-8"), TEXT
    if is_stream(result):
        send_stream(result, request, reply, peer, status, fields)
    elif isinstance(result, (bytes, bytearray, memoryview)):
        reply.whole(status, with_default(fields, text or BYTES), bytes(result))
    else:
        reply.whole(status, with_default(fields, JSON), to_json(result))


def send_failure(error, request, reply):
    """An exception of the handler: its traceback for the log and for the gateway, which shows it to those who may see it.

    Raises Gone where the answer was begun: it is broken off, so that nobody takes it for whole.
    """
    text = describe(error)
    name = " (request %s)" % request.id[:100] if request.id else ""
    sys.stderr.write("oci-node: the handler failed%s\n%s" % (name, text))
    sys.stderr.flush()
    try:
        message = str(error)
    except Exception:
        message = "(no message: __str__ failed)"
    if reply.begun:
        raise Gone()
    told = {"type": type(error).__name__, "message": message[:MESSAGE_LENGTH_MAX]}
    told["traceback"] = text[-TRACEBACK_LENGTH_MAX:]
    fields = [JSON, ("oci-node-error", "exception")]
    reply.whole(500, fields, json.dumps({"error": told}).encode("ascii"))


def send_refusal(refused, reply):
    body = json.dumps({"error": {"code": "bad_call", "message": refused.message}}, ensure_ascii=True)
    reply.whole(refused.status, [JSON], body.encode("ascii"))


def describe(error):
    """The traceback without the runner's own lines."""
    if isinstance(error, BadResult):
        return "%s\n" % error
    frames = error.__traceback__
    while frames is not None and os.path.dirname(frames.tb_frame.f_code.co_filename) == HERE:
        frames = frames.tb_next
    try:
        import traceback

        return "".join(traceback.format_exception(type(error), error, frames))
    except Exception:
        return "%s (its traceback cannot be shown)\n" % type(error).__name__


def is_stream(value):
    return (
        isinstance(value, GeneratorType)
        or hasattr(value, "__anext__")
        or (hasattr(value, "__next__") and not isinstance(value, (str, bytes)))
    )


def send_stream(stream, request, reply, peer, status, fields):
    """A generator, piece by piece as it gives them."""
    items = stream
    if hasattr(stream, "__anext__"):
        from .loop import iterate

        items = iterate(stream, peer)
    try:
        # Before anything is sent: an exception until then is an answer of its own.
        item = next(items, END)
        kind = kind_of(item, request, fields)
        reply.begin(status, with_default(fields, kind) + [("cache-control", "no-cache")] * (kind is EVENTS))
        while item is not END and not reply.head_only:
            reply.piece(encode(item, kind))
            item = next(items, END)
        reply.end()
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def kind_of(first, request, fields):
    said = [value for name, value in fields if name.lower() == "content-type"]
    if said:
        return (
            EVENTS if said[0].startswith("text/event-stream") else BYTES if isinstance(first, bytes) else TEXT
        )
    if isinstance(first, (bytes, bytearray, memoryview)):
        return BYTES
    if request.headers.get("content-type", "").startswith(CALL_TYPE):
        return LINES
    if "text/event-stream" in request.headers.get("accept", ""):
        return EVENTS
    return TEXT if isinstance(first, str) else LINES


def encode(item, kind):
    if kind is LINES:
        return to_json(item) + b"\n"
    if isinstance(item, (bytes, bytearray, memoryview)):
        return bytes(item)
    if kind is EVENTS:
        # An event's data may not hold line ends of its own: each line is told as one.
        lines = LINE_END.split(item) if isinstance(item, str) else [to_json(item).decode("utf-8")]
        return ("".join("data: %s\n" % line for line in lines) + "\n").encode("utf-8")
    return item.encode("utf-8") if isinstance(item, str) else to_json(item) + b"\n"


def to_json(value):
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadResult(
            "what the handler returned is no JSON (%s): return dict, list, str, int, float, bool, None, bytes, "
            "a generator of them or oci_node.Response" % str(error)[:200]
        ) from None


def with_default(fields, content_type):
    return fields if any(name.lower() == "content-type" for name, _ in fields) else fields + [content_type]


def checked_fields(fields):
    """Header fields of a handler's own. Raises BadResult for one that would be read as another, or that is the runner's."""
    for name, value in fields:
        if (
            not isinstance(name, str)
            or not name.isascii()
            or not all(byte in TOKEN for byte in name.encode())
        ):
            raise BadResult("the handler's Response has a header without a proper name: %r" % (name,))
        if not isinstance(value, str) or any(char in value for char in "\r\n\0") or not is_latin(value):
            raise BadResult("the handler's Response has a header %s whose value cannot be sent" % name)
    own = ("content-length", "transfer-encoding", "connection", "oci-node-error")
    return [(name, value) for name, value in fields if name.lower() not in own]


def is_latin(text):
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
