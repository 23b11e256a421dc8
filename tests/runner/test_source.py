"""YAML text becomes plain data with places, and everything that misleads is a fault."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from runner.common.plain_data import Data
from runner.playbook.yaml_reader import Fault, Faulty, Mark, near, parse


def faults(text: str | bytes, **limits: int) -> list[str]:
    with pytest.raises(Faulty) as caught:
        parse(text, "f", **limits)
    return str(caught.value).splitlines()


@pytest.fixture(params=["libyaml", "python"])
def parser(request, monkeypatch):
    """Both parsers of PyYAML: the second is there where no C compiler was."""
    if request.param == "python":
        monkeypatch.delattr(yaml, "CSafeLoader")


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("y", "y"), ("TRUE", "TRUE"),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("12:30", "12:30"), ("12:30:45", "12:30:45"), ("2026-01-01", "2026-01-01"), ("0x1F", "0x1F"),
        ("1e5", "1e5"), ("1e+3", 1000.0),
        ("12", 12), ("-3", -3), ("0", 0), ("1_000_000", 1000000), ("0.50", 0.5), ("-1.5e-3", -0.0015), (".5", 0.5),
        ("5.", "5."), ("1.2.3", "1.2.3"), ("=", "="), ("-", "-"), ("15 min", "15 min"), ("200 ms", "200 ms"),
        ("'12'", "12"), ('"true"', "true"), ("a >= b", "a >= b"), ("x[1]", "x[1]"),
    ],
)  # fmt: skip
def test_plain_word_means_what_it_looks_like(word, value):
    """T: YAML 1.1 reads `on` as true, 12:30 as 750."""
    if word == "-":
        word = "'-'"
    found = parse(f"a: {word}\n", "f").data
    assert found == {"a": value}
    assert type(found["a"]) is type(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("010", "cannot tell what number 010 is (010 is 8 to some): drop the first 0, or quote it"),
        ("-007.5", "cannot tell what number -007.5 is (010 is 8 to some): drop the first 0, or quote it"),
        ("1_0", "cannot tell whether 1_0 is a number: group its digits by three, or quote it"),
        ("2024_01", "cannot tell whether 2024_01 is a number: group its digits by three, or quote it"),
        (".inf", "cannot use .inf: nothing can be compared with it; quote it if it is a text"),
        ("-.INF", "cannot use -.INF: nothing can be compared with it; quote it if it is a text"),
        (".nan", "cannot use .nan: nothing can be compared with it; quote it if it is a text"),
        ("1" * 31, "cannot use a number of more than 30 digits: quote it if it is a text"),
        ("1.5e999", "cannot use a number of this size: 1.5e999…; quote it if it is a text"),
    ],
)
def test_ambiguous_number_is_refused(word, message):
    assert faults(f"a: {word}\n") == [f"f:1:4: {message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("that: 'a' == b\n", "1:11: cannot read '== b' after the closing ': quote the whole value: \"'a' == b\""),
        ('- that: "a" == b # why\n',
         "1:13: cannot read '== b # why' after the closing \": quote the whole value: '\"a\" == b'"),
        ("that: [a] == b\n", '1:11: cannot read \'== b\' after the closing ]: quote the whole value: "[a] == b"'),
        ("that: {a} == b\n", '1:11: cannot read \'== b\' after the closing }: quote the whole value: "{a} == b"'),
        ("- {id: x, that: 'a' == b}\n", "1:21: cannot read '== b}' after the closing ': quote the whole value"),
        ("- {id: x, using: a[1]}\n", "1:19: cannot read '[' inside an unquoted value after {: quote the whole value"),
        ("why: a thing: b\n", '1:13: cannot read \': \' inside an unquoted value: quote the whole value: "a thing: b"'),
        ("- {why: a: b}\n", "1:10: cannot read ': ' inside an unquoted value: quote the whole value"),
        ("a: %x\n", '1:4: cannot start an unquoted value with %: quote the whole value: "%x"'),
        ("a: @x\n", '1:4: cannot start an unquoted value with @: quote the whole value: "@x"'),
        ("a: `x`\n", '1:4: cannot start an unquoted value with `: quote the whole value: "`x`"'),
        ("a: *.csv\n", '1:4: cannot start an unquoted value with *: quote the whole value: "*.csv"'),
        ("a: > 5\n", '1:4: cannot start an unquoted value with >: quote the whole value: "> 5"'),
        ("a: | x\n", '1:4: cannot start an unquoted value with |: quote the whole value: "| x"'),
        ("a: ] x\n", '1:4: cannot start an unquoted value with ]: quote the whole value: "] x"'),
        ("a: , x\n", '1:4: cannot start an unquoted value with ,: quote the whole value: ", x"'),
        ("a: - 5\n", '1:4: cannot start an unquoted value with -: quote the whole value: "- 5"'),
        ("a: {{ name }}\n", "1:4: cannot start an unquoted value with {{: quote the whole value"),
        ("a:\n\tb: 1\n", "2:1: cannot read a tab in the indentation: use spaces"),
        ("a:\n  b: 1\n  \tc: 2\n", "3:3: cannot read a tab in the indentation: use spaces"),
        ("a: 'x\nb: 2\n", "1:4: cannot find the end of the text that starts here: close it with '"),
        ('a: "x\nb: 2\n', '1:4: cannot find the end of the text that starts here: close it with "'),
        ("a: 'x\nb: 'y'\n",
         "2:5: cannot read \"y'\" after a text in quotes that began on line 1: was it closed there?"),
        ("a: [1, 2\nb: 3\n", "1:4: cannot find the end of the [ that starts here"),
        ("a: {x: 1,\nb: 3\n", "1:4: cannot find the end of the { that starts here"),
        ('a: "\\d+"\n', "1:5: cannot read \\d between double quotes: use single quotes, or write \\\\d"),
        ("a: 1\nfoo\nb: 2\n",
         "2:1: cannot find ': ' after 'foo': write 'key: value', or indent it if it goes on the line above"),
        ("a: 1\n  b: 2\n",
         ("2:4: cannot read ':' here: the unquoted text of line 1 goes on to this line: "
          "check the indentation, and the space after each ':'")),
        ("a:\n    b: 2\n  c: 3\n",
         "3:3: cannot place this line: neither its indentation nor its form ('key: value', '- item') fits above"),
        ("- a\nb: 1\n",
         "2:1: cannot place this line: neither its indentation nor its form ('key: value', '- item') fits above"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("parser")
def test_unreadable_line_says_what_to_write(text, message):
    assert faults(text) == [f"f:{message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x 1\n", "1:4: cannot use the anchor &x: it hides meaning in a diff; write the value out"),
        ("a: *x\n", "1:4: cannot use the alias *x: it hides meaning in a diff; write the value out"),
        ("*x : 1\n", "1:1: cannot use the alias *x: it hides meaning in a diff; write the value out"),
        ("<<: {a: 1}\n", "1:1: cannot use the merge key <<: it hides meaning in a diff; write the keys out"),
        ("a: !!python/object:os.system x\n",
         "1:4: cannot use the tag !!python/object:os.system: remove it, or quote the whole value"),
        ("a: !done\n", "1:4: cannot use the tag !done: remove it, or quote the whole value"),
        ("a: !!str 5\n", "1:4: cannot use the tag !!str: remove it, or quote the whole value"),
        ("5: a\n", "1:1: cannot use 5 as a key: quote it"),
        ("true: a\n", "1:1: cannot use true as a key: quote it"),
        ("? \n: a\n", "1:2: cannot use nothing as a key: quote it"),
        ("? [a]\n: 1\n", "1:3: cannot use a mapping or a list as a key: use a text"),
        ("a: 1\nb: 2\na: 3\n", "3:1: cannot use the key 'a' twice: it stands at f:1:1 already"),
        ("a: 1\n---\nb: 2\n", "2:1: cannot use a second document in one file: remove the line '---'"),
        ("%YAML 1.1\n---\na: 1\n", "1:1: cannot use a directive: remove the line that starts with %"),
        ("", "1:1: cannot use an empty file"),
        ("# nothing\n", "1:1: cannot use an empty file"),
        ("---\n", "1:1: cannot use an empty file"),
        ("{a, b: 1}\n", "1:3: cannot use a key without value between { and }: write null, or quote the whole value"),
        ("a: [numeric(10,2), text]\n", "1:5: cannot use 'numeric(10': a comma cut it off; quote the whole value"),
        ('a: "x\\0"\n', "1:4: cannot use a text with the character NUL or half a surrogate pair in it"),
        ("a: b\x00\n", "1:5: cannot read the character U+0000: it is invisible; remove it"),
        ("a: b\n# \u202e\n", "2:3: cannot read the character U+202E: it is invisible; remove it"),
        ("a: b\rc: d\n", "1:5: cannot read the character U+000D: it is invisible; remove it"),
        (b"a: 1\nb: \xe9\n", "2:4: cannot read the byte 0xe9: save the file as UTF-8"),
        ("a: 1\n".encode("utf-16"), "1:1: cannot read UTF-16: save the file as UTF-8"),
    ],
)  # fmt: skip
def test_misleading_yaml_is_a_fault(text, message):
    assert faults(text) == [f"f:{message}"]


def test_faults_are_all_told_in_order():
    text = "a: &x 1\na: 010\nb: {c: !t 1, c: 2}\nd: 'e' f\n"
    assert [line.split(":")[1:3] for line in faults(text)] == [
        ["1", "4"],
        ["2", "1"],
        ["2", "4"],
        ["3", "8"],
        ["3", "14"],
        ["4", "8"],
    ]


def test_faults_end_at_a_hundred():
    found = faults("a: &x 1\n" * 1000)
    assert len(found) == 101
    assert found[-1].endswith("cannot list more than 100 faults: the rest of the file was not read")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\n" * 2_500_000,
         "1:1: cannot read 12,500,000 bytes: at most 4,194,304 are allowed; split the file with `include`"),
        ("[" * 1_000_000, "1:51: cannot nest deeper than 50 levels"),
        ("- " * 1_000_000, "1:101: cannot nest deeper than 50 levels"),
        ("".join(" " * i + "a:\n" for i in range(200)), "51:51: cannot nest deeper than 50 levels"),
        ("[" + "a," * 600_000 + "]", "1:1000000: cannot read more than 500,000 values; split the file with `include`"),
        ("a: " + "0" * 1_000_000,
         "1:4: cannot tell what number " + "0" * 40 + " is (010 is 8 to some): drop the first 0, or quote it"),
    ],
)  # fmt: skip
def test_hostile_file_is_refused_at_once(text, message):
    assert faults(text) == [f"f:{message}"]


def test_billion_laughs_are_not_expanded():
    text = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    assert len(faults(text)) == 25


def test_limits_can_be_set():
    assert faults("a: [1]\n", max_bytes=3) == [
        "f:1:1: cannot read 7 bytes: at most 3 are allowed; split the file with `include`"
    ]
    assert faults("a: [1]\n", max_nodes=2) == ["f:1:4: cannot read more than 2 values; split the file with `include`"]
    assert faults("a: [1]\n", max_depth=1) == ["f:1:4: cannot nest deeper than 1 levels"]


DOCUMENT = """\
name: x
steps:
  - id: one
    lock: {wait: 200 ms, tries: [1, 2]}
  - id: two
