# SPDX-License-Identifier: MIT
"""
Requests, good and bad: limits of size and place, flags, unknown commands.
What a rejected request leaves on the stream must never be parsed as the next.
"""

import struct

import wire
from case import (case, check, check_data, check_equal, check_error,
                  check_kind, check_serves, pass_through, read, write, Unmet)
from images import SCRATCH_START
from wire import (BLOCK_STATUS, CACHE, DF, EINVAL, ENOSPC, EPERM, FAST_ZERO,
                  FLUSH, FUA, GIB, INFO_BLOCK_SIZE, KIB, MIB, NO_HOLE,
                  PAYLOAD_LEN, READ, REQ_ONE, TRIM, WRITE, WRITE_ZEROES)

PAYLOAD_BYTES = 32 * MIB
UNKNOWN_FLAG = 1 << 15

# The flag each command needs, and the commands that change the export.
NEEDED_FLAG = {TRIM: wire.SEND_TRIM, WRITE_ZEROES: wire.SEND_WRITE_ZEROES,
               CACHE: wire.SEND_CACHE, FLUSH: wire.SEND_FLUSH}
CHANGES = (WRITE, TRIM, WRITE_ZEROES)


def offered(client, command):
    """Whether the client may send command at all."""
    if command in CHANGES and client.flags & wire.READ_ONLY:
        return False
    if command == BLOCK_STATUS:
        return bool(client.contexts)
    needed = NEEDED_FLAG.get(command, 0)
    return client.flags & needed == needed


def open_all_commands(t):
    """A client on which every command that the server has may be sent."""
    client = t.haggle()
    if client.structured_reply():
        client.set_contexts(t.name, [wire.BASE_ALLOCATION])
    check_kind(client.go(t.name), wire.REP_ACK)
    return client


def answered(client, command, *errors, offset=0, length=512, flags=0):
    """Sends command, with data if it is a WRITE; checks its error."""
    data = b"w" * length if command == WRITE else b""
    reply = client.command(command, offset, length, flags, data)
    if errors:
        check_error(reply, *errors, what=f"{wire.COMMAND_NAMES[command]} at "
                    f"{offset:#x}+{length:#x}, flags {flags:#x},")
    return reply


@case()
def c15_small_requests_are_served(t):
    """
    Guards against a minimum block size sprung on clients that never asked:
    old ones send 512 bytes, and the default is 1.  Spec: "Size constraints".
    """
    client = t.open()
    for offset, length in ((0, 512), (512, 1024), (MIB - 512, 1024),
                           (2 * MIB - 512, 512), (1, 1), (4095, 2),
                           (8 * MIB - 3, 7)):
        check_data(read(client, offset, length),
                   t.image.content(offset, length), offset)


@case("write")
def c15_small_writes_touch_nothing_else(t):
    """
    Guards against read-modify-write that loses neighbours, at any alignment.
    Spec: "Size constraints".
    """
    client = t.open()
    start = SCRATCH_START
    model = bytearray(b"m" * 128 * KIB)
    write(client, start, bytes(model))
    for at, length in ((0, 1), (511, 2), (4095, 1), (64 * KIB - 1, 2),
                       (65 * KIB, 512), (100000, 4097)):
        data = bytes((at + i) % 251 for i in range(length))
        write(client, start + at, data)
        model[at:at + length] = data
    check_data(read(client, start, len(model)), bytes(model), start)


@case(setting="odd")
def c17_tail_of_an_odd_size_is_not_lost(t):
    """
    Guards against rounding the size up or down: the last bytes are there, and
    nothing behind them.  Spec: "Size constraints".
    """
    client = t.haggle()
    check_kind(client.go(t.name, (INFO_BLOCK_SIZE,)), wire.REP_ACK)
    check_equal(client.size, t.image.size, "size of the export")
    minimum = 1
    if INFO_BLOCK_SIZE in client.infos:
        minimum, = struct.unpack(">I", client.infos[INFO_BLOCK_SIZE][:4])
    check_equal(client.size % minimum, 0, "size modulo minimum block size")
    tail = t.image.size - 100
    check_data(read(client, tail, 100), t.image.content(tail, 100), tail)
    answered(client, READ, EINVAL, offset=tail, length=101)


@case("write", setting="odd")
def c17_tail_of_an_odd_size_can_be_written(t):
    """
    Guards against a last partial block that is read but never written.  Spec:
    "Size constraints".
    """
    client = t.open()
    tail = t.image.size - 612
    data = bytes(range(256)) * 2 + b"t" * 100
    write(client, tail, data)
    check_data(read(client, tail, len(data)), data, tail)
    answered(client, WRITE, ENOSPC, offset=tail, length=613)


