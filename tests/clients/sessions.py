# SPDX-License-Identifier: MIT
"""
Clients that vanish at any byte of a session, in either direction.

The session has all kinds of options and requests, some 8,000 bytes each way.
Its writes carry the number of the session, so that what half a write left
behind would show; a second client, served in between, looks for that.
"""

import select
import socket
import struct

from harness import (FREED_SECONDS, Server, case, check, check_equal,
                     close_hard, connect, create_image, main, one_in, say,
                     wire)

KIB = wire.KIB
MIB = wire.MIB

IMAGE_BYTES = 16 * MIB
# The blocks that the writes of a session go to: each (offset, length).  None
# crosses a cluster, so of two sessions at once each block is from one.
BLOCKS = ((0, 1024), (65 * KIB + 700, 2500), (130 * KIB, 1536),
          (200 * KIB + 1, 999))
ZERO_AT = MIB
READ_AT = 2 * MIB
# Sessions between two looks of the second client, where it cannot look at
# each: who does not wait for the end of one cannot tell when it is over.
LOOK_EVERY = 64


def stamp(number, length):
    """What session number writes."""
    return (struct.pack(">Q", number) * (length // 8 + 1))[:length]


class Session:
    """All that one client sends, and where each of its writes ends."""

    def __init__(self, number):
        self.number = number
        self.data = bytearray(struct.pack(
            ">I", wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES))
        self.write_ends = []
        self.add_options()
        self.add_requests()

    def add_options(self):
        query = wire.pack_context_query(b"", [wire.BASE_ALLOCATION])
        for option, data in (
                (wire.OPT_LIST, b""), (99, b"unknown" * 12),
                (wire.OPT_INFO, wire.pack_export_query(b"none")),
                (wire.OPT_INFO, wire.pack_export_query(b"", [1, 2, 3])),
                (wire.OPT_STRUCTURED_REPLY, b""),
                (wire.OPT_LIST_META_CONTEXT, query),
                (wire.OPT_SET_META_CONTEXT, query),
                (wire.OPT_GO, wire.pack_export_query(b"", [3]))):
            self.data += wire.pack_option(option, data)

    def request(self, command, offset, length, flags=0, data=b""):
        self.data += wire.pack_request(command, flags, len(self.data), offset,
                                       length, data)

    def write(self, block, flags=0):
        offset, length = BLOCKS[block]
        self.request(wire.WRITE, offset, length, flags,
                     stamp(self.number, length))
        self.write_ends.append(len(self.data))

    def add_requests(self):
        self.request(wire.READ, READ_AT, 512)
        self.write(0)
        self.request(wire.READ, READ_AT, 2001)
        self.write(1)
        self.request(wire.TRIM, ZERO_AT, 64 * KIB)
        self.request(wire.WRITE_ZEROES, ZERO_AT + 100 * KIB, 5000)
        self.request(wire.FLUSH, 0, 0)
        self.request(wire.BLOCK_STATUS, 0, IMAGE_BYTES)
        self.write(2, wire.FUA)
        self.request(wire.CACHE, 0, MIB)
        # Refused, with its payload.
        self.request(wire.WRITE, IMAGE_BYTES, 700, 0, bytes(700))
        self.request(wire.READ, READ_AT, 4096)
        self.request(wire.WRITE_ZEROES, ZERO_AT, 64 * KIB, wire.NO_HOLE)
        self.write(3)
        self.request(wire.DISC, 0, 0)

    def written(self, cut):
        """Which writes the server has whole after cut bytes."""
        return [end <= cut for end in self.write_ends]


def receive(sock, count):
    """count bytes, or fewer if the server closes."""
    data = b""
    while len(data) < count:
        try:
            more = sock.recv(count - len(data))
        except ConnectionError:
            return data
        if not more:
            return data
        data += more
    return data


def start_server(name, *options):
    create_image(name, IMAGE_BYTES)
    server = Server(name, "--max-connections", str(2 * LOOK_EVERY), *options)
    client = server.open()
    for offset, length in BLOCKS + ((READ_AT, 8 * KIB),):
        reply = client.command(wire.WRITE, offset, length,
                               data=stamp(0, length))
        check_equal(reply.error, 0, "the first write")
    return server, client


def read_blocks(client):
    blocks = []
    for offset, length in BLOCKS:
        reply = client.command(wire.READ, offset, length)
        check_equal(reply.error, 0, "the second client's read")
        blocks.append(bytes(reply.data))
    return blocks


def stamped(data):
    """The number of the one session that wrote all of data."""
    number, = struct.unpack(">Q", data[:8])
    check(data == stamp(number, len(data)),
          f"a block is from several sessions, the first of them {number}")
    return number


def all_replies(server):
    """How much a whole session brings."""
    with connect(server.unix) as sock:
        sock.sendall(Session(1).data)
        return len(receive(sock, 1 << 20))


def end(server, client):
    check(server.alive(), "the server died")
    server.check_descriptors(1)
    read_blocks(client)
    client.disconnect()
    server.check_descriptors(0)
    server.stop()


def cut_and_wait(*options):
    """
    Each byte of the client is its last; it reads to the end of the replies.
    All whole writes were done then, and of no other write a byte.
    """
    server, client = start_server("cut.qcow2", *options)
    with server:
        expected = [stamp(0, length) for _, length in BLOCKS]
        size = len(Session(1).data)
        step = one_in(1, 7)
        for cut in range(0, size + 1, step):
            session = Session(cut + 1)
            with connect(server.unix) as sock:
                try:
                    sock.sendall(session.data[:cut])
                    sock.shutdown(socket.SHUT_WR)
                except OSError:
                    pass    # it has closed, after DISC
                receive(sock, 1 << 20)
            for i, whole in enumerate(session.written(cut)):
                if whole:
                    expected[i] = stamp(session.number, BLOCKS[i][1])
            if cut >= session.write_ends[0] - BLOCKS[0][1] or cut % 16 == 0:
                check(read_blocks(client) == expected, f"after a cut at "
                      f"byte {cut} something else is written")
        say(f"{size + 1} cuts of {size} bytes, step {step}")
        end(server, client)


@case()
def a_client_ends_at_each_byte():
    """
    Guards against half a message that is carried out, a whole one that is not,
    and anything kept of a client that is gone.
    """
    cut_and_wait()


@case(long=True)
def a_client_ends_at_each_byte_with_threads():
    """The same for the other engine."""
    cut_and_wait("--io", "threads")


def check_no_partial(client, cuts):
    """
    The numbers of sessions grow while their cuts shrink, so a block must be of
    a session that sent it whole.
    """
    for i, block in enumerate(read_blocks(client)):
        number = stamped(block)
        check(number == 0 or Session(number).written(cuts[number])[i],
              f"block {i} was written by session {number}, which was cut at "
              f"byte {cuts.get(number)}")


def cut_and_vanish(address_of, step, *options):
    server, client = start_server("vanish.qcow2", *options)
    with server:
        address = address_of(server)
        size = len(Session(1).data)
        cuts = {}
        for cut in range(size, -1, -step):
            number = len(cuts) + 1
            cuts[number] = cut
            sock = connect(address)
            sock.sendall(Session(number).data[:cut])
            if number % 2:
                sock.close()
            else:
                close_hard(sock)
            if number % LOOK_EVERY == 0:
                server.check_descriptors(1)
                check_no_partial(client, cuts)
        say(f"{len(cuts)} cuts")
        server.check_descriptors(1)
        check_no_partial(client, cuts)
        end(server, client)


@case()
def a_client_resets_at_each_byte():
    """
    Guards against the same where the client does not wait for any answer, and
    its connection breaks rather than ends; over TCP, on threads.
    """
    cut_and_vanish(lambda server: server.tcp, one_in(1, 9), "--io", "threads")


@case()
def a_unix_client_vanishes_at_each_byte():
    """The same over a unix socket, on io_uring."""
    cut_and_vanish(lambda server: server.unix, one_in(3, 19))


def read_and_vanish(address_of, step, *options):
    server, client = start_server("deaf.qcow2", *options)
    with server:
        address = address_of(server)
        size = all_replies(server)
        for count in range(0, size + 1, step):
            sock = connect(address)
            sock.sendall(Session(count + 1).data)
            check_equal(len(receive(sock, count)), count, "bytes of replies")
            sock.close()
            if count // step % LOOK_EVERY == 0:
                server.check_descriptors(1)
                for block in read_blocks(client):
                    stamped(block)
        say(f"{size // step + 1} ends in {size} bytes of replies")
        end(server, client)


@case()
def a_client_stops_reading_at_each_byte():
    """
    Guards against SIGPIPE, and against replies that wait for a client for
    ever: it reads so far, and closes with the rest unread.
    """
    read_and_vanish(lambda server: server.unix, one_in(1, 11))


@case()
def a_tcp_client_stops_reading_at_each_byte():
    """The same over TCP, where the rest unread makes a reset; on threads."""
    read_and_vanish(lambda server: server.tcp, one_in(3, 23), "--io",
                    "threads")


@case()
def all_of_a_client_is_freed_within_a_second():
    """
    Guards against timers that clients must wait for when they are gone.  A
    busy machine may hide that the server was quick: the best try counts.
    """
    server, client = start_server("freed.qcow2")
    with server:
        size = len(Session(1).data)
        best = None
        for attempt in range(5):
            socks = []
            for i in range(40):
                sock = connect(server.tcp if i % 2 else server.unix)
                sock.sendall(Session(i + 1).data[:size * i // 40])
                socks.append(sock)
            # All of them are let in before any of them goes.
            server.check_descriptors(1 + len(socks))
            for i, sock in enumerate(socks):
                if i % 4 < 2:
                    sock.close()
                else:
                    close_hard(sock)
            seconds = server.check_descriptors(1)
            best = seconds if best is None else min(best, seconds)
            if best <= FREED_SECONDS:
                break
        say(f"40 clients were freed after {best:.2f} s, try {attempt + 1}")
        check(best <= FREED_SECONDS, f"it took {best:.2f} s")
        end(server, client)


@case()
def clients_vanish_behind_long_replies():
    """
    Guards against the same in the middle of a send that is under way, because
    more is asked for than the socket takes.
    """
    server, client = start_server("long.qcow2")
    with server:
        for address in (server.unix, server.tcp):
            for count in (0, 1, 15, 16, 17, 4096, 100000, 3 * MIB + 5):
                lazy = server.open(address)
                lazy.send(b"".join(wire.pack_request(wire.READ, 0, i, 0, MIB)
                                   for i in range(32)))
                receive(lazy.sock, count)
                select.select([lazy.sock], [], [], 10)
                close_hard(lazy.sock)
                read_blocks(client)
        end(server, client)


if __name__ == "__main__":
    main()
