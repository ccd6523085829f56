"""A worker process that follows a plan: what it does at an input, and whether only the first time.

Loads neither numpy nor torch. The plan is {input: deed}: "die", "hang", "memory", "fail", and with " once" behind it
only if no other process has done it before.
"""

import os
import pickle
import queue
import signal
import threading
import time
from pathlib import Path

BATCH = 4


def serve(connection, packed, digest, folder, memory) -> None:
    plan, stopped, units = pickle.loads(packed), threading.Event(), queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())

    def listen() -> None:
        while True:
            units.put(connection.recv())

    if plan.get("start") == "die":
        os._exit(3)
    threading.Thread(target=listen, daemon=True).start()
    connection.send(("ready",))
    while True:
        rows, _, _ = units.get()
        for start in range(rows.start, rows.stop, BATCH):
            part = range(start, min(rows.stop, start + BATCH))
            for row in part:
                _do(plan.get(row, ""), row, Path(folder), connection)
            time.sleep(plan.get("sleep", 0.0))
            connection.send(("piece", (part, [(row, os.getpid()) for row in part], {})))
            if stopped.is_set():
                break
        connection.send(("done",))


def _do(deed: str, row: int, folder: Path, connection) -> None:
    if deed.endswith(" once"):
        try:
            (folder / f"done-{row}").touch(exist_ok=False)
        except FileExistsError:
            return
    if deed.startswith("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif deed.startswith("memory"):
        os._exit(70)
    elif deed.startswith("hang"):
        # As native code does that never returns.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        time.sleep(1000)
    elif deed.startswith("fail"):
        connection.send(("failed", ValueError("the work is wrong")))
        time.sleep(1000)
