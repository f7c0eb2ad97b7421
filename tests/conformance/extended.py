# SPDX-License-Identifier: MIT
"""
Extended headers: who gets them, 64-bit lengths, payloads, block status.

wire.py checks of every reply that its header is extended and has the offset
of the request.  The cases of other files that go through open_each() are run
with extended headers, too.
"""

import random
import struct
import time

import wire
from case import (case, check, check_data, check_equal, check_error,
                  check_haggles, check_kind, check_serves, pass_through, read,
                  write)
from images import SCRATCH_START
from wire import (ALLOCATION_DEPTH, BASE_ALLOCATION, BLOCK_STATUS, CACHE,
                  EINVAL, ENOSPC, EOVERFLOW, FLUSH, FUA, GIB, KIB, MIB,
                  PAYLOAD_LEN, READ, REP_ACK, REP_ERR_EXT_HEADER_REQD,
                  REP_ERR_INVALID, REQ_ONE, STATE_HOLE, STATE_ZERO, TIB, TRIM,
                  WRITE, WRITE_ZEROES)

HOLE = STATE_HOLE | STATE_ZERO
PAYLOAD_BYTES = 32 * MIB


# Negotiation.

@case("extended")
def c49_structured_reply_comes_too_late(t):
    """
    Guards against going back to 20-byte replies: after EXTENDED_HEADERS,
    STRUCTURED_REPLY is ERR_EXT_HEADER_REQD, and changes nothing.  Spec:
    "NBD_OPT_STRUCTURED_REPLY".
    """
    client = t.haggle()
    check(client.extended_headers(), "no extended headers")
    check_kind(client.option(wire.OPT_STRUCTURED_REPLY)[-1],
               REP_ERR_EXT_HEADER_REQD)
    check_haggles(client)
    check_kind(client.go(t.name), REP_ACK)
    check_serves(client, t.image)


@case("extended structured")
def c49_structured_reply_may_come_first(t):
    """
    Guards against mixing both kinds: EXTENDED_HEADERS after STRUCTURED_REPLY
    is ACK, and rules from then on.  Spec: "NBD_OPT_EXTENDED_HEADERS".
    """
    client = t.haggle()
    client.structured_reply()
    check(client.extended_headers(), "no extended headers")
    check(client.extended_headers(), "no extended headers twice")
    check_kind(client.go(t.name), REP_ACK)
    check(client.flags & wire.SEND_DF, "no SEND_DF")
    check_serves(client, t.image)


@case("extended")
def c49_export_name_ends_the_session(t):
    """
    Guards against EXPORT_NAME after EXTENDED_HEADERS, which must not be; it
    has no error reply.  Spec: "NBD_OPT_EXTENDED_HEADERS".
    """
    client = t.haggle()
    check(client.extended_headers(), "no extended headers")
    client.send_option(wire.OPT_EXPORT_NAME, t.name)
    client.expect_closed()


@case("extended")
def c49_data_with_the_option_is_invalid(t):
    """
    Guards against agreeing to a request with data: ERR_INVALID, compact
    headers stay.  Spec: "NBD_OPT_EXTENDED_HEADERS".
    """
    client = t.haggle()
    check_kind(client.option(wire.OPT_EXTENDED_HEADERS, b"data")[-1],
               REP_ERR_INVALID)
    check_haggles(client)
    check_kind(client.go(t.name), REP_ACK)
    check_equal(client.flags & wire.SEND_DF, 0, "SEND_DF")
    check_serves(client, t.image)


@case("extended meta")
def c49_contexts_need_nothing_but_extended_headers(t):
    """
    Guards against asking for structured replies besides.  Spec:
    "NBD_OPT_SET_META_CONTEXT".
    """
    client, context = t.open_status(extended=True)
    reply = client.command(BLOCK_STATUS, 0, MIB)
    check_error(reply, 0, what="BLOCK_STATUS")
    check_equal(list(reply.extents), [context], "contexts")


