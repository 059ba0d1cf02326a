"""The image that a function runs in."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

from .errors import OciNodeError

__all__ = ["Image"]

#: The names of the caller's variables that hold the credential, or the values themselves by name.
Credentials = Union[Sequence[str], Mapping[str, str]]

GOOGLE_KEY = "GOOGLE_APPLICATION_CREDENTIALS"
KEY_FILE_BYTES_MAX = 256 * 1024
NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


class Image:
    """An image of a registry, public or private.

    base_image: its reference, such as `ghcr.io/me/app:1.2`. base_image_creds: for a private one, the names of variables of
    your environment, whose values are read when the endpoint is deployed, or a mapping from names to values; the node
    keeps them encrypted and the container never sees them. secret: a secret of the workspace in place of credentials.
    platform: such as `linux/amd64`; by default the node's.
    """

    def __init__(
        self,
        base_image: str,
        base_image_creds: Optional[Credentials] = None,
        *,
        secret: Optional[str] = None,
        platform: Optional[str] = None,
    ) -> None:
        if not isinstance(base_image, str) or not base_image:
            raise OciNodeError("base_image is %r, no reference of an image" % (base_image,), "usage")
        if base_image_creds is not None and secret is not None:
            raise OciNodeError(
                "secret is given beside base_image_creds",
                "usage",
                "Give one of them: a secret has its credential already.",
            )
        self.base_image = base_image
        self.secret = secret
        self.platform = platform
        self._credentials = _checked(base_image_creds)
        self._id: Optional[str] = None

    @classmethod
    def from_registry(
        cls,
        ref: str,
        creds: Optional[Credentials] = None,
        *,
        secret: Optional[str] = None,
        platform: Optional[str] = None,
    ) -> Image:
        """As `Image(base_image=ref, base_image_creds=creds)`."""
        return cls(ref, creds, secret=secret, platform=platform)

    @classmethod
    def from_id(cls, id: str) -> Image:
        """An image that the workspace has built already: its id, as `oci-node image ls` shows it."""
        image = cls(id)
        image._id = id
        return image

    @property
    def id(self) -> Optional[str]:
        """Of an image that needs no build."""
        return self._id

    def __repr__(self) -> str:
        return "Image.from_id(%r)" % self._id if self._id is not None else "Image(%r)" % self.base_image

    def build_request(self, env: Optional[Mapping[str, str]] = None) -> Dict[str, Any]:
        """What the node is asked to build; reads the variables now. Raises OciNodeError that names a missing one."""
        request: Dict[str, Any] = {"reference": self.base_image}
        if self._credentials is not None:
            request["baseImageCreds"] = read_credentials(
                self._credentials, os.environ if env is None else env
            )
        if self.secret is not None:
            request["secretName"] = self.secret
        if self.platform is not None:
            request["platform"] = self.platform
        return request


def _checked(credentials: Optional[Credentials]) -> Union[List[str], Dict[str, str], None]:
    if credentials is None:
        return None
    if isinstance(credentials, Mapping):
        for name, value in credentials.items():
            if not isinstance(value, str) or not value:
                raise OciNodeError(
                    "base_image_creds has no value for %s" % name,
                    "missing_key",
                    "Give it a text, or leave it out.",
                )
        return dict(credentials)
    # A text is a sequence of texts, too: one name where a list is meant.
    if isinstance(credentials, (str, bytes)) or not all(isinstance(name, str) for name in credentials):
        raise OciNodeError(
            "base_image_creds is neither a list of names of variables nor a mapping from names to values",
            "usage",
            'Write, for example, base_image_creds=["USERNAME", "PASSWORD"].',
        )
    return list(credentials)


def read_credentials(credentials: Union[List[str], Dict[str, str]], env: Mapping[str, str]) -> Dict[str, str]:
    """Raises OciNodeError that names every variable that is missing or empty."""
    if isinstance(credentials, dict):
        return credentials
    missing = [name for name in credentials if not env.get(name)]
    if missing:
        # Somebody may have written a value where a name was asked for: it stays out of the message.
        if not all(NAME.fullmatch(name) for name in missing):
            raise OciNodeError(
                "base_image_creds has something in it that is no name of a variable",
                "unknown_key",
                "Give names in a list, or values in a mapping from names to values.",
            )
        one = len(missing) == 1
        raise OciNodeError(
            "base_image_creds names %s, which %s not set in the environment"
            % (", ".join(missing), "is" if one else "are"),
            "missing_key",
            "Set %s, or leave %s out of base_image_creds." % (", ".join(missing), "it" if one else "them"),
        )
    values = {name: env[name] for name in credentials}
    if GOOGLE_KEY in values and not values[GOOGLE_KEY].lstrip().startswith("{"):
        values[GOOGLE_KEY] = _key_file(values[GOOGLE_KEY])
    return values


def _key_file(path: str) -> str:
    """Google's own tools take a path there; the node, which has no such file, takes what is in it."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(KEY_FILE_BYTES_MAX + 1)
    except (OSError, ValueError):
        text = ""
    if not text or len(text) > KEY_FILE_BYTES_MAX:
        raise OciNodeError(
            "%s names a file that cannot be read, or that is no key" % GOOGLE_KEY,
            "bad_value",
            "Set it to the path of a service account's JSON key.",
        )
    return text
