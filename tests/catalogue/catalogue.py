#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""
The catalogue: every hole and every corruption that servers like this one had,
and what keeps each closed here.

    catalogue.py [PATTERN...]                  runs it against qnbd
    catalogue.py --table [--server NAME]...    and against others, side by side
    catalogue.py --list                        the ids, and the tests of each
    catalogue.py --images                      the image cases only

Patterns are those of the shell, and select ids or names of cases
(CVE-2015-*, cve_2015_5163*).  The cases on the wire are in tests/conformance,
those with images here; C tests and scripts are named, and run by make check.
Prints one line per case and one per id, and last `N passed, N failed, N
skipped` for the cases.  Exit status 1 if one failed, or if the list names a
test that is not there.
"""

import argparse
import fnmatch
import os
import resource
import shutil
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "conformance"))

import case as wire_cases  # noqa: E402
import conformance  # noqa: E402
import image_case  # noqa: E402
import image_costs  # noqa: E402, F401
import image_header  # noqa: E402, F401
import image_names  # noqa: E402, F401
from conformance import FAIL, NA, PASS, Result  # noqa: E402
from entries import ENTRIES, find_problems  # noqa: E402
from images import Store  # noqa: E402
from programs import PROGRAMS  # noqa: E402
from servers import SERVERS, Unoffered  # noqa: E402

ELSEWHERE = "-"
SLOW_SECONDS = 2


def run_image_case(function, program, directory):
    """In an empty directory, which is gone afterwards."""
    name = function.__name__
    place = os.path.join(directory, name)
    os.mkdir(place)
    begun = time.monotonic()
    before = os.getcwd()
    os.chdir(place)
    try:
        function(image_case.Trial(program))
        state, reason = PASS, ""
    except Unoffered as unoffered:
        state, reason = NA, str(unoffered)
    except Exception as error:
        state, reason = FAIL, f"{type(error).__name__}: {error}"
    finally:
        os.chdir(before)
        shutil.rmtree(place)
    seconds = time.monotonic() - begun
    if state == PASS and seconds > SLOW_SECONDS:
        reason = f"{seconds:.1f} s"
    return Result(name, state, reason)


def run_images(title, path, names, directory, report):
    program = PROGRAMS[title](path)
    results = []
    for name in names:
        result = run_image_case(image_case.CASES[name], program, directory)
        report(result)
        results.append(result)
    return results


def run_wire(title, path, names, directory, report):
    selected = [case for case in wire_cases.CASES if case.name in names]
    if not selected:
        return []
    server = SERVERS[title](path, Store(directory), False)
    return conformance.run_server(server, selected, directory,
                                  conformance.wire.TIMEOUT_SECONDS, report)


def run_program(title, path, wire_names, image_names_, quiet):
    """All selected cases against one program."""
    report = (lambda result: None) if quiet else conformance.print_result
    results = []
    for run, names in ((run_wire, wire_names), (run_images, image_names_)):
        with tempfile.TemporaryDirectory(prefix="catalogue-") as directory:
            results += run(title, path, names, directory, report)
    return results


def state_of(entry, states):
    """One word for an id, from the states of its cases."""
    found = [states[name] for name in entry.cases() if name in states]
    if not found:
        return ELSEWHERE
    if FAIL in found:
        return FAIL
    return PASS if PASS in found else NA


def print_ids(selected, columns):
    """One row per id, one column per program."""
    width = max(len(entry.id) for entry in selected)
    print(" ".join(["id".ljust(width)]
                   + [title.rjust(9) for title in columns]))
    for entry in selected:
        states = [state_of(entry, {result.name: result.state
                                   for result in results})
                  for results in columns.values()]
        print(" ".join([entry.id.ljust(width)]
                       + [state.rjust(9) for state in states])
              + "  " + entry.phrase)
    print(f"({ELSEWHERE}: guarded by other tests of make check, or no concern "
          "here; see --list)")


def print_table(selected, columns):
    """The ids, then the cases, then why each did not pass."""
    print_ids(selected, columns)
    titles = list(columns)
    print()
    for rows in zip(*columns.values()):
        print(" ".join([rows[0].name.ljust(56)]
                       + [row.state.rjust(9) for row in rows]))
    for title in titles:
        print(f"\n{title}:")
        for result in columns[title]:
            if result.state != PASS:
                conformance.print_result(Result(
                    result.name, result.state, result.reason[:300]))


def print_list(selected):
    for entry in selected:
        print(f"{entry.id}: {entry.phrase}")
        for test in entry.tests:
            print(f"    {test}")
        if entry.reason:
            print(f"    no test: {entry.reason}")


def parse_arguments():
    parser = argparse.ArgumentParser(
        description="Runs the catalogue of holes that servers had.")
    parser.add_argument("--server", action="append", choices=list(PROGRAMS),
                        help="the program to test (default qnbd; with --table "
                        "all that are installed)")
    parser.add_argument("--qnbd", metavar="PATH",
                        default=os.environ.get("QNBD", "./qnbd"),
                        help="the qnbd to test (default $QNBD, or ./qnbd)")
    parser.add_argument("--table", action="store_true",
                        help="print a table with a column for each program")
    parser.add_argument("--list", action="store_true",
                        help="list the ids, and the tests that guard each")
    parser.add_argument("--images", action="store_true",
                        help="run only the cases with images")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    return parser.parse_args()


def matches(patterns, *names):
    return not patterns or any(fnmatch.fnmatchcase(name, pattern)
                               for name in names for pattern in patterns)


def select(arguments):
    """The entries, and the names of the cases of both kinds."""
    patterns = arguments.patterns
    entries = [entry for entry in ENTRIES
               if matches(patterns, entry.id, *entry.cases())]
    if not entries:
        sys.exit(f"nothing matches {' '.join(patterns)}")
    by_id = {name for entry in entries if matches(patterns, entry.id)
             for name in entry.cases()}
    by_name = {name for entry in entries for name in entry.cases()
               if patterns and matches(patterns, name)}
    names = by_id | by_name
    wire_names = {case.name for case in wire_cases.CASES} & names
    if arguments.images:
        wire_names = set()
    return entries, wire_names, [name for name in image_case.CASES
                                 if name in names]


def find_path(title, arguments):
    if title != "qnbd":
        return shutil.which(title)
    path = os.path.abspath(arguments.qnbd)
    return path if os.access(path, os.X_OK) else None


def find_programs(arguments):
    """Title and path of each; ends if one that was asked for is missing."""
    titles = arguments.server or (list(PROGRAMS) if arguments.table
                                  else ["qnbd"])
    found = {}
    for title in titles:
        path = find_path(title, arguments)
        if path:
            found[title] = path
            continue
        print(f"{title}: not installed, not tested")
        if arguments.server or not arguments.table:
            sys.exit(1)
    return found


def print_summary(results):
    count = {state: sum(result.state == state for result in results)
             for state in (PASS, FAIL)}
    print(f"{count[PASS]} passed, {count[FAIL]} failed, "
          f"{len(results) - sum(count.values())} skipped")


def main():
    arguments = parse_arguments()
    problems = find_problems({case.name for case in wire_cases.CASES},
                             set(image_case.CASES))
    for problem in problems:
        print(f"FAIL the list: {problem}", file=sys.stderr)
    entries, wire_names, image_names_ = select(arguments)
    if arguments.list:
        print_list(entries)
        return 1 if problems else 0
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    columns = {title: run_program(title, path, wire_names, image_names_,
                                  arguments.table)
               for title, path in find_programs(arguments).items()}
    print()
    (print_table if arguments.table else print_ids)(entries, columns)
    for results in columns.values():
        print_summary(results)
    failed = any(result.state == FAIL for results in columns.values()
                 for result in results)
    return 1 if failed or problems else 0


if __name__ == "__main__":
    sys.exit(main())