@case("extended meta")
def c49_payload_of_status_is_offered_with_contexts_only(t):
    """
    Guards against BLOCK_STATUS_PAYLOAD for clients that cannot use it: it
    takes extended headers, and contexts of this export.  INFO and GO say the
    same.  Spec: "Transmission flags".
    """
    client = t.haggle()
    client.structured_reply()
    client.set_contexts(t.name, [BASE_ALLOCATION])
    check_kind(client.go(t.name), REP_ACK)
    check_equal(client.flags & wire.BLOCK_STATUS_PAYLOAD, 0, "compact flag")
    client = t.haggle()
    client.extended_headers()
    check_kind(client.go(t.name, option=wire.OPT_INFO), REP_ACK)
    check_equal(client.flags & wire.BLOCK_STATUS_PAYLOAD, 0, "flag before")
    client.set_contexts(t.name, [BASE_ALLOCATION])
    check_kind(client.go(t.name, option=wire.OPT_INFO), REP_ACK)
    told = client.flags
    check_kind(client.go(t.name), REP_ACK)
    check_equal(client.flags, told, "flags of GO and INFO")


# Lengths of 64 bits.

@case("extended write zeroes meta", setting="tebibytes")
def c18_whole_disk_of_16_tib_is_zeroed_at_once(t):
    """
    Guards against lengths cut to 32 bits, and against holding up others: a
    single WRITE_ZEROES covers all, while reads beside it are answered.  Spec:
    "NBD_CMD_WRITE_ZEROES".
    """
    client, context = t.open_status(extended=True)
    client.timeout = 60
    places = [0, 5 * GIB, 4 * TIB + 12345, t.image.size - 512]
    for place in places:
        write(client, place, b"z" * 512)
    zero = client.send_request(WRITE_ZEROES, 0, t.image.size)
    for i in range(50):
        client.send_request(READ, i * TIB // 4, 512)
    done = client.replies(51)
    for request in done:
        check_error(request.reply, 0, what=f"{request}")
    check(zero in done, "no reply to WRITE_ZEROES")
    for place in places:
        check_data(read(client, place, 512), bytes(512), place)
    check_equal(states_of(client, context, 0, t.image.size), {HOLE},
                "states of the disk")


@case("extended write trim", setting="tebibytes")
def c18_trim_and_cache_of_16_tib(t):
    """
    Guards against lengths cut to 32 bits, and against a CACHE that reads for
    hours: an error or success, and soon.  Spec: "NBD_CMD_TRIM",
    "NBD_CMD_CACHE".
    """
    client = t.open(extended=True)
    client.timeout = 30
    write(client, 8 * TIB, b"t" * MIB)
    for offset, length in ((0, t.image.size), (512, t.image.size - 512),
                           (0, (1 << 32) + 512)):
        for command in (CACHE, TRIM):
            reply = client.command(command, offset, length)
            check_error(reply, 0, EINVAL, EOVERFLOW,
                        what=wire.COMMAND_NAMES[command])
        check_serves(client, t.image)


@case("extended")
def c18_lengths_beyond_the_disk_do_not_disconnect(t):
    """
    Guards against sums that wrap at 64 bits, or a length taken for that of a
    payload.  Spec: "Size constraints".
    """
    client = t.open(extended=True)
    commands = [READ]
    if client.flags & wire.SEND_CACHE:
        commands.append(CACHE)
    if not client.flags & wire.READ_ONLY:
        commands += [TRIM, WRITE_ZEROES]
    for command in commands:
        for offset, length in ((0, (1 << 32) + 512), (0, 1 << 63),
                               (512, (1 << 64) - 512), (0, (1 << 64) - 1),
                               ((1 << 64) - 1, (1 << 64) - 1)):
            reply = client.command(command, offset, length)
            check_error(reply, EINVAL, ENOSPC, EOVERFLOW,
                        what=wire.COMMAND_NAMES[command])
        check_serves(client, t.image)


@case("extended", setting="tebibytes")
def c18_oversize_extended_read_is_refused(t):
    """
    Guards against a read of terabytes that is tried: EOVERFLOW, or whole.
    Spec: "NBD_CMD_READ".
    """
    client = t.open(extended=True)
    for length in (PAYLOAD_BYTES + 512, 1 << 32, (1 << 32) + 512, TIB):
        check_error(client.command(READ, 0, length), EOVERFLOW, EINVAL,
                    what=f"READ of {length:#x}")
    check_serves(client, t.image)


# Payloads.

@case("extended write", own=True)
def c48_write_without_payload_len_is_a_write(t):
    """
    Guards against shutting out QEMU's client (seen with 10.0): it leaves the
    flag out, though payload follows, as it must behind a WRITE.
    """
    client = t.open(extended=True)
    data = bytes(range(256)) * 2
    for cookie, flags in ((1, 0), (2, FUA)):
        request = client.expect_request(WRITE, SCRATCH_START, len(data),
                                        cookie)
        client.send(wire.pack_extended(WRITE, flags, cookie, SCRATCH_START,
                                       len(data), data))
        check(client.next_reply() is request, "a reply to something else")
        check_error(request.reply, 0, what="WRITE without PAYLOAD_LEN")
    check_data(client.command(READ, SCRATCH_START, len(data)).data, data)
    check_serves(client, t.image)


@case("extended")
def c48_payload_of_other_commands_is_consumed(t):
    """
    Guards against parsing a payload as requests: whatever the command, known
    or not, it is read, then EINVAL.  Spec: "Request message".
    """
    trap = wire.pack_extended(READ, 0, 0x7472617021, 0, 512)
    client = t.open(extended=True)
    for command in (READ, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, 8,
                    99, 0xFFFF):
        for length in (1, 12, 32, 4096, 200 * KIB):
            payload = (trap * (length // 32 + 1))[:length]
            request = client.expect_request(command, 0, length, length)
            client.send(wire.pack_extended(command, PAYLOAD_LEN, length, 0,
                                           length, payload))
            check(client.next_reply() is request, "another's reply")
            check_error(request.reply, EINVAL, wire.EPERM,
                        what=f"{request} with a payload")
        check_serves(client, t.image)


@case("extended write")
def c48_payload_of_32_mib_is_served(t):
    """
    Guards against refusing the default maximum.  Spec: "Size constraints".
    """
    client = t.open(extended=True)
    data = struct.pack(">IHH", 0xE32, 1, 2) * (PAYLOAD_BYTES // 8)
    write(client, SCRATCH_START, data, FUA)
    check_data(read(client, SCRATCH_START, PAYLOAD_BYTES), data)


@case("extended")
def c48_oversize_payload_is_never_parsed(t):
    """
    Guards against a length of 64 bits cut to 32: the connection ends, or all
    of it is read.  Spec: "Request message".
    """
    for length in (PAYLOAD_BYTES + 1, 1 << 32, (1 << 32) + 28, 1 << 63,
                   (1 << 64) - 1):
        client = t.open(extended=True)
        client.send_until_closed(
            wire.pack_extended(WRITE, PAYLOAD_LEN, 1, 0, length)
            + wire.pack_extended(READ, 0, 2, 0, 512) * 100)
        client.timeout = 0.5
        try:
            client.expect_closed()
        except wire.TimedOut:
            pass


@case("extended")
def c48_compact_requests_are_no_requests(t):
    """
    Guards against accepting either header: the stream would lose step.  Spec:
    "Request message".
    """
    client = t.open(extended=True)
    client.send(wire.pack_request(READ, 0, 1, 0, 512) + bytes(4))
    client.expect_closed()
    client = t.open()
    client.send(wire.pack_extended(READ, 0, 1, 0, 512))
    client.expect_closed()


@case()
def c48_payload_len_in_a_compact_header(t):
    """
    Guards against waiting for a payload that no compact READ has: EINVAL, and
    the next request is answered.  Spec: "Request message".
    """
    client = t.open()
    check_error(client.command(READ, 0, 512, PAYLOAD_LEN), EINVAL,
                what="READ with PAYLOAD_LEN")
    check_serves(client, t.image)


@case("extended write flush")
def c48_every_command_has_an_extended_reply(t):
    """
    Guards against a simple reply where nothing is to be told but success, or
    an error.  Spec: "Extended reply chunk message".
    """
    client = t.open(extended=True)
    write(client, SCRATCH_START, b"e" * 512)
    pass_through(client, FLUSH, 0)
    for command in (TRIM, WRITE_ZEROES, CACHE):
        reply = client.command(command, SCRATCH_START, 512)
        check_error(reply, 0, EINVAL, what=wire.COMMAND_NAMES[command])
    check_error(client.command(READ, 0, 0), 0, EINVAL, what="READ of nothing")
    check_error(client.command(FLUSH, 512, 0), 0, EINVAL, what="FLUSH")
    check_error(client.command(99, 512, 512), EINVAL, what="command 99")
    check_serves(client, t.image)


@case("extended meta write")
def c48_split_at_every_byte(t):
    """
    Guards against losing step where a header of 32 bytes, or what follows it,
    comes in two pieces.  Spec: "Request message".
    """
    client, context = t.open_status(extended=True)
    choice = wire.pack_choice(MIB, [context])
    has_choice = client.flags & wire.BLOCK_STATUS_PAYLOAD
    message = (client.pack(WRITE, 0, 1, SCRATCH_START, 64, b"s" * 64)
               + client.pack(READ, 0, 2, 0, 512))
    if has_choice:
        message += wire.pack_extended(BLOCK_STATUS, PAYLOAD_LEN, 3, 0,
                                      len(choice), choice)
    for size in range(1, len(message)):
        client.expect_request(WRITE, SCRATCH_START, 64, 1)
        client.expect_request(READ, 0, 512, 2)
        if has_choice:
            client.expect_request(BLOCK_STATUS, 0, MIB, 3)
        client.send(message[:size])
        time.sleep(0.0005)
        client.send(message[size:])
        for request in client.replies(3 if has_choice else 2):
            check_error(request.reply, 0, what=f"{request}")


# Block status.

def states_of(client, context, offset, length, flags=0):
    """All states of a range that is asked about until its end."""
    states = set()
    end = offset + length
    while offset < end:
        reply = pass_through(client, BLOCK_STATUS, offset,
                             length=end - offset, flags=flags)
        for extent, state in reply.extents[context]:
            states.add(state)
            offset += extent
    check_equal(offset, end, "end of the extents")
    return states


@case("extended meta", setting="tebibytes", own=True)
def c42_hole_of_16_tib_is_one_extent(t):
    """
    Guards against extents cut at 32 bits, and against work without a bound.
    Spec: "NBD_REPLY_TYPE_BLOCK_STATUS_EXT".
    """
    client, context = t.open_status(extended=True)
    for flags in (0, REQ_ONE):
        begun = time.monotonic()
        reply = pass_through(client, BLOCK_STATUS, GIB,
                             length=t.image.size - GIB, flags=flags)
        check(time.monotonic() - begun < 2, "it took over 2 s")
        check_equal(reply.extents[context], [(t.image.size - GIB, HOLE)],
                    "extents")


@case("meta", setting="tebibytes")
def c42_status_of_4_gib_at_any_place(t):
    """
    Guards against extents of 32 bits that wrap: what structured replies can
    ask is answered up to its end.  Spec: "NBD_REPLY_TYPE_BLOCK_STATUS".
    """
    client, context = t.open_status()
    for offset in (0, 5 * GIB + 1, t.image.size - 0xFFFFFFFF):
        states_of(client, context, offset, 0xFFFFFFFF)
        states_of(client, context, offset, 0xFFFFFFFF, REQ_ONE)


@case("extended meta write", setting="tebibytes")
def c42_data_far_away_is_found(t):
    """
    Guards against skipping what lies behind terabytes of nothing.  Spec:
    "NBD_CMD_BLOCK_STATUS".
    """
    client, context = t.open_status(extended=True)
    place = 11 * TIB + 100 * GIB + 64 * KIB
    write(client, place, b"f" * 64 * KIB)
    offset = 10 * TIB
    while offset < place:
        extents = pass_through(client, BLOCK_STATUS, offset, length=
                               t.image.size - offset).extents[context]
        for length, state in extents:
            if offset + length > place:
                check(offset <= place and not state & STATE_ZERO,
                      f"{offset:#x}+{length:#x} has state {state}")
                return
            offset += length


def open_choosing(t):
    """A client with all contexts there are, which may choose among them."""
    client = t.open(contexts=[BASE_ALLOCATION, ALLOCATION_DEPTH],
                    extended=True)
    check(client.flags & wire.BLOCK_STATUS_PAYLOAD, "no BLOCK_STATUS_PAYLOAD")
    return client


def choose(client, length, contexts, *errors, flags=0, offset=0,
           payload=None):
    request = client.send_choice(offset, length, contexts, flags, payload)
    check(client.next_reply() is request, "a reply to something else")
    check_error(request.reply, *errors, what=f"status in {contexts}")
    return request.reply


@case("extended meta depth", own=True)
def c48_status_chooses_contexts(t):
    """
    Guards against ignoring the choice: wire.py wants a chunk for each chosen
    context, and no other.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client = open_choosing(t)
    first, second = sorted(client.contexts)
    whole = pass_through(client, BLOCK_STATUS, 0, length=8 * MIB).extents
    check_equal(set(whole), {first, second}, "contexts")
    for contexts in ([first], [second], [second, first]):
        reply = choose(client, 8 * MIB, contexts, 0)
        for context in contexts:
            check_equal(reply.extents[context], whole[context], "extents")
        choose(client, 8 * MIB, contexts, 0, flags=REQ_ONE | FUA)


@case("extended meta depth", own=True)
def c48_bad_choices_are_consumed(t):
    """
    Guards against unknown ids, ids twice, and payloads of wrong lengths: all
    of it is read, then EINVAL.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client = open_choosing(t)
    one, two = sorted(client.contexts)
    for contexts in ([0], [99], [one, 99], [one, one], [one, two, one],
                     [1 << 31], [], list(range(1, 65)), [one] * 1000):
        choose(client, MIB, contexts, EINVAL)
        check_serves(client, t.image)
    for payload in (b"1", bytes(7), bytes(8), bytes(11), bytes(13),
                    struct.pack(">QI", MIB, one) + b"x"):
        choose(client, MIB, [one], EINVAL, payload=payload)
        check_serves(client, t.image)
    for offset, length in ((0, 0), (t.image.size, 1), (0, t.image.size + 1),
                           (1, (1 << 64) - 1), (1 << 63, 1 << 63)):
        choose(client, length, [one], EINVAL, offset=offset)
        check_serves(client, t.image)
    choose(client, t.image.size - 512, [two], 0, offset=512)


@case("extended meta")
def c48_choice_without_contexts_is_refused(t):
    """
    Guards against a choice among nothing.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client = t.open(extended=True)
    choose(client, MIB, [1], EINVAL)
    check_serves(client, t.image)


# Any byte.

def unaligned_for_a_while(t, client):
    """Writes, zeroes and reads at any byte, held against a model."""
    size = t.image.size
    model = bytearray(read(client, 0, size))
    dice = random.Random(size)
    for step in range(150):
        offset = dice.choice([dice.randrange(size), size - 1 -
                              dice.randrange(2000), dice.randrange(2000)])
        length = min(dice.choice([1, 511, 513, 4097, 70001]), size - offset)
        if step % 5 == 4:
            pass_through(client, WRITE_ZEROES, offset, length=length)
            model[offset:offset + length] = bytes(length)
        else:
            data = dice.randbytes(length)
            write(client, offset, data)
            model[offset:offset + length] = data
        low = max(0, offset - 600)
        high = min(size, offset + length + 600)
        check_data(read(client, low, high - low), bytes(model[low:high]), low)
    check_data(read(client, 0, size), bytes(model))
    check_error(client.command(READ, size - 1, 2), EINVAL, what="READ")
    write(client, 0, t.image.content(0, size))


@case("write zeroes", setting="odd")
def c17_any_byte_of_an_odd_size(t):
    """
    Guards against rounding to sectors where requests, and the size, have none.
    Spec: "Size constraints".
    """
    for client in t.open_each():
        unaligned_for_a_while(t, client)


@case("write zeroes", setting="odd-raw")
def c17_any_byte_of_an_odd_raw_size(t):
    """
    Guards against the same in a raw image.  Spec: "Size constraints".
    """
    for client in t.open_each():
        unaligned_for_a_while(t, client)
