# SPDX-License-Identifier: MIT
"""
Long reads in parts: other replies go in between, and each part is whole.
"""

import wire
from case import case, check, check_data, check_error, check_serves, read
from images import FAULT_START, SCRATCH_START
from wire import DF, EIO, KIB, MIB, READ


def content_of_long_read(t, offset, length):
    """What is known of it: the part below SCRATCH_START."""
    return t.image.content(offset, min(length, SCRATCH_START - offset))


@case("structured", own=True)
def chunks_of_a_long_read_let_others_through(t):
    """
    Guards against a read of 32 MiB that all other replies wait for.  Spec:
    "Transmission": chunks may be interleaved.
    """
    for client in (t.open(structured=True), t.open(extended=True)):
        long = client.send_request(READ, 0, 32 * MIB)
        small = [client.send_request(READ, i * 4096, 4096) for i in range(32)]
        for _ in small:
            request = client.next_reply()
            check(request is not long, "all of the long read came first")
            check_data(bytes(request.reply.data),
                       t.image.content(request.offset, 4096))
        check(client.next_reply() is long, "a reply to something else")
        check_error(long.reply, 0)
        check_data(bytes(long.reply.data[:SCRATCH_START]),
                   content_of_long_read(t, 0, 32 * MIB))


@case("structured")
def chunks_of_many_long_reads_keep_apart(t):
    """
    Guards against parts that land in another read, at any alignment, and
    against running out of buffers.  Spec: "NBD_CMD_READ".
    """
    for client in t.open_each():
        client.timeout = 30
        for i in range(24):
            client.send_request(READ, i * 1000003 % MIB,
                                (1 + i % 8) * MIB + i * 7919)
            client.send_request(READ, 0, 512)
        for request in client.replies(48):
            check_error(request.reply, 0, what=f"{request}")
            check_data(bytes(request.reply.data), content_of_long_read(
                t, request.offset, request.length), request.offset)


@case("structured df")
def chunks_of_a_long_df_read_are_one(t):
    """
    Guards against parting what must not be: wire.py wants one content chunk.
    Spec: "NBD_CMD_READ".
    """
    client = t.open(structured=True)
    data = read(client, 1000, 13 * MIB, DF)
    check_data(data, t.image.content(1000, 13 * MIB))


@case("structured", setting="faulty")
def chunks_of_a_long_read_that_fails(t):
    """
    Guards against success, or nothing, when a later part cannot be read; the
    parts before it are good.  Spec: "NBD_CMD_READ".
    """
    for client in (t.open(structured=True), t.open(structured=True)):
        start = FAULT_START - 8 * MIB - 5
        reply = client.command(READ, start, 16 * MIB)
        check_error(reply, EIO, what="a long READ over a broken place")
        for kind, offset, length in reply.chunks:
            if kind == wire.REPLY_OFFSET_DATA and offset + length <= \
                    FAULT_START:
                at = offset - start
                check_data(bytes(reply.data[at:at + length]),
                           t.image.content(offset, length), offset)
        check_serves(client, t.image)


@case("structured")
def chunks_nobody_reads(t):
    """
    Guards against parts that wait for a client which went away, at any moment.
    Spec: "Terminating the transmission phase".
    """
    for size in (0, 100, 64 * KIB, MIB, 3 * MIB):
        client = t.open(structured=True)
        for _ in range(8):
            client.send_request(READ, 0, 12 * MIB)
        if size:
            client.receive(size)
        client.close()
