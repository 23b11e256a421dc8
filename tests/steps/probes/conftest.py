"""One fixture more: an empty database on each PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from databases import Database, Databases


@pytest.fixture(params=["pg15", "pg18"])
def empty_pg(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    try:
        kind = databases.kind(request.param)
    except LookupError as missing:
        pytest.skip(str(missing))
    with kind.database() as database:
        yield database


@pytest.fixture(params=["pg15", "pg18"])
def honeypot_pg(request: pytest.FixtureRequest, databases: Databases) -> Iterator[Database]:
    try:
        kind = databases.kind(request.param)
    except LookupError as missing:
        pytest.skip(str(missing))
    with kind.database("enriched") as database:
        yield database
