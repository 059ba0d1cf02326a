import asyncio
import inspect

import pytest

from oci_node import Endpoint, Image, OciNodeError, Response, endpoint

image = Image("registry.example/app")


def test_a_function_is_called_here_as_it_is() -> None:
    @endpoint(image=image)
    def add(a: int, b: int = 2) -> int:
        """Adds."""
        return a + b

    assert (add(1), add(a=1, b=1), add.__doc__, add.__name__) == (3, 2, "Adds.", "add")
    assert list(inspect.signature(add).parameters) == ["a", "b"]

    @endpoint(image=image)
    async def later() -> str:
        return "done"

    assert asyncio.run(later()) == "done"


def test_what_the_node_is_told() -> None:
    @endpoint(
        image=image, cpu=1, memory="512Mi", name="my-name", public=True, timeout=1.5, concurrency=4, max_containers=3,
        min_containers=1, keep_warm=30, env={"A": "b"}, secrets=["API_KEY"], queue=5, startup_timeout=10,
    )  # fmt: skip
    def f() -> None: ...

    assert f.options.spec("img", "ab", "app:f") == {
        "image": "img",
        "handler": {"codeSha256": "ab", "name": "app:f", "concurrency": 4},
        "env": {"A": "b", "OCI_NODE_TIMEOUT_MS": "1500"},
        "cpuMillis": 1000,
        "memoryBytes": str(512 * 1024 * 1024),
        "options": {"secrets": [{"secretName": "API_KEY", "variable": "API_KEY"}]},
        "public": True,
        "requestTimeoutMs": 1500,
        "concurrency": 4,
        "queueMax": 5,
        "containersMin": 1,
        "containersMax": 3,
        "keepWarmMs": 30000,
        "startupTimeoutMs": 10000,
    }


def test_what_is_not_said_is_the_nodes_default() -> None:
    @endpoint(image=image)
    def _my_function() -> None: ...

    spec = _my_function.options.spec("img", "ab", "app:f")
    assert _my_function.name == "my-function"
    assert [spec[key] for key in spec if key.endswith(("Ms", "Max", "Min", "Millis"))] == [0] * 7
    assert (spec["memoryBytes"], spec["public"], spec["env"]) == ("0", False, {})


def test_units() -> None:
    def of(**options: object) -> Endpoint:
        return (
            endpoint(image=image, **options)(lambda: None) if "name" in options else of(name="x", **options)
        )

    assert [of(cpu=value).options.cpu_millis for value in (2, 0.25, "500m", "1.5")] == [2000, 250, 500, 1500]
    sizes = [of(memory=value).options.memory_bytes for value in (128, "1Gi", "1.5G", "512MiB")]
    assert sizes == [128 << 20, 1 << 30, 1_500_000_000, 512 << 20]
    files = of(secrets={"KEY": "a", "/run/key": "b"}).options.secrets
    assert files == [{"secretName": "a", "variable": "KEY"}, {"secretName": "b", "path": "/run/key"}]
    for wrong in (
        {"cpu": 0}, {"cpu": "much"}, {"cpu": True}, {"memory": "512"}, {"memory": 0}, {"memory": "-1Gi"}, {"name": "A_b"},
        {"name": "-a"}, {"timeout": 0}, {"concurrency": 0}, {"min_containers": -1}, {"queue": 1.5}, {"env": {"A": 1}},
        {"secrets": "KEY"},
    ):  # fmt: skip
        with pytest.raises(OciNodeError) as caught:
            of(**wrong)
        assert caught.value.code == "usage"


def test_what_is_no_function_or_has_no_image_is_told() -> None:
    with pytest.raises(OciNodeError, match="no Image"):
        endpoint(image="registry.example/app")  # type: ignore[arg-type]
    with pytest.raises(OciNodeError, match="no function"):
        endpoint(image=image)(int)
    with pytest.raises(OciNodeError, match="inside of another function"):

        @endpoint(image=image)
        def inner() -> None: ...

        inner.deploy()


def test_a_response_has_a_status_and_headers() -> None:
    response = Response("x", 201, {"Content-Type": "a", "X": "y"}, content_type="text/html")
    assert response.headers == [("X", "y"), ("content-type", "text/html")]
    with pytest.raises(ValueError):
        Response("x", 99)
