"""Processes that run many runs side by side."""

import os
import signal
import subprocess
import sys
import time

import pytest

from flsec.simulations.studies.workers import worker_pool


def test_an_error_cancels_what_has_not_begun():
    waiting = []

    def stop():
        with worker_pool(1) as pool:
            waiting.extend(pool.submit(time.sleep, 0.2) for _ in range(50))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop()
    assert sum(future.cancelled() for future in waiting) > 40


def test_workers_end_with_a_parent_that_is_killed():
    script = (
        "import os, time\n"
        "from flsec.simulations.studies.workers import worker_pool\n"
        "if __name__ == '__main__':\n"
        "    with worker_pool(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        for _ in range(300):
            if not _alive(worker):
                break
            time.sleep(0.1)
        alive = _alive(worker)
    assert not alive


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as file:  # a zombie that nobody has waited for is gone, too
        return file.read().rpartition(")")[2].split()[0] != "Z"
