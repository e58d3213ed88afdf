"""One small generic registry, used for methods and for data sets."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class UnknownNameError(KeyError):
    """A name that no entry has; its text gives the nearest match and every valid name."""

    def __str__(self) -> str:
        return str(self.args[0])


class Registry(Generic[T]):
    """A dictionary of named things that refuses duplicates and explains unknown names."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> None:
        """Register `entry`; raises ValueError where the name is taken."""
        if name in self._entries:
            raise ValueError(f"the {self.kind} {name!r} is registered twice")
        self._entries[name] = entry

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            near = difflib.get_close_matches(str(name), self._entries, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            names = ", ".join(self._entries)
            raise UnknownNameError(f"there is no {self.kind} {name!r}.{hint} The names are: {names}.") from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
