"""Stands in for the package `oci_node` in an image that does not have it.

A handler's module says with it what it needs; in the container all that is done already. So each name of the package is
here, and what calls the gateway says what it takes.
"""

from oci_node_runner.messages import Headers, Request, Response
from oci_node_runner.server import request_id as _request_id

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


class OciNodeError(Exception):
    """An error of the package, with what to do next."""

    def __init__(self, message, code="failed", next=None):
        Exception.__init__(self, message)
        self.message = message
        self.code = code
        self.next = next


class RemoteError(OciNodeError):
    """A handler that raised, in its container."""

    def __init__(self, type, message, traceback=""):
        OciNodeError.__init__(self, message, "exception")
        self.type = type
        self.traceback = traceback


class Deployed:
    """An endpoint that takes requests."""


class Image:
    """What the image is was settled when the endpoint was deployed."""

    def __init__(self, *args, **kwargs):
        pass

    @classmethod
    def from_registry(cls, *args, **kwargs):
        return cls()

    @classmethod
    def from_id(cls, *args, **kwargs):
        return cls()


class Endpoint:
    """A function that is called as it is."""

    def __init__(self, function):
        self.__oci_node_function__ = function
        self.__wrapped__ = function
        for name in ("__module__", "__name__", "__qualname__", "__doc__"):
            try:
                setattr(self, name, getattr(function, name))
            except AttributeError:
                pass

    def __call__(self, *args, **kwargs):
        return self.__oci_node_function__(*args, **kwargs)

    def _away(self, *args, **kwargs):
        raise OciNodeError(
            "this container's image does not have the package oci_node, which calls endpoints",
            next="Install oci-node in the image, and give the endpoint OCI_NODE_URL and OCI_NODE_TOKEN.",
        )

    remote = remote_async = deploy = _away


def endpoint(function=None, **options):
    return Endpoint if function is None else Endpoint(function)


def request_id():
    """Of the request that is being answered; empty: it has none."""
    return _request_id.get()
