"""Whether the WHERE of an UPDATE or DELETE names its rows: by values of a column, a range with both ends, or a LIMIT."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from runner.review.parse_tree import nodes_below

_AND, _OR = 1, 2  # BoolExprType; the third is NOT
_ANY, _SCALAR = 3, 5  # SubLinkType
_MIRROR = str.maketrans("<>", "><")


def names_its_rows(statement: Any) -> bool:
    """Whether the number of rows is known from the text, whatever the table holds.

    `WHERE country = 'DE'` names values of a column, and counts as known: no text tells a key from another column.
    """
    joined = [*getattr(statement, "from_clause", ()), *getattr(statement, "using_clause", ())]
    constant = {_alias(one) for one in joined} if all(map(has_few_rows, joined)) else set()
    changed = {statement.relation.relname, statement.relation.alias.aliasname}
    return _Reader(constant, changed).bounded(statement.where_clause)


def has_few_rows(source: Any) -> bool:
    """Whether what stands in FROM is rows that are written there (VALUES), or is limited."""
    select = source.range_subselect.subquery.select_stmt if source.WhichOneof("node") == "range_subselect" else None
    return select is not None and (not select.from_clause or select.HasField("limit_count"))


def _alias(source: Any) -> str:
    return str(source.range_subselect.alias.aliasname)


class _Reader:
    """Reads conditions. constant: tables whose columns count as values; changed: names of the table whose rows change."""

    def __init__(self, constant: set[str], changed: set[str]) -> None:
        self.constant, self.changed = constant, changed

    def bounded(self, condition: Any) -> bool:
        match condition.WhichOneof("node"):
            case "bool_expr":
                parts = condition.bool_expr.args
                if condition.bool_expr.boolop == _OR:
                    return all(map(self.bounded, parts))
                return condition.bool_expr.boolop == _AND and (
                    any(map(self.bounded, parts)) or self._has_both_ends(parts)
                )
            case "a_expr":
                return any(sign in ("=", "BETWEEN") for _column, sign in self._compared(condition.a_expr))
            case "sub_link":  # id IN (SELECT … LIMIT 1000)
                link = condition.sub_link
                return link.sub_link_type == _ANY and not link.oper_name and _limited(link.subselect.select_stmt)
            case _:
                return False

    def _has_both_ends(self, parts: Iterable[Any]) -> bool:
        ends = {one for part in parts if part.WhichOneof("node") == "a_expr" for one in self._compared(part.a_expr)}
        ends = {(column, sign[:1]) for column, sign in ends}
        return any((column, "<") in ends for column, sign in ends if sign == ">")

    def _compared(self, expression: Any) -> Iterator[tuple[str, str]]:
        """The column and the sign, where a column is compared with a value."""
        left, right, sign = expression.lexpr, expression.rexpr, expression.name[-1].string.sval
        if self._is_column(right) and self._is_value(left):
            left, right, sign = right, left, sign.translate(_MIRROR)
        if self._is_column(left) and self._is_value(right):
            yield _column(left), sign

    def _is_column(self, side: Any) -> bool:
        if side.WhichOneof("node") == "row_expr":  # (a, b) IN (…)
            return all(map(self._is_column, side.row_expr.args))
        return side.WhichOneof("node") == "column_ref" and not self._is_value(side)

    def _is_value(self, side: Any) -> bool:
        """Whether it is the same for all rows of the table."""
        match side.WhichOneof("node"):
            case "column_ref":
                return len(side.column_ref.fields) > 1 and side.column_ref.fields[0].string.sval in self.constant
            case "a_const":
                return not side.a_const.isnull
            case "sub_link":
                return side.sub_link.sub_link_type == _SCALAR and not self._is_for_each_row(side.sub_link.subselect)
            case "param_ref" | "sqlvalue_function":
                return True
            case kind:
                return kind in _PARTS and all(map(self._is_value, _PARTS[kind](side)))

    def _is_for_each_row(self, query: Any) -> bool:
        """Whether a subquery names the table whose rows change, and so is another one for each of them."""
        columns = (one.message.fields for one in nodes_below(query).get("ColumnRef", ()))
        return any(len(fields) > 1 and fields[-2].string.sval in self.changed for fields in columns)


_PARTS: dict[str, Callable[[Any], Iterable[Any]]] = {
    "type_cast": lambda side: [side.type_cast.arg],
    "list": lambda side: side.list.items,
    "row_expr": lambda side: side.row_expr.args,
    "a_array_expr": lambda side: side.a_array_expr.elements,
    "func_call": lambda side: side.func_call.args,
    "a_expr": lambda side: [side.a_expr.lexpr, side.a_expr.rexpr],
}


def _column(side: Any) -> str:
    return str(side.column_ref.fields[-1].string.sval) if side.WhichOneof("node") == "column_ref" else ""


def _limited(select: Any) -> bool:
    return bool(select.HasField("limit_count")) or not select.from_clause
