# SPDX-License-Identifier: MIT
"""What the server sets on its sockets."""

import ctypes
import os
import socket

from case import Unmet, case, check, check_serves

SYS_PIDFD_GETFD = 438


def with_children(process_id):
    """Some servers have a process for each client."""
    yield process_id
    with open(f"/proc/{process_id}/task/{process_id}/children") as file:
        for child in file.read().split():
            yield from with_children(int(child))


def server_sockets(process_id):
    """Duplicates of the sockets a process holds; needs the right to trace."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(process_id)
    try:
        for name in os.listdir(f"/proc/{process_id}/fd"):
            try:
                target = os.readlink(f"/proc/{process_id}/fd/{name}")
            except FileNotFoundError:
                continue
            if not target.startswith("socket:"):
                continue
            copy = libc.syscall(SYS_PIDFD_GETFD, pidfd, int(name), 0)
            if copy < 0:
                raise Unmet("cannot look at the server's sockets: "
                            + os.strerror(ctypes.get_errno()))
            with socket.socket(fileno=copy) as duplicate:
                yield duplicate
    finally:
        os.close(pidfd)


def is_connected_to(sock, address):
    try:
        return sock.getpeername() == address
    except OSError:
        return False


@case(setting="tcp")
def c48_tcp_nodelay_is_set(t):
    """
    Guards against replies that wait for an acknowledgement of the one before,
    40 ms each.  Spec: "Protocol phases".
    """
    client = t.open()
    ours = client.sock.getsockname()
    for process_id in with_children(t.server.process.pid):
        for theirs in server_sockets(process_id):
            if not is_connected_to(theirs, ours):
                continue
            check(theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                  "TCP_NODELAY is not set")
            check_serves(client, t.image)
            return
    raise Unmet("the server's end is not among its file descriptors")
