"""A function as an endpoint: `@endpoint(image=…)`."""

from __future__ import annotations

import functools
import inspect
import re
from dataclasses import dataclass, field
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterator,
    Callable,
    Coroutine,
    Dict,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    TypeVar,
    Union,
    overload,
)

from .errors import OciNodeError
from .image import Image
from .resources import parse_count, parse_cpu, parse_memory, parse_seconds

__all__ = ["Deployed", "Endpoint", "Options", "endpoint"]

R = TypeVar("R")
T = TypeVar("T")

if TYPE_CHECKING:
    from typing import Generic

    from typing_extensions import ParamSpec

    P = ParamSpec("P")

    class _Typed(Generic[P, R, T]):
        """What a function takes, what it gives here, what it gives from there."""

else:
    # ParamSpec is younger than Python 3.8: only those who check types need it.
    P = None

    class _Typed:
        def __class_getitem__(cls, _):
            return cls


NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")

#: `["NAME", …]`: each a variable of the same name; a mapping: from variables, or absolute paths, to secrets.
Secrets = Union[Sequence[str], Mapping[str, str]]


@dataclass(frozen=True)
class Options:
    """What a function is served with, in the units of the API; 0: the node's default."""

    name: str
    image: Image
    cpu_millis: int
    memory_bytes: int
    public: bool
    timeout_ms: int
    concurrency: int
    max_containers: int
    min_containers: int
    keep_warm_ms: int
    queue: int
    startup_timeout_ms: int
    env: Dict[str, str] = field(repr=False)
    secrets: List[Dict[str, str]] = field(default_factory=list)

    def spec(self, image: str, code_sha256: str, handler: str) -> Dict[str, Any]:
        """The EndpointSpec of the API, in JSON."""
        return {
            "image": image,
            "handler": {"codeSha256": code_sha256, "name": handler, "concurrency": self.concurrency},
            # The runner ends a container whose handler never returns, once the gateway has given it up.
            "env": {**self.env, "OCI_NODE_TIMEOUT_MS": str(self.timeout_ms)} if self.timeout_ms else self.env,
            "cpuMillis": self.cpu_millis,
            "memoryBytes": str(self.memory_bytes),
            "options": {"secrets": self.secrets},
            "public": self.public,
            "requestTimeoutMs": self.timeout_ms,
            "concurrency": self.concurrency,
            "queueMax": self.queue,
            "containersMin": self.min_containers,
            "containersMax": self.max_containers,
            "keepWarmMs": self.keep_warm_ms,
            "startupTimeoutMs": self.startup_timeout_ms,
        }


@dataclass(frozen=True)
class Deployed:
    """An endpoint that takes requests. changed: whether this deployment was made now, or was there already."""

    name: str
    url: str
    version: int
    public: bool
    changed: bool


