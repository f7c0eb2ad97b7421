# SPDX-License-Identifier: MIT
"""
BLOCK_STATUS: what it promises must be so.  The form of each reply (lengths,
sums, REQ_ONE, one chunk per context) is checked by wire.py.
"""

import wire
from case import (case, check, check_equal, check_error, check_kind, read,
                  write, pass_through)
from images import SCRATCH_START
from wire import (BLOCK_STATUS, KIB, MIB, NO_HOLE, REQ_ONE, STATE_HOLE,
                  STATE_ZERO, WRITE_ZEROES)

HOLE = STATE_HOLE | STATE_ZERO


def status(client, context, offset, length, flags=0):
    """The extents of one request, as (length, status)."""
    reply = pass_through(client, BLOCK_STATUS, offset, length=length,
                         flags=flags)
    return reply.extents[context]


def walk(client, context, start, end, step, flags=0):
    """Yields (offset, length, status) until end, as a client would ask."""
    offset = start
    while offset < end:
        extents = status(client, context, offset, min(step, end - offset),
                         flags)
        for length, state in extents:
            yield offset, length, state
            offset += length
        check(offset <= client.size,
              f"extents reach {offset:#x}, past the end of the export")


@case("meta")
def c42_extents_lead_to_the_end(t):
    """
    Guards against extents that stop short for ever, or pass the end of the
    export.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client, context = t.open_status()
    for step in (client.size, 5 * MIB + 512):
        for flags in (0, REQ_ONE):
            for _ in walk(client, context, 0, client.size, step, flags):
                pass


@case("meta")
def c42_zero_extents_read_as_zero(t):
    """
    Guards against STATE_ZERO where there is data: copying tools skip it.
    Spec: "base:allocation metadata context".
    """
    client, context = t.open_status()
    end = SCRATCH_START
    for offset, length, state in walk(client, context, 0, end, MIB):
        if state & STATE_ZERO:
            stop = min(offset + length, end)
            check(not any(t.image.content(offset, stop - offset)),
                  f"{offset:#x}+{length:#x} is not zero")


@case("meta")
def c42_reserved_status_bits_are_clear(t):
    """
    Guards against bits that a later version may give a meaning.  Spec:
    "base:allocation metadata context".
    """
    client, context = t.open_status()
    for offset, _, state in walk(client, context, 0, client.size, 4 * MIB):
        check_equal(state & ~HOLE, 0, f"reserved bits at {offset:#x}")


@case("meta")
def c42_unaligned_questions_are_answered(t):
    """
    Guards against rounding a question to clusters: extents begin at the
    offset, and a single byte has a status.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client, context = t.open_status()
    for offset, length in ((1, 1), (MIB - 1, 1), (MIB - 1, 2), (MIB - 3, MIB),
                           (4095, 70000), (client.size - 1, 1)):
        for flags in (0, REQ_ONE):
            extents = status(client, context, offset, length, flags)
            check(offset + sum(size for size, _ in extents) <= client.size,
                  "extents pass the end of the export")
    whole = status(client, context, MIB - 3, MIB)
    if len(whole) > 1:
        check_equal(whole[0][0], 3, "length of the extent up to 1 MiB")


