#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
Holds an NBD server against the protocol, with raw sockets.

    conformance.py [--server NAME]... [--table] [CASE-PATTERN...]

Without --server it tests qnbd.  Patterns are those of the shell (c38*).
Prints one line per case and last `N passed, N failed, N skipped`; each skip
has its reason.  Exit status 1 if a case failed.

After every case the server must be alive, hold no connection of the case any
more, and serve a fresh client.
"""

import argparse
import contextlib
import fnmatch
import os
import resource
import sys
import tempfile
import time
import traceback

import case as cases
import wire
from images import Store
from launch import wait_until
from servers import SERVERS, StartFailed, Running, Unoffered

# The order of the import is the order of the cases.
import handshake            # noqa: F401
import options              # noqa: F401
import meta_context         # noqa: F401
import requests             # noqa: F401
import replies              # noqa: F401
import block_status         # noqa: F401
import writes               # noqa: F401
import durability           # noqa: F401
import transport            # noqa: F401
import extended             # noqa: F401
import depth                # noqa: F401
import messages             # noqa: F401
import interleaving         # noqa: F401
import resize               # noqa: F401
import catalogue            # noqa: F401
import limits               # noqa: F401
import shutdown             # noqa: F401
import tls                  # noqa: F401

DRAIN_SECONDS = 3
PASS, FAIL, SKIP, NA = "pass", "FAIL", "skip", "n/a"


class Result:
    def __init__(self, name, state, reason=""):
        self.name = name
        self.state = state
        self.reason = reason


class Harness:
    """Runs cases against one server, which it starts once per setting."""

    def __init__(self, server, directory, timeout):
        self.server = server
        self.directory = directory
        self.timeout = timeout
        self.running = {}
        self.offers = {}
        self.start_failures = {}
        self.started = 0

    def start(self, setting):
        """A new server; a setting that failed once is not tried again."""
        if setting in self.start_failures:
            raise StartFailed(f"it did not start in the setting {setting}")
        try:
            return self.start_once(setting)
        except StartFailed:
            self.start_failures[setting] = True
            raise

    def start_once(self, setting):
        self.started += 1
        directory = os.path.join(self.directory,
                                 f"{self.server.title}-{self.started}")
        os.mkdir(directory)
        running = Running(self.server, setting, directory)
        try:
            running.start()
            if setting not in self.offers:
                self.offers[setting] = self.probe(running)
        except (wire.WireError, OSError) as error:
            running.remove()
            raise StartFailed(f"setting {setting}: {error}") from error
        except BaseException:
            running.remove()
            raise
        return running

    @contextlib.contextmanager
    def obtain(self, case):
        """A live server in the setting of the case; a fresh one goes after."""
        if case.fresh:
            running = self.start(case.setting)
            try:
                yield running
            finally:
                running.remove()
            return
        running = self.running.get(case.setting)
        if running is None or not running.alive():
            running = self.running[case.setting] = self.start(case.setting)
        yield running

    def probe(self, running):
        """What the server offers: need -> None, or why it is not met."""
        trial = cases.Trial(running, self.timeout)
        client = trial.haggle()
        structured = client.structured_reply()
        meta = structured and client.set_contexts(
            running.name, [wire.BASE_ALLOCATION]).kind == wire.REP_ACK \
            and client.contexts
        final = client.go(running.name)
        extended = trial.haggle().extended_headers()
        other = trial.haggle()
        depth = other.structured_reply() and other.set_contexts(
            running.name, [wire.ALLOCATION_DEPTH]).kind == wire.REP_ACK \
            and other.contexts
        trial.close()
        if final.kind != wire.REP_ACK:
            raise StartFailed(f"GO {running.name.decode()}: {final}")
        offers = {need: None if client.flags & bit else f"no {name}"
                  for need, (bit, name) in cases.FLAG_NEEDS.items()}
        offers["structured"] = None if structured else "no structured replies"
        offers["extended"] = None if extended else "no extended headers"
        offers["meta"] = None if meta else "no base:allocation"
        offers["depth"] = None if depth else "no qemu:allocation-depth"
        offers["write"] = ("the export is read-only"
                           if client.flags & wire.READ_ONLY else None)
        offers["empty_name"] = None
        offers.update(self.server.lacks)
        return offers

    def check_needs(self, case):
        for need in case.needs:
            reason = self.offers[case.setting][need]
            if reason is None:
                continue
            if need in self.server.promises:
                raise cases.Failure(f"{reason}, though it should be offered")
            raise (cases.ReadOnly if need == "write" else cases.Unmet)(reason)

    def run(self, case):
        """Runs one case, if it can be run here."""
        if case.own and not self.server.rules_of_qnbd:
            return Result(case.name, NA, "a rule of qnbd's own")
        try:
            with self.obtain(case) as running:
                self.check_needs(case)
                return self.judge(case, running)
        except cases.ReadOnly as reason:
            return Result(case.name, SKIP, str(reason))
        except (Unoffered, cases.Unmet) as reason:
            return Result(case.name, NA, str(reason))
        except (StartFailed, cases.Failure, wire.WireError, OSError) as error:
            return Result(case.name, FAIL, str(error))

    def judge(self, case, running):
        """Runs one case, and then looks at what it left behind."""
        problem, skip = self.attempt(case, running)
        after = (running.sanitizer_report() if case.fresh
                 else self.settle(running))
        if problem or after:
            return Result(case.name, FAIL, "; then ".join(
                text for text in (problem, after) if text))
        if skip:
            return Result(case.name, NA, skip)
        return Result(case.name, PASS)

    def attempt(self, case, running):
        """Returns (what went wrong, why it was skipped)."""
        trial = cases.Trial(running, self.timeout)
        try:
            case.function(trial)
        except cases.Unmet as reason:
            return None, str(reason)
        except (cases.Failure, wire.WireError) as error:
            return str(error), None
        except OSError as error:
            return f"{type(error).__name__}: {error}", None
        except Exception:
            return traceback.format_exc(), None
        finally:
            trial.close()
        return None, None

    def settle(self, running):
        """What is wrong with the server after a case, or None."""
        trouble = self.trouble(running)
        if trouble:
            # The next case must not suffer for this one.
            running.kill()
        return trouble

    def trouble(self, running):
        trouble = self.find_trouble(running)
        # A dying server may take a while over its core dump.
        if trouble and running.wait(1) is not None:
            return (f"the server died, exit status "
                    f"{running.process.returncode}: {running.log_tail()}")
        return trouble

    def find_trouble(self, running):
        if not running.alive():
            return "dead"
        report = running.sanitizer_report()
        if report:
            return report
        if not wait_until(running.drained, DRAIN_SECONDS):
            left = running.connections() - running.idle_connections
            return f"{left} connections leaked"
        trial = cases.Trial(running, self.timeout)
        try:
            client = trial.open()
            cases.check_serves(client, running.image)
            client.disconnect(self.server.closes)
        except (cases.Failure, wire.WireError, OSError) as error:
            return f"a fresh client is not served: {error}"
        finally:
            trial.close()
        return None

    def finish(self):
        """Ends all servers; returns what went wrong in that."""
        troubles = []
        for setting, running in self.running.items():
            trouble = running.stop()
            if trouble:
                troubles.append(f"setting {setting}: {trouble}")
            running.remove()
        return troubles


def run_server(server, selected, directory, timeout, report):
    """Runs the selected cases; calls report with each result."""
    harness = Harness(server, directory, timeout)
    results = []
    try:
        for case in selected:
            result = harness.run(case)
            results.append(result)
            report(result)
    finally:
        troubles = harness.finish()
    ending = Result("the_servers_end_when_asked_to",
                    FAIL if troubles else PASS, "; ".join(troubles))
    report(ending)
    return results + [ending]


def print_result(result):
    text = f"{result.state} {result.name}"
    if result.reason:
        text += ": " + result.reason.replace("\n", "\n     | ")
    print(text, flush=True)


def print_summary(results):
    count = {state: sum(result.state == state for result in results)
             for state in (PASS, FAIL, SKIP, NA)}
    print(f"{count[PASS]} passed, {count[FAIL]} failed, "
          f"{count[SKIP] + count[NA]} skipped")


def print_table(table, versions):
    """One row per case, one column per server; then why the failures."""
    servers = list(table)
    rows = [result.name for result in table[servers[0]]]
    width = max(map(len, rows))
    for server in servers:
        print(f"{server}: {versions[server]}")
    print("\n" + " ".join(["".ljust(width)]
                          + [server.rjust(10) for server in servers]))
    for index, name in enumerate(rows):
        states = [table[server][index].state for server in servers]
        print(" ".join([name.ljust(width)]
                       + [state.rjust(10) for state in states]))
    for server in servers:
        print(f"\n{server}:")
        for result in table[server]:
            if result.state != PASS:
                print_result(result)
        print_summary(table[server])


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Holds an NBD server against the protocol.")
    parser.add_argument("--server", action="append", choices=list(SERVERS),
                        help="the server to test (default qnbd; with --table "
                        "all that are installed)")
    parser.add_argument("--qnbd", metavar="PATH",
                        default=os.environ.get("QNBD", "./qnbd"),
                        help="the qnbd to test (default $QNBD, or ./qnbd)")
    parser.add_argument("--bare", metavar="PATH", default="bench/bare",
                        help="the bare raw-file server (default bench/bare)")
    parser.add_argument("-r", "--read-only", action="store_true",
                        help="start the servers read-only")
    parser.add_argument("--over-tls", action="store_true",
                        help="start TLS in every setting, and run the cases "
                        "inside")
    parser.add_argument("--table", action="store_true",
                        help="print a table with a column for each server")
    parser.add_argument("--list", action="store_true",
                        help="list the cases and what they guard against")
    parser.add_argument("--timeout", type=float, metavar="SECONDS",
                        default=wire.TIMEOUT_SECONDS,
                        help="limit for each operation on a socket")
    parser.add_argument("patterns", nargs="*", metavar="CASE-PATTERN")
    return parser.parse_args()


def select(patterns):
    selected = [case for case in cases.CASES
                if not patterns or any(fnmatch.fnmatchcase(case.name, pattern)
                                       for pattern in patterns)]
    if not selected:
        sys.exit(f"no case matches {' '.join(patterns)}")
    return selected


def find_path(title, arguments):
    """Where the server's program is, or None."""
    given = {"qnbd": arguments.qnbd, "bare": arguments.bare}.get(title)
    if given is None:
        return SERVERS[title].find()
    return os.path.abspath(given) if os.access(given, os.X_OK) else None


