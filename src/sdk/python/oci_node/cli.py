"""`oci-node-py`: deploys functions, and calls them, from the command line."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from dataclasses import asdict, replace
from typing import List, NoReturn, Optional

from . import __version__
from .context import context_path, read_context
from .deploy import deploy
from .endpoint import Deployed, Endpoint, checked_name
from .errors import OciNodeError, RemoteError
from .printable import printable
from .source import load

EPILOG = "The node: OCI_NODE_URL, OCI_NODE_TOKEN and OCI_NODE_CA_FILE, or what `oci-node dev` wrote on this machine."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OciNodeError(message, "usage", "See `oci-node-py --help`.")


def main(argv: Optional[List[str]] = None) -> int:
    """The command's exit code: 0; 1 for what failed; 2 for wrong usage; 130 for Ctrl-C."""
    try:
        given = _parser().parse_args(argv)
        return _call(given) if given.command == "call" else _deploy(given)
    except RemoteError as error:
        sys.stderr.write("oci-node-py: the handler failed: %s\n" % printable(str(error), 70_000))
        return 1
    except OciNodeError as error:
        sys.stderr.write("oci-node-py: %s\n" % printable(error.message, 20_000))
        if error.next is not None:
            sys.stderr.write("  %s\n" % printable(error.next, 2000))
        return 2 if error.code == "usage" else 1
    except KeyboardInterrupt:
        sys.stderr.write("\noci-node-py: interrupted\n")
        return 130


def _parser() -> _Parser:
    parser = _Parser(prog="oci-node-py", description="Python functions as HTTP endpoints.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version="oci-node-py %s" % __version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    command = commands.add_parser("deploy", help="serve a function over HTTP", epilog=EPILOG)
    command.add_argument("target", metavar="FILE.py:FUNCTION", help="a function with @endpoint before it")
    command.add_argument("--name", help="of the endpoint, in place of its own")
    command.add_argument("--root", metavar="FOLDER", help="what is uploaded; by default the file's folder")
    command.add_argument(
        "--force", action="store_true", help="a new deployment even where nothing has changed"
    )
    command.add_argument("--json", action="store_true", help="print JSON, and no progress")
    command = commands.add_parser("call", help="call a function that is served", epilog=EPILOG)
    command.add_argument("name", metavar="NAME", help="of the endpoint")
    command.add_argument(
        "arguments", metavar="JSON", nargs="?", default="{}", help="an object with its arguments"
    )
    return parser


def _deploy(given: argparse.Namespace) -> int:
    endpoint, source = load(given.target, given.root)
    if given.name is not None:
        endpoint = Endpoint(
            endpoint.__oci_node_function__, replace(endpoint.options, name=checked_name(given.name))
        )
    deployed = deploy(endpoint, source, force=given.force, quiet=given.json)
    sys.stdout.write(json.dumps(asdict(deployed)) + "\n" if given.json else _told(deployed))
    return 0


def _told(deployed: Deployed) -> str:
    """The URL, and a command that calls it from this shell."""
    words = ["curl"]
    if not deployed.public:
        own = os.environ.get("OCI_NODE_TOKEN")
        token = "$OCI_NODE_TOKEN" if own else "$(jq -r .token %s)" % shlex.quote(context_path(os.environ))
        words.append('-H "Authorization: Bearer %s"' % token)
    ca_file = read_context().ca_file
    if ca_file is not None and deployed.url.startswith("https:"):
        words.append("--cacert %s" % shlex.quote(ca_file))
    return "%s\n  %s %s\n" % (deployed.url, " ".join(words), deployed.url)


def _call(given: argparse.Namespace) -> int:
    from .remote import Call, stream

    try:
        arguments = json.loads(given.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        raise OciNodeError(
            "the arguments are no JSON object", "usage", """Write one such as '{"name": "Ada"}'."""
        )
    for item in stream(Call(checked_name(given.name), (), arguments, None)):
        if isinstance(item, bytes):
            sys.stdout.buffer.write(item)
        else:
            sys.stdout.write(json.dumps(item, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    return 0
