"""A target is found by name, URL or file, and no password is ever taken from where others see it."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from runner.common.errors import BadInput
from runner.playbook.yaml_reader import Faulty
from runner.target.resolve import (
    NoTarget,
    PasswordInArgv,
    PasswordInEnvironment,
    PasswordMissing,
    UnknownTarget,
    connect_arguments,
    password,
    resolve,
)
from runner.target.targets_file import BadTarget, Keyring, Target, load_targets
from runner.target.url import holds_password, parse_url

GOOD = """\
default: staging
targets:
  production: {url: postgresql://dba@db.example/app, password_env: PROD_PASSWORD, runs: /var/lib/runbook/runs}
  staging: {url: postgresql://dba@staging/app?sslmode=require, passfile: pass, environment: staging}
  local: {url: sqlite:///app.db, runs: runs}
  by_service: {service: mypgservice, keyring: {service: runbook, user: dba}}
"""

WAYS = """\
  a password file     host:port:database:user:password in ~/.pgpass (mode 0600), or passfile: FILE in targets.yaml
  the environment     password_env: NAME in targets.yaml, or PGPASSWORD
  the system keyring  keyring: {service: runbook, user: NAME} in targets.yaml, after `keyring set runbook NAME`"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "targets.yaml").write_text(GOOD)
    return tmp_path


def find(option: str | None, cwd: Path, **environ: str) -> Target:
    return resolve(option, environ=environ, cwd=cwd)


def test_targets_file_is_read_whole(here):
    found = load_targets(here / "targets.yaml")
    assert found.default == "staging"
    assert list(found.targets) == ["production", "staging", "local", "by_service"]
    production, staging, local, by_service = found.targets.values()
    assert (production.url, production.dialect) == ("postgresql://dba@db.example/app", "postgresql")
    assert (production.password_env, production.runs) == ("PROD_PASSWORD", Path("/var/lib/runbook/runs"))
    assert (staging.passfile, staging.environment) == (here / "pass", "staging")
    assert (local.dialect, local.url, local.runs) == ("sqlite", f"sqlite:///{here}/app.db", here / "runs")
    assert (by_service.service, by_service.keyring) == ("mypgservice", Keyring("runbook", "dba"))


def test_option_goes_before_environment_and_default(here):
    assert find("local", here, RUNBOOK_TARGET="production").name == "local"
    assert find(None, here, RUNBOOK_TARGET="production").name == "production"
    assert find(None, here, RUNBOOK_TARGET="").name == "staging"
    assert find(None, here).name == "staging"


def test_no_target_shows_three_ways(tmp_path):
    with pytest.raises(NoTarget) as caught:
        find(None, tmp_path)
    assert str(caught.value) == (
        "cannot tell which database is meant: name it in one of three ways\n"
        "  --target NAME|URL|FILE   for this command\n"
        "  RUNBOOK_TARGET           in the environment\n"
        "  default: NAME            in targets.yaml"
    )


@pytest.mark.parametrize("option", ["", " "])
def test_empty_option_is_not_the_default(here, option):
    """`--target "$TARGET"` with an unset variable mustn't go anywhere by itself."""
    with pytest.raises(BadTarget, match=r"^cannot use an empty --target: leave it out, or name one$"):
        find(option, here)


def test_mistyped_name_gets_a_hint(here):
    with pytest.raises(UnknownTarget) as caught:
        find("prodution", here)
    assert str(caught.value) == (
        "cannot find 'prodution' (did you mean 'production'?): it is no target's name, no URL and no SQLite file; "
        "targets.yaml has production, staging, local, by_service"
    )
    (here / "targets.yaml").unlink()
    with pytest.raises(UnknownTarget) as caught:
        find("prodution", here)
    assert str(caught.value) == (
        "cannot find 'prodution': it is no target's name, no URL and no SQLite file; "
        "there is no targets.yaml with names here"
    )


def test_file_is_a_target(here):
    path = here / "data" / "my.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as opened:
        opened.execute("CREATE TABLE t (a)")
    opened.close()
    (here / "empty.db").touch()
    (here / "text.db").write_text("not a database")
    assert find("data/my.db", here) == find(str(path), here) == find("sqlite:///data/my.db", here)
    assert connect_arguments(find("data/my.db", here), {}).path == path
    assert find("empty.db", here).dialect == "sqlite"
    with pytest.raises(BadTarget, match=r"^cannot use '.*/text.db' as a target: it is not a SQLite file$"):
        find("text.db", here)


def test_name_goes_before_a_file_of_that_name(here):
    (here / "staging").touch()
    assert find("staging", here).name == "staging"


@pytest.mark.parametrize(
    ("url", "text", "libpq"),
    [
        ("postgresql://dba@db/app", "postgresql://dba@db/app", {"user": "dba", "host": "db", "dbname": "app"}),
        ("postgres://db:5433", "postgresql://db:5433", {"host": "db", "port": "5433"}),
        ("postgresql+psycopg://u:@db/a", "postgresql://u@db/a", {"user": "u", "host": "db", "dbname": "a"}),
        ("postgresql:///app", "postgresql:///app", {"dbname": "app"}),
        ("postgresql://", "postgresql://", {}),
        ("postgresql://a%40b@[::1]:5432/x%20y", "postgresql://a%40b@[::1]:5432/x%20y",
         {"user": "a@b", "host": "::1", "port": "5432", "dbname": "x y"}),
        ("postgresql://h1:1,h2/a", "postgresql://h1:1,h2/a", {"host": "h1,h2", "port": "1,", "dbname": "a"}),
        ("postgresql:///a?host=/run/pg&sslmode=disable", "postgresql:///a?host=/run/pg&sslmode=disable",
         {"dbname": "a", "host": "/run/pg", "sslmode": "disable"}),
        ("postgresql://?service=x", "postgresql://?service=x", {"service": "x"}),
        ("postgresql://h/d?user=me@server", "postgresql://h/d?user=me@server",
         {"host": "h", "dbname": "d", "user": "me@server"}),
        ("service=x", "service=x", {"service": "x"}),
    ],
)  # fmt: skip
def test_url_becomes_libpq_keywords(tmp_path, url, text, libpq):
    target = find(url, tmp_path)
    arguments = connect_arguments(target, {})
    assert (target.name, target.url, target.dialect) == (None, text, "postgresql")
    assert arguments.libpq == libpq
    assert target.service == libpq.get("service")


WORD = st.text(min_size=1, max_size=8).filter(lambda word: "\0" not in word and word.isprintable())
HOST = st.one_of(st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True), st.sampled_from(["[::1]", "10.0.0.1"]))
PORT = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
MORE = st.dictionaries(st.sampled_from(["sslmode", "application_name", "options", "connect_timeout"]), WORD, max_size=3)


@given(
    st.one_of(st.just(""), WORD.map(lambda user: f"{quote(user, safe='')}@")),
    st.lists(st.tuples(HOST, PORT).map("".join), max_size=3).map(",".join),
    st.one_of(st.just(""), WORD.map(lambda name: f"/{quote(name, safe='')}")),
    MORE.map(lambda more: "&".join(f"{key}={quote(value, safe='')}" for key, value in more.items())),
)
def test_a_url_is_read_as_libpq_reads_it(user, hosts, database, query):
    url = f"postgresql://{user}{hosts}{database}{'?' if query else ''}{query}"
    read = {key: value for key, value in conninfo_to_dict(url).items() if value.strip(",")}  # ports "," say nothing
    assert parse_url(url, base=Path("/")).libpq == read


def test_arguments_open_the_database(empty_database, tmp_path):
    """With real drivers, on every kind of database."""
    arguments = connect_arguments(find(empty_database.url, tmp_path), {})
    assert arguments.dialect == empty_database.dialect
    if arguments.path:
        assert str(arguments.path) == empty_database.name
        return
    with psycopg.connect(**arguments.libpq) as connection:
        assert connection.info.dbname == empty_database.name


SECRETS = [
    "postgresql://dba:hunter22@db/app",
    "postgres://dba:hunter22@db/app",
    "postgresql+psycopg://:hunter22@db/app",
    "postgresql://dba:hunt/er22@db/app",
    "postgresql://dba:hunt?er22@db/app",
    "postgresql://dba:12?er22=@db/app",
    "postgresql://dba:hunt@er22@db/app",
    "postgresql://dba@db/app?password=hunter22",
    "postgresql://dba@db/app?sslmode=require&sslpassword=hunter22",
    "postgresql://dba@db/app?%70assword=hunter22",
    "mysql://dba:hunter22@db/app",
    "host=db password=hunter22",
    "host=db PASSWORD = hunter22",
    "service=x password=hunter22",
    "dba:hunter22@db/app",
    "postgres//dba:hunter22@db/app",
    "postgresql:/dba:hunter22@db/app",
]


@pytest.mark.parametrize("url", SECRETS)
def test_password_on_the_command_line_is_refused(here, url):
    """F: K01, T: 4. It stands in the process list, the shell's history and the log."""
    with pytest.raises(PasswordInArgv) as caught:
        find(url, here)
    assert str(caught.value) == (
        "cannot take a password from the command line: it has been seen in the process list and in the shell's history: "
        f"change it, and then use one of\n{WAYS}"
    )


@pytest.mark.parametrize("url", SECRETS)
def test_password_in_the_environments_target_is_refused(here, url):
    """F: K01."""
    with pytest.raises(PasswordInEnvironment) as caught:
        find(None, here, RUNBOOK_TARGET=url)
    assert str(caught.value) == (
        "cannot take the password from RUNBOOK_TARGET: it is handed to every program, and stands in their logs: "
        f"change it, and then use one of\n{WAYS}"
    )


@given(
    st.sampled_from(["postgresql://", "postgres://", "mysql://", "postgresql:/", "//", ""]),
    st.text(min_size=1).map(lambda word: f"hunter{word}22".replace("\0", "")),
    st.sampled_from(["db/app", "db", "db/app?sslmode=require", "[::1]:5432/app", ""]),
)
def test_no_message_repeats_a_password(scheme, word, rest):
    """Even in a URL that nobody quoted right."""
    with pytest.raises(BadInput) as caught:
        find(f"{scheme}dba:{word}@{rest}", Path("/nonexistent"))
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://db/app", "cannot open 'mysql': a target is postgresql://user@host/database or sqlite:///file.db"),
        ("postgress://db/app",
         ("cannot open 'postgress' (did you mean 'postgres'?): "
          "a target is postgresql://user@host/database or sqlite:///file.db")),
        ("postgresql://db:port/app",
         "cannot read host and port of the URL: write host:5432, or [::1]:5432 for an IPv6 address"),
        ("postgresql://db/a?sslmod=x",
         "cannot use 'sslmod' in the URL (did you mean 'sslmode'?): libpq has no such keyword"),
        ("postgresql://db/a?sslmode=x&sslmode=y", "cannot use 'sslmode' twice in one URL"),
        ("postgresql://db/a?host=x", "cannot use 'host' twice in one URL: it stands before and after the ?"),
        ("postgresql://db/a?sslmode", "cannot read the part of the URL after the ?: write key=value, joined by &"),
        ("sqlite://app.db",
         "cannot read the URL of a SQLite file: write sqlite:///file.db, or sqlite:////absolute/file.db"),
        ("sqlite:///", "cannot use a SQLite database in memory: it ends with the run; name a file"),
        ("sqlite:///:memory:", "cannot use a SQLite database in memory: it ends with the run; name a file"),
        ("sqlite:///a.db?mode=ro", "cannot use ? in the URL of a SQLite file: name the file alone"),
        ("sqlite:///~nobodyatall/a.db", "cannot find the home directory of '~nobodyatall'"),
    ],
)  # fmt: skip
def test_unusable_url_is_refused(tmp_path, url, message):
    with pytest.raises(BadTarget) as caught:
        find(url, tmp_path)
    assert str(caught.value) == message


