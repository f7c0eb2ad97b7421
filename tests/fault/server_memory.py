# SPDX-License-Identifier: MIT
"""
Every allocation in the life of a server fails, one in each life.

    server_memory.py COUNT_MAX [FIRST [LAST]]

A server is started, used by a client in every way, by a second client, and
stopped, as often as it makes allocations (at most COUNT_MAX of them, evenly
spread), and each time another one fails.  At start-up it may end, with a
message and a status; a client may be dropped or told EIO (servers are asked
not to say ENOMEM); the second client is served; the end is a good one; the
image has leaks at most; no sanitizer has a word to say.  The same for the
other commands, which have no clients.
"""

import collections
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import tempfile

from server_process import (SECONDS_MAX, Control, Failed, Server, check,
                            environment, wire)

EIO, FUA, KIB, MIB = wire.EIO, wire.FUA, wire.KIB, wire.MIB

WORKERS = 2


def steps():
    """What a client does, and what it has to read then."""
    yield wire.WRITE, 0, b"a" * 64 * KIB, 0
    yield wire.WRITE, 3 * MIB + 512, b"b" * 100 * KIB, 0
    yield wire.WRITE, 512, b"c" * 1024, FUA
    yield wire.FLUSH, 0, 0, 0
    yield wire.READ, 0, 128 * KIB, 0
    yield wire.WRITE_ZEROES, 3 * MIB, 192 * KIB, 0
    yield wire.WRITE_ZEROES, 5 * MIB, 128 * KIB, wire.NO_HOLE
    yield wire.TRIM, 0, 64 * KIB, FUA
    yield wire.WRITE, 9 * MIB, b"d" * 3 * MIB, 0
    yield wire.BLOCK_STATUS, 0, 16 * MIB, 0
    yield wire.CACHE, 0, 16 * MIB, 0
    yield wire.READ, 8 * MIB, 4 * MIB, 0
    yield wire.FLUSH, 0, 0, 0


def use(server):
    """Errors of a client's whole session; an error ends none of it."""
    errors = collections.Counter()
    client = wire.Client(server.socket, timeout=SECONDS_MAX)
    client.begin()
    client.option(wire.OPT_LIST)
    client.structured_reply()
    client.set_contexts(b"", [wire.BASE_ALLOCATION])
    if client.go(b"").is_error:
        client.close()
        raise wire.Closed("GO was refused")
    for command, offset, what, flags in steps():
        data = what if isinstance(what, bytes) else b""
        reply = client.command(command, offset, len(data) or what, flags,
                               data)
        errors[reply.error] += 1
    client.disconnect()
    del errors[0]
    return errors


def check_refusal(status, text):
    """A status of qnbd's own and some words, and none of a sanitizer's."""
    check(status in (1, 75), f"it ended with status {status}: {text}")
    check(re.search("^qnbd: .", text, re.M), "it ended without a word")
    check_sane(text)


def check_sane(text):
    check("Sanitizer" not in text and "runtime error:" not in text, text)


def judge_start(server):
    status = server.wait()
    check_refusal(status, server.log())
    return "ended at start-up"


def judge_client(server):
    try:
        errors = use(server)
    except (wire.Closed, ConnectionError):
        check(server.process.poll() is None, "it is gone: status "
              f"{server.process.poll()}")
        return "a client dropped"
    check(set(errors) <= {EIO}, f"errors {dict(errors)}")
    return "a request failed" if errors else "not felt"


def live(directory, template, number):
    """One life; what the allocation that failed led to, and how many."""
    path = os.path.join(directory, "disk.qcow2")
    shutil.copyfile(template, path)
    control = Control(os.path.join(directory, "control"))
    control.allocation_nth = number
    with Server(directory, ["--threads", "2", "--backing-dir",
                            os.path.dirname(template), path],
                control) as server:
        if not server.ready:
            return judge_start(server), control.allocations
        outcome = judge_client(server)
        # One client more, or two if the allocation is still to come.
        for _ in range(2):
            second = judge_client(server)
            if second == "not felt":
                break
            check(outcome == "not felt", f"{outcome}, then {second}")
            outcome = second
        status = server.stop()
        check_sane(server.log())
        felt = control.allocations >= number > 0
        check(status == 0 or (felt and outcome == "not felt"),
              f"it ended with status {status} after: {outcome}")
        if status:
            outcome = "told at the end"
            check(status == 1, f"it ended with status {status}")
    return outcome, control.allocations


