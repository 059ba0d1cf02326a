"""From a function here to an endpoint there."""

from __future__ import annotations

import base64
from typing import Any, Dict, Iterator, Optional

from .archive import Archive, pack
from .context import Context, read_context
from .endpoint import Deployed, Endpoint, Options
from .errors import OciNodeError
from .follow import Follower
from .image import Image
from .printable import format_size, printable
from .progress import Progress
from .source import Source
from .wire import Message, Node

#: Of an archive, in one message; the node takes 1 MiB.
PIECE_BYTES = 512 * 1024
NOTHING_SHA256 = "0" * 64
#: Where the node does not say a limit.
CODE_BYTES_MAX = 64 * 1024 * 1024


def deploy(
    endpoint: Endpoint[Any, Any, Any], source: Source, *, force: bool = False, quiet: bool = False
) -> Deployed:
    """Builds the image, uploads the code, has the node serve the function and waits until it does. Raises OciNodeError."""
    options = endpoint.options
    request = None if options.image.id is not None else options.image.build_request()
    context = read_context()
    progress = Progress(quiet)
    try:
        with Node(context) as node:
            code = upload(node, source, progress)
            image = build(node, options.image, request, progress)
            return start(node, options, options.spec(image, code, source.handler), force, progress)
    finally:
        progress.end()


def upload(node: Node, source: Source, progress: Progress) -> str:
    """The folder, unless the node has it already; gives its SHA-256."""
    # Asked for what is not there, to learn the limit, and whether the token is good, before anything is packed.
    limit = _size_max(node.call("EndpointService/GetCode", {"sha256": NOTHING_SHA256}))
    archive = pack(source.root, limit)
    try:
        files = "1 file" if archive.files == 1 else "%d files" % archive.files
        what = "%s, %s" % (files, format_size(archive.size))
        if node.call("EndpointService/GetCode", {"sha256": archive.sha256}).get("present"):
            progress.step("code: %s, there already" % what)
            return archive.sha256
        progress.step("code: %s, uploading" % what)
        node.upload("EndpointService/UploadCode", _pieces(archive))
        return archive.sha256
    finally:
        archive.close()


def _size_max(said: Message) -> int:
    try:
        return int(said.get("sizeBytesMax") or 0) or CODE_BYTES_MAX
    except (TypeError, ValueError):
        return CODE_BYTES_MAX


def _pieces(archive: Archive) -> Iterator[Message]:
    first: Dict[str, Any] = {"sha256": archive.sha256}
    for piece in archive.pieces(PIECE_BYTES):
        yield {**first, "data": base64.b64encode(piece).decode("ascii")}
        first = {}


def build(node: Node, image: Image, request: Optional[Message], progress: Progress) -> str:
    """The image's id, verified and indexed by the node."""
    if request is None:
        return image.id or ""
    progress.step("image: %s" % image.base_image)
    built: Message = {}
    for event in node.stream("ImageService/BuildImage", request):
        built = event.get("image") or built
        moved = event.get("progress") or {}
        layer = str(moved.get("layerDigest") or "")
        if layer:
            progress.part(layer[:19], int(moved.get("bytesDone") or 0), int(moved.get("bytesTotal") or 0))
        elif moved.get("message"):
            progress.step("image: %s" % moved["message"])
    progress.end()
    if not built.get("id"):
        raise OciNodeError("the node ended the build without an image", "protocol", "Try again.")
    return str(built["id"])


def start(node: Node, options: Options, spec: Message, force: bool, progress: Progress) -> Deployed:
    """Has the node serve it, and waits until a container of it answers."""
    answer = node.call("EndpointService/DeployEndpoint", {"name": options.name, "spec": spec, "force": force})
    deployment = answer.get("deployment") or {}
    id, version = str(deployment.get("id") or ""), int(deployment.get("version") or 0)
    endpoint = answer.get("endpoint") or {}
    changed = deployment.get("state") != "DEPLOYMENT_STATE_ACTIVE"
    if not changed:
        progress.step("endpoint: %s, version %d, is as it was" % (options.name, version))
        return _deployed(node.context, options, endpoint, version, False)
    progress.step("endpoint: %s, version %d, starting" % (options.name, version))
    follower = Follower(node.context, id, progress)
    try:
        endpoint = wait(node, options.name, id, version, follower)
    except KeyboardInterrupt:
        progress.step(
            "endpoint: %s, version %d, goes on; see `oci-node endpoint inspect %s`"
            % (options.name, version, options.name)
        )
        raise
    finally:
        follower.end()
    progress.step("endpoint: %s, version %d, answers" % (options.name, version))
    return _deployed(node.context, options, endpoint, version, True)


def wait(node: Node, name: str, id: str, version: int, follower: Follower) -> Message:
    """The endpoint, once the deployment takes the requests."""
    for event in node.stream("EndpointService/WatchEndpoint", {"name": name}):
        endpoint = event.get("endpoint") or {}
        active, latest = endpoint.get("active") or {}, endpoint.get("latest") or {}
        if active.get("id") == id:
            return dict(endpoint)
        if latest.get("id") != id:
            raise OciNodeError(
                "%s, version %d, was replaced before it came up" % (name, version),
                "conflict",
                "Somebody else has deployed it. Deploy again, if it is to be yours.",
            )
        if latest.get("state") == "DEPLOYMENT_STATE_FAILED":
            raise _failed(name, version, latest, active)
        follower.see(endpoint.get("containerIds") or [])
    raise OciNodeError("%s was removed before it was up" % name, "not_found", "Deploy again, if it is to be.")


def _failed(name: str, version: int, deployment: Message, active: Message) -> OciNodeError:
    """With what the container last said, below the reason."""
    sentence, *output = printable(str(deployment.get("reason") or "its container ended"), 8000).split("\n")
    reason = "".join([sentence] + ["\n  | %s" % line for line in output if line])
    going_on = " Version %s goes on." % active.get("version") if active else ""
    return OciNodeError(
        "%s, version %d, did not come up: %s" % (name, version, reason),
        "deployment_failed",
        "Correct what it says and deploy again.%s" % going_on,
    )


def _deployed(context: Context, options: Options, endpoint: Message, version: int, changed: bool) -> Deployed:
    # By the URL that this machine reaches the node at: what the node knows of its own may be another network's.
    path = str(endpoint.get("path") or "/endpoint/%s" % options.name)
    return Deployed(options.name, context.url + path, version, options.public, changed)
