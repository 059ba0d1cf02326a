"""What a type checker says of a user's file: checked by `mypy --strict`, which also objects to an ignored line without error."""

from typing import AsyncIterator, Iterator

from oci_node import Image, Response, endpoint

image = Image(base_image="registry.example/app", base_image_creds=["USERNAME", "PASSWORD"])


@endpoint(image=image, cpu=1, memory="512Mi")
def add(a: int, b: int = 1) -> int:
    return a + b


@endpoint(image=image)
async def later(name: str) -> str:
    return name


@endpoint(image=image)
def count(n: int) -> Iterator[int]:
    yield from range(n)


@endpoint(image=image)
async def count_later(n: int) -> AsyncIterator[int]:
    for i in range(n):
        yield i


here: int = add(1, b=2)
there: int = add.remote(1, b=2)
answer: str = later.remote("x")
numbers: Iterator[int] = count.remote(3)
more: Iterator[int] = count_later.remote(3)
url: str = add.deploy().url
response = Response({"a": 1}, status=201)

add("x")  # type: ignore[arg-type]
add.remote("x")  # type: ignore[arg-type]
add.remote(c=1)  # type: ignore[call-arg]
endpoint(cpu=1)  # type: ignore[call-arg]


async def main() -> str:
    return await later("x")
