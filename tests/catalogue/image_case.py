# SPDX-License-Identifier: MIT
"""
What an image case is made of: the decorator that registers it, and the trial
it gets, which stands in an empty directory of its own.

    @case
    def cve_2008_2004_raw_stays_raw(t):
        '''Guards against ...'''

t.refuses(path) and t.serves(path) are for images that must not, or must, be
served; they and t.look() bound the time and the memory that it takes.
"""

import contextlib
import ctypes
import hashlib
import os
import re
import struct

from case import Failure, check, check_equal
from programs import OPEN_CPU_SECONDS, OPEN_RSS_MIB, Refused, function_names
from servers import Unoffered

CASES = {}
SECRET = b"the secret of another tenant " * 40
IN_OPEN = 0x20
DIGEST_BYTES_MAX = 4 << 20
TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
FUNCTION_NAMES = function_names(TOP)


def case(function):
    assert function.__doc__.strip().startswith("Guards against"), \
        f"{function.__name__} does not say what it guards against"
    CASES[function.__name__] = function
    return function


def digest(path):
    """All that is in a file, or of a huge one its beginning; and its dates."""
    status = os.stat(path)
    with open(path, "rb") as file:
        data = file.read(DIGEST_BYTES_MAX)
    return (status.st_size, status.st_blocks, status.st_mtime_ns,
            hashlib.sha256(data).hexdigest())


class OpenWatch:
    """Notes which files of a directory anybody opens."""

    def __init__(self, directory):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.fd = self.libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        watch = self.libc.inotify_add_watch(self.fd, os.fsencode(directory),
                                            IN_OPEN)
        if self.fd < 0 or watch < 0:
            raise Unoffered("inotify cannot be used here")

    def opened(self):
        """The names, without the directory's own; then begins anew."""
        names = set()
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.fd, 65536):
                while data:
                    length, = struct.unpack_from("I", data, 12)
                    name = data[16:16 + length].rstrip(b"\0")
                    names.add(os.fsdecode(name))
                    data = data[16 + length:]
        return names - {""}

    def close(self):
        os.close(self.fd)


class Trial:
    """One run of one case against one program."""

    def __init__(self, program):
        self.program = program

    def secret(self, path="secret"):
        """Makes a file that nobody may get to see."""
        with open(path, "wb") as file:
            file.write(SECRET)
        return path

    @contextlib.contextmanager
    def only_opens(self, *names, directory="."):
        """Nothing else of the directory is opened meanwhile."""
        watch = OpenWatch(directory)
        try:
            yield
            others = watch.opened() - set(names)
            check(not others, f"opened {', '.join(sorted(others))}")
        finally:
            watch.close()

    # Looking at images.

    def look(self, what, path, *statuses, form="qcow2",
             cpu_seconds=OPEN_CPU_SECONDS, rss_mib=OPEN_RSS_MIB):
        """Runs info or check, which must end with one of the statuses."""
        done = self.program.look(what, path, form)
        done.check_sane(cpu_seconds, rss_mib)
        if self.program.rules_of_qnbd:
            check(done.status in statuses, f"{done.command}: status "
                  f"{done.status}, not {statuses}: {done.errors[-300:]}")
            self.check_words(done, path)
        return done

    def check_words(self, done, path):
        """An error says in which file, in words for people."""
        lines = [line for line in done.errors.splitlines()
                 if line.startswith("qnbd: ")]
        if done.status == 1 and "not checked: " not in done.errors:
            check(lines, f"{done.command}: no message: {done.errors[-300:]}")
        for line in lines:
            check(os.path.basename(path) in line or done.status != 1
                  or "serving" in line, f"does not name the file: {line}")
            words = set(re.findall(r"[a-z0-9]+(?:_[a-z0-9]+)+", line))
            names = words & FUNCTION_NAMES
            check(not names, f"names functions: {names}: {line}")

    # Serving images.

    def read_all(self, path, form="qcow2", writable=False, limit=1 << 20,
                 cpu_seconds=OPEN_CPU_SECONDS, rss_mib=OPEN_RSS_MIB):
        """The first bytes of the disk up to a limit; raises Refused."""
        with self.program.serve(path, form, writable) as server:
            client = server.client()
            data = bytearray()
            while len(data) < min(client.size, limit):
                length = min(1 << 20, client.size - len(data))
                reply = client.command(0, len(data), length)
                data += reply.data if not reply.error else bytes(length)
            client.disconnect()
            server.stop().check_sane(cpu_seconds, rss_mib)
        return bytes(data)

    def refuses(self, path, form="qcow2", writable=False, statuses=(1,)):
        """The image is not served, and is left as it is."""
        before = digest(path)
        try:
            with self.program.serve(path, form, writable):
                raise Failure(f"{path} is served")
        except Refused as refused:
            done = refused.done
        done.check_sane()
        check_equal(digest(path), before, f"what is in {path}")
        if self.program.rules_of_qnbd:
            check(done.status in statuses, f"{done.command}: status "
                  f"{done.status}, not {statuses}: {done.errors[-300:]}")
            self.check_words(done, path)
        return done

    def serves(self, path, form="qcow2", writable=False, **limits):
        """The image is served, and its disk begins with these bytes."""
        try:
            return self.read_all(path, form, writable, **limits)
        except Refused as refused:
            refused.done.check_sane()
            raise Failure(f"{path} is refused: {refused}") from None

    def hides(self, path, form="qcow2", statuses=(1, 77), **limits):
        """
        The secret is not to be had by serving the image.  qnbd refuses to
        serve it at all; others may serve what has no secret in it.
        """
        if self.program.rules_of_qnbd:
            return self.refuses(path, form, statuses=statuses)
        try:
            data = self.read_all(path, form, **limits)
        except Refused as refused:
            refused.done.check_sane()
            return refused.done
        check(SECRET[:64] not in data, f"{path} shows the secret")
        return None
