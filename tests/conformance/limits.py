# SPDX-License-Identifier: MIT
"""
Limits of what one client may hold or use up: 10 s, 64 KiB and 32 options in
the handshake; requests in flight; replies that nobody reads.
"""

import time

import wire
from case import case, check, check_data, check_error, check_kind, read
from wire import KIB, MIB, OPT_GO, READ, REP_ACK, REP_ERR_UNSUP

HANDSHAKE_SECONDS = 10
HANDSHAKE_BYTES = 64 * KIB
HANDSHAKE_OPTIONS = 32


def stalled_clients(t):
    """Clients that stop in the middle of the handshake, each elsewhere."""
    silent = t.connect()
    silent.greeting()
    half_flags = t.connect()
    half_flags.greeting()
    half_flags.send(b"\0\0")
    idle = t.haggle()
    half_option = t.haggle()
    half_option.send(wire.pack_option(wire.OPT_LIST)[:9])
    half_data = t.haggle()
    half_data.send_option(OPT_GO, b"\0\0", 100)
    after_option = t.haggle()
    after_option.option(wire.OPT_LIST)
    return {"no flags": silent, "half of the flags": half_flags,
            "no option": idle, "half of an option": half_option,
            "half of an option's data": half_data,
            "no second option": after_option}


@case(own=True)
def limit_handshake_seconds(t):
    """
    Guards against connections held open by clients that never finish the
    handshake, also by one that sends a byte now and then.  The limit is for
    the whole handshake; a client in transmission may idle.
    """
    served = t.open()
    begun = time.monotonic()
    stalled = stalled_clients(t)
    slow = t.haggle()
    option = wire.pack_option(99, b"s" * 200)
    for byte in option[:HANDSHAKE_SECONDS - 3]:
        time.sleep(1)
        check(not slow.send_until_closed(bytes([byte])), "closed too early")
    for client in stalled.values():
        check(time.monotonic() - begun < HANDSHAKE_SECONDS - 1, "slow test")
        client.sock.setblocking(False)
        try:
            check(client.sock.recv(1) != b"", "closed too early")
        except BlockingIOError:
            pass
    stalled["a byte each second"] = slow
    for where, client in stalled.items():
        client.timeout = max(begun + HANDSHAKE_SECONDS + 2.5
                             - time.monotonic(), 0.1)
        try:
            client.expect_closed()
        except wire.TimedOut:
            check(False, f"still open after {HANDSHAKE_SECONDS} s: {where}")
    check_data(read(served, 0, 512), t.image.content(0, 512))


@case(own=True)
def limit_handshake_options(t):
    """
    Guards against a client that haggles for ever: 32 options are served, and
    not many more.
    """
    client = t.haggle()
    for _ in range(HANDSHAKE_OPTIONS - 1):
        check_kind(client.option(99)[-1], REP_ERR_UNSUP)
    check_kind(client.go(t.name), REP_ACK)
    client = t.haggle()
    served = 0
    try:
        while served < HANDSHAKE_OPTIONS + 8:
            client.option(99)
            served += 1
    except wire.Closed:
        pass
    check(HANDSHAKE_OPTIONS <= served < HANDSHAKE_OPTIONS + 8,
          f"closed after {served} options")


@case(own=True)
def limit_handshake_bytes(t):
    """
    Guards against CVE-2017-15119: data without end, read and dropped.  All
    options together may have 64 KiB, however they are cut.
    """
    for size in (8 * KIB, 30 * KIB, 63 * KIB):
        client = t.haggle()
        taken = 0
        try:
            while taken < HANDSHAKE_BYTES + 2 * size:
                client.option(99, b"d" * size)
                taken += size
        except wire.Closed:
            pass
        check(HANDSHAKE_BYTES - 2 * size < taken <= HANDSHAKE_BYTES,
              f"took {taken} bytes in options of {size}")


@case(own=True)
def limit_option_length(t):
    """
    Guards against waiting for option data that is over the limit anyway.
    """
    for length in (HANDSHAKE_BYTES + 1, MIB, 1 << 31, 0xFFFFFFFF):
        for option in (99, wire.OPT_EXPORT_NAME, OPT_GO, wire.OPT_LIST,
                       wire.OPT_SET_META_CONTEXT):
            client = t.haggle()
            client.send_option(option, b"", length)
            client.timeout = 2
            client.expect_closed()


@case()
def limit_requests_in_flight(t):
    """
    Guards against dropping a client, or its requests, because it sends more at
    once than the server works on: it has to wait.  Spec: "Transmission".
    """
    for client in t.open_each():
        count = 2000
        message = bytearray()
        for i in range(count):
            offset = i * 4096 % (12 * MIB)
            client.expect_request(READ, offset, 4096, i)
            message += client.pack(READ, 0, i, offset, 4096)
        client.send(bytes(message))
        time.sleep(0.5)
        for request in client.replies(count):
            check_error(request.reply, 0, what=f"{request}")
            check_data(bytes(request.reply.data),
                       t.image.content(request.offset, 4096))


@case()
def limit_unread_replies_hold_up_nobody_else(t):
    """
    Guards against a client that reads no replies: others are served meanwhile,
    and it gets all of its own when it does read.
    """
    lazy = t.open()
    for _ in range(60):
        lazy.send_request(READ, 8 * MIB, MIB)
    time.sleep(0.3)
    # Enough of them to be on every thread of the server.
    others = [t.open() for _ in range(8)]
    for other in others:
        check_data(read(other, 0, MIB), t.image.content(0, MIB))
    expected = t.image.content(8 * MIB, MIB)
    for request in lazy.replies(60):
        check_error(request.reply, 0, what=f"{request}")
        check_data(bytes(request.reply.data), expected)


@case()
def limit_many_connections_come_and_go(t):
    """
    Guards against something kept per connection: a thousand of them, some of
    which end without a word.
    """
    for i in range(1000):
        client = t.open() if i % 4 else t.haggle()
        if i % 4 == 1:
            client.disconnect()
        client.close()
