"""Asynchronous handlers: one event loop in a thread of its own, begun when the first of them is called."""

import queue
import threading

from .process import end_process

#: What an asynchronous generator may be ahead of whoever reads the answer, in items.
AHEAD = 16
_begin = threading.Lock()
_loop = None


def get_loop():
    # asyncio takes tens of milliseconds to import, and TLS with it: handlers without `async` begin sooner.
    import asyncio

    global _loop
    with _begin:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_run, args=(_loop,), name="oci-node-loop", daemon=True).start()
        return _loop


def _run(loop):
    import asyncio

    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt) as error:
        end_process(getattr(error, "code", 130))


def wait_for(awaitable, peer):
    """What it results in. A caller who hangs up cancels it: concurrent.futures.CancelledError is raised then."""
    import asyncio

    loop = get_loop()

    async def run():
        stop_watching = _cancel_when_gone(loop, peer, asyncio.current_task())
        try:
            return await awaitable
        finally:
            stop_watching()

    return asyncio.run_coroutine_threadsafe(run(), loop).result()


def iterate(generator, peer):
    """An asynchronous generator as a plain one; ended when this one is closed."""
    import asyncio

    loop = get_loop()
    items = queue.SimpleQueue()
    end = object()

    async def make():
        return asyncio.Semaphore(AHEAD)

    room = asyncio.run_coroutine_threadsafe(make(), loop).result()

    # In one task from its beginning to its end: a generator may hold what belongs to its task, such as a timeout.
    async def run():
        stop_watching = _cancel_when_gone(loop, peer, asyncio.current_task())
        try:
            async for item in generator:
                await room.acquire()
                items.put((item, None))
            items.put((end, None))
        except BaseException as error:
            items.put((end, error))
            if isinstance(error, (SystemExit, KeyboardInterrupt)):
                raise
        finally:
            stop_watching()
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()

    running = asyncio.run_coroutine_threadsafe(run(), loop)
    try:
        while True:
            item, error = items.get()
            if error is not None:
                raise error
            if item is end:
                return
            loop.call_soon_threadsafe(room.release)
            yield item
    finally:
        running.cancel()


def _cancel_when_gone(loop, peer, task):
    """Looks whether the other end hangs up; what it sends meanwhile is the next request and stays where it is."""
    watching = True

    def readable():
        stop()
        if peer.is_gone():
            task.cancel()

    def stop():
        nonlocal watching
        if watching:
            watching = False
            loop.remove_reader(peer.sock)

    loop.add_reader(peer.sock, readable)
    return stop
