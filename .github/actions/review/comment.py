# ruff: noqa: INP001 - a program of the action, and no module
"""Keeps one comment on a pull request up to date: its own, found again by the marker in its first line.

Needs nothing but Python. A token that may not write, as on pull requests of forks, is a warning: the job's summary has the text.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

ATTEMPTS, LONGEST_WAIT_S = 3, 60.0  # what a rate limit may cost; beyond it the job says so


class Refused(Exception):
    """An answer other than success. code: of HTTP, 0 where there was no answer; limited: by a limit on requests."""

    def __init__(self, code: int, why: str, *, limited: bool = False) -> None:
        super().__init__(f"{code}: {why}" if code else why)
        self.code, self.limited = code, limited


class GitHub:
    """The few requests that a comment needs."""

    def __init__(self, api: str, token: str) -> None:
        self._api, self._token = api.rstrip("/"), token

    def ask(self, method: str, path: str, body: object = None) -> tuple[object, str]:
        """The answer and the address of its next page; waits where a limit on requests says for how long."""
        address = path if path.startswith(self._api) else f"{self._api}/{path}"
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._once(method, address, body)
            except urllib.error.HTTPError as error:
                wait = _asked_to_wait(error)
                if wait is None or wait > LONGEST_WAIT_S or attempt == ATTEMPTS:
                    why = _why(error, wait)
                    raise Refused(error.code, why, limited=wait is not None or "rate limit" in why) from None
                time.sleep(wait)
            except (urllib.error.URLError, OSError, ValueError) as error:
                raise Refused(0, f"cannot reach {self._api}: {error}") from None
        raise AssertionError("unreachable")

    def _once(self, method: str, address: str, body: object) -> tuple[object, str]:
        headers = {
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {self._token}",
            "User-Agent": "runbook-review",
            "X-GitHub-Api-Version": "2022-11-28",
        }
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, headers, method=method)  # noqa: S310 - the runner gives the address
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            found = re.search(r'<([^>]*)>; rel="next"', answer.headers.get("Link", ""))
            return json.load(answer), found[1] if found else ""


def _asked_to_wait(error: urllib.error.HTTPError) -> float | None:
    """For how many seconds a limit on requests asks to wait; None where it is another error."""
    if error.code not in (403, 429):
        return None
    if after := error.headers.get("Retry-After", ""):
        return float(after) if after.isdigit() else LONGEST_WAIT_S
    if error.headers.get("X-RateLimit-Remaining") == "0":
        return max(float(error.headers.get("X-RateLimit-Reset", "0")) - time.time(), 0.0)
    return None


def _why(error: urllib.error.HTTPError, wait: float | None) -> str:
    try:
        said = str(json.load(error).get("message", ""))
    except (ValueError, OSError, AttributeError):
        said = ""
    limit = f" (a limit on requests, for {wait:.0f} s more)" if wait is not None else ""
    return " ".join(f"{said or error.reason}{limit}".split())


def own_comment(github: GitHub, comments: str, marker: str) -> int | None:
    """The number of the comment that this token wrote; anybody may write one that begins with the marker."""
    author = _author(github)
    address = f"{comments}?per_page=100"
    while address:
        page, address = github.ask("GET", address)
        for one in page if isinstance(page, list) else []:
            user = one.get("user") or {}
            ours = user.get("login") == author if author else user.get("type") == "Bot"
            if ours and str(one.get("body") or "").startswith(marker):
                return int(one["id"])
    return None


def _author(github: GitHub) -> str:
    """Whose token it is; "" for that of a job or an app, which may not ask."""
    try:
        user, _ = github.ask("GET", "user")
    except Refused as refused:
        if refused.code in (401, 403, 404):
            return ""
        raise
    return str(user.get("login", "")) if isinstance(user, dict) else ""


def keep(github: GitHub, repository: str, number: str, text: str) -> str:
    """Write the comment anew, or change the one that is there; returns what was done."""
    comments = f"repos/{repository}/issues/{number}/comments"
    known = own_comment(github, comments, text.partition("\n")[0])
    if known is not None:
        try:
            github.ask("PATCH", f"repos/{repository}/issues/comments/{known}", {"body": text})
            return "updated"
        except Refused as refused:
            if refused.code != 404:  # removed by somebody meanwhile
                raise
    github.ask("POST", comments, {"body": text})
    return "written"


def main() -> int:
    env = os.environ
    text = (Path(env["REVIEW_OUT"]) / "comment.md").read_text(encoding="utf-8")
    github = GitHub(env.get("GITHUB_API_URL", "https://api.github.com"), env["GH_TOKEN"])
    try:
        done = keep(github, env["GITHUB_REPOSITORY"], env["PULL_REQUEST"], text)
    except Refused as refused:
        told = f"cannot comment on pull request {env['PULL_REQUEST']}: {refused}; the job's summary has the review"
        read_only = refused.code == 403 and not refused.limited
        print(f"::{'warning' if read_only else 'error'}::{told}")  # noqa: T201 - how a job speaks
        return 0 if read_only else 1
    print(f"comment {done}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
