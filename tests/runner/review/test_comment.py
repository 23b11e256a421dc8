"""The action's comment step against a server of our own that speaks the few endpoints of GitHub that it uses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / ".github" / "actions" / "review" / "comment.py"
MARKER = "<!-- runbook diff -->"
TOKEN = "ghs_only-for-this-test"
COMMENTS = "/repos/o/r/issues/7/comments"


@dataclass
class Forge:
    """Comments of one pull request, and how the server answers. refuse: method → answers given before the true one."""

    comments: list[dict] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    login: str = ""  # whose the token is; "": a job's, which may not ask
    read_only: bool = False
    refuse: dict[str, list[tuple[int, dict[str, str], str]]] = field(default_factory=dict)
    url: str = ""

    def add(self, body: str, *, login: str, kind: str) -> dict:
        number = 1000 + len(self.comments)
        self.comments.append({"id": number, "body": body, "user": {"login": login, "type": kind}})
        return self.comments[-1]

    def answer(self, method: str, path: str, body: dict) -> tuple[int, dict[str, str], object]:
        self.asked.append(f"{method} {path}")
        if self.refuse.get(method):
            code, headers, message = self.refuse[method].pop(0)
            return code, headers, {"message": message}
        bare, _, query = path.partition("?")
        if method == "GET" and bare == "/user":
            denied = 403, {}, {"message": "Resource not accessible by integration"}
            return (200, {}, {"login": self.login}) if self.login else denied
        if method == "GET" and bare == COMMENTS:
            return self.page(query)
        if self.read_only:
            return 403, {}, {"message": "Resource not accessible by integration"}
        if method == "POST" and bare == COMMENTS:
            return 201, {}, self.add(body["body"], login=self.login or "github-actions[bot]", kind=self.kind)
        found = [one for one in self.comments if bare == f"/repos/o/r/issues/comments/{one['id']}"]
        if method == "PATCH" and found:
            found[0]["body"] = body["body"]
            return 200, {}, found[0]
        return 404, {}, {"message": "Not Found"}

    @property
    def kind(self) -> str:
        return "User" if self.login else "Bot"

    def page(self, query: str) -> tuple[int, dict[str, str], object]:
        words = dict(one.split("=") for one in query.split("&") if one)
        size, number = int(words.get("per_page", "30")), int(words.get("page", "1"))
        more = number * size < len(self.comments)
        following = f'<{self.url}{COMMENTS}?per_page={size}&page={number + 1}>; rel="next", <{self.url}/x>; rel="last"'
        return 200, {"Link": following} if more else {}, self.comments[(number - 1) * size : number * size]


@pytest.fixture
def forge() -> Iterator[Forge]:
    found = Forge()

    class Handler(BaseHTTPRequestHandler):
        def handle_one(self) -> None:
            assert self.headers["Authorization"] == f"Bearer {TOKEN}"
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            code, headers, document = found.answer(self.command, self.path, body)
            sent = json.dumps(document).encode()
            self.send_response(code)
            for name, value in {**headers, "Content-Length": str(len(sent))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PATCH = handle_one  # noqa: N815 - the server's names

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def comment(forge: Forge, out: Path, text: str) -> subprocess.CompletedProcess[str]:
    (out / "comment.md").write_text(f"{MARKER}\n{text}\n", encoding="utf-8")
    env = {
        "REVIEW_OUT": str(out),
        "GITHUB_API_URL": forge.url,
        "GITHUB_REPOSITORY": "o/r",
        "PULL_REQUEST": "7",
        "GH_TOKEN": TOKEN,
        "PATH": os.environ["PATH"],
        "no_proxy": "*",
    }
    done = subprocess.run(
        [sys.executable, SCRIPT], env=env, capture_output=True, text=True, check=False, timeout=300, cwd=out
    )
    assert TOKEN not in done.stdout + done.stderr and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("login", ["", "ann"], ids=["a job's token", "a person's token"])
def test_one_comment_is_written_then_changed_in_place(forge: Forge, tmp_path: Path, login: str):
    """Also among more comments than one page has; and never one that somebody else began with the marker."""
    forge.login = login
    impostor = forge.add(f"{MARKER}\nall is well", login="eve", kind="User")
    for number in range(230):
        forge.add(f"comment {number}", login="bob", kind="User")
    assert comment(forge, tmp_path, "first — ünïcode").returncode == 0
    assert len(forge.comments) == 232 and forge.comments[-1]["body"] == f"{MARKER}\nfirst — ünïcode\n"
    for number in range(60):
        forge.add(f"later {number}", login="bob", kind="User")
    assert comment(forge, tmp_path, "second").returncode == 0
    assert len(forge.comments) == 292 and forge.comments[231]["body"] == f"{MARKER}\nsecond\n"
    assert impostor["body"] == f"{MARKER}\nall is well"
    assert f"GET {COMMENTS}?per_page=100&page=3" in forge.asked


def test_own_comment_that_was_removed_meanwhile_is_written_again(forge: Forge, tmp_path: Path):
    forge.add(f"{MARKER}\nold", login="github-actions[bot]", kind="Bot")
    forge.refuse["PATCH"] = [(404, {}, "Not Found")]
    assert comment(forge, tmp_path, "new").returncode == 0
    assert [one["body"] for one in forge.comments] == [f"{MARKER}\nold", f"{MARKER}\nnew\n"]


def test_read_only_token_of_a_fork_is_a_warning(forge: Forge, tmp_path: Path):
    """The check itself is the review's, so that a pull request of a fork isn't refused for its token."""
    forge.read_only = True
    done = comment(forge, tmp_path, "text")
    assert done.returncode == 0 and done.stdout.startswith("::warning::cannot comment on pull request 7")
    assert "not accessible" in done.stdout and "summary" in done.stdout


@pytest.mark.parametrize("code", [403, 429])
def test_limit_on_requests(forge: Forge, tmp_path: Path, code: int):
    """A short wait is kept; a long one, or one without an end, is said and fails."""
    soon = (code, {"Retry-After": "0"}, "You have exceeded a secondary rate limit")
    over = (code, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "0"}, "API rate limit exceeded")
    forge.refuse["POST"] = [soon, over]
    assert comment(forge, tmp_path, "text").returncode == 0 and len(forge.comments) == 1
    for refused in (
        [(code, {"Retry-After": "3600"}, "slow down")],
        [(code, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "99999999999"}, "API rate limit exceeded")],
        [soon] * 3,
    ):
        forge.refuse["GET"] = []
        forge.refuse["PATCH"] = list(refused)
        done = comment(forge, tmp_path, "other")
        assert done.returncode == 1 and done.stdout.startswith("::error::cannot comment"), done.stdout
        assert "limit on requests" in done.stdout
    assert forge.comments[0]["body"] == f"{MARKER}\ntext\n"


def test_server_that_answers_nothing_useful(forge: Forge, tmp_path: Path):
    forge.refuse["POST"] = [(422, {}, "body is too long\n::add-mask::x")]
    done = comment(forge, tmp_path, "text")
    assert done.returncode == 1 and "422: body is too long" in done.stdout
    assert len(done.stdout.splitlines()) == 1, "no line of the server's becomes a command to the job"
    forge.url = "http://127.0.0.1:1"
    done = comment(forge, tmp_path, "text")
    assert done.returncode == 1 and "cannot reach http://127.0.0.1:1" in done.stdout