@pytest.mark.parametrize("word", ["x" * 5_000, "~nobodyatall/x.db", "a b", "a\nb", "dba@db"])
def test_strange_word_is_unknown(here, word):
    with pytest.raises(UnknownTarget):
        find(word, here)


@given(st.text(alphabet="postgresql:/@?=&ab12,[].%~ ", max_size=40))
def test_any_url_is_read_or_refused(text):
    try:
        url = parse_url(text, base=Path("/base"))
    except BadInput:
        return
    assert url.dialect == "sqlite" or not holds_password(url.text)


IN_FILE = (
    "cannot take the password from here: whoever can read this file, or its history, has seen it: change it, and then use "
    "password_env, passfile or keyring"
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("targets: {a: {url: postgresql://u:hunter22@h/d}}\n", f"1:20: {IN_FILE}"),
        ("targets: {a: {url: postgresql://h/d, password: hunter22}}\n", f"1:38: {IN_FILE}"),
        ("targets: {a: {url: postgresql://h/d, passwordenv: X}}\n",
         "1:38: cannot use the key 'passwordenv' (did you mean 'password_env'?)"),
        ("target: {a: {service: x}}\n",
         "1:1: cannot use the key 'target' (did you mean 'targets'?)\n1:1: cannot find the key 'targets'"),
        ("default: stagin\ntargets: {staging: {service: x}}\n",
         "1:10: cannot find the target 'stagin' (did you mean 'staging'?)"),
        ("default: 5\ntargets: {a: {service: x}}\n", "1:10: cannot use this as 'default': a text is expected"),
        ("targets: {a: {}}\n", "1:11: cannot tell where this target is: give it one of 'url' and 'service'"),
        ("targets: {a: {url: sqlite:///a, service: b}}\n",
         "1:11: cannot tell where this target is: give it one of 'url' and 'service'"),
        ("targets: {a: x}\n", "1:14: cannot read this: keys with values are expected"),
        ("targets: [a]\n", "1:10: cannot read this: keys with values are expected"),
        ("- a\n", "1:1: cannot read this: keys with values are expected"),
        ("targets: {a: {url: postgresql://h:p/d}}\n",
         "1:20: cannot read host and port of the URL: write host:5432, or [::1]:5432 for an IPv6 address"),
        ("targets: {a: {url: sqlite:///a, passfile: p}}\n",
         "1:33: cannot use 'passfile' here: a SQLite file has no password"),
        ("targets: {a: {service: x, passfile: p, keyring: {service: s, user: u}}}\n",
         "1:40: cannot use 'keyring' beside 'passfile': keep one"),
        ("targets: {a: {url: postgresql://h/d?passfile=x, passfile: p}}\n",
         "1:49: cannot use 'passfile' beside the passfile in the URL: keep one"),
        ("targets: {a: {service: x, password_env: hunter-22}}\n",
         "1:41: cannot use this as the name of an environment variable: letters, digits and _"),
        ("targets: {a: {service: x, keyring: {service: s}}}\n",
         "1:27: cannot use this entry of the keyring: it needs 'service' and 'user'"),
        ("targets: {a: {service: x, passfile: ~nobodyatall/p}}\n",
         "1:37: cannot find the home directory of '~nobodyatall'"),
        ("targets: {a/b: {service: x}}\n",
         "1:11: cannot use this as a target's name: a letter, then letters, digits, _ . -"),
        ("targets:\n  a:\n    url: 'x' hunter22\n",
         "3:14: cannot read this line (not shown: a password may stand in it): quote its value"),
        ("targets:\n  a: {service: x}\n  a: {service: y}\n",
         "3:3: cannot use the key 'a' twice: it stands at FILE:2:3 already"),
    ],
)  # fmt: skip
def test_fault_in_targets_file_has_its_place(tmp_path, text, message):
    file = tmp_path / "targets.yaml"
    file.write_text(text)
    with pytest.raises(Faulty) as caught:
        load_targets(file)
    assert str(caught.value) == "\n".join(f"{file}:{line}" for line in message.replace("FILE", str(file)).splitlines())
    assert "hunter" not in str(caught.value)


