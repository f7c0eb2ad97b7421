# SPDX-License-Identifier: MIT
"""
Signals, while clients work and while they dawdle.
"""

import os
import signal
import socket
import struct
import subprocess
import threading
import time

from harness import (CLIENT_SECONDS, SANITIZED, Server, case, check,
                     check_equal, check_image, create_image, fewer, main,
                     raise_descriptor_limit, say, wire)

MIB = wire.MIB
IMAGE_BYTES = 64 * MIB
WORKERS = 4
BLOCK_BYTES = 4096
BLOCKS = 1024

HALF_OPEN = 1000
SIGNALS = 10000
PAUSES = 100
# What the manual promises after SIGTERM, and more on a busy machine.
GRACE_SECONDS = 1
DRAIN_SECONDS = 10
LATE_SECONDS = 30 if SANITIZED else 10
SPARE_DESCRIPTORS = 200


class Worker(threading.Thread):
    """Writes blocks of its own, and knows what each must hold."""

    def __init__(self, server, index):
        super().__init__(daemon=True)
        self.client = server.open(server.tcp if index % 2 else server.unix)
        self.begin = index * BLOCKS * BLOCK_BYTES
        self.held = {}
        self.writes = 0
        self.over = False
        self.end = None
        self.wrong = None

    def content(self, number):
        return struct.pack(">QQ", self.begin, number) * (BLOCK_BYTES // 16)

    def run(self):
        try:
            while not self.over:
                self.work(self.writes % BLOCKS)
            self.end = "told to stop"
        except wire.Closed as error:
            self.end = str(error)
        except Exception as error:
            self.wrong = f"{type(error).__name__}: {error}"

    def work(self, block):
        at = self.begin + block * BLOCK_BYTES
        data = self.content(self.writes)
        # Until it is answered, both the old and the new may be there.
        self.held[block] = self.held.get(block, [bytes(BLOCK_BYTES)]) + [data]
        reply = self.client.command(wire.WRITE, at, BLOCK_BYTES, data=data)
        if reply.error == wire.ESHUTDOWN:
            self.held[block].pop()
            raise wire.Closed("ESHUTDOWN")
        check_equal(reply.error, 0, "a write")
        self.held[block] = [data]
        self.writes += 1
        if self.writes % 64 == 0:
            reply = self.client.command(wire.READ, at, BLOCK_BYTES)
            if reply.error != wire.ESHUTDOWN:
                check(bytes(reply.data) == data, "a read brings other data")

    def stop(self):
        self.over = True
        self.join(CLIENT_SECONDS)
        check(not self.is_alive(), "a client waits for ever")
        check(self.wrong is None, f"a client: {self.wrong}")

    def check_file(self, raw):
        for block, allowed in self.held.items():
            raw.seek(self.begin + block * BLOCK_BYTES)
            check(raw.read(BLOCK_BYTES) in allowed, f"block {block} at "
                  f"{self.begin:#x} does not hold what was written last")


def start_workers(server):
    workers = [Worker(server, i) for i in range(WORKERS)]
    for worker in workers:
        worker.start()
    return workers


def check_content(image, workers):
    """What the image holds, as another program reads it."""
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image,
                    "content.raw"], check=True)
    with open("content.raw", "rb") as raw:
        for worker in workers:
            worker.check_file(raw)
    os.unlink("content.raw")


def half_open(server, count):
    """Clients in every state that a handshake can stop in."""
    option = wire.pack_option(wire.OPT_GO, wire.pack_export_query(b""))
    stages = [b"", b"\0\0", b"\0\0\0\3", b"\0\0\0\3" + option[:-1],
              b"\0\0\0\3" + wire.pack_option(wire.OPT_LIST)]
    sockets = []
    for i in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(CLIENT_SECONDS)
        sock.connect(server.unix)
        sock.recv(18)
        sock.sendall(stages[i % len(stages)])
        sockets.append(sock)
    return sockets


