# SPDX-License-Identifier: MIT
"""
What all that start servers share: `qnbd serve` as a child that says when it
listens, waiting with an end, and how a sanitizer's report is recognised.
"""

import os
import select
import subprocess
import time

POLL_SECONDS = 0.01
# In what a server wrote to its standard error.
SANITIZER_MARKS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer",
                   "WARNING: ThreadSanitizer", "runtime error:")


def wait_until(condition, seconds):
    """Whether condition came true within seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def start_qnbd(arguments, log, seconds, prefix=(), **options):
    """
    $QNBD serves: a Popen, and whether it listens; else it has ended, or is about
    to.  log is for its standard error, prefix a command that runs it, options
    are Popen's.  TimeoutError: it does neither, and was killed.
    """
    reader, writer = os.pipe()
    with open(reader, "rb", buffering=0) as ready:
        try:
            process = subprocess.Popen(
                [*prefix, os.environ["QNBD"], "serve", "--ready-fd",
                 str(writer), *arguments], stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=log, pass_fds=[writer],
                **options)
        finally:
            os.close(writer)
        if not select.select([ready], [], [], seconds)[0]:
            process.kill()
            process.wait()
            raise TimeoutError("it neither listens nor ends")
        # All of it: who counts its descriptors wants that one closed.
        return process, ready.read() == b"\n"
