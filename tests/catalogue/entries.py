# SPDX-License-Identifier: MIT
"""
The list: what went wrong in other servers and qcow2 engines, under the name it
is known by, and the tests that keep it from going wrong here.

A test is named in one of these ways:

    wire NAME           a case of tests/conformance
    image NAME          a case of this folder
    FILE                a program or a script of make check, all of it
    FILE: NAME          one test in it

An entry without tests says why it has none.  find_problems() holds the list
against the sources, so that no test goes away unnoticed.
"""

import os
import re

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
# What a definition of a test looks like, by the kind of file.
DEFINITIONS = {
    ".c": r"^(?:START_TEST\({0}\)|{0}\()",
    ".py": r"^def {0}\(",
    ".sh": r"^{0}\(\)",
}
CASE_KINDS = ("wire", "image")

NO_TLS = "there is no TLS yet; STARTTLS is refused, see wire c08"
NO_CLIENT = "qnbd is no client; it reads no replies of other servers"


class Entry:
    def __init__(self, identity, phrase, *tests, reason=None):
        self.id = identity
        self.phrase = phrase
        self.tests = tests
        self.reason = reason

    def cases(self):
        """The names of those that this program can run."""
        return [test.split()[1] for test in self.tests
                if test.split()[0] in CASE_KINDS]


# The same tests for several ids.
LENGTHS_AT_THE_LIMIT = (
    "wire cve_2011_0530_read_lengths_at_the_limit",
    "wire cve_2011_0530_write_lengths_at_the_limit",
    "wire limit_option_length",
    "tests/fuzz/fuzz_requests.c")
GONE = (
    "wire cve_2011_1925_unknown_name_then_gone",
    "wire cve_2013_7441_gone_at_every_byte",
    "wire c03_unknown_export_name_closes",
    "tests/clients/sessions.py: a_client_ends_at_each_byte",
    "tests/clients/sessions.py: a_client_resets_at_each_byte")
OPTION_LENGTHS = (
    "wire cve_2022_26495_option_lengths",
    "wire cve_2022_26495_query_lengths",
    "wire cve_2022_26495_query_counts",
    "tests/fuzz/fuzz_options.c")
NAME_LENGTHS = (
    "wire cve_2017_15118_name_lengths",
    "wire cve_2017_15118_context_name_lengths")
EARLY_AND_LATE_BYTES = (
    "wire cve_2017_9524_split_at_every_byte",
    "wire cve_2017_9524_one_byte_at_a_time",
    "wire cve_2017_9524_everything_before_the_greeting",
    "wire cve_2017_9524_write_split_at_every_byte",
    "wire garbage_instead_of_a_handshake",
    "tests/schedule/server_races.c: a_request_cut_at_every_byte")
OPTION_ORDER = ("wire cve_2019_14851_options_in_any_order",)
LONG_EXTENTS = (
    "wire cve_2025_47711_lengths_of_requests",
    "wire cve_2025_47711_extents_past_4_gib",
    "wire c18_trim_of_4_gib_does_not_disconnect",
    "wire c18_block_status_of_4_gib_does_not_disconnect")
RAW_STAYS_RAW = (
    "image cve_2008_2004_raw_stays_raw",
    "image cve_2010_2237_raw_is_no_qcow2_without_being_told",
    "tests/system/test-bad-input.sh: test_foreign")
BACKING_FORMAT = (
    "image cve_2026_24708_backing_format_is_not_guessed",
    "tests/unit/test_chain.c: format_is_not_guessed")
L1_AND_REFCOUNT_TABLE = (
    "image cve_2014_0143_l1_table",
    "image cve_2014_0143_refcount_table",
    "tests/unit/test_header.c: wrong_field_is_refused_by_name_and_value",
    "tests/fuzz/fuzz_header.c",
    "tests/system/test-bad-input.sh: test_absurd")
