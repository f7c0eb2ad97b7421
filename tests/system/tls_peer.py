#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
A client for tests of TLS.

    tls_peer.py SOCKET DIRECTORY            prints the server's common name
    tls_peer.py SOCKET DIRECTORY --stuck N  N clients begin with the handshake,
                                            go no further, and wait until they
                                            are cut off, within 20 s

DIRECTORY has the client's certificate, as tests/pki.sh makes them.
"""

import os
import socket
import ssl
import struct
import sys
import time

OPT_STARTTLS = 5
CUT_OFF_SECONDS = 20


def start(path):
    """A socket on which the server waits for the TLS handshake."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(CUT_OFF_SECONDS)
    sock.connect(path)
    sock.recv(18, socket.MSG_WAITALL)
    sock.sendall(struct.pack(">I", 3))
    sock.sendall(b"IHAVEOPT" + struct.pack(">II", OPT_STARTTLS, 0))
    sock.recv(20, socket.MSG_WAITALL)
    return sock


def context(directory):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.load_verify_locations(os.path.join(directory, "ca-cert.pem"))
    tls.load_cert_chain(os.path.join(directory, "client-cert.pem"),
                        os.path.join(directory, "client-key.pem"))
    return tls


def print_name(path, tls):
    with tls.wrap_socket(start(path), server_hostname="localhost") as sock:
        subject = sock.getpeercert()["subject"]
        print(next(value for entry in subject for key, value in entry
                   if key == "commonName"))


def get_stuck(path, tls, count):
    """Half of them say nothing, the others stop after their first flight."""
    socks = []
    for index in range(count):
        sock = start(path)
        if index % 2:
            outgoing = ssl.MemoryBIO()
            half = tls.wrap_bio(ssl.MemoryBIO(), outgoing,
                                server_hostname="localhost")
            try:
                half.do_handshake()
            except ssl.SSLWantReadError:
                pass
            sock.sendall(outgoing.read())
        socks.append(sock)
    print("stuck", flush=True)
    deadline = time.monotonic() + CUT_OFF_SECONDS
    for sock in socks:
        sock.settimeout(max(deadline - time.monotonic(), 0.01))
        try:
            while sock.recv(65536):
                pass
        except ConnectionError:
            pass


def main():
    path, directory = sys.argv[1:3]
    tls = context(directory)
    if len(sys.argv) > 3:
        get_stuck(path, tls, int(sys.argv[4]))
    else:
        print_name(path, tls)


main()
