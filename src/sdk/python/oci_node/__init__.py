"""Python functions as HTTP endpoints, in containers from private OCI images."""

from __future__ import annotations

from .endpoint import Deployed, Endpoint, endpoint
from .errors import OciNodeError, RemoteError
from .image import Image
from .messages import Headers, Request, Response

__version__ = "0.1.0"

__all__ = [
    "Deployed",
    "Endpoint",
    "Headers",
    "Image",
    "OciNodeError",
    "RemoteError",
    "Request",
    "Response",
    "endpoint",
    "request_id",
]


def request_id() -> str:
    """Of the request that is being answered, in a container; empty here, and for a request without one."""
    try:
        from oci_node_runner.server import request_id as current  # type: ignore[import-not-found]
    except ImportError:
        return ""
    return str(current.get())
