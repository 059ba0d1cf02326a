"""Where a function's code is: the folder that is uploaded and the name of its module in it."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Optional, Tuple

from .errors import OciNodeError

if TYPE_CHECKING:
    from .endpoint import Endpoint

MODULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")


@dataclass(frozen=True)
class Source:
    """root: the folder, absolute; handler: `module:function`."""

    root: str
    module: str
    function: str

    @property
    def handler(self) -> str:
        return "%s:%s" % (self.module, self.function)

    @property
    def file(self) -> str:
        """Of the module, from the root, with `/`."""
        path = self.module.replace(".", "/")
        return (
            path + ".py" if os.path.isfile(os.path.join(self.root, path + ".py")) else path + "/__init__.py"
        )


def source_of(function: Callable[..., Any], root: Optional[str] = None) -> Source:
    """Of a function in this program. Raises OciNodeError for one that is in no file, or not at the top of its module."""
    name = getattr(function, "__qualname__", "")
    try:
        file = inspect.getsourcefile(inspect.unwrap(function))
    except TypeError:
        file = None
    if file is None or not os.path.isfile(file):
        raise OciNodeError("%s is in no file that could be uploaded" % (name or function), "usage")
    if "." in name:
        raise OciNodeError(
            "%s is inside of another function or class" % name, "usage", "Put it at the top of its module."
        )
    found_root, module = locate(file, root)
    return Source(found_root, module, name)


def locate(file: str, root: Optional[str]) -> Tuple[str, str]:
    """The folder to upload and the module's name in it. By default the file's folder, or that of its outermost package."""
    file = os.path.realpath(file)
    if root is None:
        folder = os.path.dirname(file)
        while os.path.isfile(os.path.join(folder, "__init__.py")) and os.path.dirname(folder) != folder:
            folder = os.path.dirname(folder)
    else:
        folder = os.path.realpath(root)
        if not os.path.isdir(folder):
            raise OciNodeError("%s is no folder" % root, "usage", "Give the folder to upload by --root.")
    relative = os.path.relpath(file, folder)
    if relative.startswith(".." + os.sep):
        raise OciNodeError(
            "%s is not in %s" % (file, folder), "usage", "Give a folder by --root that the file is in."
        )
    parts = relative[: -len(".py")].split(os.sep)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts = parts[:-1]
    module = ".".join(parts)
    if not file.endswith(".py") or MODULE.fullmatch(module) is None:
        raise OciNodeError(
            "%s is no file that Python could import" % relative,
            "usage",
            "Give it a name of letters, digits and _ that ends in .py.",
        )
    return folder, module


def _traceback(error: BaseException) -> str:
    """From the user's own module on: where it failed is what he needs, not how it came to be imported."""
    frames = error.__traceback__
    while frames is not None and (
        frames.tb_frame.f_code.co_filename.startswith("<frozen")
        or frames.tb_frame.f_globals.get("__name__") in ("importlib", __name__)
    ):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).rstrip("\n")


def load(target: str, root: Optional[str]) -> "Tuple[Endpoint[Any, Any, Any], Source]":
    """The endpoint that `FILE.py:FUNCTION` names; imports the file, as it will be imported in the container.

    Raises OciNodeError; where the file's own code fails, its traceback is the message.
    """
    file, colon, name = target.rpartition(":")
    if not colon or not file or not name.isidentifier():
        raise OciNodeError(
            "%s does not name a function" % target, "usage", "Write FILE.py:FUNCTION, such as app.py:handler."
        )
    if not os.path.isfile(file):
        raise OciNodeError(
            "there is no file %s" % file, "usage", "Write FILE.py:FUNCTION, such as app.py:handler."
        )
    folder, module_name = locate(file, root)
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except OciNodeError:
        raise
    except Exception as error:
        raise OciNodeError("importing %s failed:\n%s" % (file, _traceback(error)), "import_failed") from None
    if os.path.realpath(getattr(module, "__file__", None) or "") != os.path.realpath(file):
        raise OciNodeError(
            "Python has another module %s than %s" % (module_name, file),
            "usage",
            "Give the file another name.",
        )
    found = getattr(module, name, None)
    from .endpoint import Endpoint

    if not isinstance(found, Endpoint):
        others = sorted(key for key, value in vars(module).items() if isinstance(value, Endpoint))
        what = "there is no %s in %s" if found is None else "%s in %s is no endpoint"
        raise OciNodeError(
            what % (name, file),
            "usage",
            "It has %s." % ", ".join(others) if others else "Put @endpoint(image=…) before the function.",
        )
    return found, Source(folder, module_name, name)
