# SPDX-License-Identifier: MIT
"""How connections end: by DISC, and by the end of the server."""

import time

import wire
from case import (case, check, check_data, check_equal, check_error,
                  check_kind, read, write)
from images import SCRATCH_START
from wire import (DISC, ESHUTDOWN, FUA, KIB, MIB, READ, REP_ACK,
                  REP_ERR_SHUTDOWN, WRITE)

START = SCRATCH_START + 44 * MIB
EXIT_SECONDS = 15
HALF_OPEN_CLIENTS = 1000


def check_exit(t):
    """
    The server ends in time, with a status that says all went well.  Ours does
    not wait for its clients to leave; others may.
    """
    if not t.server.server.rules_of_qnbd:
        t.close()
    status = t.server.wait(EXIT_SECONDS)
    check(status is not None, f"still running {EXIT_SECONDS} s after SIGTERM")
    check(status in t.server.server.clean_exits,
          f"exit status {status}: {t.server.log_tail()}")


@case()
def c44_disc_has_no_reply(t):
    """
    Guards against answering DISC, or leaving the connection open after it.
    Spec: "NBD_CMD_DISC".
    """
    for client in t.open_each():
        client.disconnect()


@case()
def c44_junk_in_disc_is_ignored(t):
    """
    Guards against an error reply to, or a wait for the payload of, a DISC with
    fields that mean nothing there.  Spec: "NBD_CMD_DISC".
    """
    for flags, offset, length in ((FUA, 0, 0), (1 << 15, 0, 0),
                                  (0, 1 << 63, 0), (0, 0, 512),
                                  (0xFFFF, 1, 0xFFFFFFFF)):
        client = t.open()
        client.send(wire.pack_request(DISC, flags, 5, offset, length))
        client.expect_closed()


@case()
def c44_reads_before_disc_are_answered(t):
    """
    Guards against DISC that overtakes the requests before it: all are served
    first.  Spec: "NBD_CMD_DISC".
    """
    for client in t.open_each():
        for cookie in range(32):
            client.expect_request(READ, cookie * 64 * KIB, 64 * KIB, cookie)
        client.send(b"".join(
            client.pack(READ, 0, cookie, cookie * 64 * KIB, 64 * KIB)
            for cookie in range(32)) + client.pack(DISC))
        for request in client.replies(32):
            check_error(request.reply, 0, what=f"{request}")
            check_data(bytes(request.reply.data),
                       t.image.content(request.offset, request.length))
        client.expect_closed()


@case("write")
def c44_writes_before_disc_are_done(t):
    """
    Guards against writes lost because their client said goodbye behind them.
    Spec: "NBD_CMD_DISC".
    """
    client = t.open()
    message = b""
    for i in range(16):
        client.expect_request(WRITE, START + i * 512, 512, i)
        message += wire.pack_request(WRITE, 0, i, START + i * 512, 512,
                                     bytes([i + 1]) * 512)
    client.send(message + wire.pack_request(DISC))
    for request in client.replies(16):
        check_error(request.reply, 0, what=f"{request}")
    client.expect_closed()
    check_data(read(t.open(), START, 16 * 512),
               b"".join(bytes([i + 1]) * 512 for i in range(16)))


@case()
def c44_requests_after_disc_are_not_served(t):
    """
    Guards against going on after DISC.  Spec: "NBD_CMD_DISC".
    """
    client = t.open()
    client.send(wire.pack_request(DISC)
                + wire.pack_request(READ, 0, 9, 0, 512))
    client.expect_closed()


@case()
def c44_disc_of_one_leaves_the_others(t):
    """
    Guards against one client's goodbye ending another's session.  Spec:
    "Terminating the transmission phase".
    """
    # Enough of them to be on every thread of the server.
    staying = [t.open() for _ in range(8)]
    t.open().disconnect()
    for client in staying:
        check_data(read(client, 0, 512), t.image.content(0, 512))


@case(fresh=True)
def c47_requests_in_flight_are_answered_at_the_end(t):
    """
    Guards against replies cut off by SIGTERM: what was being worked on comes
    whole or as ESHUTDOWN, and the connection closes after that only.  Spec:
    "Terminating the transmission phase".
    """
    client = t.open()
    count = 8
    for _ in range(count):
        client.send_request(READ, 8 * MIB, MIB)
    time.sleep(0.3)
    t.server.terminate()
    time.sleep(0.3)
    expected = t.image.content(8 * MIB, MIB)
    for request in client.replies(count):
        check_error(request.reply, 0, ESHUTDOWN, what=f"{request}")
        if not request.reply.error:
            check_data(bytes(request.reply.data), expected)
    check_exit(t)


@case(fresh=True, own=True)
def c47_idle_clients_are_closed_at_the_end(t):
    """
    Guards against a server that waits for its clients to leave.  Spec:
    "Terminating the transmission phase".
    """
    clients = [t.open() for _ in range(3)]
    read(clients[0], 0, 512)
    t.server.terminate()
    for client in clients:
        client.timeout = EXIT_SECONDS
        client.expect_closed()
    check_exit(t)


@case(fresh=True)
def c47_option_during_shutdown_gets_err_shutdown(t):
    """
    Guards against closing on a client that haggles, without a word: its option
    in flight is answered, by ERR_SHUTDOWN at the latest.  Spec: "Termination
    of the session during option haggling".
    """
    client = t.haggle()
    option = wire.pack_option(wire.OPT_LIST)
    client.send(option[:10])
    time.sleep(0.2)
    t.server.terminate()
    time.sleep(0.2)
    client.send(option[10:])
    check_kind(client.option_replies(wire.OPT_LIST)[-1], REP_ERR_SHUTDOWN,
               REP_ACK)
    client.close()
    check_exit(t)


@case("write", setting="file", fresh=True)
def c47_replied_writes_are_in_the_file_at_the_end(t):
    """
    Guards against an end that forgets what was still in memory.  Spec:
    "Terminating the transmission phase".
    """
    client = t.open()
    data = bytes(range(1, 251)) * 2000
    write(client, START, data)
    t.server.terminate()
    check_exit(t)
    damage = t.server.check_image()
    check(damage is None, f"qemu-img check: {damage}")
    check_data(t.server.read_image(START, len(data)), data)


@case("write", setting="file", fresh=True)
def c47_half_a_write_does_not_stop_the_end(t):
    """
    Guards against waiting for the data of a WRITE that does not come, when the
    server is told to end.  Spec: "Terminating the transmission phase".
    """
    client = t.open()
    client.send(wire.pack_request(WRITE, 0, 1, START, MIB, b"h" * 1000))
    time.sleep(0.2)
    t.server.terminate()
    check_exit(t)
    check_equal(t.server.check_image(), None, "qemu-img check")


@case(fresh=True)
def cve_2024_7409_end_with_half_open_handshakes(t):
    """
    Guards against CVE-2024-7409: a crash, or a hang, when the server ends
    while a thousand clients have not finished their handshake.  Spec:
    "Termination of the session during option haggling".
    """
    for i in range(HALF_OPEN_CLIENTS):
        client = t.connect()
        client.greeting()
        if i % 2:
            client.send(b"\0\0\0\3"[:i % 5])
    t.server.terminate()
    check_exit(t)