def tool(directory, arguments, control=None):
    """Runs qnbd to its end; its status, and what it said."""
    result = subprocess.run([os.environ["QNBD"]] + arguments, check=False,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            cwd=directory, env=environment(control),
                            timeout=SECONDS_MAX)
    return (result.returncode, result.stdout.decode(errors="replace"),
            result.stderr.decode(errors="replace"))


def check_image(directory):
    status, out, err = tool(directory, ["check", "disk.qcow2"])
    check(status in (0, 3), f"qnbd check: {out}{err}")


def call(template, number, arguments):
    """One call of a tool; what the allocation that failed led to."""
    with tempfile.TemporaryDirectory(dir=".") as directory:
        directory = os.path.abspath(directory)
        shutil.copyfile(template, os.path.join(directory, "disk.qcow2"))
        control = Control(os.path.join(directory, "control"))
        control.allocation_nth = number
        status, out, err = tool(directory, arguments, control)
        check_sane(err)
        if status:
            check_refusal(status, err)
        if arguments[0] == "create":
            made = os.path.exists(os.path.join(directory, "new.qcow2"))
            check(made == (status == 0), "half an image is left")
            if made:
                check(tool(directory, ["check", "new.qcow2"])[0] == 0,
                      "the new image is damaged")
        return status, out, control.allocations


TOOLS = (["create", "new.qcow2", "1G"],
         ["create", "-b", "disk.qcow2", "-F", "qcow2", "new.qcow2"],
         ["check", "disk.qcow2"],
         ["check", "--json", "disk.qcow2"],
         ["info", "disk.qcow2"],
         ["info", "--json", "disk.qcow2"],
         ["map", "--backing-dir", "..", "disk.qcow2"],
         ["map", "--backing-dir", "..", "--json", "disk.qcow2"])


def try_tool(template, arguments):
    """How many calls, and how many of them went wrong."""
    count = wrong = 0
    status, expected, total = call(template, 0, arguments)
    check(status == 0, f"{arguments} fails")
    for number in numbers(total, int(sys.argv[1])):
        count += 1
        try:
            status, out, _ = call(template, number, arguments)
            # Never half of an answer, or another one.
            check(status or out == expected, f"another answer: {out}")
        except Failed as error:
            wrong += 1
            print(f"qnbd {' '.join(arguments)}, allocation {number}: {error}")
    return count, wrong


def try_life(template, number):
    with tempfile.TemporaryDirectory(dir=".") as directory:
        directory = os.path.abspath(directory)
        try:
            outcome, count = live(directory, template, number)
            check_image(directory)
            return number, outcome, count, None
        except (Failed, wire.WireError, OSError) as error:
            log = ""
            path = os.path.join(directory, "server.log")
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    log = "".join(file.readlines()[-10:])
            return number, "wrong", 0, f"{error!r}\n{log}"


def numbers(total, count_max):
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    last = min(total, int(sys.argv[3])) if len(sys.argv) > 3 else total
    step = -(-(last - first + 1) // count_max)
    return list(range(first, last + 1, max(step, 1)))


def make_template():
    """An image over a base; both have some data."""
    template = os.path.abspath("template.qcow2")
    base = os.path.abspath("base.raw")
    with open(base, "wb") as file:
        file.write(b"e" * 16 * MIB)
    status, _, err = tool(".", ["create", "-b", base, "-F", "raw", template])
    check(status == 0, err)
    with Server(os.path.abspath("."), [template]) as server:
        use(server)
        check(server.stop() == 0, "it did not end well")
    return template


def main():
    template = make_template()
    _, outcome, total, problem = try_life(template, 0)
    check(outcome == "not felt", problem or outcome)
    outcomes = collections.Counter()
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for number, outcome, _, problem in pool.map(
                lambda number: try_life(template, number),
                numbers(total, int(sys.argv[1]))):
            outcomes[outcome] += 1
            if problem:
                failed += 1
                print(f"allocation {number}: {problem}")
    print(f"{total} allocations in a life; {outcomes.total()} lives:",
          ", ".join(f"{outcome} {count}"
                    for outcome, count in sorted(outcomes.items())))
    calls = 0
    for arguments in TOOLS:
        count, wrong = try_tool(template, arguments)
        calls += count
        failed += wrong
    print(f"{calls} calls of {len(TOOLS)} commands")
    sys.exit(failed > 0)


main()
