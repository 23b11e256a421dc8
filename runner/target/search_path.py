"""Describes the search_path, and warns of roles that could plant objects in it."""

from __future__ import annotations

from collections.abc import Sequence

from steps.contract import Look
from steps.contract.dialect import Dialect
from steps.sql.dialect import quote

# The schema's owner, superusers and our own role could change the tables anyway, so they are not reported.
_MAKERS = """
SELECT n.nspname::text AS schema, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee)::text END AS role
FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) AS a
LEFT JOIN pg_catalog.pg_roles r ON r.oid = a.grantee
WHERE n.nspname = ANY(:path) AND a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner AND NOT coalesce(r.rolsuper, false)
  AND coalesce(r.rolname, '') <> current_user
ORDER BY array_position(CAST(:path AS text[]), n.nspname::text), role"""


def notes(look: Look, path: Sequence[str]) -> list[str]:
    """The search_path in words, and a warning for each role that may create objects in it; [] on SQLite."""
    if look.dialect is not Dialect.POSTGRESQL or not path:
        return []
    told = [f"names in SQL are looked up in pg_catalog, then {', '.join(map(quote, path))}"]
    for row in look.rows(_MAKERS, {"path": list(path)}):
        schema, role = quote(row.text("schema")), row.text("role")
        whom = "PUBLIC, everybody," if role == "PUBLIC" else f"the role {quote(role)}"
        grantee = role if role == "PUBLIC" else quote(role)
        told.append(
            f"risk: {whom} may create objects in {schema}, which lies in this path, and they would be used as if they were yours: "
            f"REVOKE CREATE ON SCHEMA {schema} FROM {grantee}, or choose a search_path without it"
        )
    return told
