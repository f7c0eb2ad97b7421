# SPDX-License-Identifier: MIT
"""
RESIZE, a draft (branch extension-resize of the protocol's repository).
"""

import wire
from case import (case, check, check_data, check_equal, check_error,
                  check_kind, check_serves, pass_through, read, write)
from wire import (EINVAL, ENOSPC, EPERM, GIB, MIB, READ, RESIZE, SEND_RESIZE,
                  TRIM, WRITE)


def resize(client, size, *errors):
    reply = client.command(RESIZE, size, 0)
    check_error(reply, *(errors or (0,)), what=f"RESIZE to {size}")


def open_resizing(t, **how):
    client = t.open(**how)
    check(client.flags & SEND_RESIZE, "no SEND_RESIZE with --allow-resize")
    return client


def size_now(t):
    client = t.haggle()
    check_kind(client.go(t.name, option=wire.OPT_INFO), wire.REP_ACK)
    return client.size


@case(own=True)
def c50_resize_is_not_offered_by_default(t):
    """
    Guards against clients that change disks which nobody said may change.
    """
    client = t.open(structured=True)
    check_equal(client.flags & SEND_RESIZE, 0, "SEND_RESIZE")
    resize(client, GIB, EINVAL)
    check_equal(size_now(t), t.image.size, "size")


@case("write", setting="resize", fresh=True, own=True)
def c50_resize_grows_while_others_work(t):
    """
    Guards against a new end that only some see: the client that grew it may
    use it at once, new ones see it, older ones keep theirs and go on.
    """
    grower, other = open_resizing(t), open_resizing(t, structured=True)
    for client, size in ((grower, 128 * MIB), (grower, GIB)):
        resize(client, size)
        write(client, size - 512, b"g" * 512)
        check_data(read(client, size - 512, 512), b"g" * 512)
        check_error(client.command(READ, size, 512), EINVAL, what="READ")
        check_equal(size_now(t), size, "size for new clients")
    check_error(other.command(READ, t.image.size, 512), EINVAL, what="READ")
    check_serves(other, t.image)
    check_data(read(t.open(), 512 * MIB, MIB), bytes(MIB))
    check_equal(t.server.check_image(), None, "qemu-img check")


@case("write", setting="resize", fresh=True, own=True)
def c50_resize_shrinks_for_one_alone(t):
    """
    Guards against cutting off what others use: EPERM.  Alone it works; what is
    past the new end and was not past the old one is ENOSPC.
    """
    client = open_resizing(t, extended=True)
    other = t.open()
    write(client, 40 * MIB, b"s" * MIB)
    resize(client, 32 * MIB, EPERM)
    check_equal(size_now(t), t.image.size, "size")
    other.disconnect()
    for _ in range(100):
        reply = client.command(RESIZE, 32 * MIB, 0)
        if reply.error != EPERM:
            break
    check_error(reply, 0, what="RESIZE of one alone")
    check_equal(size_now(t), 32 * MIB, "size")
    for command, length in ((READ, 512), (TRIM, MIB), (WRITE, 512)):
        data = b"p" * length if command == WRITE else b""
        reply = client.command(command, 40 * MIB, length, 0, data)
        check_error(reply, ENOSPC, what=wire.COMMAND_NAMES[command])
    check_serves(client, t.image)
    resize(client, 64 * MIB)
    check_data(read(client, 40 * MIB, MIB), bytes(MIB))
    pass_through(client, wire.FLUSH, 0)
    check_equal(t.server.check_image(), None, "qemu-img check")


@case("write", setting="resize", fresh=True, own=True)
def c50_resize_to_what_cannot_be(t):
    """
    Guards against sizes that wrap or exceed the format, and requests with
    fields that mean nothing here.
    """
    client = open_resizing(t, structured=True)
    for size in ((1 << 64) - 1, 1 << 63, (1 << 63) - 1, 1 << 62):
        resize(client, size, ENOSPC, EINVAL)
    check_error(client.command(RESIZE, GIB, 512), EINVAL, what="a length")
    check_error(client.command(RESIZE, GIB, 0, wire.NO_HOLE), EINVAL,
                what="a flag")
    check_equal(size_now(t), t.image.size, "size")
    resize(client, t.image.size)
    check_serves(client, t.image)


@case("write", setting="resize", fresh=True, own=True)
def c50_resizes_at_once_take_turns(t):
    """
    Guards against two clients that change the size at a time, with writes
    beside.
    """
    clients = [open_resizing(t) for _ in range(4)]
    for client in clients:
        for step in range(1, 9):
            client.send_request(RESIZE, step * 128 * MIB, 0)
            client.send_request(WRITE, 20 * MIB + step * 4096, 4096, 0,
                                b"r" * 4096)
    for client in clients:
        for request in client.replies(16):
            check_error(request.reply, 0, EPERM, what=f"{request}")
    check_equal(size_now(t) % (128 * MIB), 0, "size modulo 128 MiB")
    check_equal(t.server.check_image(), None, "qemu-img check")
