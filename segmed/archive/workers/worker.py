"""The worker process: loads the model once, then segments the jobs it receives.

Started by `worker_engine` with the number of its end of a socket as second argument.
After a failure of its GPU the process ends, and the driver replaces it.
It ends when the other end closes, so it never outlives its driver by more than the study in hand.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from multiprocessing.connection import Connection

from segmed.archive.engine import Results, ThreadEngine
from segmed.archive.job import Result
from segmed.archive.model import read_packages
from segmed.archive.workers.setup import GPU_FAULT_STATUS, Ready, Setup
from segmed.errors import SegmedError
from segmed.inference.joined import predictor_of
from segmed.outcomes import GPU_FAULT


def serve(connection: Connection) -> None:
    """Load the model, report that it is ready, and segment jobs until the other end closes."""
    setup: Setup = connection.recv()
    results: Results = queue.Queue()
    try:
        packages = read_packages(setup.packages)
        predictor = predictor_of(packages, **setup.options)
    except SegmedError as error:
        connection.send(Ready(str(error)))
        return
    engine = ThreadEngine(predictor, setup.writing, results, trusted=True)
    connection.send(Ready())

    def forward() -> None:
        while True:
            result = results.get()
            if isinstance(result, Result) and result.reason == GPU_FAULT:
                os._exit(GPU_FAULT_STATUS)  # the studies in hand are tried again by another process
            try:
                connection.send(result)
            except OSError:
                os._exit(1)

    threading.Thread(target=forward, daemon=True).start()
    while True:
        try:
            engine.submit(connection.recv())
        except (EOFError, OSError):
            os._exit(0)  # the driver is gone or has no more work; drafts are swept by the next run


if __name__ == "__main__":
    serve(Connection(int(sys.argv[2])))
