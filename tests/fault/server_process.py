# SPDX-License-Identifier: MIT
"""
A real server in trouble, and clients of it.

Control is the memory into which the server looks for what shall fail, because
preload.so is put before it or because it is qnbd-failing; Server is a `qnbd
serve` of one image; connect() and the functions below are clients that give
each reply back as an error number.
"""

import mmap
import os
import pathlib
import signal
import struct
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "conformance"))
import launch  # noqa: E402
import wire  # noqa: E402

# Long, because the machine may be busy; nothing waits for it to pass.
SECONDS_MAX = 60

FIELDS = ("allocation_nth", "allocations", "inode", "read_errno",
          "write_errno", "sync_errno", "offset", "length", "hits")


class Failed(Exception):
    """What a test found."""


def check(condition, text):
    if not condition:
        raise Failed(text)


class Control:
    """The numbers of struct control in control.h, as attributes."""

    def __init__(self, path):
        object.__setattr__(self, "path", path)
        with open(path, "wb") as file:
            file.truncate(mmap.PAGESIZE)
        with open(path, "r+b") as file:
            object.__setattr__(self, "map",
                               mmap.mmap(file.fileno(), mmap.PAGESIZE))

    def __getattr__(self, name):
        return struct.unpack_from("=Q", self.map, 8 * FIELDS.index(name))[0]

    def __setattr__(self, name, value):
        struct.pack_into("=Q", self.map, 8 * FIELDS.index(name), value)

    def heal(self):
        for name in ("allocation_nth", "read_errno", "write_errno",
                     "sync_errno"):
            setattr(self, name, 0)


def environment(control):
    """For a qnbd that control is to reach, by preload.so if need be."""
    variables = dict(os.environ)
    if control:
        variables["QNBD_FAULT_CONTROL"] = control.path
        if variables.get("QNBD_PRELOAD"):
            variables["LD_PRELOAD"] = variables["QNBD_PRELOAD"]
    return variables


class Server:
    """
    qnbd serve; ready is False where it ended before it listened.  Its messages
    go to stderr, a file or a descriptor, which is none of ours to read then.
    """

    def __init__(self, directory, arguments, control=None, stderr=None):
        self.socket = os.path.join(directory, "server.sock")
        self.log_path = os.path.join(directory, "server.log")
        with open(self.log_path, "wb") as log:
            self.process, self.ready = launch.start_qnbd(
                ["-u", self.socket, *arguments],
                log if stderr is None else stderr, SECONDS_MAX,
                env=environment(control))

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def wait(self):
        """Its exit status, negative if a signal ended it."""
        try:
            return self.process.wait(SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed("it does not end") from None

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


def connect(server, name=b""):
    """A client in transmission, with structured replies and block status."""
    client = wire.Client(server.socket, timeout=SECONDS_MAX)
    client.begin()
    client.structured_reply()
    client.set_contexts(name, [wire.BASE_ALLOCATION])
    reply = client.go(name)
    if reply.is_error:
        client.close()
        raise wire.Closed("the option was refused")
    return client


def read(client, offset, length):
    """The error, and the data where there is none."""
    reply = client.command(wire.READ, offset, length)
    return reply.error, None if reply.error else bytes(reply.data)


def write(client, offset, data, flags=0):
    return client.command(wire.WRITE, offset, len(data), flags, data).error


def flush(client):
    return client.command(wire.FLUSH).error


def zero(client, offset, length, flags=0):
    return client.command(wire.WRITE_ZEROES, offset, length, flags).error


def trim(client, offset, length):
    return client.command(wire.TRIM, offset, length).error


def expect(client, offset, length, byte):
    error, data = read(client, offset, length)
    check(error == 0, f"{wire.error_name(error)} from reading {offset:#x}")
    check(data == bytes([byte]) * length,
          f"{offset:#x} does not hold {byte:#x}")
