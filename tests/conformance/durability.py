# SPDX-License-Identifier: MIT
"""
What FLUSH and FUA cover is in the image file when they are answered.

The server is killed right after the reply and the file read by other tools.
The kernel keeps what was written, so this tells nothing about a loss of power;
it does tell whether data and all that leads to it had left the server.
"""

from case import case, check, check_data, pass_through, read, write
from images import SCRATCH_START
from wire import FLUSH, FUA, KIB, MIB, NO_HOLE, TRIM, WRITE_ZEROES

START = SCRATCH_START + 40 * MIB
SIZE = 300 * KIB


def check_after_kill(t, expected):
    t.server.kill()
    damage = t.server.check_image()
    check(damage is None, f"qemu-img check: {damage}")
    check_data(t.server.read_image(START, len(expected)), expected, START)


@case("write fua", setting="file", fresh=True)
def c26_fua_write_is_in_the_file(t):
    """
    Guards against a FUA write that is answered while its mapping is still in
    memory only.  Spec: "Ordering of messages and writes".
    """
    write(t.open(), START, b"u" * SIZE, FUA)
    check_after_kill(t, b"u" * SIZE)


@case("write fua zeroes", setting="file", fresh=True)
def c26_fua_write_zeroes_is_in_the_file(t):
    """
    Guards against FUA for data only: zeroes are metadata, and count too.
    Spec: "Command flags".
    """
    client = t.open()
    write(client, START, b"u" * 4 * SIZE, FUA)
    pass_through(client, WRITE_ZEROES, START, length=SIZE, flags=FUA)
    pass_through(client, WRITE_ZEROES, START + 2 * SIZE, length=SIZE,
                 flags=FUA | NO_HOLE)
    check_after_kill(t, (bytes(SIZE) + b"u" * SIZE) * 2)


@case("write fua trim", setting="file", fresh=True)
def c26_fua_trim_leaves_a_sound_image(t):
    """
    Guards against a trim that is half in the file: what was read behind it is
    what the file says too.  Spec: "Command flags", "NBD_CMD_TRIM".
    """
    client = t.open()
    write(client, START, b"t" * 2 * SIZE, FUA)
    pass_through(client, TRIM, START, length=SIZE, flags=FUA)
    trimmed = read(client, START, SIZE)
    check_after_kill(t, trimmed + b"t" * SIZE)


@case("write flush", setting="file", fresh=True)
def c27_flush_covers_all_writes_replied(t):
    """
    Guards against a FLUSH that forgets writes, or their mapping.  Spec:
    "Ordering of messages and writes".
    """
    client = t.open()
    for at in range(0, SIZE, 50 * KIB):
        write(client, START + at, bytes([at // (50 * KIB) + 1]) * 50 * KIB)
    pass_through(client, FLUSH, 0)
    check_after_kill(t, b"".join(bytes([at // (50 * KIB) + 1]) * 50 * KIB
                                 for at in range(0, SIZE, 50 * KIB)))


@case("write flush multi_conn", setting="file", fresh=True)
def c27_flush_covers_other_connections(t):
    """
    Guards against a FLUSH that covers the writes of its own connection only.
    Spec: "Transmission flags", CAN_MULTI_CONN.
    """
    writers = [t.open() for _ in range(4)]
    flusher = t.open()
    for i, writer in enumerate(writers):
        write(writer, START + i * SIZE, bytes([i + 1]) * SIZE)
    pass_through(flusher, FLUSH, 0)
    check_after_kill(t, b"".join(bytes([i + 1]) * SIZE for i in range(4)))
