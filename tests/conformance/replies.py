# SPDX-License-Identifier: MIT
"""
Replies to READ: which kind, how they are cut into chunks, how they fail.

Most rules about chunks are checked by wire.py on every reply; the cases here
bring about the replies where they matter.
"""

import time

import wire
from case import (case, check, check_data, check_equal, check_error,
                  check_kind, check_serves, pass_through, read, write)
from images import FAULT_START, SCRATCH_START
from wire import (DF, EINVAL, EIO, EOVERFLOW, FLUSH, KIB, MIB, NO_HOLE, READ,
                  TRIM)

# Reads that begin, end, or lie across where data meets hole.
MIXED_READS = ((0, 4 * MIB), (MIB - 1, 2), (MIB - 4096, 8192),
               (MIB - 100, MIB + 200), (2 * MIB - 1, MIB + 2),
               (7 * MIB, 6 * MIB), (5 * MIB, MIB), (MIB, MIB),
               (8 * MIB + 1, 4 * MIB - 2))


@case("structured")
def c29_failed_reads_are_structured_too(t):
    """
    Guards against falling back to a simple reply when a READ is refused early.
    Spec: "Simple reply message", "Structured reply chunk message".
    """
    client = t.open(structured=True)
    for offset, length, flags in ((t.image.size, 512, 0),
                                  (1 << 63, 512, 0), (0, 512, NO_HOLE),
                                  (0, 512, 1 << 15),
                                  (t.image.size - 1, 512, DF)):
        reply = client.command(READ, offset, length, flags)
        check_error(reply, EINVAL, what=f"READ {offset:#x}, flags {flags:#x}")
        check(not reply.simple, "a simple reply to READ")
    check_serves(client, t.image)


@case()
def c29_simple_replies_without_negotiation(t):
    """
    Guards against structured replies for a client that cannot read them; the
    kernel's cannot.  Spec: "Simple reply message".
    """
    client = t.open()
    for offset, length in MIXED_READS:
        check_data(read(client, offset, length),
                   t.image.content(offset, length), offset)
    check_error(client.command(READ, t.image.size, 1), EINVAL)
    check_serves(client, t.image)


def check_fault_is_local(t, client):
    """After a failed read the readable parts are read as before."""
    check_serves(client, t.image)
    end = FAULT_START - MIB
    check_data(read(client, end - MIB, MIB),
               t.image.content(end - MIB, MIB), end - MIB)


@case(setting="faulty")
def c30_failed_simple_read_has_no_payload(t):
    """
    Guards against data made up for what could not be read.  An error comes
    without payload; if success was already sent, the connection ends in
    mid-payload.  Spec: "NBD_CMD_READ", simple replies.
    """
    for offset, length in ((FAULT_START, 512),
                           (FAULT_START - 2 * MIB, 2 * MIB + 512)):
        client = t.open()
        try:
            reply = client.command(READ, offset, length)
        except wire.Closed:
            continue
        check_error(reply, EIO, what="READ of a broken place")
        check_fault_is_local(t, client)


@case("structured", setting="faulty")
def c30_failed_structured_read_ends_with_an_error(t):
    """
    Guards against success, or a lost connection, when a read fails half way:
    begun chunks are filled up, and an error chunk follows.  Spec:
    "NBD_CMD_READ", structured replies.
    """
    client = t.open(structured=True)
    for offset, length in ((FAULT_START, 512),
                           (FAULT_START - 2 * MIB, 2 * MIB + 512)):
        for flags in (0, DF):
            reply = client.command(READ, offset, length, flags)
            check_error(reply, EIO, what="READ of a broken place")
        check_fault_is_local(t, client)


@case("structured", setting="faulty")
def c30_failing_reads_leave_others_alone(t):
    """
    Guards against one broken place failing the requests around it.  Spec:
    "NBD_CMD_READ".
    """
    client = t.open(structured=True)
    bad = [client.send_request(READ, FAULT_START, 512) for _ in range(8)]
    good = [client.send_request(READ, i * 4096, 4096) for i in range(8)]
    client.replies(16)
    for request in bad:
        check_error(request.reply, EIO, what=f"{request}")
    for request in good:
        check_error(request.reply, 0, what=f"{request}")


@case("structured")
def c31_done_ends_a_reply_and_comes_once(t):
    """
    Guards against replies that go on after DONE, or never have it: nothing
    may be left on the stream after each.  Spec: "Structured reply flags".
    """
    client = t.open(structured=True)
    for offset, length in MIXED_READS:
        read(client, offset, length)
        check_equal(client.command(READ, t.image.size, 1).error, EINVAL,
                    "error of the next request")
    client.disconnect()


@case("structured")
def c32_chunks_cover_exactly_what_was_asked(t):
    """
    Guards against gaps, overlaps and empty chunks where data meets hole.
    Spec: "NBD_CMD_READ", "Structured reply types".
    """
    client = t.open(structured=True)
    for offset, length in MIXED_READS:
        check_data(read(client, offset, length),
                   t.image.content(offset, length), offset)