"""


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ((), "1:1", "1:1"),
        (("name",), "1:7", "1:1"),
        (("steps",), "3:3", "2:1"),
        (("steps", 0), "3:5", "3:5"),
        (("steps", 0, "lock", "wait"), "4:18", "4:12"),
        (("steps", 0, "lock", "tries", 1), "4:37", "4:37"),
        (("steps", 1, "id"), "5:9", "5:5"),
        (("steps", 1, "missing", "deeper"), "5:5", "5:5"),
        (("steps", 9), "3:3", "2:1"),
        (("steps", "one"), "3:3", "2:1"),
        (("name", "deeper"), "1:7", "1:1"),
        (("nothing",), "1:1", "1:1"),
    ],
)
@pytest.mark.usefixtures("parser")
def test_mark_finds_the_nearest_place(path, value, key):
    document = parse(DOCUMENT, "f.yaml")
    assert str(document.mark(path)) == f"f.yaml:{value}"
    assert str(document.key_mark(path)) == f"f.yaml:{key}"


def test_document_keeps_text_and_name():
    document = parse(b"\xef\xbb\xbfa: \xc3\xa9\r\nb: 1\r\n", "x.yaml")
    assert (document.file, document.data) == ("x.yaml", {"a": "é", "b": 1})
    assert document.text == "a: é\r\nb: 1\r\n"
    assert document.mark(("b",)) == Mark("x.yaml", 2, 4)


def test_fault_reads_as_a_place_and_a_message():
    assert str(Fault(Mark("f.yaml", 3, 7), "cannot")) == "f.yaml:3:7: cannot"


def test_large_playbook_is_read_whole():
    step = "  - id: s{0}\n    type: sql\n    text: SELECT {0}\n    lock: {{wait: 200 ms, retry_for: 5 min}}\n"
    document = parse("steps:\n" + "".join(step.format(i) for i in range(10_000)), "f")
    assert len(document.data["steps"]) == 10_000
    assert document.mark(("steps", 9_999, "lock", "wait")).line == 40_001


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(NESTED.filter(lambda data: data is not None))
def test_json_is_read_as_it_is(data: Data):
    """Whatever is in quotes stays itself; JSON that YAML can't take is a fault, never another value."""
    try:
        assert parse(json.dumps(data), "f").data == data
    except Faulty:
        assert re.search(r"\\u(0000|d[89a-f])", json.dumps(data))


@given(st.text(alphabet="ab:-?[]{},#&*!|>'\"%@` \n\t012.", max_size=60) | st.binary(max_size=40))
def test_any_text_is_data_or_faults(text):
    try:
        document = parse(text, "f")
    except Faulty as faulty:
        assert faulty.faults
        assert all(fault.mark.line >= 1 and fault.mark.column >= 1 for fault in faulty.faults)
    else:
        assert document.data is not None


@pytest.mark.parametrize(
    ("word", "known", "hint"),
    [
        ("tabel", ["table", "column"], " (did you mean 'table'?)"),
        ("on-failure", ["on_failure"], " (did you mean 'on_failure'?)"),
        ("Steps", ["steps"], " (did you mean 'steps'?)"),
        ("zebra", ["table", "column"], ""),
        ("", ["table"], ""),
        ("x" * 10_000_000, ["table"], ""),
    ],
)
def test_near_names_one_word_or_none(word, known, hint):
    assert near(word, known) == hint


def test_import_loads_no_parser():
    """`runbook --help` mustn't pay for what it doesn't need."""
    code = "import sys, runner.playbook.template, runner.common.secrets, runner.target.resolve; print({'yaml', 'jinja2'} & {*sys.modules})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
