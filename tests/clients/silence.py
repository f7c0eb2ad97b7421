# SPDX-License-Identifier: MIT
"""
Clients that say nothing, too little, or listen to nothing; and those that are
no more, without having said so.
"""

import ctypes
import os
import select
import socket
import ssl
import subprocess
import time

from harness import (SANITIZED, START_SECONDS, Server, Unmet, case, check,
                     check_equal, close_hard, create_image, die_with_parent,
                     fewer, main, say, wait_until, wire)
from transport import is_connected_to, server_sockets

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MIB = wire.MIB
IMAGE_BYTES = 64 * MIB

HANDSHAKE_SECONDS = 10
# How much later than that it may be, on a busy machine.
LATE_SECONDS = 10
SEND_SECONDS = 60
SHORT_SEND_SECONDS = 3
# A stuck send is looked for every five seconds.
SEND_LATE_SECONDS = 5 + 10
DEAD_PEER_SECONDS = 120
CLIENT_MEMORY_KIB = 64 * 1024
# For what takes a moment, on a busy machine.
BUSY_SECONDS = 20
# Beside a client's requests: pools, stacks, what malloc has not given back.
OTHER_MEMORY_KIB = 48 * 1024
# What may stay of it when the server is idle again.
KEPT_MEMORY_KIB = 24 * 1024


# ---- the handshake ----

class Stalled:
    """A client that does not come to the end of its handshake."""

    def __init__(self, what, client, step=b""):
        self.what = what
        self.sock = client.sock
        self.begun = time.monotonic()
        self.step = step
        self.sent = 0
        self.closed_after = None

    def send_step(self):
        """What it sends each second: the next byte, or a whole option."""
        self.sock.setblocking(False)
        try:
            if self.what == "an option each second":
                self.sock.send(self.step)
            elif self.step:
                self.sock.send(self.step[self.sent:self.sent + 1])
                self.sent += 1
        except OSError:
            pass    # whether it was closed is seen by look()

    def look(self):
        """Notes when the server closes; drops what it says until then."""
        self.sock.setblocking(False)
        try:
            while self.closed_after is None:
                if not self.sock.recv(4096):
                    raise ConnectionError
        except BlockingIOError:
            pass
        except ConnectionError:
            self.closed_after = time.monotonic() - self.begun


def stalled_clients(server, address):
    unknown = wire.pack_option(99)
    go = wire.pack_option(wire.OPT_GO, wire.pack_export_query(b""))
    yield Stalled("not a word", server.connect(address))
    client = server.connect(address)
    yield Stalled("half of the flags", client)
    client.send(b"\0\0")
    yield Stalled("no option", server.haggle(address))
    client = server.haggle(address)
    client.send(unknown[:9])
    yield Stalled("half an option", client)
    client = server.haggle(address)
    client.send_option(wire.OPT_GO, b"\0\0", 60000)
    yield Stalled("half the data of an option", client)
    client = server.haggle(address)
    client.send(go[:-1])
    yield Stalled("all but the last byte of GO", client)
    yield Stalled("a byte each second", server.connect(address),
                  b"\0\0\0\3" + unknown * 100)
    yield Stalled("an option each second", server.haggle(address), unknown)


def serve_meanwhile(client, number):
    """A client in transmission; its answers stay right."""
    data = bytes([number % 255 + 1]) * 4096
    check_equal(client.command(wire.WRITE, number * 4096, 4096,
                               data=data).error, 0, "a write meanwhile")
    reply = client.command(wire.READ, number * 4096, 4096)
    check(bytes(reply.data) == data, "a read meanwhile brings other data")


