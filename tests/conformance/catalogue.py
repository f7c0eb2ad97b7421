# SPDX-License-Identifier: MIT
"""
Holes that other servers had, each named after its record, kept closed here.

Most cases do not care what is answered, as long as it is lawful: the server
must live, stay in step or close, and serve the next client.  That last part is
checked after every case by the harness.
"""

import itertools
import struct
import time

import wire
from case import (case, check, check_data, check_equal, check_error,
                  check_haggles, check_kind, check_serves, read, write)
from images import SCRATCH_START
from requests import offered, open_all_commands
from wire import (BASE_ALLOCATION, BLOCK_STATUS, CACHE, EINVAL, ENOSPC,
                  EOVERFLOW, GIB, KIB, MIB, OPT_ABORT, OPT_EXPORT_NAME,
                  OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT,
                  OPT_SET_META_CONTEXT, OPT_STARTTLS, OPT_STRUCTURED_REPLY,
                  READ, REP_ACK, REP_ERR_INVALID, REP_ERR_TOO_BIG,
                  REP_ERR_UNKNOWN, TRIM, WRITE, WRITE_ZEROES)

# For each u32 length on the wire.
LENGTHS = (0, 1, 4095, 4096, 4097, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
SENT_BYTES_MAX = 4097
OPTIONS = (OPT_EXPORT_NAME, OPT_ABORT, OPT_LIST, wire.OPT_PEEK_EXPORT,
           OPT_STARTTLS, OPT_INFO, OPT_GO, OPT_STRUCTURED_REPLY,
           OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT,
           wire.OPT_EXTENDED_HEADERS, 1000)
REFUSALS = (REP_ERR_INVALID, REP_ERR_UNKNOWN, REP_ERR_TOO_BIG)


def u32(value):
    return struct.pack(">I", value)


def valid_option(t, option):
    """Good data for an option."""
    if option == OPT_EXPORT_NAME:
        return t.name
    if option in (OPT_INFO, OPT_GO):
        return wire.pack_export_query(t.name, (wire.INFO_BLOCK_SIZE,))
    if option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        return wire.pack_context_query(t.name, [BASE_ALLOCATION])
    return b""


def refused_or_closed(client, option, data, *kinds):
    """An option that must not succeed; haggling goes on, or is over."""
    try:
        client.send_option(option, data)
        check_kind(client.option_replies(option)[-1], *kinds)
        check_haggles(client)
    except wire.Closed:
        pass


@case()
def cve_2022_26495_option_lengths(t):
    """
    Guards against CVE-2022-26495: arithmetic on an option's length.  What is
    short is answered; of what is long the server may wait for more, or close.
    Spec: "Newstyle negotiation".
    """
    for option, length in itertools.product(OPTIONS, LENGTHS):
        client = t.haggle()
        client.send_option(option, b"x" * min(length, SENT_BYTES_MAX), length)
        if length > SENT_BYTES_MAX or option == OPT_EXPORT_NAME:
            client.close()
            continue
        try:
            replies = client.option_replies(option)
            check(replies[-1].is_final, "no final reply")
        except wire.Closed:
            check(length == 4097 and option in (OPT_INFO, OPT_GO)
                  or option == OPT_ABORT,
                  f"closed after option {option} of {length} bytes")


def lying_lengths(t, option, head, tail):
    """Puts each length between head and tail, with as much data as is sane."""
    for length in LENGTHS:
        client = t.haggle()
        client.structured_reply()
        if length > SENT_BYTES_MAX:
            refused_or_closed(client, option, head + u32(length) + tail,
                              *REFUSALS)
            continue
        text = b"x" * length
        kinds = REFUSALS + (REP_ACK,) if length == 0 else REFUSALS
        if head or option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
            kinds = REFUSALS + (REP_ACK,)
        client.send_option(option, head + u32(length) + text + tail)
        try:
            check_kind(client.option_replies(option)[-1], *kinds)
        except wire.Closed:
            check(length > 4096, f"closed for a string of {length} bytes")


@case()
def cve_2017_15118_name_lengths(t):
    """
    Guards against CVE-2017-15118 and CVE-2022-26496: a long export name over
    the end of a buffer on the stack.  Spec: "Conventions".
    """
    for option in (OPT_INFO, OPT_GO):
        lying_lengths(t, option, b"", struct.pack(">H", 0))


@case("structured")
def cve_2017_15118_context_name_lengths(t):
    """
    Guards against the same for the name in LIST_META_CONTEXT and
    SET_META_CONTEXT.  Spec: "NBD_OPT_LIST_META_CONTEXT".
    """
    for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        lying_lengths(t, option, b"", u32(0))


@case("meta")
def cve_2022_26495_query_lengths(t):
    """
    Guards against CVE-2022-26495 in the length of a query.  Spec:
    "NBD_OPT_LIST_META_CONTEXT".
    """
    head = u32(len(t.name)) + t.name + u32(1)
    for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        lying_lengths(t, option, head, b"")


@case("meta")
def cve_2022_26495_query_counts(t):
    """
    Guards against an allocation, or a loop, of as many queries as a client
    claims to send.  Spec: "NBD_OPT_LIST_META_CONTEXT".
    """
    query = u32(len(BASE_ALLOCATION)) + BASE_ALLOCATION
    for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
        client = t.haggle()
        client.structured_reply()
        for count in LENGTHS:
            if count <= 1:
                continue
            data = u32(len(t.name)) + t.name + u32(count) + query
            check_kind(client.option(option, data)[-1], REP_ERR_INVALID,
                       REP_ERR_TOO_BIG)
        check_haggles(client)


@case()
def qemu_4843_option_lengths_off_by_a_few(t):
    """
    Guards against an assertion on options whose length is not that of their
    data: one or eight more, one less.  Spec: "Newstyle negotiation".
    """
    for option in OPTIONS:
        data = valid_option(t, option)
        for more in (1, 8, -1):
            length = len(data) + more
            if length < 0:
                continue
            client = t.haggle()
            if option != OPT_STRUCTURED_REPLY:
                client.structured_reply()
            client.send_until_closed(
                wire.pack_option(option, data, length)
                + wire.pack_option(OPT_LIST) + wire.pack_option(OPT_ABORT))


@case("meta")
def qemu_4843_padded_data_is_invalid(t):
    """
    Guards against data that is consistent outside and not inside: bytes more
    or less than the fields say are ERR_INVALID, and the next option is
    answered.  Spec: "NBD_OPT_LIST_META_CONTEXT".
    """
    for option in (OPT_INFO, OPT_GO, OPT_LIST_META_CONTEXT,
                   OPT_SET_META_CONTEXT):
        client = t.haggle()
        client.structured_reply()
        data = valid_option(t, option)
        for wrong in (data + b"\0", data + bytes(8), data[:-1]):
            check_kind(client.option(option, wrong)[-1], REP_ERR_INVALID)
        check_haggles(client)


LONGEST_NAMES = (b"n" * 4096, b"%s%n%x%d" * 512, "\u00e9".encode() * 2048,
                 b"\"'\\{}<>&;\n\r\t\x1b[31m".ljust(4096, b"\x7f"),
                 ("a" + "\U0001f4be" * 1023 + "bcd").encode())


@case()
def cve_2020_10761_longest_names_in_error_messages(t):
    """
    Guards against CVE-2020-10761: an error text that quotes a name of 4096
    bytes grows past the limit of a string.  Spec: "Conventions".
    """
    for name in LONGEST_NAMES:
        check_equal(len(name), 4096, "length of the name")
        for option in (OPT_INFO, OPT_GO):
            client = t.haggle()
            client.send_option(option, wire.pack_export_query(name))
            check_kind(client.option_replies(option)[-1], REP_ERR_UNKNOWN)
            check_haggles(client)


@case("meta")
def cve_2020_10761_longest_names_in_context_errors(t):
    """
    Guards against the same where contexts are chosen: export name and query
    of 4096 bytes each.  Spec: "Conventions".
    """
    for name in LONGEST_NAMES:
        for option in (OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT):
            client = t.haggle()
            client.structured_reply()
            data = wire.pack_context_query(name, [name])
            check_kind(client.option(option, data)[-1], REP_ERR_UNKNOWN,
                       REP_ERR_INVALID, REP_ACK)
            check_kind(client.option(option, wire.pack_context_query(
                t.name, [name]))[-1], REP_ACK, REP_ERR_INVALID)
            check_haggles(client)


@case()
def cve_2020_10761_names_that_are_no_strings(t):
    """
    Guards against NUL bytes and broken UTF-8 that reach a log, a path or an
    error message.  Spec: "Conventions".
    """
    for name in (b"\0", b"\0" * 100, t.name + b"\0", t.name + b"\0x", b"\xff",
                 b"\xc3(", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80",
                 b"../" + t.name, b"/etc/passwd", b"."):
        client = t.haggle()
        for option in (OPT_INFO, OPT_GO):
            check_kind(client.go(name, option=option), REP_ERR_UNKNOWN,
                       REP_ERR_INVALID)
        check_haggles(client)


@case()
def cve_2011_1925_unknown_name_then_gone(t):
    """
    Guards against CVE-2011-1925 and CVE-2013-7441: a client that asks for an
    unknown export and leaves, by every option with a name.  Spec:
    "Termination of the session during option haggling".
    """
    for option in (OPT_EXPORT_NAME, OPT_INFO, OPT_GO, OPT_LIST_META_CONTEXT,
                   OPT_SET_META_CONTEXT):
        name = b"nowhere"
        data = name
        if option in (OPT_INFO, OPT_GO):
            data = wire.pack_export_query(name)
        elif option != OPT_EXPORT_NAME:
            data = wire.pack_context_query(name, [BASE_ALLOCATION])
        for _ in range(10):
            client = t.haggle()
            client.send_option(option, data)
            client.close()


class Session:
    """A connection as bytes, up to DISC, with all that this server offers."""

    def __init__(self, t):
        model = open_all_commands(t)
        self.image = t.image
        self.structured = model.structured
        self.contexts = bool(model.contexts)
        model.disconnect()
        self.name = t.name
        self.start = u32(wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES)
        if self.structured:
            self.start += wire.pack_option(OPT_STRUCTURED_REPLY)
        if self.contexts:
            self.start += wire.pack_option(
                OPT_SET_META_CONTEXT,
                wire.pack_context_query(t.name, [BASE_ALLOCATION]))
        self.start += wire.pack_option(
            OPT_GO, wire.pack_export_query(t.name))
        self.requests = [(READ, 0, 512), (READ, MIB - 512, 1024)]
        if self.contexts:
            self.requests.append((BLOCK_STATUS, 0, 4 * MIB))
        self.bytes = self.start + b"".join(
            wire.pack_request(command, 0, cookie, offset, length)
            for cookie, (command, offset, length)
            in enumerate(self.requests))

    def read(self, client, greeting=True):
        """Reads and checks everything the server has to say."""
        if greeting:
            client.greeting()
        if self.structured:
            check_kind(client.option_replies(OPT_STRUCTURED_REPLY)[-1],
                       REP_ACK)
            client.structured = True
        if self.contexts:
            replies = client.option_replies(OPT_SET_META_CONTEXT)
            check_kind(replies[-1], REP_ACK)
            client.contexts = {struct.unpack(">I", replies[0].data[:4])[0]:
                               BASE_ALLOCATION}
        check_kind(client.finish_go(), REP_ACK)
        for cookie, request in enumerate(self.requests):
            client.expect_request(*request, cookie)
        for request in client.replies(len(self.requests)):
            check_error(request.reply, 0, what=f"{request}")
            if request.command == READ:
                check_data(bytes(request.reply.data),
                           self.image.content(request.offset,
                                              request.length))
        client.disconnect()


@case()
def cve_2013_7441_gone_at_every_byte(t):
    """
    Guards against CVE-2013-7441: a client that is gone after any number of
    bytes, in haggling and in transmission; with all replies read, and with
    none.  Spec: "Termination of the session during option haggling".
    """
    session = Session(t)
    for size in range(len(session.bytes)):
        rude = t.connect()
        rude.send(session.bytes[:size])
        rude.close()
        client = t.connect()
        client.send(session.bytes[:size])
        client.end_of_input()
        client.receive_to_end()
        client.close()


@case()
def cve_2017_10664_gone_with_replies_unread(t):
    """
    Guards against CVE-2017-10664: SIGPIPE, when the client closes after any
    number of bytes of our replies.  Spec: "Terminating the transmission
    phase".
    """
    session = Session(t)
    whole = t.connect()
    whole.send(session.bytes)
    session.read(whole)
    for size in itertools.chain(range(300),
                                range(300, whole.received_bytes, 97)):
        client = t.connect()
        client.send(session.bytes)
        client.receive(size)
        client.close()


@case()
def cve_2017_9524_split_at_every_byte(t):
    """
    Guards against CVE-2017-9524 and CVE-2017-7539: state that is not there
    yet when bytes come late.  All bytes come, in two pieces.  Spec: "Fixed
    newstyle negotiation".
    """
    session = Session(t)
    for size in range(1, len(session.bytes)):
        client = t.connect()
        client.send(session.bytes[:size])
        time.sleep(0.001)
        client.send(session.bytes[size:])
        session.read(client)
        client.close()


@case()
def cve_2017_9524_one_byte_at_a_time(t):
    """
    Guards against headers taken for whole because some of them came.  Spec:
    "Fixed newstyle negotiation", "Request message".
    """
    session = Session(t)
    client = t.connect()
    for byte in session.bytes:
        client.send(bytes([byte]))
        time.sleep(0.001)
    session.read(client)


@case()
def cve_2017_9524_everything_before_the_greeting(t):
    """
    Guards against losing what came early: the client sends its whole session
    before it reads anything.  Spec: "Fixed newstyle negotiation".
    """
    session = Session(t)
    for _ in range(20):
        client = t.connect()
        client.send(session.bytes)
        session.read(client)


@case("write")
def cve_2017_9524_write_split_at_every_byte(t):
    """
    Guards against a WRITE whose header or data comes in two pieces, with
    other requests around it.  Spec: "Request message".
    """
    client = t.open()
    for size in range(1, 28 + 64 + 28):
        data = bytes([size]) * 64
        message = (wire.pack_request(WRITE, 0, 1, SCRATCH_START, 64, data)
                   + wire.pack_request(READ, 0, 2, 0, 512))
        client.expect_request(WRITE, SCRATCH_START, 64, 1)
        client.expect_request(READ, 0, 512, 2)
        client.send(message[:size])
        time.sleep(0.001)
        client.send(message[size:])
        for request in client.replies(2):
            check_error(request.reply, 0, what=f"{request}")
        check_data(read(client, SCRATCH_START, 64), data)


@case("write", own=True)
def cut_off_write_is_not_applied(t):
    """
    Guards against writing the first part of a WRITE whose client went away
    before the rest.  Spec: "NBD_CMD_WRITE".
    """
    before = b"b" * 256 * KIB
    client = t.open()
    write(client, SCRATCH_START, before)
    for sent in (0, 1, 512, 64 * KIB, len(before) - 1):
        other = t.open()
        other.send(wire.pack_request(WRITE, 0, 1, SCRATCH_START,
                                     len(before), b"a" * sent))
        other.close()
    time.sleep(0.2)
    check_data(read(client, SCRATCH_START, len(before)), before)


@case("write")
def gone_in_mid_write(t):
    """
    Guards against a buffer, or a claim on the range, kept for a WRITE that
    never came whole.  Spec: "Terminating the transmission phase".
    """
    length = MIB
    for sent in (0, 1, 28, 4095, 4096, length - 1):
        client = t.open()
        client.send(wire.pack_request(WRITE, 0, 1, SCRATCH_START, length,
                                      b"a" * sent))
        client.close()
    write(t.open(), SCRATCH_START, b"w" * length)


@case("structured meta")
def cve_2019_14851_options_in_any_order(t):
    """
    Guards against CVE-2019-14850 and CVE-2019-14851: state that depends on
    the order of options.  All orders of four out of six, each followed by GO
    and by what it should have allowed.  Spec: "Option types".
    """
    contexts = valid_option(t, OPT_SET_META_CONTEXT)
    nowhere = wire.pack_export_query(b"nowhere")
    steps = ((OPT_STRUCTURED_REPLY, b""), (OPT_SET_META_CONTEXT, contexts),
             (OPT_LIST_META_CONTEXT, contexts), (OPT_LIST, b""),
             (OPT_INFO, wire.pack_export_query(t.name)), (OPT_GO, nowhere))
    for order in itertools.permutations(steps, 4):
        client = t.haggle()
        client.contexts = {}
        for option, data in order:
            expected = expected_kinds(client, option)
            replies = client.option(option, data)
            check_kind(replies[-1], *expected)
            if option == OPT_STRUCTURED_REPLY:
                client.structured = True
            if option == OPT_SET_META_CONTEXT and client.structured:
                client.contexts = {
                    struct.unpack(">I", replies[0].data[:4])[0]: b""}
        check_kind(client.go(t.name), REP_ACK)
        allowed = (0,) if client.contexts else (EINVAL,)
        check_error(client.command(BLOCK_STATUS, 0, 512), *allowed,
                    what="BLOCK_STATUS after options "
                    + ", ".join(str(option) for option, _ in order))
        check_serves(client, t.image)
        client.close()


def expected_kinds(client, option):
    """The final reply due to a step of the case above."""
    if option == OPT_GO:
        return (REP_ERR_UNKNOWN,)
    if client.structured or option not in (OPT_SET_META_CONTEXT,
                                           OPT_LIST_META_CONTEXT):
        return (REP_ACK,)
    if option == OPT_SET_META_CONTEXT:
        return (REP_ERR_INVALID,)
    return (REP_ACK, REP_ERR_INVALID)


def sends_length(t, command, length):
    """READ or WRITE of that length: answered lawfully, or closed."""
    client = t.open()
    client.timeout = 20
    data = b""
    if command == WRITE:
        data = b"l" * min(length, 33 * MIB)
    try:
        request = client.send_request(command, SCRATCH_START, length,
                                      data=data)
        if len(data) < length and command == WRITE:
            # The rest never comes.
            return
        check(client.next_reply() is request, "a reply to something else")
        check_serves(client, t.image)
    except wire.Closed:
        check(length > 32 * MIB, f"closed at {length:#x} bytes")


@case()
def cve_2011_0530_read_lengths_at_the_limit(t):
    """
    Guards against CVE-2005-3534 and CVE-2011-0530: a buffer of the largest
    request that does not hold its reply's header too.  Spec: "Size
    constraints".
    """
    for limit in (32 * MIB, 64 * MIB):
        for length in (limit - 1, limit, limit + 1):
            sends_length(t, READ, length)
    sends_length(t, READ, 0xFFFFFFFF)


@case("write")
def cve_2011_0530_write_lengths_at_the_limit(t):
    """
    Guards against CVE-2005-3534 and CVE-2011-0530 for the payload of WRITE.
    Spec: "Size constraints".
    """
    for length in (32 * MIB - 1, 32 * MIB, 32 * MIB + 1, 0x7FFFFFFF,
                   0x80000000, 0xFFFFFFFF):
        sends_length(t, WRITE, length)


@case(setting="huge")
def cve_2025_47711_lengths_of_requests(t):
    """
    Guards against CVE-2025-47711 and CVE-2025-47712, and against signed
    lengths: each command, each length, at the start, across 4 GiB and at the
    end of an export of 8 GiB.  Spec: "Size constraints", "Error values".
    """
    client = open_all_commands(t)
    client.timeout = 60
    size = client.size
    for command in (TRIM, WRITE_ZEROES, CACHE, BLOCK_STATUS):
        if not offered(client, command):
            continue
        past_end = ENOSPC if command == WRITE_ZEROES else EINVAL
        for length in LENGTHS:
            # What a length of 0 means is left to the server.
            anything = (0, ENOSPC) if length == 0 else ()
            for offset in (0, 1, 4 * GIB - 1, size - length):
                reply = client.command(command, offset, length)
                check_error(reply, 0, EINVAL, EOVERFLOW, *anything,
                            what=f"{command} at {offset:#x}+{length:#x}")
            reply = client.command(command, size - length + 1, length)
            check_error(reply, past_end, EINVAL, EOVERFLOW, *anything,
                        what=f"{command} past the end")
    check_serves(client, t.image)


@case("meta", setting="huge")
def cve_2025_47711_extents_past_4_gib(t):
    """
    Guards against an extent of 4 GiB and more put into 32 bits, where its
    length becomes 0.  Spec: "NBD_CMD_BLOCK_STATUS".
    """
    client, context = t.open_status()
    for offset in (0, 1, 4 * GIB - 1, 4 * GIB, 8 * GIB - 0xFFFFFFFF):
        for length in (0xFFFFFFFF, 0xFFFFFE00, 1 << 31):
            for flags in (0, wire.REQ_ONE):
                reply = client.command(BLOCK_STATUS, offset, length, flags)
                check_error(reply, 0, EINVAL, EOVERFLOW, what="BLOCK_STATUS")


@case()
def garbage_instead_of_a_handshake(t):
    """
    Guards against crashing on, or waiting for more of, what is no NBD at all.
    Spec: "Client flags".
    """
    for data in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
                 b"\xff" * 1000, bytes(4) + b"\xff" * 1000, b"\n" * 64 * KIB):
        client = t.connect()
        client.greeting()
        client.send_until_closed(data)
        try:
            client.expect_closed()
        except wire.BadServer:
            # Some may take NULs for flags and answer; that is lawful.
            pass
