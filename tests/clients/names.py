# SPDX-License-Identifier: MIT
"""
Names and texts as long, or as strange, as they may be.
"""

import os

from harness import (Server, case, check, check_equal, create_image, main,
                     wait_until, wire)

NAME_BYTES_MAX = 4096
INFO_NAME, INFO_DESCRIPTION, INFO_BLOCK_SIZE = 1, 2, 3
# A quote and a newline to forge a line with, a terminal's escape, a byte that
# is no UTF-8, and one that has two.
STRANGE = b'a" why="b\\\nqnbd: stopped\r\x1b[31m\x7f\xff\xc3\xa9'
SECONDS = 20


def choose(server, name, infos=()):
    client = server.haggle()
    check(client.structured_reply(), "no structured replies")
    check_equal(client.go(name, infos).kind, wire.REP_ACK, "the reply to GO")
    return client


@case()
def the_longest_name_and_description_fit():
    """
    Guards against a reply to GO that does not fit where it is put together:
    all that may be told, with a name and a description of 4,096 bytes each.
    """
    create_image("long.qcow2", 1 << 20)
    name, text = b"n" * NAME_BYTES_MAX, b"d" * NAME_BYTES_MAX
    with Server("long.qcow2", "--export-name", name, "--description",
                text) as server:
        infos = (INFO_BLOCK_SIZE, INFO_DESCRIPTION, INFO_NAME)
        for asked in (infos, infos[::-1] * 20, ()):
            client = choose(server, name, asked)
            check_equal(client.infos.get(INFO_NAME), name if asked else None,
                        "the name")
            check_equal(client.infos.get(INFO_DESCRIPTION),
                        text if asked else None, "the description")
            client.disconnect()
        client = server.haggle()
        reply = client.go(name, infos, wire.OPT_INFO)
        check_equal(reply.kind, wire.REP_ACK, "the reply to INFO")
        listed = client.option(wire.OPT_LIST)[0].data
        check_equal(listed[4:], name + text, "what LIST tells")
        check_equal(client.option(wire.OPT_ABORT)[-1].kind, wire.REP_ACK,
                    "the reply to ABORT")
        server.stop()


def check_log(server, lines):
    """So many lines, each of them the program's, and nothing but ASCII."""
    check(wait_until(lambda: server.log().count("client left peer") == lines,
                     SECONDS), "not everybody's end is in the log")
    with open(server.log_path, "rb") as file:
        log = file.read()
    for line in log.split(b"\n")[:-1]:
        check(line.startswith(b"qnbd: "), f"a forged line: {line!r}")
        check(all(32 <= byte < 127 for byte in line),
              f"a raw byte in the log: {line!r}")
    check(log.count(b'export="a\\x22 why=\\x22b\\x5c\\x0aqnbd: stopped') > lines,
          f"the name is not quoted: {log!r}")


@case()
def strange_names_are_quoted_in_the_log():
    """
    Guards against lines of the log that somebody else has written: by the name
    of an export, of its image, or of one that a client asks for.
    """
    image = b"./" + STRANGE[:-3] + b".qcow2"
    create_image("plain.qcow2", 1 << 20)
    os.rename("plain.qcow2", image)
    with Server(image, "-v", "--export-name", STRANGE) as server:
        client = choose(server, STRANGE)
        # One that is refused, and an end in the middle of another.
        check_equal(client.command(wire.READ, 1 << 40, 512).error,
                    wire.EINVAL, "a read past the end")
        client.send(wire.pack_request(wire.READ)[:9])
        client.close()
        client = server.haggle()
        client.go(b"none" + STRANGE)
        client.option(99, STRANGE)
        client.close()
        client = choose(server, STRANGE)
        client.disconnect()
        check_log(server, 2)
        server.stop()
        check_log(server, 2)


if __name__ == "__main__":
    main()
