"""Stands between a client and a PostgreSQL server, and cuts the connection at a COMMIT, before or after the server acts."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

NAME = ".s.PGSQL.5432"
END = b"COMMIT\0"


class Proxy:
    """Cuts once: at the first COMMIT of a connection that has sent `mark`."""

    def __init__(self, directory: Path, server: Path, *, mark: bytes, acted: bool) -> None:
        self._server, self._mark, self._acted = str(server / NAME), mark, acted
        self.cuts = 0
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(directory / NAME))
        self._listening.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                silent = threading.Event()
                threading.Thread(target=self._to_server, args=(client, server, silent), daemon=True).start()
                threading.Thread(target=self._to_client, args=(server, client, silent), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket, silent: threading.Event) -> None:
        marked = False
        for data in _received(client):
            marked = marked or self._mark in data
            if marked and END in data and not self.cuts:
                self.cuts += 1
                silent.set()
                if self._acted:
                    server.sendall(data)
                    continue  # its answer ends both
                break
            server.sendall(data)
        _close(server, client)

    def _to_client(self, server: socket.socket, client: socket.socket, silent: threading.Event) -> None:
        for data in _received(server):
            if silent.is_set():
                break
            with contextlib.suppress(OSError):
                client.sendall(data)
        _close(client, server)


def _received(one: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while data := one.recv(65536):
            yield data


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
