# SPDX-License-Identifier: MIT
"""
A client that goes on writing while the server's disk is full.

    disk_full.py fill SOCKET STATE SEED     writes at random, until much failed
    disk_full.py verify SOCKET STATE        what was replied to is still there

The only error allowed is ENOSPC.  A range whose write failed may hold what it
held, or what was to be written, sector by sector; STATE is a file that keeps
what each block may hold.
"""

import pathlib
import pickle
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "conformance"))
import wire  # noqa: E402

BLOCK = 4096
BLOCKS = 4096
OPERATIONS = 3000
REFUSALS_MIN = 50
FLUSH_EVERY = 50


def connect(path):
    client = wire.Client(path, timeout=30)
    client.begin()
    client.go(b"")
    return client


def request(client, command, block=0, count=0, byte=0, flags=0):
    """True if it was carried out, False if there was no room."""
    data = bytes([byte]) * (count * BLOCK) if command == wire.WRITE else b""
    reply = client.command(command, block * BLOCK, count * BLOCK, flags, data)
    if reply.error not in (0, wire.ENOSPC):
        sys.exit(f"{wire.COMMAND_NAMES[command]}: "
                 f"{wire.error_name(reply.error)}")
    return reply.error == 0


def fill(path, seed):
    chance = random.Random(seed)
    client = connect(path)
    allowed = {}
    refused = {wire.WRITE: 0, wire.WRITE_ZEROES: 0, wire.FLUSH: 0}
    for number in range(OPERATIONS):
        if number % FLUSH_EVERY == 0:
            refused[wire.FLUSH] += not request(client, wire.FLUSH)
        command = wire.WRITE if chance.random() < 0.85 else wire.WRITE_ZEROES
        block, count = chance.randrange(BLOCKS), chance.randrange(1, 9)
        count = min(count, BLOCKS - block)
        byte = chance.randrange(1, 256) if command == wire.WRITE else 0
        flags = wire.FUA if chance.random() < 0.1 else 0
        done = request(client, command, block, count, byte, flags)
        refused[command] += not done
        for each in range(block, block + count):
            before = set() if done else allowed.get(each, {0})
            allowed[each] = before | {byte}
    client.disconnect()
    print("refused:", *(f"{wire.COMMAND_NAMES[command]}={count}"
                        for command, count in refused.items()))
    if refused[wire.WRITE] < REFUSALS_MIN:
        sys.exit("the disk was not full")
    return allowed


def verify(path, allowed):
    client = connect(path)
    for block, values in sorted(allowed.items()):
        reply = client.command(wire.READ, block * BLOCK, BLOCK)
        if reply.error:
            sys.exit(f"READ of block {block}: {wire.error_name(reply.error)}")
        strange = set(reply.data) - values
        if strange:
            sys.exit(f"block {block} holds {strange}, not {values}")
    # There is room again: everything can be written, and stays.
    for block in range(0, BLOCKS, 8):
        if not request(client, wire.WRITE, block, 8, 0xa5):
            sys.exit(f"no room for block {block}")
    if not request(client, wire.FLUSH):
        sys.exit("FLUSH fails with room on the disk")
    for block in range(0, BLOCKS, 256):
        reply = client.command(wire.READ, block * BLOCK, 256 * BLOCK)
        if reply.error or set(reply.data) != {0xa5}:
            sys.exit(f"block {block} does not hold what was written last")
    client.disconnect()


def main():
    action, path, state = sys.argv[1:4]
    if action == "fill":
        allowed = fill(path, int(sys.argv[4]))
        with open(state, "wb") as file:
            pickle.dump(allowed, file)
    else:
        with open(state, "rb") as file:
            verify(path, pickle.load(file))


main()