@case("structured", own=True)
def c32_holes_are_sent_as_holes(t):
    """
    Guards against sending megabytes of zeroes for what has no clusters.
    Spec: "Structured reply types".
    """
    client = t.open(structured=True)
    reply = client.command(READ, 4 * MIB, MIB)
    check_equal({kind for kind, _, _ in reply.chunks},
                {wire.REPLY_OFFSET_HOLE}, "kinds of chunks")
    reply = client.command(READ, 7 * MIB, 2 * MIB)
    holes = sum(length for kind, _, length in reply.chunks
                if kind == wire.REPLY_OFFSET_HOLE)
    check_equal(holes, MIB, "bytes in holes")


@case()
def c32_many_reads_in_flight_keep_apart(t):
    """
    Guards against chunks or payloads that land in another request's reply.
    Spec: "Transmission".
    """
    for client in t.open_each():
        offsets = [(i * 7919 * 512) % (13 * MIB) for i in range(400)]
        lengths = [512 + i * 37 % 9000 for i in range(400)]
        for start in range(0, 400, 40):
            for i in range(start, start + 40):
                client.send_request(READ, offsets[i], lengths[i])
            for request in client.replies(40):
                check_data(bytes(request.reply.data),
                           t.image.content(request.offset, request.length),
                           request.offset)


@case()
def c33_df_is_offered_with_structured_replies_only(t):
    """
    Guards against SEND_DF for clients with simple replies.  Spec:
    "Transmission flags".
    """
    client = t.open()
    check_equal(client.flags & wire.SEND_DF, 0, "SEND_DF without structured")
    check_error(client.command(READ, 0, 512, DF), EINVAL,
                what="DF without structured replies")
    check_serves(client, t.image)
    client = t.haggle()
    client.structured_reply()
    client.export_name(t.name, padding=False)
    check(client.structured or not client.flags & wire.SEND_DF,
          "SEND_DF without structured")


@case("structured df")
def c33_df_reads_come_in_one_chunk(t):
    """
    Guards against refusing or cutting a DF read of up to 64 KiB.  Where data
    and hole meet, the zeroes are sent.  Spec: "NBD_CMD_READ".
    """
    client = t.open(structured=True)
    for offset, length in ((0, 64 * KIB), (MIB - 32 * KIB, 64 * KIB),
                           (2 * MIB - 512, 1024), (MIB - 1, 2),
                           (5 * MIB, 64 * KIB), (12 * MIB - 1, 64 * KIB)):
        reply = client.command(READ, offset, length, DF)
        check_error(reply, 0, what="DF")
        check_equal(len(reply.chunks), 1, "number of content chunks")
        content = t.image.content(offset, length)
        check_data(bytes(reply.data), content, offset)
        if any(content):
            check_equal(reply.chunks[0][0], wire.REPLY_OFFSET_DATA,
                        "type of the chunk")


@case("structured df")
def c33_large_df_reads_are_whole_or_refused(t):
    """
    Guards against a DF read that is cut because it is large: one chunk, or
    EOVERFLOW and none.  Spec: "NBD_CMD_READ".
    """
    client = t.open(structured=True)
    for length in (64 * KIB + 1, MIB, 13 * MIB):
        reply = client.command(READ, 0, length, DF)
        check_error(reply, 0, EOVERFLOW, what="DF")
        if reply.error:
            check_equal(reply.chunks, [], "content chunks")
        else:
            check_data(bytes(reply.data), t.image.content(0, length))
    check_serves(client, t.image)


@case("structured")
def c33_export_name_client_gets_structured_replies(t):
    """
    Guards against forgetting what was negotiated when the client enters by
    EXPORT_NAME.  Spec: "NBD_OPT_STRUCTURED_REPLY".
    """
    client = t.haggle()
    client.structured_reply()
    client.export_name(t.name, padding=False)
    check_data(read(client, 0, SCRATCH_START),
               t.image.content(0, SCRATCH_START))


@case("structured")
def c33_second_negotiation_is_harmless(t):
    """
    Guards against toggling: STRUCTURED_REPLY twice is ACK or ERR_INVALID, and
    replies are structured.  Spec: "Fixed newstyle negotiation".
    """
    client = t.haggle()
    client.structured_reply()
    check_kind(client.option(wire.OPT_STRUCTURED_REPLY)[-1], wire.REP_ACK,
               wire.REP_ERR_INVALID)
    check_kind(client.go(t.name), wire.REP_ACK)
    check_serves(client, t.image)


@case("write trim flush multi_conn", setting="file", fresh=True)
def reply_under_way_never_shows_another_place(t):
    """
    Guards against long replies, sent from the page cache without a copy, whose
    clusters are freed and taken by other data before the client has received
    them.  Spec: "Ordering of messages and writes".
    """
    start, length, count = SCRATCH_START, MIB, 8
    writer, reader = t.open(), t.open()
    write(writer, start, b"o" * count * length)
    pass_through(writer, FLUSH, 0)
    requests = [reader.send_request(READ, start + i * length, length)
                for i in range(count)]
    # What the socket does not take stands in the server.
    time.sleep(0.2)
    pass_through(writer, TRIM, start, length=count * length)
    for _ in range(3):
        pass_through(writer, FLUSH, 0)
        write(writer, start + 2 * count * length, b"n" * 2 * count * length)
    for request in reader.replies(count):
        check_error(request.reply, 0)
    for request in requests:
        check(set(request.reply.data) <= {ord("o"), 0},
              f"{request} shows bytes of another place")
