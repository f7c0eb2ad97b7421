# SPDX-License-Identifier: MIT
"""
What a server does whose files fail.

    server_faults.py NAME...    the cases of these names, of this file

A case is a function case_NAME(directory); it makes its image with qnbd create
and raises Failed.
"""

import fcntl
import os
import subprocess
import sys
import tempfile

from server_process import (Control, Failed, Server, check, connect, expect,
                            flush, read, trim, wire, write, zero)

EIO, FUA, KIB, MIB = wire.EIO, wire.FUA, wire.KIB, wire.MIB

F_SETPIPE_SZ = 1031

DISK = 64 * MIB
CLUSTER = 64 * KIB

# Each is two lines or more; a pipe of a page and the log's ring hold 400.
CLIENTS_LOGGED = 800


def create(directory, name="disk.qcow2", *arguments):
    path = os.path.join(directory, name)
    subprocess.run([os.environ["QNBD"], "create", *arguments, path,
                    str(DISK)], check=True, stdout=subprocess.DEVNULL)
    return path


def create_raw(directory):
    path = os.path.join(directory, "disk.raw")
    with open(path, "wb") as file:
        file.truncate(DISK)
    return path


def make(directory, form):
    """The image, and how it is served."""
    if form == "raw":
        path = create_raw(directory)
        return path, ["-f", "raw", path]
    path = create(directory)
    return path, [path]


def check_image(path):
    status = subprocess.run([os.environ["QNBD"], "check", path],
                            stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, check=False)
    # 3 says that there are leaks and nothing worse.
    check(status.returncode in (0, 3),
          "qnbd check: " + status.stdout.decode(errors="replace"))


def place_of(path, byte):
    """Where in the file a cluster full of byte begins."""
    with open(path, "rb") as file:
        data = file.read()
    place = data.find(bytes([byte]) * CLUSTER)
    check(place >= 0, f"there is no cluster of {byte:#x}")
    return place


def fill(client):
    for number in range(4):
        check(write(client, number * CLUSTER,
                    bytes([number + 1]) * CLUSTER) == 0, "cannot write")
    check(flush(client) == 0, "cannot flush")


def read_fails(directory, form):
    """Only the reads that need what is unreadable; all else goes on."""
    path, arguments = make(directory, form)
    control = Control(os.path.join(directory, "control"))
    with Server(directory, arguments, control) as server:
        client, other = connect(server), connect(server)
        fill(client)
        control.inode = os.stat(path).st_ino
        control.offset, control.length = place_of(path, 2), CLUSTER
        control.read_errno = EIO
        for _ in range(3):
            check(read(client, CLUSTER + 512, 512)[0] == EIO,
                  "what cannot be read is read")
            check(read(client, 0, 4 * CLUSTER)[0] == EIO,
                  "what cannot be read in part is read")
            expect(client, 2 * CLUSTER, CLUSTER, 3)
            expect(other, 0, CLUSTER, 1)
            check(write(other, 8 * CLUSTER, b"8" * CLUSTER, FUA) == 0,
                  "another request is hit")
        check(control.hits > 0, "nothing was made to fail")
        control.heal()
        expect(client, CLUSTER, CLUSTER, 2)
        check(server.stop() == 0, "it did not end well")
    if form != "raw":
        check_image(path)


def case_read_fails(directory):
    read_fails(directory, "qcow2")


def case_read_fails_raw(directory):
    read_fails(directory, "raw")


def sync_fails(directory, form, flags):
    """O6: flush, FUA and writes fail for ever, whatever the disk says then."""
    path, arguments = make(directory, form)
    control = Control(os.path.join(directory, "control"))
    with Server(directory, ["--io", "threads"] + arguments,
                control) as server:
        client = connect(server)
        fill(client)
        control.inode = os.stat(path).st_ino
        control.sync_errno = EIO
        check(write(client, 0, b"x" * 4096) == 0, "a plain write fails")
        if flags:
            # In place and alone it is a stable write of its own.
            control.sync_errno = 0
            control.offset, control.length = 0, 1 << 62
            control.write_errno = EIO
            check(write(client, 0, b"x" * 4096, FUA) == EIO,
                  "a failed FUA write is answered with success")
        else:
            check(flush(client) == EIO, "a failed sync is answered with "
                  "success")
        check(control.hits > 0, "nothing was made to fail")
        control.heal()
        for each in (client, connect(server)):
            check(flush(each) == EIO, "a flush works again")
            check(write(each, 0, b"y" * 4096, FUA) == EIO, "FUA works again")
            check(write(each, 0, b"y" * 4096) == EIO, "writes are accepted")
            check(zero(each, 0, CLUSTER) == EIO, "zeros are accepted")
            check(trim(each, 0, CLUSTER) == EIO, "a trim is accepted")
            expect(each, 2 * CLUSTER, CLUSTER, 3)
        check(server.stop() == 1, "it says that all is well")
        check("until it is opened again" in server.log(), "nobody is told")
    with Server(directory, arguments) as server:
        client = connect(server)
        expect(client, CLUSTER, CLUSTER, 2)
        check(write(client, 0, b"z" * 4096, FUA) == 0,
              "it does not go on when it is served anew")
        check(server.stop() == 0, "it did not end well")
    if form != "raw":
        check_image(path)


