"""Waiting for something to become true: poll against a deadline, and say what was seen last.

A predicate is true when it returns a truthy value, which the wait returns. An exception that says "not there
yet" (refused connection, missing key, failed assertion) counts as false; any other one is a bug and is raised.
"""

from __future__ import annotations

import asyncio
import http.client
import reprlib
import time
from collections.abc import Callable
from typing import TypeVar

from tests.realcluster.errors import WaitError

T = TypeVar("T")

NOT_YET = (OSError, http.client.HTTPException, LookupError, AssertionError)
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = 800
SHORT.maxdict = SHORT.maxlist = 20


def wait_for(predicate: Callable[[], T], what: str, timeout_s: float = 30.0, poll_s: float = 0.05) -> T:
    """The first truthy value of `predicate`; WaitError after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value, seen = _ask(predicate)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise WaitError(f"waited {timeout_s:g} s for {what}; last seen: {seen}")
        time.sleep(poll_s)


async def wait_for_async(predicate: Callable[[], T], what: str, timeout_s: float = 30.0, poll_s: float = 0.05) -> T:
    """`wait_for` for asynchronous tests: the predicate runs in a thread, so that the loop goes on."""
    deadline = time.monotonic() + timeout_s
    while True:
        value, seen = await asyncio.to_thread(_ask, predicate)
        if value:
            return value
        if time.monotonic() >= deadline:
            raise WaitError(f"waited {timeout_s:g} s for {what}; last seen: {seen}")
        await asyncio.sleep(poll_s)


def _ask(predicate: Callable[[], T]) -> tuple[T | None, str]:
    try:
        value = predicate()
    except NOT_YET as error:
        return None, f"{type(error).__name__}: {error}"
    return value, SHORT.repr(value)
