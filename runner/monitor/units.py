"""Writes what calls `runbook monitor once` regularly: a systemd timer and service, a line for cron, a CronJob."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NAME, _DIGEST = 36, 6  # signs of what follows `runbook-monitor-`, and of what tells similar targets apart


@dataclass(frozen=True)
class Call:
    """How the command is called. minutes: how often; a divisor of an hour, as cron wants it."""

    target: str
    runs: Path
    directory: Path
    minutes: int
    image: str

    @property
    def words(self) -> list[str]:
        return [_program(), *self.options(self.runs)]

    def options(self, runs: Path) -> list[str]:
        return ["monitor", "once", "--quiet", "--target", self.target, "--runs", str(runs)]

    @property
    def name(self) -> str:
        """A name for files and units: letters, digits and hyphens, at most 52, as a CronJob's; another one for each target."""
        plain = re.sub(r"[^a-z0-9]+", "-", self.target.rpartition("/")[2].lower()).strip("-")
        if plain != self.target or len(plain) > _NAME:
            digest = hashlib.sha256(self.target.encode(errors="surrogateescape")).hexdigest()[:_DIGEST]
            plain = f"{plain[: _NAME - _DIGEST - 1].rstrip('-') or 'target'}-{digest}"
        return f"runbook-monitor-{plain}"


def files(call: Call) -> dict[str, str]:
    """File name → text."""
    return {
        f"{call.name}.service": service(call),
        f"{call.name}.timer": timer(call),
        f"{call.name}.cron": cron(call),
        f"{call.name}.cronjob.yaml": cronjob(call),
    }


def service(call: Call) -> str:
    """A oneshot service; an alert (exit code 14) leaves it failed, for OnFailure= and whoever watches systemd."""
    return f"""# Called by {call.name}.timer. Passwords: a password file, a keyring, or Environment= in a drop-in that only root reads.
[Unit]
Description=Runbook: look at what is due on {_specifiers(call.target)}
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
WorkingDirectory={_specifiers(str(call.directory))}
ExecStart={" ".join(map(_quoted, call.words))}
"""


def timer(call: Call) -> str:
    """The timer: every so many minutes; what is due at which time stands in the playbooks."""
    return f"""# systemctl enable --now {call.name}.timer
[Unit]
Description=Runbook: monitors of {_specifiers(call.target)}

[Timer]
OnCalendar={f"*:0/{call.minutes}" if call.minutes < 60 else "hourly"}
Persistent=true

[Install]
WantedBy=timers.target
"""


def cron(call: Call) -> str:
    """A line for `crontab -e`. Cron mails what is printed, and --quiet prints only what has changed."""
    command = f"cd {shlex.quote(str(call.directory))} && {shlex.join(call.words)}"
    every = "*" if call.minutes == 1 else f"*/{call.minutes}" if call.minutes < 60 else "0"
    percent = command.replace("%", r"\%")  # a bare % would end the command
    return f"{every} * * * * {percent}\n"


def cronjob(call: Call) -> str:
    """A Kubernetes CronJob. It needs a volume for the runs directory where alerts are to stand in the trails, too."""
    every = "*" if call.minutes == 1 else f"*/{call.minutes}" if call.minutes < 60 else "0"
    arguments = "\n".join(f"                - {json.dumps(word)}" for word in call.options(Path("/runs")))
    return f"""apiVersion: batch/v1
kind: CronJob
metadata:
  name: {call.name}
spec:
  schedule: {json.dumps(f"{every} * * * *")}
  concurrencyPolicy: Forbid
  jobTemplate:
    spec:
      backoffLimit: 0                          # an alert is no fault of the job's: don't try it again
      template:
        spec:
          restartPolicy: Never
          containers:
            - name: monitor
              image: {json.dumps(call.image)}
              command: [runbook]
              args:
{arguments}
              envFrom:
                - secretRef: {{name: {call.name}, optional: true}}   # what reaches the target: PGPASSWORD …
              volumeMounts:
                - {{name: runs, mountPath: /runs}}
          volumes:
            - {{name: runs, emptyDir: {{}}}}       # replace by the volume that holds the runs
"""


def _program() -> str:
    """The absolute path of this very command."""
    beside = Path(sys.executable).with_name("runbook")
    return str(beside if os.access(beside, os.X_OK) else Path(sys.argv[0]).absolute())


def _specifiers(text: str) -> str:
    """A text in a unit file, where % begins a specifier."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """One word of ExecStart=: quoted where systemd would split or expand it."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return _specifiers(f'"{escaped}"' if re.search(r"""[\s"'\\;]""", word) else escaped)


def minutes_of(seconds: float) -> int:
    """The interval in minutes; ValueError where it doesn't divide an hour."""
    minutes = round(seconds / 60)
    if minutes < 1 or 60 % minutes or abs(minutes * 60 - seconds) > 1:
        raise ValueError("write a span that divides an hour, such as '15 min'")
    return minutes


def written(texts: dict[str, str], directory: Path) -> Sequence[Path]:
    """Write the files; returns their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / name for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        path.write_text(text, encoding="utf-8")
    return paths