COSTS = (
    "image cve_2015_5162_l1_table_of_one_l2_table",
    "image cve_2015_5162_full_l1_table",
    "image cve_2015_5162_refcount_table_of_one_block",
    "image cve_2015_5162_empty_refcount_blocks",
    "image cve_2015_5162_snapshots",
    "image cve_2015_5162_bitmaps",
    "image cve_2015_5162_chains",
    "image cve_2015_5162_check_ends_when_told_to",
    "tests/unit/test_check.c: l2_table_may_be_named_once_by_an_l1_table",
    "tests/unit/test_chain.c: chain_that_comes_back_is_refused",
    "tests/fault/depth.c: longest_chain")
SHARED_TABLES = (
    "tests/schedule/races_tables.c: r7_one_reader_of_a_table",
    "tests/schedule/races_tables.c: r10_one_maker_of_an_l2_table",
    "tests/schedule/races_tables.c: r10_new_refcount_blocks",
    "tests/schedule/races_tables.c: r11_refcounts_change_while_written",
    "tests/schedule/test-server-schedules.sh",
    "tests/system/test-load.sh")

ENTRIES = (
    # nbd-server
    Entry("CVE-2005-3534", "the buffer of a request left no room for the "
          "header of its reply", *LENGTHS_AT_THE_LIMIT),
    Entry("CVE-2011-0530", "the same again, five years later",
          *LENGTHS_AT_THE_LIMIT),
    Entry("CVE-2011-1925", "an unknown export name ended the server", *GONE),
    Entry("CVE-2013-7441", "a client that closed while haggling ended it",
          *GONE),
    Entry("CVE-2013-6410", "clients were let in by a prefix of their address",
          reason="there is no list of addresses; who may connect is left to "
          "the address that is listened on"),
    Entry("CVE-2015-0847", "unsafe work in a signal handler, a deadlock",
          "tests/clients/signals.py: signals_under_load_do_no_harm",
          "tests/unit/test_signals.c: test_pending"),
    Entry("CVE-2022-26495", "a name's length of 2^32 - 1 became 0",
          *OPTION_LENGTHS),
    Entry("CVE-2022-26496", "a long name over the end of a buffer on the "
          "stack", *NAME_LENGTHS),
    # qemu-nbd
    Entry("CVE-2017-15118", "an export name of 257 bytes in a buffer of 256",
          *NAME_LENGTHS),
    Entry("CVE-2017-15119", "4 GiB of an option were read and dropped",
          "wire cve_2022_26495_option_lengths", "wire limit_option_length",
          "wire limit_handshake_bytes", "wire limit_handshake_options"),
    Entry("CVE-2017-9524", "a client that did not negotiate met state that "
          "was not there yet", *EARLY_AND_LATE_BYTES),
    Entry("CVE-2017-7539", "the same, by data that came early",
          *EARLY_AND_LATE_BYTES),
    Entry("CVE-2017-10664", "SIGPIPE, as a client left",
          "wire cve_2017_10664_gone_with_replies_unread",
          "tests/clients/sessions.py: a_tcp_client_stops_reading_at_each_byte",
          "tests/unit/test_signals.c: test_broken_pipe"),
    Entry("CVE-2020-10761", "a long name made an error message too long",
          "wire cve_2020_10761_longest_names_in_error_messages",
          "wire cve_2020_10761_longest_names_in_context_errors",
          "wire cve_2020_10761_names_that_are_no_strings"),
    Entry("CVE-2024-7409", "the server ended while clients shook hands",
          "wire cve_2024_7409_end_with_half_open_handshakes",
          "tests/clients/signals.py: half_open_handshakes_end_with_the_grace",
          "tests/clients/silence.py: handshakes_have_ten_seconds"),
    Entry("QEMU #4843", "an option longer than its data met an assertion",
          "wire qemu_4843_option_lengths_off_by_a_few",
          "wire qemu_4843_padded_data_is_invalid"),
    # nbdkit
    Entry("CVE-2019-14850", "the disk was opened before the haggling was over",
          *OPTION_ORDER),
    Entry("CVE-2019-14851", "the order of options met an assertion",
          *OPTION_ORDER),
    Entry("CVE-2021-3716", "what was said in plaintext stood after STARTTLS",
          "wire c08_starttls_is_refused_without_tls", reason=NO_TLS),
    Entry("CVE-2025-47711", "the status of 4 GiB was off by one",
          *LONG_EXTENTS),
    Entry("CVE-2025-47712", "and its length overflowed", *LONG_EXTENTS),
    # libnbd
    Entry("CVE-2019-14842", "a client went on without TLS", reason=NO_CLIENT),
    Entry("CVE-2021-20286", "a reply met an assertion", reason=NO_CLIENT),
    Entry("CVE-2022-0485", "a copy ignored errors", reason=NO_CLIENT),
    Entry("CVE-2023-5215", "a size became negative", reason=NO_CLIENT),
    Entry("CVE-2023-5871", "a reply met an assertion", reason=NO_CLIENT),
    # Formats and names
    Entry("CVE-2008-2004", "the format was guessed from what a guest wrote",
          *RAW_STAYS_RAW),
    Entry("CVE-2010-2237", "so were those of backing files",
          *RAW_STAYS_RAW, *BACKING_FORMAT),
    Entry("CVE-2011-3147", "and of disks without a declared format",
          *RAW_STAYS_RAW),
    Entry("CVE-2015-1851", "and of volumes that were uploaded",
          *RAW_STAYS_RAW, *BACKING_FORMAT),
    Entry("CVE-2026-27211", "and of the raw disks of cloud-hypervisor",
          *RAW_STAYS_RAW),
    Entry("CVE-2026-24708", "and when Nova resized a disk",
          *RAW_STAYS_RAW, *BACKING_FORMAT),
    Entry("CVE-2015-5163", "a backing file was any file of the host",
          "image cve_2015_5163_backing_file_outside",
          "image cve_2015_5163_backing_file_that_is_none",
          "tests/unit/test_chain.c: file_elsewhere_is_refused",
          "tests/unit/test_chain.c: symbolic_links_on_the_way_are_refused",
          "tests/unit/test_chain.c: "
          "file_below_may_not_climb_to_the_tops_directory"),
    Entry("CVE-2024-4467", "a name with \"json:\" opened any file, by looking",
          "image cve_2024_4467_pseudo_protocols",
          "image cve_2024_4467_info_and_check_open_one_file",
          "tests/unit/test_chain.c: names_with_a_protocol_are_refused"),
    Entry("CVE-2024-32498", "an external data file was any file of the host",
          "image cve_2024_32498_external_data_file",
          "image cve_2024_32498_data_file_name_without_its_bit"),
    # Headers
    Entry("CVE-2014-0143", "sizes of tables overflowed",
          *L1_AND_REFCOUNT_TABLE),
    Entry("CVE-2014-0144", "fields of the header were used unseen",
          "image cve_2014_0144_fixed_fields",
          "image cve_2014_0144_cluster_and_refcount_widths",
          "image cve_2014_0144_backing_name_and_extensions",
          "tests/unit/test_header.c: field_at_its_limit_is_taken"),
    Entry("CVE-2014-0145", "a snapshot's L1 table in the buffer of another",
          "image cve_2014_0145_l1_table_of_a_snapshot",
          "tests/unit/test_snapshot.c: place_of_the_l1_table_is_judged_on_demand"),
    Entry("CVE-2014-0146", "closing what could not be opened",
          "image cve_2014_0146_snapshot_table",
          "tests/unit/test_snapshot.c: extra_data_past_its_limit_is_refused"),
    Entry("CVE-2014-0147", "refcounts and tables where none can be",
          "image cve_2014_0147_refcount_blocks_and_l2_tables",
          "image cve_2014_0147_refcounts_that_lie",
          "tests/system/test-bad-input.sh: test_bad_entries",
          "tests/system/test-check.sh"),
    Entry("CVE-2014-0222", "sizes in qcow version 1",
          "image cve_2014_0222_version_1"),
    Entry("CVE-2015-5162", "a small image took all time and memory", *COSTS),
    Entry("CVE-2013-2096", "a small image took all room on the disk",
          "image cve_2013_2096_compressed_bombs",
          "image cve_2013_2096_huge_disks",
          "tests/unit/test_inflate.c: "
          "zstd_frame_with_a_huge_window_is_inflated"),
    Entry("refused images", "an image was changed, and then refused",
          "image qcow2_image_is_not_written_when_refused"),
    # Corruption
    Entry("QEMU race of 2026-04", "a discard within a write that allocates: "
          "two places of the disk in one cluster",
          "tests/schedule/races.c: r8_allocating_write_and_discard",
          "tests/schedule/races.c: r8_allocating_write_and_zero",
          "tests/schedule/races.c: r8_allocating_write_and_kept_room",
          "tests/schedule/races.c: "
          "r8_allocating_write_and_zero_of_other_half",
          "tests/schedule/races.c: r1_write_in_place_and_discard",
          "tests/schedule/races.c: r1_write_in_place_and_zero",
          "tests/schedule/test-schedules.sh"),
    Entry("cloud-hypervisor #8624", "a late punch erased a cluster that was "
          "in use again",
          "tests/schedule/races.c: r5_punch_before_reuse",
          "tests/schedule/pauses.c: no_reuse_before_the_punch_has_ended",
          "tests/schedule/test-schedules.sh"),
    Entry("cloud-hypervisor #8748", "a full disk left a live table with "
          "refcount 0",
          "tests/schedule/races_tables.c: r6_live_table_with_refcount_0",
          "tests/schedule/races_tables.c: r6_table_and_full_disk",
          "tests/fault/full_disk.c: disk_full_then_freed",
          "tests/fault/faults.c: no_space",
          "tests/system/test-bad-input.sh: test_disk_full"),
    Entry("cloud-hypervisor #7660", "several queues at one table",
          *SHARED_TABLES),
    Entry("cloud-hypervisor #8606", "an L2 table was written over",
          *SHARED_TABLES),
    Entry("cloud-hypervisor #8621", "tables were shared without a lock",
          *SHARED_TABLES),
    # Other
    Entry("half a write", "a client that went away in the middle of a WRITE",
          "wire cut_off_write_is_not_applied", "wire gone_in_mid_write",
          "tests/schedule/server_races.c: "
          "a_client_vanishes_within_its_payload"),
)