@case()
def handshakes_have_ten_seconds():
    """
    Guards against connections that are held for ever by clients that never
    finish the handshake: ten seconds are for all of it, not for each byte.
    Who has finished it may be silent.
    """
    create_image("stall.qcow2", IMAGE_BYTES)
    with Server("stall.qcow2") as server:
        working, idle = server.open(), server.open(server.tcp)
        stalled = [client for _ in range(fewer(20, 4))
                   for address in (server.unix, server.tcp)
                   for client in stalled_clients(server, address)]
        deadline = time.monotonic() + HANDSHAKE_SECONDS + LATE_SECONDS
        number, next_step = 0, time.monotonic()
        while (any(client.closed_after is None for client in stalled)
               and time.monotonic() < deadline):
            if time.monotonic() >= next_step:
                next_step += 1
                for client in stalled:
                    client.send_step()
            for client in stalled:
                client.look()
            serve_meanwhile(working, number % 1024)
            number += 1
            time.sleep(0.02)
        check(number > HANDSHAKE_SECONDS, "the other client hardly worked")
        for client in stalled:
            check(client.closed_after is not None, f"still open after "
                  f"{HANDSHAKE_SECONDS + LATE_SECONDS} s: {client.what}")
            check(client.closed_after > HANDSHAKE_SECONDS - 1,
                  f"closed after {client.closed_after:.1f} s: {client.what}")
            client.sock.close()
        say(f"{len(stalled)} stalled, the last closed after "
            f"{max(client.closed_after for client in stalled):.2f} s; "
            f"{number} writes and reads of another client meanwhile")
        serve_meanwhile(idle, 0)
        server.check_descriptors(2)
        server.stop()


# ---- replies that nobody reads ----

def go_deaf(client):
    """It asks for much more than it may have under way, and reads nothing."""
    client.sock.setblocking(False)
    requests = b"".join(wire.pack_request(wire.READ, 0, i, 0, MIB)
                        for i in range(64))
    try:
        for _ in range(100):
            client.sock.send(requests)
    except (BlockingIOError, ssl.SSLWantWriteError):
        pass
    return client


def deaf_client(server, address):
    return go_deaf(server.open(address))


def deaf_clients(server):
    """Two of them, and the memory they cost at most."""
    before_kib = server.rss_kib()
    deaf = [deaf_client(server, address)
            for address in (server.unix, server.tcp)]
    most_kib = 0
    others = [server.open(address) for _ in range(4)
              for address in (server.unix, server.tcp)]
    for number in range(300):
        serve_meanwhile(others[number % len(others)], number)
        most_kib = max(most_kib, server.rss_kib())
        time.sleep(0.005)
    grown_kib = most_kib - before_kib
    say(f"{len(deaf)} clients that read nothing cost {grown_kib} KiB")
    if SANITIZED:
        return deaf, others
    check(grown_kib >= MIB >> 10, "nothing was read for them; a bad test")
    limit_kib = len(deaf) * CLIENT_MEMORY_KIB + OTHER_MEMORY_KIB
    check(grown_kib <= limit_kib, f"they cost more than {limit_kib} KiB")
    return deaf, others


def start_with_data(name, *options):
    create_image(name, IMAGE_BYTES)
    server = Server(name, *options)
    with server.open() as client:
        client.command(wire.WRITE, 0, 8 * MIB, data=b"d" * 8 * MIB)
        client.disconnect()
    return server


@case()
def unread_replies_cost_little():
    """
    Guards against replies that pile up in memory because their client reads
    none of them, and against others who wait behind it.
    """
    with start_with_data("deaf.qcow2") as server:
        deaf, others = deaf_clients(server)
        for client in deaf:
            close_hard(client.sock)
        server.check_descriptors(len(others))
        serve_meanwhile(others[0], 0)
        server.stop()


@case()
def memory_of_unread_replies_is_given_back():
    """
    Guards against a heap that a few greedy clients leave behind full of holes:
    once they are gone, the system has its memory again.
    """
    if SANITIZED:
        raise Unmet("a sanitizer keeps freed memory for a while")
    with start_with_data("greedy.qcow2") as server:
        before_kib = server.rss_kib()
        deaf = [deaf_client(server, server.unix) for _ in range(8)]
        asked_kib = len(deaf) * CLIENT_MEMORY_KIB // 2
        check(wait_until(lambda: server.rss_kib() > asked_kib, BUSY_SECONDS),
              "little was read for them; a bad test")
        most_kib = server.rss_kib()
        for client in deaf:
            close_hard(client.sock)
        server.check_descriptors(0)
        limit_kib = before_kib + KEPT_MEMORY_KIB
        given_back = wait_until(lambda: server.rss_kib() <= limit_kib,
                                BUSY_SECONDS)
        say(f"VmRSS {before_kib} KiB before them, {most_kib} KiB with "
            f"{len(deaf)}, {server.rss_kib()} KiB after")
        check(given_back, f"more than {limit_kib} KiB are kept")
        server.stop()


