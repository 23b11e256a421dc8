"""Stands between a client and a PostgreSQL server, and goes silent at a COMMIT: every socket stays open, and nothing comes."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path

from proxy import END, NAME, _close, _received


class Silence:
    """Silent from the first COMMIT of a connection that has sent `mark`, before or after the server acts.

    alone: only that connection; else all that are open and all that come, until `heal()`.
    """

    def __init__(self, directory: Path, server: Path, *, mark: bytes, acted: bool, alone: bool) -> None:
        self._server, self._mark, self._acted, self._alone = str(server / NAME), mark, acted, alone
        self.times = 0
        self._all = threading.Event()
        self._kept: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(directory / NAME))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def heal(self) -> None:
        self._all.clear()

    def close(self) -> None:
        _close(self._listening, *self._kept)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._all.is_set():
                    self._kept.append(client)
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                mute = threading.Event()
                for one, other, forth in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(one, other, mute, forth), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket, mute: threading.Event, forth: bool) -> None:
        marked = False
        for data in _received(one):
            if mute.is_set() or self._all.is_set():
                self._kept += [one, other]
                return  # both stay open
            marked = marked or (forth and self._mark in data)
            if marked and END in data and not self.times:
                self.times += 1
                mute.set()
                if not self._alone:
                    self._all.set()
                if not self._acted:
                    self._kept += [one, other]
                    return
            with contextlib.suppress(OSError):
                other.sendall(data)
        _close(other, one)
