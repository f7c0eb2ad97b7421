# SPDX-License-Identifier: MIT
"""
What the tests of hostile and hapless clients share: a server under test that
can be looked into from outside, and a runner for cases.

A case is a function that is marked with @case and gets nothing; it fails by
raising.  Cases with long=True wait for timeouts of a minute or more, and run
only if QNBD_LONG is set.  What a case leaves out it says through leave_out().

The environment, set by make check and tests/functions.sh:

    QNBD            the program under test
    QNBD_SANITIZE   the sanitizers of this build; they make it slow and big
    QNBD_LONG       not empty: everything, without regard to time
"""

import ctypes
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)),
                                "..", "conformance"))

import wire  # noqa: E402
from case import Failure, Unmet, check, check_equal  # noqa: E402
from launch import SANITIZER_MARKS, start_qnbd, wait_until  # noqa: E402

SANITIZED = bool(os.environ.get("QNBD_SANITIZE", "").strip())
LONG = bool(os.environ.get("QNBD_LONG", ""))

# Nothing here depends on speed: these only bound how long a failure takes.
START_SECONDS = 60
STOP_SECONDS = 60
CLIENT_SECONDS = 60
# The promise is a second; what else the machine does may add to it.
FREED_SECONDS = 1
FREED_LATE_SECONDS = 15

LOG_LINES = 20
PR_SET_PDEATHSIG = 1

CASES = []


def case(long=False):
    def register(function):
        assert function.__doc__, f"{function.__name__} says not what it is for"
        CASES.append((function, long))
        return function
    return register


def leave_out(text):
    """Tells what the long tier would do more."""
    print(f"  left out: {text}", flush=True)


def say(text):
    print(f"  {text}", flush=True)


def fewer(plain, sanitized):
    """A count, smaller under sanitizers; the long tier does it all."""
    if not SANITIZED or LONG:
        return plain
    leave_out(f"{sanitized} instead of {plain}: the sanitizer is slow")
    return sanitized


def one_in(plain, sanitized):
    """The same for a step through all bytes of something."""
    if LONG:
        return 1
    step = sanitized if SANITIZED else plain
    if step > 1:
        leave_out(f"all but one in {step}")
    return step


def create_image(path, size, *options):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *options, path,
                    str(size)], check=True)


def check_image(path):
    """The image must be clean, without even a leak."""
    run = subprocess.run(["qemu-img", "check", "-f", "qcow2", path],
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    check(run.returncode == 0, f"qemu-img check ends with {run.returncode}: "
          + run.stdout.decode("utf-8", "replace")[-600:])


def raise_descriptor_limit(wanted):
    """Unmet where this many descriptors are not allowed to a process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Unmet(f"{wanted} descriptors are needed, {hard} allowed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


class Server:
    """
    qnbd serve of one image, on a unix socket and on TCP.

    options go to qnbd; prefix is a command that runs it; limit is for
    RLIMIT_NOFILE; ignored signals it finds ignored.
    """

    count = 0

    def __init__(self, image, *options, prefix=(), limit=None, ignored=(),
                 listen="tcp:127.0.0.1:0"):
        Server.count += 1
        self.image = image
        self.limit = limit
        self.ignored = ignored
        self.unix = os.path.abspath(f"clients{Server.count}.sock")
        self.log_path = f"clients{Server.count}.log"
        with open(self.log_path, "wb") as log:
            self.process, listens = start_qnbd(
                ["--listen", f"unix:{self.unix}", "--listen", listen,
                 *options, image], log, START_SECONDS, prefix,
                preexec_fn=self.prepare)
        if not listens:
            self.kill()
            raise Failure(f"the server did not start: {self.log_tail()}")
        self.pid = self.process.pid
        self.tcp = self.find_tcp()
        self.idle_descriptors = self.descriptors()

    def prepare(self):
        """In the child."""
        die_with_parent()
        for number in self.ignored:
            signal.signal(number, signal.SIG_IGN)
        if self.limit:
            resource.setrlimit(resource.RLIMIT_NOFILE,
                               (self.limit, self.limit))

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(f"--- the log of the server:\n{self.log_tail()}", flush=True)
        self.kill()

    def find_tcp(self):
        """It was given port 0 and says which one it took."""
        mark = 'listening on="tcp '
        wait_until(lambda: mark in self.log(), START_SECONDS)
        address = self.log().split(mark)[1].split('"')[0]
        host, port = address.rsplit(":", 1)
        return host, int(port)

    # What can be seen from outside.

    def log(self):
        with open(self.log_path, "r", errors="replace") as file:
            return file.read()

    def log_tail(self):
        return "\n".join(self.log().splitlines()[-LOG_LINES:])

    def loops(self):
        return int(self.log().split("loops=")[1].split()[0])

    def alive(self):
        return self.process.poll() is None

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status
                        if line.startswith("VmRSS:"))

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check_descriptors(self, clients):
        """It comes to hold those of this many clients; after how long."""
        expected = self.idle_descriptors + clients
        begun = time.monotonic()
        check(wait_until(lambda: self.descriptors() == expected,
                         FREED_LATE_SECONDS),
              f"{self.descriptors()} descriptors after {FREED_LATE_SECONDS} "
              f"s, not {expected}: {clients} clients are there")
        return time.monotonic() - begun

    # Clients.

    def connect(self, address=None):
        return wire.Client(address or self.unix, CLIENT_SECONDS)

    def haggle(self, address=None):
        client = self.connect(address)
        client.begin()
        return client

    def open(self, address=None):
        """A client in transmission, with simple replies."""
        client = self.haggle(address)
        reply = client.go(b"")
        check_equal(reply.kind, wire.REP_ACK, "the reply to GO")
        return client

    # The end.

    def kill(self):
        self.process.kill()
        self.process.wait()

    def wait(self, seconds=STOP_SECONDS):
        """It must end by itself, with status 0 and nothing to complain of."""
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"still running after {seconds} s") from None
        check_equal(status, 0, "the exit status")
        log = self.log()
        for mark in SANITIZER_MARKS:
            check(mark not in log, f"{mark} in the log")

    def stop(self):
        """SIGTERM, a good end, and a clean image."""
        check(self.alive(), f"it died: {self.process.returncode}")
        self.process.send_signal(signal.SIGTERM)
        self.wait()
        check_image(self.image)


def connect(address):
    """A bare socket; for thousands, a wire.Client costs much."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    sock = socket.socket(family)
    sock.settimeout(CLIENT_SECONDS)
    sock.connect(address)
    return sock


def close_hard(sock):
    """Closes as one who dies with unread data does: TCP sends a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                    struct.pack("ii", 1, 0))
    sock.close()


def run(function):
    """One case: how it came out, and what there is to say about that."""
    try:
        function()
        return "passed", ""
    except Unmet as reason:
        return "skipped", str(reason)
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}"


def main():
    """Runs the cases of the module, or those named in the arguments."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for function, long in CASES:
        if sys.argv[1:] and function.__name__ not in sys.argv[1:]:
            continue
        if long and not LONG:
            result, text = "skipped", "it takes long; make clients-long"
        else:
            print(f"{function.__name__}:", flush=True)
            begin = time.monotonic()
            result, text = run(function)
            text = f"{time.monotonic() - begin:.1f} s {text}"
        counts[result] += 1
        print(f"{result}: {function.__name__}: {text}", flush=True)
    print(", ".join(f"{count} {result}" for result, count in counts.items()))
    sys.exit(1 if counts["failed"] else 0)
