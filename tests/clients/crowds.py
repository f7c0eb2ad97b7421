# SPDX-License-Identifier: MIT
"""
Very many clients: at once, one after the other, and more than there are
descriptors.
"""

import os
import signal
import socket
import time

from harness import (CLIENT_SECONDS, SANITIZED, Server, case, check,
                     check_equal, connect, create_image, die_with_parent,
                     fewer, leave_out, main, raise_descriptor_limit, say,
                     wait_until, wire)

MIB = wire.MIB
IMAGE_BYTES = 64 * MIB

# Nothing whole is ever written there.
HALF_AT = 32 * MIB

CONNECTIONS = 10000
IDLE_CONNECTIONS = 1000
IDLE_RSS_MAX_KIB = 48 * 1024
FLOOD = 20000
# Of two seconds.  Ten tries a second cost a hundredth of this; a loop that
# spins gets some more even on a machine with ten others to run.
WAITING_CPU_MAX = 0.25
# How often the server says that clients are turned away, or have to wait.
LOG_SECONDS = 10
# In that time, and by each loop, how many that chose no export it tells of.
LOG_LINES_MAX = 10
# Descriptors beside those of clients and of the server itself.
SPARE_DESCRIPTORS = 200

HANDSHAKE = (b"\0\0\0\3" + wire.pack_option(wire.OPT_GO,
                                            wire.pack_export_query(b"")))
# The greeting; INFO_EXPORT and ACK.
GREETING_BYTES = 18
GO_REPLY_BYTES = 32 + 20
SIMPLE_REPLY_BYTES = 16


