"""Which node, and what opens it: as `oci-node` itself finds them."""

from __future__ import annotations

import json
import os
import re
import ssl
import stat
from dataclasses import dataclass, field
from typing import Mapping, Optional
from urllib.parse import urlsplit

from .errors import OciNodeError


@dataclass(frozen=True)
class Context:
    """url: `https://host:port` without a slash at its end; ca_file: authorities beside the system's."""

    url: str
    token: str = field(repr=False)
    ca_file: Optional[str] = None

    def ssl_context(self) -> ssl.SSLContext:
        """Raises OciNodeError for a file of authorities that cannot be used."""
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca_file is not None:
            try:
                context.load_verify_locations(cafile=self.ca_file)
            except (OSError, ssl.SSLError) as error:
                raise OciNodeError(
                    "%s: no certificates can be read from it (%s)" % (self.ca_file, error),
                    "bad_context",
                    "Set OCI_NODE_CA_FILE to a PEM file with the certificate of the gateway's authority.",
                ) from None
        return context


def context_path(env: Mapping[str, str]) -> str:
    home = env.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(home, "oci-node", "context.json")


def read_context(env: Optional[Mapping[str, str]] = None) -> Context:
    """`OCI_NODE_URL`, `OCI_NODE_TOKEN` and `OCI_NODE_CA_FILE`, each over what the context file says. Raises OciNodeError."""
    env = os.environ if env is None else env
    path = context_path(env)
    file = _read_file(path)
    url = env.get("OCI_NODE_URL") or file.get("url")
    own = env.get("OCI_NODE_TOKEN") or None
    token = own or file.get("token")
    if not url or not token:
        raise OciNodeError(
            "no node is known: %s is not there" % path,
            "no_context",
            "Start one with `oci-node dev`, or set OCI_NODE_URL and OCI_NODE_TOKEN.",
        )
    _assert_safe(url)
    if own is None and not _is_same_node(url, file.get("url", "")):
        raise OciNodeError(
            "OCI_NODE_URL is another node than the one whose token this machine has",
            "no_context",
            "Set OCI_NODE_TOKEN to a token of that node; the one in %s is not sent to it." % path,
        )
    return Context(url.rstrip("/"), token, env.get("OCI_NODE_CA_FILE") or file.get("ca_file") or None)


def _assert_safe(url: str) -> None:
    """A token crosses no network in the clear."""
    try:
        parts = urlsplit(url)
        host, scheme = parts.hostname or "", parts.scheme
        parts.port  # noqa: B018 (it raises where there is no number)
    except ValueError:
        host, scheme, parts = "", "", urlsplit("")
    if scheme not in ("http", "https") or not host:
        raise OciNodeError(
            "the address of the node is no URL",
            "usage",
            "Set OCI_NODE_URL to one such as https://oci-node.example:7070.",
        )
    if scheme == "http" and not _is_this_machine(host):
        raise OciNodeError(
            "the token would go to %s in the clear" % parts.netloc.rpartition("@")[2],
            "usage",
            "Use https:// in OCI_NODE_URL; plain http:// is for this machine itself (127.0.0.1).",
        )


def _is_this_machine(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _is_same_node(url: str, in_file: str) -> bool:
    """Of a node that listens everywhere the host's name does not matter."""
    wanted, known = urlsplit(url), urlsplit(in_file)
    if _port_of(wanted.port, wanted.scheme) != _port_of(known.port, known.scheme):
        return False
    wanted_host, known_host = wanted.hostname or "", known.hostname or ""
    here = _is_this_machine(wanted_host) and _is_this_machine(known_host)
    return known_host in ("0.0.0.0", "::") or here or wanted_host == known_host


def _port_of(port: Optional[int], scheme: str) -> int:
    return port or (443 if scheme == "https" else 80)


def _read_file(path: str) -> Mapping[str, str]:
    try:
        with open(path, encoding="utf-8") as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_mode & 0o066:
                raise OciNodeError(
                    "%s holds tokens, and others can read or write it" % path,
                    "loose_mode",
                    "Run: chmod 600 %s" % path,
                )
            said = json.load(file)
    except OSError:
        return {}
    except ValueError:
        said = None
    if (
        not isinstance(said, dict)
        or not isinstance(said.get("url"), str)
        or not isinstance(said.get("token"), str)
    ):
        raise OciNodeError(
            "%s is damaged" % path, "bad_context", "Start the node again: it writes the file anew."
        )
    return {name: value for name, value in said.items() if isinstance(value, str)}