def open_tls(server, pki, address):
    context = ssl.create_default_context(cafile=f"{pki}/client/ca-cert.pem")
    context.load_cert_chain(f"{pki}/client/client-cert.pem",
                            f"{pki}/client/client-key.pem")
    client = server.haggle(address)
    client.start_tls(context)
    check_equal(client.go(b"").kind, wire.REP_ACK, "the reply to GO")
    return client


@case()
def unread_replies_end_their_client_inside_of_tls():
    """
    Guards against a session whose client takes nothing, so that encrypted
    bytes wait in a buffer of their own: --send-timeout ends it, its memory
    comes back, and others with TLS and without go on.
    """
    pki = os.path.abspath("pki")
    subprocess.run([f"{TESTS}/pki.sh", pki], check=True)
    with start_with_data("deaftls.qcow2", "--tls", f"{pki}/server",
                         "--tls-optional", "deaftls", "--send-timeout",
                         str(SHORT_SEND_SECONDS)) as server:
        others = [server.open(server.unix), open_tls(server, pki, server.tcp)]
        before_kib = server.rss_kib()
        begun = time.monotonic()
        deaf = [go_deaf(open_tls(server, pki, address)) for _ in range(4)
                for address in (server.unix, server.tcp)]
        most_kib, number, slowest = 0, 0, 0
        latest = begun + SHORT_SEND_SECONDS + SEND_LATE_SECONDS
        while (server.descriptors() > server.idle_descriptors + len(others)
               and time.monotonic() < latest):
            asked = time.monotonic()
            serve_meanwhile(others[number % len(others)], number)
            slowest = max(slowest, time.monotonic() - asked)
            most_kib = max(most_kib, server.rss_kib())
            number += 1
            time.sleep(0.01)
        server.check_descriptors(len(others))
        lasted = time.monotonic() - begun
        say(f"cut off after {lasted:.1f} s; {number} writes and reads of "
            f"others meanwhile, the slowest took {1000 * slowest:.0f} ms")
        check(lasted > SHORT_SEND_SECONDS - 1, "cut off too early")
        check_equal(server.log().count("took no replies"), len(deaf),
                    "lines in the log that say so")
        for client in deaf:
            client.close()
        if not SANITIZED:
            check(most_kib > before_kib + KEPT_MEMORY_KIB,
                  f"{most_kib} KiB: little was read for them; a bad test")
            limit_kib = before_kib + KEPT_MEMORY_KIB
            check(wait_until(lambda: server.rss_kib() <= limit_kib,
                             BUSY_SECONDS), f"{server.rss_kib()} KiB of "
                  f"{most_kib} are kept, before it were {before_kib}")
        for other in others:
            serve_meanwhile(other, 0)
            other.disconnect()
        server.stop()


@case(long=True)
def unread_replies_end_their_client():
    """
    Guards against such a client staying for ever: a send has 60 s.
    """
    with start_with_data("deaf60.qcow2") as server:
        begun = time.monotonic()
        deaf, others = deaf_clients(server)
        check(not wait_until(lambda: server.descriptors() <
                             server.idle_descriptors + len(deaf + others),
                             SEND_SECONDS - 10), "closed too early")
        latest = begun + SEND_SECONDS + SEND_LATE_SECONDS
        check(wait_until(lambda: server.descriptors() ==
                         server.idle_descriptors + len(others),
                         latest - time.monotonic()), "still there")
        say(f"closed after {time.monotonic() - begun:.1f} s")
        check_equal(server.log().count("took no replies"),
                    len(deaf), "lines in the log that say so")
        serve_meanwhile(others[0], 0)
        server.stop()


# ---- peers that vanish ----

