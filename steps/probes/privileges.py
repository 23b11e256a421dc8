"""A probe on the privileges of this role, with the GRANT for each missing one."""

from __future__ import annotations

import os
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BaseModel, Field, model_validator

from steps.catalog import catalog
from steps.contract import Answer, Identifier, Look, Model, Probe, StepError, Verdict
from steps.contract.dialect import Dialect
from steps.contract.direction import FEWER, OFF
from steps.sql.dialect import quote

Privilege = Literal["select", "insert", "update", "delete", "truncate", "references", "trigger", "owner"]

_TABLE = """
SELECT c.oid, pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owner, pg_catalog.pg_get_userbyid(c.relowner) AS owner_name
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = :schema AND c.relname = :table AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""


class PrivilegesResult(Model):
    """missing: the privileges that this role lacks; grant: the statements that grant them."""

    role: str
    missing: tuple[str, ...] = ()
    grant: tuple[str, ...] = ()


class Privileges(Probe):
    """Whether this role has the privileges that the playbook needs; `owner` is needed for ALTER TABLE and CREATE INDEX."""

    kind: ClassVar[str] = "privileges"
    summary: ClassVar[str] = "what this role may do, and the GRANT that it lacks"
    Result: ClassVar[type[BaseModel]] = PrivilegesResult

    table: Identifier | None = None
    needs: Annotated[tuple[Privilege, ...], FEWER] = ()
    create_in_schema: Annotated[bool, OFF] = False
    member_of: Annotated[tuple[Identifier, ...], Field(description="roles such as pg_read_all_stats"), FEWER] = ()

    @model_validator(mode="after")
    def _something(self) -> Self:
        if bool(self.table) != bool(self.needs):
            raise ValueError("`table` and `needs` go together: name the table and what is to be done with it")
        if not (self.table or self.create_in_schema or self.member_of):
            raise ValueError("give `table` and `needs`, `create_in_schema` or `member_of`")
        return self

    def observe(self, look: Look) -> PrivilegesResult:
        if look.dialect is Dialect.SQLITE:
            return self._on_file(look)
        role = look.row("SELECT current_user AS role").text("role")
        lacks = [*self._on_table(look, role), *self._on_schema(look, role), *self._of_roles(look, role)]
        return PrivilegesResult(
            role=role, missing=tuple(what for what, _ in lacks), grant=tuple(grant for _, grant in lacks)
        )

    def _on_table(self, look: Look, role: str) -> list[tuple[str, str]]:
        if self.table is None:
            return []
        schema, name = catalog.named(look, self.table)
        found = look.rows(_TABLE, {"schema": schema, "table": name})
        if not found:
            raise StepError(f"cannot look at privileges: there is no table {name!r} in schema {schema!r}")
        table = catalog.sql_name(look, self.table)
        lacks: list[tuple[str, str]] = []
        for need in self.needs:
            if need == "owner":
                if not found[0].flag("owner"):
                    lacks.append((need, f"GRANT {quote(found[0].text('owner_name'))} TO {quote(role)}"))
            elif not _has(look, found[0].integer("oid"), need):
                lacks.append((need, f"GRANT {need.upper()} ON {table} TO {quote(role)}"))
        return lacks

    def _on_schema(self, look: Look, role: str) -> list[tuple[str, str]]:
        sql = "SELECT pg_catalog.has_schema_privilege(CAST(:schema AS text), 'CREATE') AS ok"
        if not self.create_in_schema or look.row(sql, {"schema": look.schema}).flag("ok"):
            return []
        return [("create", f"GRANT CREATE ON SCHEMA {quote(look.schema)} TO {quote(role)}")]

    def _of_roles(self, look: Look, role: str) -> list[tuple[str, str]]:
        sql = "SELECT pg_catalog.pg_has_role(current_user, CAST(:role AS name), 'USAGE') AS ok"
        return [
            (one, f"GRANT {quote(one)} TO {quote(role)}")
            for one in self.member_of
            if not look.row(sql, {"role": one}).flag("ok")
        ]

    def _on_file(self, look: Look) -> PrivilegesResult:
        """On SQLite the permissions of the file decide."""
        path = look.row("SELECT file FROM pragma_database_list WHERE name = 'main'").text("file")
        writes = [need for need in self.needs if need != "select"] + (["create"] if self.create_in_schema else [])
        if not writes or not path or os.access(path, os.W_OK):
            return PrivilegesResult(role="")
        return PrivilegesResult(role="", missing=tuple(writes), grant=(f"make {path} writable for this user",))

    def verdict(self, result: BaseModel) -> Verdict | None:
        seen = PrivilegesResult.model_validate(result)
        if seen.missing:
            return Verdict(Answer.FAIL, f"missing: {', '.join(seen.missing)}; needed: {'; '.join(seen.grant)}")
        return Verdict(Answer.PASS, "nothing is missing")

    def decides(self) -> bool:
        return True


def _has(look: Look, oid: int, need: str) -> bool:
    sql = "SELECT pg_catalog.has_table_privilege(CAST(:oid AS oid), CAST(:need AS text)) AS ok"
    return look.row(sql, {"oid": oid, "need": need}).flag("ok")