def read(path):
    with open(os.path.join(TOP, path), encoding="utf-8") as file:
        return file.read()


def problem_with(test, makefile, wire_names, image_names):
    """Why a test that an entry names cannot be found, or None."""
    kind, _, name = test.partition(" ")
    if kind in CASE_KINDS:
        known = wire_names if kind == "wire" else image_names
        return None if name in known else "no such case"
    path, _, name = test.partition(": ")
    try:
        text = read(path)
    except OSError:
        return "no such file"
    if path not in makefile:
        return "make check does not know it"
    pattern = DEFINITIONS[os.path.splitext(path)[1]].format(re.escape(name))
    if name and not re.search(pattern, text, re.MULTILINE):
        return "there is no such test in it"
    return None


def find_problems(wire_names, image_names):
    """Everything that the list says and that is not so, in words."""
    makefile = read("Makefile.am")
    problems, named = [], set()
    ids = [entry.id for entry in ENTRIES]
    problems += [f"{name} is there twice" for name in set(ids)
                 if ids.count(name) > 1]
    for entry in ENTRIES:
        named.update(entry.cases())
        if not entry.tests and not entry.reason:
            problems.append(f"{entry.id} has neither a test nor a reason")
        for test in entry.tests:
            problem = problem_with(test, makefile, wire_names, image_names)
            if problem:
                problems.append(f"{entry.id}: {test}: {problem}")
    listed = image_names | {name for name in wire_names
                            if name.startswith(("cve_", "qemu_"))}
    problems += [f"the case {name} is of no entry"
                 for name in sorted(listed - named)]
    return problems