def find_servers(arguments, store):
    """The servers to test; ends if one that was asked for is missing."""
    titles = arguments.server or (list(SERVERS) if arguments.table
                                  else ["qnbd"])
    servers = []
    for title in titles:
        path = find_path(title, arguments)
        if path is None:
            print(f"{title}: not installed, not tested")
            if arguments.server or not arguments.table:
                sys.exit(1)
            continue
        servers.append(SERVERS[title](path, store, arguments.read_only))
        servers[-1].over_tls = arguments.over_tls
    return servers


def main():
    arguments = parse_arguments()
    selected = select(arguments.patterns)
    if arguments.list:
        for case in selected:
            print(f"{case.name}\n    {case.function.__doc__.strip()}")
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    table, versions = {}, {}
    with tempfile.TemporaryDirectory(prefix="nbd-conformance-") as directory:
        for server in find_servers(arguments, Store(directory)):
            begun = time.monotonic()
            quiet = arguments.table
            table[server.title] = run_server(
                server, selected, directory, arguments.timeout,
                (lambda result: None) if quiet else print_result)
            versions[server.title] = (
                f"{server.version()}, {time.monotonic() - begun:.0f} s")
            if not quiet:
                print_summary(table[server.title])
    if arguments.table:
        print_table(table, versions)
    failed = any(result.state == FAIL
                 for results in table.values() for result in results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