class Endpoint(_Typed[P, R, T]):
    """A function that can be called here, as it is, and there, by `remote`."""

    def __init__(self, function: Callable[P, R], options: Options) -> None:
        self.__oci_node_function__ = function
        self.options = options
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__oci_node_function__(*args, **kwargs)

    def __repr__(self) -> str:
        return "<endpoint %s>" % self.options.name

    @property
    def name(self) -> str:
        return self.options.name

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls the endpoint as it is deployed, with arguments that JSON can hold, and waits for what it returns; of a
        generator, gives what it yields as it comes.

        Raises RemoteError for an exception of the function's, OciNodeError for everything else.
        """
        from .remote import Call, run, stream

        call = Call(self.name, args, kwargs, self.options.timeout_ms)
        result: Any = stream(call) if self._is_stream() else run(call)
        return result  # type: ignore[no-any-return]

    async def remote_async(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """As `remote`, without blocking; of a generator, gives an asynchronous one."""
        from .remote import Call, run_async, stream_async

        call = Call(self.name, args, kwargs, self.options.timeout_ms)
        return stream_async(call) if self._is_stream() else await run_async(call)

    def deploy(self, root: Optional[str] = None, force: bool = False, quiet: bool = False) -> Deployed:
        """Uploads the folder of the function's file, or `root`, and has the node serve the function.

        force: a new deployment even where nothing has changed. Raises OciNodeError.
        """
        from .deploy import deploy
        from .source import source_of

        return deploy(self, source_of(self.__oci_node_function__, root), force=force, quiet=quiet)

    def _is_stream(self) -> bool:
        function = self.__oci_node_function__
        return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


if TYPE_CHECKING:

    class _Decorator:
        @overload
        def __call__(
            self, function: Callable[P, Coroutine[Any, Any, T]]
        ) -> Endpoint[P, Coroutine[Any, Any, T], T]: ...
        @overload
        def __call__(
            self, function: Callable[P, AsyncIterator[T]]
        ) -> Endpoint[P, AsyncIterator[T], Iterator[T]]: ...
        @overload
        def __call__(self, function: Callable[P, T]) -> Endpoint[P, T, T]: ...
        def __call__(self, function: Any) -> Any: ...


def endpoint(
    *,
    image: Image,
    cpu: Union[int, float, str, None] = None,
    memory: Union[int, str, None] = None,
    name: Optional[str] = None,
    public: bool = False,
    timeout: Union[int, float, None] = None,
    concurrency: Optional[int] = None,
    max_containers: Optional[int] = None,
    min_containers: Optional[int] = None,
    keep_warm: Union[int, float, None] = None,
    env: Optional[Mapping[str, str]] = None,
    secrets: Optional[Secrets] = None,
    queue: Optional[int] = None,
    startup_timeout: Union[int, float, None] = None,
) -> _Decorator:
    """Makes a function an endpoint; it is served once it is deployed.

    cpu: CPUs, such as 1, 0.5, "500m". memory: "512Mi", "2Gi"; a number is of MiB. name: by default the function's, with
    `-` for `_`. public: anybody may call it; otherwise a token of the workspace is needed. timeout: seconds from a request's
    arrival to its answer's end (60). concurrency: calls at once in one container (1). max_containers, min_containers: how
    many there may be under load (10), and without any request (0). keep_warm: seconds that a container without requests is
    kept (60). env: variables. secrets: names of secrets of the workspace, each a variable of that name, or a mapping from
    variables (or absolute paths, for files) to names. queue: requests that may wait for a container (100).
    startup_timeout: seconds that the module's import may take (60).

    Raises OciNodeError for what cannot be meant.
    """
    if not isinstance(image, Image):
        raise OciNodeError(
            "image is %r, no Image" % (image,), "usage", 'Write image=Image("ghcr.io/me/app:1").'
        )

    def decorate(function: Callable[..., Any]) -> Any:
        if not callable(function) or inspect.isclass(function):
            raise OciNodeError("@endpoint stands before %r, which is no function" % (function,), "usage")
        options = Options(
            name=checked_name(
                getattr(function, "__name__", "").strip("_").replace("_", "-").lower()
                if name is None
                else name
            ),
            image=image,
            cpu_millis=parse_cpu(cpu),
            memory_bytes=parse_memory(memory),
            public=public,
            timeout_ms=parse_seconds("timeout", timeout),
            concurrency=parse_count("concurrency", concurrency, 1),
            max_containers=parse_count("max_containers", max_containers, 1),
            min_containers=parse_count("min_containers", min_containers, 0),
            keep_warm_ms=parse_seconds("keep_warm", keep_warm),
            queue=parse_count("queue", queue, 1),
            startup_timeout_ms=parse_seconds("startup_timeout", startup_timeout),
            env=_env(env),
            secrets=_secrets(secrets),
        )
        return Endpoint(function, options)

    return decorate  # type: ignore[return-value]


def checked_name(name: str) -> str:
    """Raises OciNodeError."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise OciNodeError(
            "%r is no name of an endpoint" % (name,),
            "usage",
            "Give another: lower-case letters, digits and -, at most 63, no - at its ends.",
        )
    return name


def _env(env: Optional[Mapping[str, str]]) -> Dict[str, str]:
    for name, value in (env or {}).items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise OciNodeError(
                "env has %s, whose value is no text" % (name,), "usage", "Write its value in quotes."
            )
    return dict(env or {})


def _secrets(secrets: Optional[Secrets]) -> List[Dict[str, str]]:
    if secrets is None:
        return []
    if isinstance(secrets, Mapping):
        pairs = list(secrets.items())
    elif isinstance(secrets, str):
        raise OciNodeError(
            "secrets is one text", "usage", 'Write a list of names, such as secrets=["API_KEY"].'
        )
    else:
        pairs = [(name, name) for name in secrets]
    return [
        {"secretName": secret, "path" if target.startswith("/") else "variable": target}
        for target, secret in pairs
    ]