def end_beside(count, seconds_max, deaf):
    """
    SIGTERM while count clients are in the middle of their handshake, some
    write, one has half a write sent, and, if deaf, one reads no replies.
    """
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)
    create_image("end.qcow2", IMAGE_BYTES)
    with Server("end.qcow2", "--max-connections", "2000") as server:
        workers = start_workers(server)
        sockets = half_open(server, count)
        half = server.open()
        half.send(wire.pack_request(wire.WRITE, 0, 1, 60 * MIB, MIB,
                                    b"h" * 1000))
        if deaf:
            lazy = server.open()
            for i in range(64):
                lazy.send_request(wire.READ, 0, MIB)
        time.sleep(0.3)
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.wait(seconds_max + LATE_SECONDS)
        seconds = time.monotonic() - begun
        for worker in workers:
            worker.stop()
        say(f"{count} half-open handshakes; ended after {seconds:.1f} s; "
            f"{sum(worker.writes for worker in workers)} writes were answered")
        check(all(worker.writes for worker in workers), "a client did not get "
              "to write; a bad test")
        for sock in sockets:
            sock.close()
    check_image("end.qcow2")
    check_content("end.qcow2", workers)


@case()
def the_end_waits_for_no_client():
    """
    Guards against CVE-2024-7409 and its like, a crash or a hang at the end:
    the server ends in time, all that it answered is in the image, and the
    image is clean.
    """
    end_beside(fewer(HALF_OPEN, 300), GRACE_SECONDS + DRAIN_SECONDS, False)


@case(long=True)
def the_end_waits_for_replies_but_not_for_ever():
    """
    Guards against the same where a client does not take its replies: it has
    ten seconds.
    """
    end_beside(HALF_OPEN, GRACE_SECONDS + DRAIN_SECONDS, True)


@case()
def half_open_handshakes_end_with_the_grace():
    """
    Guards against the same wait where nothing is under way: then the grace of
    a second is all it takes, whatever handshakes have left of their ten.
    """
    create_image("grace.qcow2", IMAGE_BYTES)
    with Server("grace.qcow2") as server:
        sockets = half_open(server, 200)
        idle = server.open()
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.wait()
        seconds = time.monotonic() - begun
        say(f"ended after {seconds:.1f} s")
        check(seconds < (GRACE_SECONDS + DRAIN_SECONDS) / 2 or SANITIZED,
              f"it took {seconds:.1f} s")
        idle.close()
        for sock in sockets:
            sock.close()
    check_image("grace.qcow2")


@case()
def signals_under_load_do_no_harm():
    """
    Guards against signals that end a system call early, or the server: those
    it handles without stopping (SIGHUP ignored as by nohup, SIGCHLD), those it
    ignores (SIGPIPE), and those that stop and continue it.
    """
    count = fewer(SIGNALS, 2000)
    create_image("signals.qcow2", IMAGE_BYTES)
    numbers = (signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG,
               signal.SIGWINCH, signal.SIGCONT)
    for engine in ("uring", "threads"):
        with Server("signals.qcow2", "--io", engine,
                    ignored=[signal.SIGHUP]) as server:
            workers = start_workers(server)
            for i in range(count // 2):
                os.kill(server.pid, numbers[i % len(numbers)])
                if i % (count // PAUSES) == 0:
                    os.kill(server.pid, signal.SIGSTOP)
                    time.sleep(0.002)
                    os.kill(server.pid, signal.SIGCONT)
                time.sleep(0.0001)
            for worker in workers:
                worker.stop()
                check_equal(worker.end, "told to stop", "why a client ended")
                worker.client.disconnect()
            say(f"{engine}: {count // 2} signals, "
                f"{sum(worker.writes for worker in workers)} writes beside")
            server.check_descriptors(0)
            server.stop()
        check_content("signals.qcow2", workers)


if __name__ == "__main__":
    main()
