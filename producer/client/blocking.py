"""The client for synchronous code: each method runs that of `AsyncClient` in an event loop in another thread."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from functools import partial, update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio.from_thread import BlockingPortal, start_blocking_portal

from understudy.models.config.settings import Settings
from understudy.models.tenants import DEFAULT_TENANT
from understudy.producer.client.asynchronous import AsyncClient
from understudy.producer.client.connection import NOT_OPEN

P = ParamSpec("P")
T = TypeVar("T")

RESULTS_AT_ONCE = 200
"""Items of an iteration that are passed between threads together: each transfer costs about 0.1 ms."""

END_POLL_S = 0.2

IN_A_COROUTINE = (
    "Client is blocking and would stall the event loop of this thread; "
    "use AsyncClient here, with `async with` and `await`"
)

CLOSED = "the client was closed during this call; accepted work continues"

NOTHING_MORE: Any = object()


def _blocking(
    method: Callable[Concatenate[AsyncClient, P], Awaitable[T]],
) -> Callable[Concatenate["Client", P], T]:
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(partial(method, self._client, *args, **kwargs))

    update_wrapper(call, method)
    return call


def _iterating(
    method: Callable[Concatenate[AsyncClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["Client", P], Iterator[T]]:
    def call(self: "Client", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = method(self._client, *args, **kwargs)
        try:
            while chunk := self._run(partial(_some, items)):
                yield from chunk
        finally:
            if self._portal is not None:
                self._run(items.aclose)

    update_wrapper(call, method)
    return call


async def _some(items: AsyncIterator[T]) -> list[T]:
    found: list[T] = []
    while len(found) < RESULTS_AT_ONCE:
        item = await anext(items, NOTHING_MORE)
        if item is NOTHING_MORE:
            break
        found.append(item)
    return found


class Client:
    """`AsyncClient` for synchronous code: the same methods, but blocking.

        with Client() as client:
            print(client.wait(client.submit("Say hello.").id, timeout_s=60).text)

    A client may be used from several threads concurrently. Open it in the process that uses it, not before a fork. In a
    coroutine, its methods raise RuntimeError, because they would block the event loop.
    """

    def __init__(
        self,
        config: Path | str | None = None,
        data: Path | str | None = None,
        *,
        database_url: str | None = None,
        redis_url: str | None = None,
        settings: Settings | None = None,
        tenant: str = DEFAULT_TENANT,
    ) -> None:
        """As `AsyncClient`. Nothing is opened before `with` or `open`."""
        self._client = AsyncClient(
            config, data, database_url=database_url, redis_url=redis_url, settings=settings, tenant=tenant
        )
        self._portal: BlockingPortal | None = None
        self._stack = ExitStack()
        self._closed = threading.Event()
        self._calls: set[asyncio.Task[Any] | None] = set()

    def open(self) -> "Client":
        """Open a client without `with`; call `close` at the end. A client left open is closed when the main thread
        ends, because the ledger's threads would keep the process alive."""
        self._open()
        threading.Thread(target=self._close_with_the_program, name="understudy client end", daemon=True).start()
        return self

    def _open(self) -> None:
        _refuse_in_a_coroutine()
        with ExitStack() as stack:
            portal = stack.enter_context(start_blocking_portal(name="understudy client"))
            stack.enter_context(portal.wrap_async_context_manager(self._client))
            self._portal, self._stack = portal, stack.pop_all()
        self._closed.clear()

    def _close_with_the_program(self) -> None:
        while not self._closed.wait(END_POLL_S):
            if not threading.main_thread().is_alive():
                self.close()

    def close(self) -> None:
        """Close the client. Calls in other threads raise RuntimeError. Closing again has no effect."""
        self._closed.set()
        portal, self._portal = self._portal, None
        if portal is not None:
            portal.call(self._break_off)
        self._stack.close()

    def __enter__(self) -> "Client":
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        _refuse_in_a_coroutine()
        portal, started = self._portal, list[asyncio.Task[Any]]()
        if portal is None:
            raise RuntimeError(NOT_OPEN)
        try:
            future: Future[T] = portal.start_task_soon(self._noted, call, started)
            return future.result()
        except CancelledError:
            raise RuntimeError(CLOSED) from None
        except Exception:
            raise
        except BaseException:  # Ctrl-C, maybe before the future was known here: no one waits for the call any more
            portal.start_task_soon(_cancel_all, started)
            raise

    async def _noted(self, call: Callable[[], Awaitable[T]], started: list[asyncio.Task[Any]]) -> T:
        task = asyncio.current_task()
        if task is not None:
            started.append(task)
        self._calls.add(task)
        try:
            return await call()
        finally:
            self._calls.discard(task)

    async def _break_off(self) -> None:
        """Cancel running calls before the ledger is closed."""
        calls = [call for call in self._calls if call is not None]
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls)

    submit = _blocking(AsyncClient.submit)
    get = _blocking(AsyncClient.get)
    wait = _blocking(AsyncClient.wait)
    list_jobs = _blocking(AsyncClient.list_jobs)
    cancel = _blocking(AsyncClient.cancel)
    retry = _blocking(AsyncClient.retry)
    submit_batch = _blocking(AsyncClient.submit_batch)
    get_batch = _blocking(AsyncClient.get_batch)
    wait_batch = _blocking(AsyncClient.wait_batch)
    list_batches = _blocking(AsyncClient.list_batches)
    results = _iterating(AsyncClient.results)
    pause_batch = _blocking(AsyncClient.pause_batch)
    resume_batch = _blocking(AsyncClient.resume_batch)
    cancel_batch = _blocking(AsyncClient.cancel_batch)
    retry_batch = _blocking(AsyncClient.retry_batch)


async def _cancel_all(tasks: list[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()


def _refuse_in_a_coroutine() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(IN_A_COROUTINE)