def receive(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise wire.Closed(f"closed after {len(data)} of {count} bytes")
        data += more
    return data


def join(address):
    """A bare socket in transmission."""
    sock = connect(address)
    sock.sendall(HANDSHAKE)
    receive(sock, GREETING_BYTES + GO_REPLY_BYTES)
    return sock


def read_all_of(sockets, expected):
    """One read by each, all under way at once."""
    for i, sock in enumerate(sockets):
        sock.sendall(wire.pack_request(wire.READ, 0, i, 0, len(expected)))
    for sock in sockets:
        reply = receive(sock, SIMPLE_REPLY_BYTES + len(expected))
        check(reply[SIMPLE_REPLY_BYTES:] == expected, "a read brings other "
              "data")


def leave_writes_half_sent(sockets):
    for i, sock in enumerate(sockets):
        sock.sendall(wire.pack_request(wire.WRITE, 0, i, HALF_AT, 4096,
                                       b"h" * 2048))


def check_nothing_written(sock):
    sock.sendall(wire.pack_request(wire.READ, 0, 0, HALF_AT, 4096))
    reply = receive(sock, SIMPLE_REPLY_BYTES + 4096)
    check(not any(reply[SIMPLE_REPLY_BYTES:]), "half a write was done")


def start(name, *options, **more):
    create_image(name, IMAGE_BYTES)
    server = Server(name, *options, **more)
    with server.open() as client:
        check_equal(client.command(wire.WRITE, 0, MIB, data=b"c" * MIB).error,
                    0, "a write")
        client.disconnect()
    server.check_descriptors(0)
    return server


@case()
def ten_thousand_clients_are_served():
    """
    Guards against a cost per connection that forbids many of them: 10,000 are
    idle after GO, then all read.  And against all of them at once: each but
    one leaves a write half sent, which holds a coroutine, and that one must be
    served none the less.
    """
    count = fewer(CONNECTIONS, 1500)
    raise_descriptor_limit(count + SPARE_DESCRIPTORS)
    with start("many.qcow2", "--max-connections", str(count)) as server:
        before_kib = server.rss_kib()
        begun = time.monotonic()
        sockets = [join(server.unix) for _ in range(count)]
        check_equal(server.descriptors() - server.idle_descriptors, count,
                    "the connections it has")
        idle_kib = server.rss_kib()
        read_all_of(sockets, b"c" * 4096)
        say(f"{count} clients served after {time.monotonic() - begun:.1f} s; "
            f"VmRSS {before_kib} KiB with none, {idle_kib} KiB when they were "
            f"idle, {server.rss_kib()} KiB after their reads")
        with connect(server.unix) as sock:
            check_equal(sock.recv(1), b"", "what one too many is told")
        leave_writes_half_sent(sockets[1:])
        for _ in range(10):
            read_all_of(sockets[:1], b"c" * 4096)
        say(f"VmRSS {server.rss_kib()} KiB when writes were half sent")
        for sock in sockets[1:]:
            sock.close()
        check(wait_until(lambda: server.descriptors()
                         == server.idle_descriptors + 1, CLIENT_SECONDS),
              "not all of them are gone")
        check_nothing_written(sockets[0])
        sockets[0].close()
        check(wait_until(lambda: server.descriptors()
                         == server.idle_descriptors, CLIENT_SECONDS),
              "not all of them are gone")
        server.stop()


@case()
def idle_clients_cost_little():
    """
    Guards against stacks or buffers that an idle connection keeps: with 1,000
    of them the server stays under 48 MiB.
    """
    raise_descriptor_limit(IDLE_CONNECTIONS + SPARE_DESCRIPTORS)
    with start("idle.qcow2") as server:
        sockets = [join(server.unix) for _ in range(IDLE_CONNECTIONS)]
        kib = {"after GO": server.rss_kib()}
        read_all_of(sockets, b"c" * 4096)
        kib["after a read by each"] = server.rss_kib()
        for when, value in kib.items():
            say(f"{IDLE_CONNECTIONS} idle clients {when}: "
                f"VmRSS {value} KiB")
            if not SANITIZED:
                check(value < IDLE_RSS_MAX_KIB, f"{value} KiB {when}, "
                      f"{IDLE_RSS_MAX_KIB} are allowed")
        if SANITIZED:
            leave_out("the limit; a sanitizer needs memory of its own")
        server.stop()


def in_a_child(work, *arguments):
    """Begins work in a process of its own; its id, for end_child()."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        die_with_parent()
        work(*arguments)
        status = 0
    finally:
        os._exit(status)


def end_child(child, seconds=CLIENT_SECONDS):
    """It must have ended well."""
    ended = []

    def has_ended():
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            ended.append(status)
        return bool(pid)

    if not wait_until(has_ended, seconds):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    check_equal(ended, [0], "the exit status of a flood")


def flood(address, count):
    """Comes and goes; a full backlog is no reason to stop."""
    left = count
    while left > 0:
        sock = socket.socket(socket.AF_UNIX if isinstance(address, str)
                             else socket.AF_INET)
        try:
            sock.connect(address)
            left -= 1
        except BlockingIOError:
            time.sleep(0.001)
        sock.close()


def work_beside(client, is_over):
    """Writes and reads back until is_over(); how often."""
    number = 0
    while not is_over() or number < 100:
        data = number.to_bytes(8, "big") * 512
        at = MIB + number % 2048 * 4096
        check_equal(client.command(wire.WRITE, at, 4096, data=data).error, 0,
                    "a write beside the flood")
        check(bytes(client.command(wire.READ, at, 4096).data) == data,
              "a read beside the flood brings other data")
        number += 1
    return number


@case()
def floods_of_clients_do_no_harm():
    """
    Guards against clients that come and go as fast as they can: one that works
    beside them is served, its data stay right, and nothing of the others
    stays, nor do they fill the log.
    """
    count = fewer(FLOOD, 4000) // 2
    with start("flood.qcow2") as server:
        client = server.open()
        floods = [in_a_child(flood, address, count)
                  for address in (server.unix, server.tcp)]
        begun = time.monotonic()

        def all_ended():
            return all(os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG
                                 | os.WNOWAIT) for child in floods)

        served = work_beside(client, all_ended)
        for child in floods:
            end_child(child)
        seconds = time.monotonic() - begun
        say(f"{2 * count} clients in {seconds:.1f} s; the one beside them "
            f"wrote and read {served} times")
        # The last ones of the backlogs: behind them nobody is to come.
        for address in (server.unix, server.tcp):
            join(address).close()
        check(wait_until(lambda: server.descriptors()
                         == server.idle_descriptors + 1, CLIENT_SECONDS),
              "something of the flood stayed behind")
        work_beside(client, lambda: True)
        lines = server.log().count("before choosing an export")
        lines_max = (server.loops() * (LOG_LINES_MAX + 1)
                     * (1 + (time.monotonic() - begun) // LOG_SECONDS))
        check(1 <= lines <= lines_max, f"the log tells of {lines} of them, "
              f"1 to {lines_max:.0f} are due")
        server.stop()


def check_log(server, what, begun):
    """The log says it, and not over and over."""
    lines_max = 1 + (time.monotonic() - begun) // LOG_SECONDS
    lines = server.log().count(what)
    check(1 <= lines <= lines_max, f'"{what}" is in {lines} lines of the log, '
          f"1 to {lines_max:.0f} are due")


@case()
def clients_over_the_limit_are_turned_away():
    """
    Guards against a full house that hurts: who finds no room sees a plain end
    of the stream, the log has a line now and then, and a place that gets free
    is given away again.
    """
    places, count = 20, 2000
    with start("full.qcow2", "--max-connections", str(places)) as server:
        sockets = [join(server.unix) for _ in range(places)]
        begun = time.monotonic()
        for i in range(count):
            with connect(server.tcp if i % 2 else server.unix) as sock:
                check_equal(sock.recv(1), b"", "what one too many is told")
        read_all_of(sockets, b"c" * 4096)
        check_log(server, "turned away", begun)
        sockets.pop().close()
        server.check_descriptors(places - 1)
        sockets.append(join(server.tcp))
        read_all_of(sockets, b"c" * 4096)
        server.stop()


@case()
def a_place_is_free_at_the_end_of_the_stream():
    """
    Guards against turning away who comes back at once: a client that has seen
    its stream end finds its own place free.
    """
    with start("two.qcow2", "--max-connections", "2") as server:
        # Where clients come in; the others live on another loop.
        stays = join(server.unix)
        for i in range(400):
            sock = join(server.tcp if i % 2 else server.unix)
            sock.sendall(wire.pack_request(wire.DISC))
            check_equal(sock.recv(1), b"", "what comes after DISC")
            sock.close()
        read_all_of([stays], b"c" * 512)
        server.stop()


def run_out_of_descriptors(engine):
    clients = 30
    with start(f"probe-{engine}.qcow2", "--io", engine) as server:
        own = server.idle_descriptors
        server.stop()
    with start(f"few-{engine}.qcow2", "--io", engine,
               limit=own + clients) as server:
        begun = time.monotonic()
        sockets = [connect(server.unix) for _ in range(2 * clients)]
        check(wait_until(lambda: server.descriptors() >= own + clients,
                         CLIENT_SECONDS), "descriptors are left")
        before = server.cpu_seconds()
        time.sleep(2)
        spent = server.cpu_seconds() - before
        say(f"{engine}: {clients} waiting clients cost {spent:.2f} s of "
            "CPU in 2 s")
        check(spent < WAITING_CPU_MAX, f"it spins: {spent} s of CPU in 2 s")
        for sock in sockets[:clients]:
            sock.sendall(HANDSHAKE)
            receive(sock, GREETING_BYTES + GO_REPLY_BYTES)
        read_all_of(sockets[:clients], b"c" * 512)
        for sock in sockets[:clients]:
            sock.close()
        for sock in sockets[clients:]:
            sock.sendall(HANDSHAKE)
            receive(sock, GREETING_BYTES + GO_REPLY_BYTES)
        read_all_of(sockets[clients:], b"c" * 512)
        check_log(server, "clients have to wait", begun)
        server.stop()


@case()
def running_out_of_descriptors_is_survived():
    """
    Guards against a loop that spins on EMFILE or stops to listen: those that
    find no descriptor wait, at no cost, and are served when there is one.
    """
    run_out_of_descriptors("uring")


@case(long=True)
def running_out_of_descriptors_is_survived_with_threads():
    """The same for the other engine."""
    run_out_of_descriptors("threads")


if __name__ == "__main__":
    main()
