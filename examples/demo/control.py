"""A Unix socket through which the shop's button stops and starts the Profile API."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Generator
from pathlib import Path
from tempfile import TemporaryDirectory

from .launcher import Launcher
from .process import DemoError

CONTROL_VARIABLE = "STOREFRONT_CONTROL"
"""The environment variable that gives the shop the path of the socket."""


class ControlServer:
    """Answers one request a connection: `status`, `start` or `stop`. The reply is `running` or `stopped`.

    The socket lies in a directory that only its owner can open.

    Args:
        launcher: has a process named `"api"`.
        path: where the socket is.
    """

    def __init__(self, launcher: Launcher, path: Path) -> None:
        self.path = path

        class Handler(socketserver.StreamRequestHandler):
            timeout = 5.0

            def handle(self) -> None:
                request = self.rfile.readline(20).strip()
                with contextlib.suppress(DemoError):
                    if request == b"start":
                        launcher.start("api")
                    elif request == b"stop":
                        launcher.stop("api")
                self.wfile.write(b"running\n" if launcher.is_running("api") else b"stopped\n")

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @classmethod
    @contextlib.contextmanager
    def serving(cls, launcher: Launcher) -> Generator[ControlServer]:
        """Serve until the end of the block."""
        with TemporaryDirectory(prefix="profile-enrich-demo-") as folder:
            server = cls(launcher, Path(folder) / "control")
            server._thread.start()
            try:
                yield server
            finally:
                server._server.shutdown()
                server._server.server_close()
                server._thread.join()
