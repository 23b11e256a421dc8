"""Puts a run that another version recorded into a fresh database and folder, as if it had been made there.

A run is bound to its target: the trail and the ledger have the target's identity, approvals have a digest of it, and the
ledger has the heads of the trail's chain. Here the identity becomes that of the new database, and what follows from it is
computed again, with the product's own functions over the bytes as the other version wrote them. Nothing else is changed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from databases import Database
from inside import InProcessCli

from runner.playbook import digest
from runner.target.workplace import Workplace, connected
from runner.trail import trail

HASH = len(',"hash":"') + 64 + len('"}')


def chained(lines: list[str], change: Callable[[str], str]) -> tuple[list[str], dict[str, str]]:
    """The lines of a trail with `change` applied to each, chained anew; and each old hash with its new one."""
    heads: dict[str, str] = {}
    found = []
    for line in lines:
        body = f"{change(line[:-HASH])}}}"
        for old, new in heads.items():
            body = body.replace(old, new)
        heads[line[-66:-2]] = trail.digest(body)
        found.append(f'{body[:-1]},"hash":"{trail.digest(body)}"}}')
    return found, heads


def transplant(folder: Path, database: Database, desk: InProcessCli) -> str:
    """The run of this folder, in that database and in that desk's directory; its name."""
    with connected(Workplace(target=database.url, cwd=desk.directory)) as target:
        identity = dict(target.identity)
    lines = (folder / "trail.jsonl").read_text().splitlines()
    started = json.loads(lines[0])["event"]
    approval = digest.for_approval(started["digest"], inputs=started["inputs"], identity=identity)
    was = digest.for_approval(started["digest"], inputs=started["inputs"], identity=started["identity"])
    assert was == started["approval_digest"]

    def here(line: str) -> str:
        return line.replace(_json(started["identity"]), _json(identity)).replace(was, approval)

    lines, heads = chained(lines, here)
    sql = (folder / "database.sql").read_text()
    for old, new in {**heads, was: approval}.items():
        sql = sql.replace(old, new)
    database.script(sql)
    _bind(database, identity)
    home = desk.directory / "runs" / started["run"]
    home.mkdir(parents=True)
    (home / "trail.jsonl").write_text("".join(f"{line}\n" for line in lines))
    shutil.copy(folder.parents[1] / "fill.yaml", desk.directory)
    assert trail.verify(home / "trail.jsonl").fault == ""
    return str(started["run"])


def _bind(database: Database, identity: dict[str, Any]) -> None:
    """The ledger's rows say which database this is, and which table of it the backfill goes over."""
    with contextlib.closing(database.connect()) as connection:
        if database.dialect == "sqlite":
            connection.execute("UPDATE runbook_run SET identity = ?", [json.dumps(identity)])
            return
        connection.execute("UPDATE runbook.run SET identity = %s", [json.dumps(identity)])
        for table, column in (("act", "before"), ("pass", "document")):
            connection.execute(
                f"""UPDATE runbook.{table} SET {column} =
                    regexp_replace({column}, '"oid":[0-9]+', '"oid":' || 'public.t'::regclass::oid)"""
            )


def _json(data: object) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False)
