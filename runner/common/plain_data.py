"""The type of plain data: what YAML and JSON can hold."""

from __future__ import annotations

from typing import TypeAlias

Data: TypeAlias = "bool | int | float | str | list[Data] | dict[str, Data] | None"
