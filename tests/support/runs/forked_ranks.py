"""Two ranks in forks of one process, which imports torch and Lightning once; Lightning takes them for a cluster's."""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn


def run_on_forked_ranks(function: Callable[[], object]) -> NoReturn:
    """Call a function as rank 0 and, in a fork, as rank 1; then exit, with status 1 if it has raised on a rank.

    Call it before any process group or thread runs.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "WORLD_SIZE": "2"}
    child = os.fork()
    os.environ["LOCAL_RANK"] = "0" if child else "1"
    status = 0
    try:
        function()
    except BaseException:
        traceback.print_exc()
        status = 1
    if child:
        if status:
            os.kill(child, signal.SIGKILL)  # it may wait for this rank
        _, ended = os.waitpid(child, 0)
        status = status or ended
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(int(status != 0))  # gloo's threads can abort a normal exit