def check_option(sock, name, expected):
    value = sock.getsockopt(*{
        "SO_KEEPALIVE": (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        "TCP_KEEPIDLE": (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        "TCP_KEEPINTVL": (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        "TCP_KEEPCNT": (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        "TCP_USER_TIMEOUT": (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
    }[name])
    check_equal(value, expected, name)
    return value


@case()
def dead_peers_will_be_noticed():
    """
    Guards against a socket that waits for ever for a machine that lost its
    power: probes are on, and both they and unacknowledged data have 120 s.
    dead_peers_are_noticed() waits for that.
    """
    create_image("probe.qcow2", MIB)
    with Server("probe.qcow2") as server:
        client = server.open(server.tcp)
        ours = client.sock.getsockname()
        for theirs in server_sockets(server.pid):
            if not is_connected_to(theirs, ours):
                continue
            check_option(theirs, "SO_KEEPALIVE", 1)
            seconds = (check_option(theirs, "TCP_KEEPIDLE", 60)
                       + check_option(theirs, "TCP_KEEPINTVL", 15)
                       * check_option(theirs, "TCP_KEEPCNT", 4))
            check_equal(seconds, DEAD_PEER_SECONDS, "the time of all probes")
            check_option(theirs, "TCP_USER_TIMEOUT",
                         DEAD_PEER_SECONDS * 1000)
            break
        else:
            raise Unmet("the server's end is not among its descriptors")
        client.disconnect()
        server.stop()


def run_ip(*words):
    run = subprocess.run(["ip", *words], stderr=subprocess.PIPE)
    if run.returncode:
        raise Unmet(f"ip {' '.join(words)}: "
                    + run.stderr.decode("utf-8", "replace").strip())


def own_network():
    """Moves this process, and what it starts, to a network of its own."""
    clone_newnet = 0x40000000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_newnet):
        raise Unmet("no network of our own: "
                    + os.strerror(ctypes.get_errno()))


def cable():
    """
    A cable from here, where the server will be, to another network; the
    process that holds that one.
    """
    own_network()
    other = subprocess.Popen(["unshare", "--net", "sleep", "600"],
                             preexec_fn=die_with_parent)
    check(wait_until(lambda: os.readlink(f"/proc/{other.pid}/ns/net")
                     != os.readlink("/proc/self/ns/net"), START_SECONDS),
          "no second network")
    run_ip("link", "add", "here", "type", "veth", "peer", "name", "there",
           "netns", str(other.pid))
    run_ip("link", "set", "lo", "up")
    run_ip("address", "add", "192.0.2.1/24", "dev", "here")
    run_ip("link", "set", "here", "up")
    for words in (("address", "add", "192.0.2.2/24", "dev", "there"),
                  ("link", "set", "there", "up")):
        subprocess.run(["nsenter", "-t", str(other.pid), "-n", "ip", *words],
                       check=True)
    return other


def far_client(server, other):
    """A socket of the other network, in transmission."""
    netns = os.open(f"/proc/{other.pid}/ns/net", os.O_RDONLY)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.setns(netns, 0)
    try:
        return server.open(server.tcp)
    finally:
        libc.setns(home, 0)
        os.close(netns)
        os.close(home)


@case(long=True)
def dead_peers_are_noticed():
    """
    Guards against half-open connections: the cable is cut, no FIN ever comes.
    One client was idle, one had not taken all of its replies, one was in the
    middle of a write.
    """
    other = cable()
    create_image("cable.qcow2", 64 * MIB)
    try:
        with Server("cable.qcow2", "--insecure-plaintext",
                    listen="tcp:192.0.2.1:0") as server:
            near = server.open()
            check_equal(near.command(wire.WRITE, 0, MIB, data=b"d" * MIB)
                        .error, 0, "a write")
            clients = [far_client(server, other) for _ in range(3)]
            clients[1].send(b"".join(wire.pack_request(wire.READ, 0, i, 0, MIB)
                                     for i in range(32)))
            clients[2].send(wire.pack_request(wire.WRITE, 0, 1, 0, MIB,
                                              b"h" * 1000))
            select.select([clients[1].sock], [], [], 10)
            run_ip("link", "set", "here", "down")
            begun = time.monotonic()
            server.check_descriptors(4)
            check(wait_until(lambda: server.descriptors()
                             == server.idle_descriptors + 1,
                             DEAD_PEER_SECONDS + LATE_SECONDS),
                  f"{server.descriptors() - server.idle_descriptors - 1} of "
                  "them are still there")
            say(f"all were gone after {time.monotonic() - begun:.1f} s")
            check(bytes(near.command(wire.READ, 0, 1000).data) == b"d" * 1000,
                  "half a write was done")
            server.stop()
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    main()
