# SPDX-License-Identifier: MIT
"""
The programs that image cases can be run against, and what running one cost.

Each knows how to serve an image, and how to tell about one and check it where
it can do that.  What it cannot do it says by raising Unoffered.
"""

import contextlib
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time

import wire
from case import Failure, check
from launch import SANITIZER_MARKS
from servers import Unoffered

SANITIZED = bool(os.environ.get("QNBD_SANITIZE", "").strip())
# Nothing depends on speed: this only bounds how long a failure takes.
WALL_SECONDS = 60
# Others do hang, at names that lead to a FIFO or to a silent server.
OTHERS_WALL_SECONDS = 10
POLL_SECONDS = 0.005
# Sanitizers are slow, and keep what was freed.
SLOWER = 10 if SANITIZED else 1
BIGGER = 6 if SANITIZED else 1
OPEN_CPU_SECONDS = 2 * SLOWER
OPEN_RSS_MIB = 128 * BIGGER
WORK_RSS_MIB = 1024 * (2 if SANITIZED else 1)
FUNCTION = re.compile(r"^([a-z0-9]+_[a-z0-9_]+)\(", re.MULTILINE)


class Done:
    """How a program ended, what it said, and what that took."""

    def __init__(self, command, status, usage, output, errors):
        self.command = " ".join(command)
        self.status = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.rss_mib = usage.ru_maxrss / 1024
        self.output = output
        self.errors = errors

    def check_sane(self, cpu_seconds=OPEN_CPU_SECONDS, rss_mib=OPEN_RSS_MIB):
        """Neither a crash nor a glutton."""
        check(self.status >= 0, f"{self.command}: killed by signal "
              f"{-self.status}: {self.errors[-400:]}")
        for mark in SANITIZER_MARKS:
            check(mark not in self.errors,
                  f"{self.command}: {self.errors[-2000:]}")
        check(self.cpu_seconds <= cpu_seconds, f"{self.command}: "
              f"{self.cpu_seconds:.1f} s of CPU time")
        check(self.rss_mib <= rss_mib,
              f"{self.command}: {self.rss_mib:.0f} MiB of memory")


class Process:
    """A program that runs; its output goes to files."""

    def __init__(self, command, signals=()):
        self.command = command
        self.outputs = [tempfile.TemporaryFile() for _ in range(2)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self.outputs[0],
            stderr=self.outputs[1], preexec_fn=self.prepare)
        self.done = None

    @staticmethod
    def prepare():
        """In the child: a core dump would only cost time."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    def text(self, number):
        self.outputs[number].seek(0)
        return self.outputs[number].read().decode("utf-8", "replace")

    def poll(self):
        """A Done once it has ended, else None."""
        if self.done is None:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.process.returncode = status
                self.done = Done(self.command, status, usage, self.text(0),
                                 self.text(1))
        return self.done

    def wait(self, seconds=WALL_SECONDS):
        deadline = time.monotonic() + seconds
        while not self.poll():
            if time.monotonic() > deadline:
                self.kill()
                raise Failure(f"{' '.join(self.command)}: still running "
                              f"after {seconds} s: {self.text(1)[-400:]}")
            time.sleep(POLL_SECONDS)
        return self.done

    def kill(self):
        if not self.poll():
            os.kill(self.process.pid, signal.SIGKILL)
            self.wait()


class Serving:
    """A server that has come up."""

    def __init__(self, program, process, address):
        self.program = program
        self.process = process
        self.address = address

    def client(self):
        client = wire.Client(self.address, WALL_SECONDS)
        client.begin()
        reply = client.go(b"")
        check(reply.kind == wire.REP_ACK, f"GO got {reply}")
        return client

    def stop(self):
        os.kill(self.process.process.pid, signal.SIGTERM)
        return self.process.wait()


class Refused(Exception):
    """The server did not come up; done tells how."""

    def __init__(self, done):
        super().__init__(done.errors.strip())
        self.done = done


class Program:
    title = None
    rules_of_qnbd = False
    wall_seconds = OTHERS_WALL_SECONDS

    def __init__(self, path):
        self.path = path

    def serve_command(self, path, address, form, writable):
        raise NotImplementedError

    def look_command(self, what, path, form):
        raise Unoffered("it only serves")

    def run(self, command):
        return Process(command).wait(self.wall_seconds)

    def look(self, what, path, form="qcow2"):
        """what is info or check."""
        return self.run(self.look_command(what, path, form))

    @contextlib.contextmanager
    def serve(self, path, form="qcow2", writable=True):
        """A Serving; raises Refused."""
        with tempfile.TemporaryDirectory(prefix="cat-") as directory:
            address = os.path.join(directory, "sock")
            process = Process(self.serve_command(path, address, form,
                                                 writable))
            try:
                self.wait_for(process, address)
                yield Serving(self, process, address)
            finally:
                process.kill()

    def wait_for(self, process, address):
        deadline = time.monotonic() + self.wall_seconds
        while True:
            try:
                with wire.Client(address, WALL_SECONDS) as client:
                    client.greeting()
                return
            except (OSError, wire.WireError):
                pass
            if process.poll():
                raise Refused(process.done)
            if time.monotonic() > deadline:
                raise Failure(f"{' '.join(process.command)}: neither serves "
                              f"nor ends in {self.wall_seconds} s")
            time.sleep(POLL_SECONDS)


class Qnbd(Program):
    title = "qnbd"
    rules_of_qnbd = True
    wall_seconds = WALL_SECONDS

    def serve_command(self, path, address, form, writable):
        return [self.path, "serve", "-u", address, "-f", form,
                *([] if writable else ["-r"]), path]

    def look_command(self, what, path, form):
        return [self.path, what, "-f", form, path]


class QemuNbd(Program):
    title = "qemu-nbd"

    def serve_command(self, path, address, form, writable):
        return [self.path, "-t", "-e", "20", "-f", form, "-k", address,
                *([] if writable else ["-r"]), path]

    def look_command(self, what, path, form):
        qemu_img = shutil.which("qemu-img")
        if qemu_img is None:
            raise Unoffered("qemu-img is not installed")
        return [qemu_img, what, "-f", form, path]


class Nbdkit(Program):
    title = "nbdkit"

    def serve_command(self, path, address, form, writable):
        if form != "raw":
            raise Unoffered("it knows no qcow2")
        return [self.path, "--foreground", "-U", address,
                *([] if writable else ["-r"]), "file", path]


PROGRAMS = {program.title: program
            for program in (Qnbd, QemuNbd, Nbdkit)}


def function_names(top):
    """The names of the functions of qnbd, which no message should have."""
    names = set()
    for folder in ("runtime", "proto", "qcow2", "server"):
        for name in os.listdir(os.path.join(top, folder)):
            if name.endswith(".c"):
                with open(os.path.join(top, folder, name)) as file:
                    names.update(FUNCTION.findall(file.read()))
    return names
