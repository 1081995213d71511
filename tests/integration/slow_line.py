"""A slow line: a TCP relay that lets so many bytes a second through on each connection."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

BLOCK = 4096
BYTES_PER_S = 45_000
STUDIES = 16
"""So many hippocampus series keep two connections busy for half a minute."""


class SlowLine:
    """Relays connections to a port of this machine; answers come slowly.

    Args:
        target: The port behind the line.
        bytes_per_s: What each connection lets through towards the client.
    """

    def __init__(self, target: int, bytes_per_s: float) -> None:
        self._target = target
        self._bytes_per_s = bytes_per_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            back = threading.Thread(target=_relay, args=(client, server, 0.0), daemon=True)
            back.start()
            _relay(server, client, 1.0 / self._bytes_per_s)
            back.join()


def _relay(source: socket.socket, sink: socket.socket, seconds_a_byte: float) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(BLOCK):
            time.sleep(seconds_a_byte * len(block))
            sink.sendall(block)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