@case(setting="aligned")
def c17_unaligned_requests_are_refused(t):
    """
    Guards against rounding a request that breaks the advertised minimum.
    Spec: "Size constraints", "Error values".
    """
    client = t.haggle()
    check_kind(client.go(t.name, (INFO_BLOCK_SIZE,)), wire.REP_ACK)
    minimum = 1
    if INFO_BLOCK_SIZE in client.infos:
        minimum, = struct.unpack(">I", client.infos[INFO_BLOCK_SIZE][:4])
    if minimum == 1:
        raise Unmet("every byte is aligned: the minimum is 1")
    answered(client, READ, EINVAL, offset=1, length=minimum)
    answered(client, READ, EINVAL, offset=0, length=minimum + 1)


@case()
def c18_read_of_32_mib_is_served(t):
    """
    Guards against taking the default maximum payload for an attack.  Spec:
    "Size constraints".
    """
    for client in t.open_each():
        data = read(client, 0, PAYLOAD_BYTES)
        end = SCRATCH_START
        check_data(data[:end], t.image.content(0, end))


@case("write")
def c18_write_of_32_mib_is_served(t):
    """
    Guards against refusing or cutting the default maximum payload.  Spec:
    "Size constraints".
    """
    client = t.open()
    data = struct.pack(">IHH", 0xABCD, 1, 2) * (PAYLOAD_BYTES // 8)
    write(client, SCRATCH_START, data)
    check_data(read(client, SCRATCH_START, PAYLOAD_BYTES), data)


def effect_length_does_not_disconnect(t, command, lengths):
    """No payload, so no length may end the connection."""
    client = open_all_commands(t)
    client.timeout = 60
    for offset, length in lengths:
        answered(client, command, 0, EINVAL, wire.EOVERFLOW, offset=offset,
                 length=length)
        check_serves(client, t.image)


HUGE_LENGTHS = ((0, PAYLOAD_BYTES + 512), (512, (1 << 31) - 512),
                (0, 1 << 31), (0, 0xFFFFFE00), (4096, 0xFFFFFFFF),
                (8 * GIB - 0xFFFFFFFF, 0xFFFFFFFF))


@case("write trim", setting="huge")
def c18_trim_of_4_gib_does_not_disconnect(t):
    """
    Guards against treating the kernel client's TRIM of nearly 4 GiB as an
    attack, or its length as signed.  Spec: "Size constraints".
    """
    effect_length_does_not_disconnect(t, TRIM, HUGE_LENGTHS)


@case("write zeroes", setting="huge")
def c18_write_zeroes_of_4_gib_does_not_disconnect(t):
    """
    Guards against treating the kernel client's WRITE_ZEROES of nearly 4 GiB
    as an attack, or its length as signed.  Spec: "Size constraints".
    """
    effect_length_does_not_disconnect(t, WRITE_ZEROES, HUGE_LENGTHS)


@case("meta", setting="huge")
def c18_block_status_of_4_gib_does_not_disconnect(t):
    """
    Guards against a limit on a question without payload, and sums of extents
    that wrap at 32 bits.  Spec: "Size constraints", "NBD_CMD_BLOCK_STATUS".
    """
    effect_length_does_not_disconnect(t, BLOCK_STATUS, HUGE_LENGTHS)


@case("cache", setting="huge")
def c18_cache_of_4_gib_does_not_disconnect(t):
    """
    Guards against reading 4 GiB into memory because a client hinted at it.
    Spec: "Size constraints", "NBD_CMD_CACHE".
    """
    effect_length_does_not_disconnect(t, CACHE, HUGE_LENGTHS)


@case()
def c18_oversize_read_fails_cleanly(t):
    """
    Guards against a read above 32 MiB that breaks the stream: an error, a
    whole reply or a close.  Spec: "Size constraints".
    """
    for client in t.open_each():
        try:
            client.command(READ, 0, PAYLOAD_BYTES + 512)
            check_serves(client, t.image)
        except wire.Closed:
            pass


TRAP = wire.pack_request(READ, cookie=0x7472617021, length=512)


def trap_payload(length):
    """Data that brings replies nobody expects if it is parsed as requests."""
    return (TRAP * (length // len(TRAP) + 1))[:length]


def rejects_write(t, client, offset, length, flags, *errors):
    """A WRITE that fails; its payload must be gone before the next one."""
    request = client.send_request(WRITE, offset, length, flags,
                                  trap_payload(length))
    client.send_request(READ, 0, 512)
    try:
        done = client.replies(2)
    except wire.Closed:
        return
    check_error(request.reply, *errors, what=f"{request}")
    probe = next(one for one in done if one is not request)
    check_error(probe.reply, 0, what="the read behind it")
    check_data(bytes(probe.reply.data), t.image.content(0, 512))


@case("write")
def c19_payload_of_a_write_with_bad_flags_is_consumed(t):
    """
    Guards against parsing the data of a rejected WRITE as requests: a client
    would choose them.  Spec: "Request message", "Error values".
    """
    for flags in (UNKNOWN_FLAG, NO_HOLE, DF, REQ_ONE, FAST_ZERO):
        for length in (28, 512, 200 * KIB):
            rejects_write(t, t.open(), SCRATCH_START, length, flags, EINVAL)


@case("write")
def c19_payload_of_a_write_past_the_end_is_consumed(t):
    """
    Guards against parsing the data of a WRITE beyond the export as requests.
    Spec: "Request message", "Error values".
    """
    for client in t.open_each():
        rejects_write(t, client, t.image.size - 27, 28, 0, ENOSPC)
        rejects_write(t, client, 1 << 63, 64 * KIB, 0, ENOSPC)


@case(setting="read-only")
def c19_payload_of_a_write_to_read_only_is_consumed(t):
    """
    Guards against parsing the data of a WRITE to a read-only export as
    requests.  Spec: "Request message", "Error values".
    """
    for client in t.open_each():
        for length in (28, 512, 200 * KIB):
            rejects_write(t, client, 0, length, 0, EPERM)


@case()
def c19_payload_of_an_oversize_write_is_consumed(t):
    """
    Guards against answering a WRITE above the limit while its data still
    comes.  Spec: "Request message", "Size constraints".
    """
    client = t.open()
    length = PAYLOAD_BYTES + 512
    try:
        request = client.send_request(WRITE, SCRATCH_START, length, 0,
                                      trap_payload(length))
        check(client.next_reply() is request, "a reply to something else")
        check_serves(client, t.image)
    except wire.Closed:
        pass


def beyond_the_end(size):
    """Places that are not wholly inside an export of this size."""
    yield size - 1, 2
    yield size - 512, 513
    yield size, 1
    yield size + 512, 512
    yield (1 << 63) - 512, 512
    yield 1 << 63, 512
    yield (1 << 64) - 512, 512
    yield (1 << 64) - 512, 1024
    yield (1 << 64) - 1, 1


def refused_beyond_the_end(t, command, *errors):
    client = open_all_commands(t)
    if not offered(client, command):
        raise Unmet(f"no {wire.COMMAND_NAMES[command]}")
    for offset, length in beyond_the_end(t.image.size):
        answered(client, command, *errors, offset=offset, length=length)
        check_serves(client, t.image)
    if command not in (READ, WRITE):
        answered(client, command, *errors, wire.EOVERFLOW, offset=512,
                 length=0xFFFFFFFF)


@case()
def c20_read_past_the_end_is_einval(t):
    """
    Guards against reads beyond the export, and offset + length that wraps.
    Spec: "Error values".
    """
    refused_beyond_the_end(t, READ, EINVAL)


@case("write")
def c20_write_past_the_end_is_enospc(t):
    """
    Guards against writes that grow the image, and offset + length that wraps.
    Spec: "Error values".
    """
    refused_beyond_the_end(t, WRITE, ENOSPC)


@case("write zeroes")
def c20_write_zeroes_past_the_end_is_enospc(t):
    """
    Guards against zeroes beyond the export.  Spec: "NBD_CMD_WRITE_ZEROES".
    """
    refused_beyond_the_end(t, WRITE_ZEROES, ENOSPC)


@case("write trim")
def c20_trim_past_the_end_is_einval(t):
    """
    Guards against a discard beyond the export.  Spec: "Error values".
    """
    refused_beyond_the_end(t, TRIM, EINVAL)


@case("cache")
def c20_cache_past_the_end_is_einval(t):
    """
    Guards against a read ahead beyond the export.  Spec: "Error values".
    """
    refused_beyond_the_end(t, CACHE, EINVAL)


@case("meta")
def c20_block_status_past_the_end_is_einval(t):
    """
    Guards against status of what does not exist.  Spec:
    "NBD_CMD_BLOCK_STATUS".
    """
    refused_beyond_the_end(t, BLOCK_STATUS, EINVAL)


@case("write")
def c20_last_byte_can_be_written(t):
    """
    Guards against the opposite fault: refusing what just fits.  Spec: "Size
    constraints".
    """
    client = t.open()
    last = t.image.size - 1
    for data in (b"a", b"b"):
        write(client, last, data)
        check_equal(read(client, last, 1), data, "the last byte")
    write(client, last - 4095, bytes(4096))


@case(setting="read-only")
def c21_read_only_is_told_and_enforced(t):
    """
    Guards against changes to a read-only export: EPERM, whether or not the
    command is advertised there.  Spec: "Transmission flags", "Error values".
    """
    client = t.open()
    check(client.flags & wire.READ_ONLY, "READ_ONLY is not set")
    before = read(client, 0, 64 * KIB)
    for command in CHANGES:
        allowed = (EPERM,)
        if command != WRITE and not client.flags & NEEDED_FLAG[command]:
            allowed = (EPERM, EINVAL)
        answered(client, command, *allowed)
        answered(client, command, *allowed, length=64 * KIB)
    check_data(read(client, 0, 64 * KIB), before)


@case("flush", setting="read-only")
def c21_flush_of_a_read_only_export_is_fine(t):
    """
    Guards against EPERM for what changes nothing.  Spec: "NBD_CMD_FLUSH".
    """
    answered(t.open(), FLUSH, 0, length=0)


@case(setting="read-only", own=True)
def c21_read_only_wins_over_past_the_end(t):
    """
    Guards against ENOSPC for a disk that can take no write anywhere: a client
    would try to make room.  Spec: "Error values".
    """
    client = t.open()
    answered(client, WRITE, EPERM, offset=t.image.size)
    check_serves(client, t.image)


@case()
def c23_zero_length_requests_do_not_disconnect(t):
    """
    Guards against division by, allocation of, or a hang on nothing; a read of
    nothing has no data chunk.  Spec: "Request types".
    """
    client = open_all_commands(t)
    for command in (READ, WRITE, TRIM, WRITE_ZEROES, CACHE, BLOCK_STATUS):
        if not offered(client, command):
            continue
        for offset in (0, 512, t.image.size):
            answered(client, command, 0, EINVAL, ENOSPC, offset=offset,
                     length=0)
        check_serves(client, t.image)


@case()
def c24_unknown_command_is_einval(t):
    """
    Guards against closing on, or half reading, a command we do not have.
    Spec: "Error values".
    """
    for client in t.open_each():
        for command in (wire.RESIZE, 9, 0x7FFF, 0xFFFF):
            reply = client.command(command, 0, 512)
            check_error(reply, EINVAL, what=f"command {command}")
        check_serves(client, t.image)


# Which flags belong to which command, besides FUA.
OWN_FLAGS = {READ: DF, WRITE_ZEROES: NO_HOLE | FAST_ZERO,
             BLOCK_STATUS: REQ_ONE}


@case()
def c24_wrong_flags_are_einval(t):
    """
    Guards against ignoring a flag: its sender counts on what it means.  Flags
    unknown, or of another command, fail before any effect.  Spec: "Error
    values".
    """
    client = open_all_commands(t)
    for command in (READ, TRIM, WRITE_ZEROES, CACHE, BLOCK_STATUS, FLUSH):
        if not offered(client, command):
            continue
        length = 0 if command == FLUSH else 512
        for flag in (NO_HOLE, DF, REQ_ONE, FAST_ZERO, PAYLOAD_LEN, 1 << 6,
                     UNKNOWN_FLAG):
            if flag & OWN_FLAGS.get(command, 0):
                continue
            answered(client, command, EINVAL, length=length, flags=flag)
    check_serves(client, t.image)


@case(setting="file")
def c24_fast_zero_must_be_advertised(t):
    """
    Guards against a server that falls over a FAST_ZERO it never offered.
    Spec: "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    if client.flags & wire.SEND_FAST_ZERO:
        raise Unmet("SEND_FAST_ZERO is offered")
    answered(client, WRITE_ZEROES, EINVAL, EPERM, offset=SCRATCH_START,
             flags=FAST_ZERO)
    check_serves(client, t.image)


@case(setting="read-only")
def c24_fast_zero_to_read_only_is_refused(t):
    """
    Guards against a server that asks its back end about fast zeroes where it
    has no writes at all.  Spec: "NBD_CMD_WRITE_ZEROES".
    """
    client = t.open()
    for flags in (FAST_ZERO, FAST_ZERO | NO_HOLE):
        answered(client, WRITE_ZEROES, EPERM, EINVAL, flags=flags)
    check_serves(client, t.image)


@case("fua")
def c25_fua_is_accepted_on_every_command(t):
    """
    Guards against EINVAL for FUA on commands that write nothing; some clients
    set it there.  Spec: "Command flags".
    """
    client = open_all_commands(t)
    for command in (READ, CACHE, BLOCK_STATUS, FLUSH, WRITE, TRIM,
                    WRITE_ZEROES):
        if not offered(client, command):
            continue
        offset, length = SCRATCH_START, 4096
        if command == FLUSH:
            offset = length = 0
        answered(client, command, 0, offset=offset, length=length, flags=FUA)
    check_serves(client, t.image)


@case("fua")
def c25_fua_does_not_hide_a_wrong_flag(t):
    """
    Guards against checking flags by equality with FUA.  Spec: "Command
    flags", "Error values".
    """
    client = t.open()
    answered(client, READ, EINVAL, flags=FUA | UNKNOWN_FLAG)
    answered(client, READ, EINVAL, flags=FUA | NO_HOLE)
    check_serves(client, t.image)


@case("flush")
def c28_flush_with_a_range_stays_in_step(t):
    """
    Guards against taking the length of a FLUSH for a payload.  It may fail
    with EINVAL or be served.  Spec: "NBD_CMD_FLUSH".
    """
    client = t.open()
    for offset, length in ((512, 0), (0, 512), (1 << 63, 0xFFFFFFFF)):
        answered(client, FLUSH, 0, EINVAL, offset=offset, length=length)
        check_serves(client, t.image)


@case("cache")
def c37_cache_changes_nothing(t):
    """
    Guards against a cache hint that changes what is read, or what is
    allocated.  Spec: "NBD_CMD_CACHE".
    """
    client = open_all_commands(t)

    def picture():
        if not client.contexts:
            return None
        return pass_through(client, BLOCK_STATUS, 0,
                            length=SCRATCH_START).extents
    before = picture()
    for offset, length in ((0, 4096), (MIB - 1, MIB + 2), (5 * MIB, MIB),
                           (t.image.size - 1, 1)):
        pass_through(client, CACHE, offset, length=length)
    check_equal(picture(), before, "block status after CACHE")
    check_data(read(client, 0, 4 * MIB), t.image.content(0, 4 * MIB))


@case()
def c45_cookies_are_opaque(t):
    """
    Guards against reading meaning, or an index, into the client's cookie.
    Spec: "Transmission".
    """
    for client in t.open_each():
        for cookie in (0, 1, (1 << 64) - 1, 1 << 63, 0x2560951300000000,
                       0x6744669800000001):
            reply = client.command(READ, 0, 512, cookie=cookie)
            check_error(reply, 0, what=f"cookie {cookie:#x}")


@case()
def c45_equal_cookies_in_flight_are_answered(t):
    """
    Guards against a table by cookie, where the second request overwrites the
    first.  Spec: "Transmission".
    """
    client = t.open()
    cookie = 0x4545454545454545
    offsets = [i * 64 * KIB for i in range(8)]
    client.send(b"".join(
        wire.pack_request(READ, 0, cookie, offset, 512)
        for offset in offsets))
    got = []
    for _ in offsets:
        magic, error, echoed = struct.unpack(">IIQ", client.receive(16))
        check_equal((magic, error, echoed),
                    (wire.SIMPLE_REPLY_MAGIC, 0, cookie), "reply header")
        got.append(client.receive(512))
    check_equal(sorted(got),
                sorted(t.image.content(offset, 512) for offset in offsets),
                "all replies together")


@case()
def c46_bad_request_magic_closes(t):
    """
    Guards against answering, or resynchronising on, what is no request.
    Spec: "Request message", "Terminating the transmission phase".
    """
    for client in t.open_each():
        message = bytearray(client.pack(READ, 0, 7, 0, 512))
        message[3] ^= 1
        client.send(bytes(message))
        client.expect_closed()


@case()
def c46_good_requests_before_a_bad_magic_are_answered(t):
    """
    Guards against dropping replies to sound requests that came in the same
    segment as a bad one.  Either all bytes of a reply come or none.  Spec:
    "Terminating the transmission phase".
    """
    client = t.open()
    request = client.expect_request(READ, 0, 64 * KIB, 0x46)
    client.send(wire.pack_request(READ, 0, 0x46, 0, 64 * KIB)
                + b"\xff" * 28)
    try:
        check(client.next_reply() is request, "a reply to something else")
        check_data(bytes(request.reply.data), t.image.content(0, 64 * KIB))
        client.expect_closed()
    except wire.Closed as closed:
        check(not client.in_message, f"{closed}, in mid-reply")
