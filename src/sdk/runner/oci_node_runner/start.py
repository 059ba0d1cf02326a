"""The beginning: the module is imported, the function found, then the port listens."""

import importlib
import os
import signal
import sys
import time

from .answer import describe
from .process import end_now
from .server import Server

RUNNER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class StartError(Exception):
    """What is told without a traceback."""


def main():
    began = time.monotonic()
    code = os.environ.get("OCI_NODE_CODE", "/oci-node/code")
    # Neither this program's own modules nor its folder are the user's business.
    sys.path[:] = [code] + [path for path in sys.path if path != RUNNER] + [os.path.join(RUNNER, "stub")]
    # As the first process of its container it would not be ended by a signal that it does not handle.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda number, _: end_now(128 + number))
    try:
        name = required("OCI_NODE_HANDLER")
        sys.argv = [name.partition(":")[0]]
        function = load(name)
        server = Server(
            function,
            os.environ.get("OCI_NODE_HOST") or "0.0.0.0",
            number_of("OCI_NODE_PORT", 8000),
            number_of("OCI_NODE_CONCURRENCY", 1) or 1,
            (number_of("OCI_NODE_TIMEOUT_MS", 60000) or 60000) / 1000,
        )
    except StartError as error:
        sys.stderr.write("oci-node: %s\n" % error)
        end_now(1)
    except OSError as error:
        sys.stderr.write("oci-node: the port cannot be listened on: %s\n" % error)
        end_now(1)
    serve(server, name, began)


def serve(server, name, began):
    """Until a signal asks for the end; what was begun is answered first."""
    asked, ask = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, lambda *_: os.write(ask, b"."))
    server.start()
    sys.stderr.write(
        "oci-node: %s listens on port %d (Python %d.%d.%d, ready in %d ms)\n"
        % ((name, server.port) + sys.version_info[:3] + ((time.monotonic() - began) * 1000,))
    )
    sys.stderr.flush()
    os.read(asked, 1)
    server.stop()
    sys.exit(0)


def load(name):
    """The function that `module:function` names. Raises StartError, which has what failed in it."""
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module_name.partition(".")[0]:
            raise StartError("there is no module %s in the uploaded code" % module_name) from None
        sys.stderr.write(describe_import(error))
        raise StartError("importing %s failed" % module_name) from None
    found = getattr(module, function_name, None)
    # What the decorator made of it is for the caller's side.
    found = getattr(found, "__oci_node_function__", found)
    if not callable(found):
        what = (
            "has no %s" % function_name if found is None else "has %s, which is no function" % function_name
        )
        raise StartError("the module %s %s" % (module_name, what))
    return found


def describe_import(error):
    """The traceback without importlib's and the runner's lines."""
    frames = error.__traceback__
    while frames is not None and (
        frames.tb_frame.f_code.co_filename.startswith(("<frozen importlib", RUNNER))
        or frames.tb_frame.f_globals.get("__name__") == "importlib"
    ):
        frames = frames.tb_next
    return describe(error.with_traceback(frames))


def required(name):
    value = os.environ.get(name)
    if not value:
        raise StartError("%s is not set" % name)
    return value


def number_of(name, otherwise):
    value = os.environ.get(name) or str(otherwise)
    if not value.isdigit():
        raise StartError("%s is %r, no number" % (name, value))
    return int(value)