def case_sync_fails(directory):
    sync_fails(directory, "qcow2", 0)


def case_sync_fails_raw(directory):
    sync_fails(directory, "raw", 0)


def case_fua_fails(directory):
    sync_fails(directory, "qcow2", FUA)


def case_fua_fails_raw(directory):
    sync_fails(directory, "raw", FUA)


def is_cut(directory, form):
    """Somebody makes the file shorter: EIO, no zeros, and no signal."""
    path, arguments = make(directory, form)
    with Server(directory, arguments) as server:
        client = connect(server)
        fill(client)
        os.truncate(path, place_of(path, 3) + 4096)
        check(read(client, 3 * CLUSTER, 4096)[0] == EIO,
              "what is gone reads as something")
        check(read(client, 2 * CLUSTER, CLUSTER)[0] == EIO,
              "what is gone reads as something")
        expect(client, 2 * CLUSTER, 4096, 3)
        expect(client, 0, CLUSTER, 1)
        check(write(client, 3 * CLUSTER, b"x" * 4096) == EIO,
              "it is written to")
        check(read(client, 3 * CLUSTER, 4096)[0] == EIO,
              "what is gone reads as something after a write")
        status = server.stop()
        check(status in (0, 1), f"it ended with status {status}")
        check("made shorter" in server.log(), "nobody is told")
    if form != "raw":
        with open(path, "rb") as file:
            incompatible = file.read(80)[72:]
        check(incompatible == bytes(8), "the image is marked as corrupt")


def case_is_cut(directory):
    is_cut(directory, "qcow2")


def case_is_cut_raw(directory):
    is_cut(directory, "raw")


def use_while_silent(server):
    """Clients come and go, each of which is a line of the log."""
    client = connect(server)
    fill(client)
    for number in range(CLIENTS_LOGGED):
        connect(server).disconnect()
        if number % 100 == 0:
            expect(client, CLUSTER, CLUSTER, 2)
    check(write(client, 0, b"x" * 4096, FUA) == 0, "cannot write")
    check(server.stop() == 0, "it did not end well")


def case_log_pipe_is_full(directory):
    """Nobody reads what it logs; a few lines fill the pipe."""
    path = create(directory)
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    try:
        with Server(directory, ["-v", path], stderr=writer) as server:
            use_while_silent(server)
    finally:
        os.close(reader)
        os.close(writer)


def case_log_pipe_is_broken(directory):
    path = create(directory)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with Server(directory, ["-v", path], stderr=writer) as server:
            use_while_silent(server)
    finally:
        os.close(writer)


def case_log_is_closed(directory):
    """
    Standard error is no descriptor at all, so that the next file to be opened
    gets its number: no line may ever go into an image.
    """
    path = create(directory)
    shell = os.path.join(directory, "closed")
    with open(shell, "w", encoding="utf-8") as file:
        file.write('#!/bin/sh\nexec "$QNBD_REAL" "$@" 2>&-\n')
    os.chmod(shell, 0o755)
    os.environ["QNBD_REAL"] = os.environ["QNBD"]
    os.environ["QNBD"] = shell
    try:
        with Server(directory, ["-v", path]) as server:
            use_while_silent(server)
    finally:
        os.environ["QNBD"] = os.environ["QNBD_REAL"]
    check_image(path)
    with open(path, "rb") as file:
        check(file.read(4) == b"QFI\xfb", "the log went into the image")


def long_chain(directory, engine):
    """A write around which 64 images are asked, in the server itself."""
    name = "disk.qcow2"
    path = create(directory, name)
    with Server(directory, [path]) as server:
        client = connect(server)
        fill(client)
        check(server.stop() == 0, "it did not end well")
    for number in range(64):
        above = f"above{number}.qcow2"
        subprocess.run([os.environ["QNBD"], "create", "-b", name, "-F",
                        "qcow2", above], check=True, cwd=directory,
                       stdout=subprocess.DEVNULL)
        name = above
    with Server(directory, ["--io", engine,
                            os.path.join(directory, name)]) as server:
        client = connect(server)
        for number in range(4):
            check(write(client, number * CLUSTER + 512, b"u" * 1024) == 0,
                  "cannot write")
            expect(client, number * CLUSTER, 512, number + 1)
            expect(client, number * CLUSTER + 2048, CLUSTER - 2048,
                   number + 1)
        check(server.stop() == 0, "it did not end well")
    check_image(os.path.join(directory, name))


def case_long_chain(directory):
    long_chain(directory, "auto")


def case_long_chain_threads(directory):
    long_chain(directory, "threads")


def main():
    failed = 0
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory(dir=".") as directory:
            try:
                globals()["case_" + name](os.path.abspath(directory))
                print(f"{name}: good")
            except (Failed, wire.WireError, OSError) as error:
                failed += 1
                print(f"{name}: {error!r}")
                log = os.path.join(directory, "server.log")
                if os.path.exists(log):
                    with open(log, encoding="utf-8",
                              errors="replace") as file:
                        print("".join(file.readlines()[-20:]))
    print(f"{len(sys.argv) - 1 - failed} passed, {failed} failed, 0 skipped")
    sys.exit(min(failed, 99))


main()