@case("meta")
def c42_flag_req_one_agrees_with_the_list(t):
    """
    Guards against two answers: with REQ_ONE the first extent is the same, cut
    to the length asked.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client, context = t.open_status()
    for offset, length in ((0, 16 * MIB), (MIB, MIB), (MIB + 512, 4096),
                           (7 * MIB, 2 * MIB), (0, 512)):
        first = status(client, context, offset, length)[0]
        one = status(client, context, offset, length, REQ_ONE)[0]
        check_equal(one, (min(first[0], length), first[1]),
                    f"REQ_ONE at {offset:#x}")


@case("meta", own=True)
def c42_picture_is_that_of_the_image(t):
    """
    Guards against reporting too little: data is 0, what has no cluster is
    hole and zero, and extents of equal status are one.  Spec:
    "base:allocation metadata context".
    """
    client, context = t.open_status()
    picture = status(client, context, 0, SCRATCH_START)
    end = sum(length for length, _ in picture[:-1])
    picture[-1] = (min(picture[-1][0], SCRATCH_START - end), picture[-1][1])
    check_equal(picture, [(MIB, 0), (MIB, HOLE), (MIB, 0), (5 * MIB, HOLE),
                          (4 * MIB, 0), (4 * MIB, HOLE)], "block status")


@case("meta", setting="overlay")
def c42_data_of_the_base_is_data(t):
    """
    Guards against taking what the overlay lacks for a hole: the base has data
    there.  Spec: "base:allocation metadata context".
    """
    client, context = t.open_status()
    for offset, length, state in walk(client, context, 0, client.size, MIB):
        if any(t.image.content(offset, min(length, client.size - offset))):
            check_equal(state & STATE_ZERO, 0, f"ZERO at {offset:#x}")


@case("meta")
def c42_many_questions_in_flight(t):
    """
    Guards against a status chunk with the extents of another question.  Spec:
    "Transmission".
    """
    client, context = t.open_status()
    offsets = [i * 511 * KIB for i in range(24)]
    expected = {offset: status(client, context, offset, MIB, REQ_ONE)
                for offset in offsets}
    for offset in offsets:
        client.send_request(BLOCK_STATUS, offset, MIB, REQ_ONE)
    for request in client.replies(len(offsets)):
        check_equal(request.reply.extents[context], expected[request.offset],
                    f"status at {request.offset:#x}")


@case("meta", own=True)
def c42_two_queries_give_one_chunk(t):
    """
    Guards against a chunk per query rather than per context, also after the
    choice was made over again.  Spec: "NBD_OPT_SET_META_CONTEXT".
    """
    client = t.haggle()
    client.structured_reply()
    for _ in range(3):
        client.set_contexts(t.name, [wire.BASE_ALLOCATION] * 2)
    check_kind(client.go(t.name), wire.REP_ACK)
    reply = client.command(BLOCK_STATUS, 0, MIB)
    check_error(reply, 0, what="BLOCK_STATUS")
    check_equal(len(reply.extents), 1, "number of status chunks")


@case("write meta")
def c43_written_data_is_no_hole(t):
    """
    Guards against a status older than the data: written places are neither
    hole nor zero, on any connection.  Spec: "base:allocation metadata
    context".
    """
    writer = t.open()
    client, context = t.open_status()
    start = SCRATCH_START + 20 * MIB
    for size in (512, 64 * KIB, MIB):
        write(writer, start, b"d" * size)
        for offset, length, state in walk(client, context, start,
                                          start + size, size):
            check_equal(state, 0, f"status at {offset:#x}")


def check_no_hole(client, context, offset, length):
    """NO_HOLE zeroes read as zero and have room of their own."""
    pass_through(client, WRITE_ZEROES, offset, length=length, flags=NO_HOLE)
    check(not any(read(client, offset, length)), "zeroes read as data")
    for at, _, state in walk(client, context, offset, offset + length,
                             length):
        check_equal(state & STATE_HOLE, 0, f"HOLE at {at:#x}")


@case("write meta zeroes", own=True)
def c43_no_hole_zeroes_keep_the_room_of_data(t):
    """
    Guards against NO_HOLE zeroes that give up the clusters of what they
    cover.  Spec: "NBD_CMD_WRITE_ZEROES", "base:allocation metadata context".
    """
    client, context = t.open_status()
    start = SCRATCH_START + 24 * MIB
    for offset, length in ((start, 64 * KIB), (start + MIB, MIB),
                           (start + 3 * MIB + 512, 100000)):
        write(client, offset, b"r" * length)
        check_no_hole(client, context, offset, length)


@case("write meta zeroes", own=True)
def c43_no_hole_zeroes_make_room_in_a_hole(t):
    """
    Guards against NO_HOLE zeroes without room of their own where there was
    none: a later write could fail for lack of space.  Spec:
    "NBD_CMD_WRITE_ZEROES", "base:allocation metadata context".
    """
    client, context = t.open_status()
    start = SCRATCH_START + 28 * MIB
    for offset, length in ((start, 64 * KIB), (start + MIB, MIB),
                           (start + 3 * MIB + 512, 100000)):
        pass_through(client, WRITE_ZEROES, offset, length=length)
        check_no_hole(client, context, offset, length)