def test_targets_file_must_be_there(tmp_path):
    with pytest.raises(BadTarget, match=r"^cannot read '.*/none.yaml': No such file or directory$"):
        load_targets(tmp_path / "none.yaml")


def test_password_comes_from_the_environment(here):
    target = find("production", here)
    assert password(target, {"PROD_PASSWORD": "hunter22"}) == "hunter22"
    arguments = connect_arguments(target, {"PROD_PASSWORD": "hunter22"})
    assert arguments.password == "hunter22"
    assert "hunter22" not in repr(arguments)
    with pytest.raises(PasswordMissing, match=r"^cannot find the password: the environment has no 'PROD_PASSWORD'$"):
        password(target, {"PROD_PASSWORD": ""})


def test_bare_url_takes_libpqs_variable(tmp_path):
    assert password(find("postgresql://db/a", tmp_path), {"PGPASSWORD": "hunter22"}) == "hunter22"
    assert password(find("postgresql://db/a", tmp_path), {}) is None
    assert password(find("sqlite:///a.db", tmp_path), {"PGPASSWORD": "hunter22"}) is None


def test_password_file_is_handed_to_libpq(here):
    target = find("staging", here)
    with pytest.raises(PasswordMissing, match=r"^cannot read the password file '.*/pass': No such file or directory$"):
        connect_arguments(target, {})
    (here / "pass").write_text("*:*:*:*:hunter22")
    (here / "pass").chmod(0o640)
    with pytest.raises(
        PasswordMissing,
        match=r"^cannot use the password file '.*/pass': others can read it \(mode 0640\); chmod 600 it$",
    ):
        connect_arguments(target, {})
    (here / "pass").chmod(0o600)
    assert connect_arguments(target, {}).libpq["passfile"] == str(here / "pass")
    assert connect_arguments(target, {}).password is None
    with pytest.raises(BadTarget, match=r"^cannot use the target's passfile while PGPASSWORD is set: unset it$"):
        connect_arguments(target, {"PGPASSWORD": "other"})


@pytest.fixture
def keyring_entries():
    """A real backend of the keyring package that keeps its entries in this process."""
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend

    class InProcess(KeyringBackend):
        priority = 1
        entries: ClassVar[dict] = {}

        def get_password(self, service, username):
            return self.entries.get((service, username))

        def set_password(self, service, username, password):
            self.entries[service, username] = password

    before = keyring.get_keyring()
    keyring.set_keyring(InProcess())
    yield InProcess.entries
    keyring.set_keyring(before)


def test_password_comes_from_the_keyring(here, keyring_entries):
    target = find("by_service", here)
    with pytest.raises(PasswordMissing) as caught:
        password(target, {})
    assert str(caught.value) == (
        "cannot find the password: the keyring has none for 'runbook', 'dba'; run `keyring set runbook dba`"
    )
    keyring_entries["runbook", "dba"] = "hunter22"
    assert password(target, {}) == "hunter22"


def test_keyring_that_is_not_installed_is_named(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(PasswordMissing) as caught:
        password(find("by_service", here), {})
    assert str(caught.value) == (
        "cannot read the keyring: the package keyring is not installed; pip install 'runbook-engine[keyring]'"
    )
