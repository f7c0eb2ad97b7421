#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the tools that people have: nbdinfo, nbdcopy, nbdfuse, qemu-img and
# qemu-io must read, write and describe what is served, by unix socket and TCP,
# whichever engine the server runs on.  Where io_uring is refused it must say
# so in one clear line and work all the same.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdinfo nbdcopy nbd-client python3

no_uring=$(dirname "$QNBD")/tests/no-uring
server=$QNBD
mib=$((1024 * 1024))

# limited COMMAND...: one that hangs is ended, and the test fails.
limited()
{
	timeout "$server_seconds_max" "$@" || fail "status $? from: $*"
}

# A disk with text, noise and nothing in it.
make_disk()
{
	python3 -c '
import random
mib = 1 << 20
with open("disk.raw", "wb") as disk:
    disk.write(b"the same line over and over\n" * 100000)
    disk.seek(10 * mib + 300)
    disk.write(random.Random(1).randbytes(5 * mib))
    disk.seek(30 * mib)
    disk.write(random.Random(2).randbytes(mib))
    disk.truncate(40 * mib)
'
}

expect_same_disk()	# IMAGE RAW
{
	qemu-img compare -q -f qcow2 -F raw "$1" "$2" ||
	    fail "$1 does not hold what $2 does"
}

expect_clean()	# IMAGE
{
	qemu-img check -q -f qcow2 "$1" || {
		qemu-img check -f qcow2 "$1" >&2 || :
		fail "$1: qemu-img check is not content"
	}
}

# expect_info URI: what nbdinfo says of the export "full".
expect_info()
{
	[ "$(limited nbdinfo --size "$1")" -eq $((40 * mib)) ] ||
	    fail "nbdinfo --size"
	limited nbdinfo --json "$1" >info.json
	python3 - info.json <<'END' || fail "nbdinfo says something else"
import json, sys
with open(sys.argv[1]) as file:
    info = json.load(file)
export, = info["exports"]
expected = {
    "export-size": 40 << 20, "is_read_only": False, "is_rotational": False,
    "can_cache": True, "can_df": True, "can_fast_zero": True,
    "can_flush": True, "can_fua": True, "can_multi_conn": True,
    "can_trim": True, "can_zero": True,
    "contexts": ["base:allocation", "qemu:allocation-depth"],
    "block_size_minimum": 1, "block_size_preferred": 65536,
}
assert info["protocol"] == "newstyle-fixed", info
assert info["structured"] is True and info["TLS"] is False, info
assert "a disk for tests" in export["description"], export
for key, value in expected.items():
    assert export[key] == value, (key, export)
END
	limited nbdinfo --list "$1" >list.txt
	expect_text list.txt '^export="full":'
	expect_text list.txt '^export="empty":'
	case $1 in
	nbd://*)
		address=${1#nbd://}
		address=${address%%/*}
		limited nbd-client -l "${address%:*}" "${address#*:}" >list.txt
		expect_text list.txt '^full'
		expect_text list.txt '^empty'
		;;
	esac
	for word in fua zero trim structured-reply; do
		limited nbdinfo --can "$word" "$1"
	done
	if nbdinfo --is read-only "$1"; then
		fail "nbdinfo: read-only"
	fi
}

# expect_map URI RAW: runs of nbdinfo cover the disk; holes hold zeros only.
expect_map()
{
	limited nbdinfo --map --json "$1" >map.json
	python3 - map.json "$2" <<'END' || fail "nbdinfo --map is wrong"
import json, sys
with open(sys.argv[1]) as file:
    runs = json.load(file)
with open(sys.argv[2], "rb") as file:
    disk = file.read()
end, holes = 0, 0
for run in runs:
    assert run["offset"] == end and run["length"] > 0, run
    end += run["length"]
    if run["type"] & 2:
        assert not any(disk[run["offset"]:end]), run
        holes += run["length"]
assert end == len(disk), end
assert holes > 20 << 20, holes
END
}

# expect_reads URI RAW: each tool reads the same.
expect_reads()
{
	rm -f copy.raw
	limited nbdcopy "$1" copy.raw
	cmp copy.raw "$2" || fail "nbdcopy reads something else"
	limited nbdcopy --synchronous "$1" - | cmp - "$2" ||
	    fail "nbdcopy --synchronous reads something else"
	rm -f copy.raw
	limited nbdcopy --connections=4 --threads=2 --requests=64 \
	    --request-size=$((2 * mib)) "$1" copy.raw
	cmp copy.raw "$2" || fail "nbdcopy -C 4 reads something else"
	limited qemu-img convert -f raw -O raw "$1" copy.raw
	cmp copy.raw "$2" || fail "qemu-img convert reads something else"
	limited qemu-img compare -q -f raw -F raw "$1" "$2"
	limited qemu-img map --output=json -f raw "$1" >map.json
}

# expect_writes URI: three tools fill the export "empty", which is IMAGE.
expect_writes()
{
	limited nbdcopy --flush disk.raw "$1"
	limited qemu-img compare -q -f raw -F raw "$1" disk.raw
	limited qemu-io -f raw -c 'discard 0 40M' "$1" >/dev/null
	limited qemu-img convert -n -W -m 8 -f raw -O raw disk.raw "$1"
	limited qemu-img compare -q -f raw -F raw "$1" disk.raw
	limited nbdcopy --connections=4 --requests=16 other.raw "$1"
	limited qemu-img compare -q -f raw -F raw "$1" other.raw
	# From one export to another of the same server.
	limited nbdcopy --connections=2 "${1/empty/full}" "$1"
	limited qemu-img compare -q -f raw -F raw "$1" disk.raw
}

# expect_io URI: every request of qemu-io, each checked by its reads.
expect_io()
{
	limited qemu-io -f raw -d unmap \
	    -c 'write -q -P 0x11 0 4M' \
	    -c 'write -q -f -P 0x22 1048000 1000' \
	    -c 'read -q -P 0x22 1048000 1000' \
	    -c 'read -q -P 0x11 0 1048000' \
	    -c 'read -q -P 0x11 1049000 100000' \
	    -c 'write -q -z 2M 64k' -c 'read -q -P 0 2M 64k' \
	    -c 'write -q -z -u 2162688 100' -c 'read -q -P 0 2162688 100' \
	    -c 'read -q -P 0x11 2162788 1000' \
	    -c 'discard -q 3M 64k' -c 'read -q -P 0 3M 64k' \
	    -c 'read -q -P 0x11 3211264 64k' \
	    -c 'aio_write -q -P 0x33 20M 1M' -c 'aio_write -q -P 0x34 21M 1M' \
	    -c 'aio_write -q -z 22M 1M' -c 'aio_flush' \
	    -c 'writev -q -P 0x35 23M 512 1024 2048' \
	    -c 'readv -q -P 0x35 23M 2048 1536' \
	    -c 'read -q -P 0x33 20M 1M' -c 'read -q -P 0x34 21M 1M' \
	    -c 'flush' "$1" >io.txt 2>&1
	if grep -i -e 'failed' -e 'error' io.txt; then
		fail "qemu-io"
	fi
}

# tour ARG...: everything, for qnbd serve ARG...
tour()
{
	local tcp from

	echo "qnbd serve $*"
	qemu-img convert -f raw -O qcow2 disk.raw full.qcow2
	qemu-img create -q -f qcow2 empty.qcow2 40M
	start_qnbd "$@" --listen tcp:127.0.0.1:0 \
	    --description 'a disk for tests' full.qcow2 empty.qcow2
	tcp=$(grep -o '^nbd://[^/]*' "${log%.log}.out" | head -n 1)
	for from in "nbd+unix:///full?socket=$sock" "$tcp/full"; do
		expect_info "$from"
		expect_map "$from" disk.raw
		expect_reads "$from" disk.raw
		expect_writes "${from/full/empty}"
		expect_io "${from/full/empty}"
	done
	stop_qnbd
	expect_same_disk full.qcow2 disk.raw
	expect_clean full.qcow2
	expect_clean empty.qcow2
}

make_disk
# Noise where that has nothing, and the other way round.
(tail -c $((20 * mib)) disk.raw; head -c $((20 * mib)) disk.raw) >other.raw

tour
expect_text "$log" 'ready engine=io_uring'
tour --io threads --threads 1
expect_text "$log" 'ready engine=threads'

echo "io_uring is refused:"
[ -x "$no_uring" ] || fail "there is no $no_uring"
printf '#!/bin/sh\nexec %q %q "$@"\n' "$no_uring" "$server" >wrapped
chmod +x wrapped
QNBD=$tmp/wrapped
tour
expect_text "$log" '^qnbd: io_uring is not permitted here'
expect_text "$log" 'ready engine=threads'
[ "$(grep -c io_uring "$log")" -eq 1 ] || fail "more than one line about it"
expect_status 77 "$QNBD" serve --io uring -u "$tmp/u.sock" full.qcow2
expect_text "$tmp/err" '^qnbd: io_uring cannot be used here'
QNBD=$server

echo "a client that starts its server:"
qemu-img create -q -f qcow2 started.qcow2 40M
limited nbdcopy -- disk.raw [ "$QNBD" serve started.qcow2 ]
expect_same_disk started.qcow2 disk.raw
expect_clean started.qcow2
# The client's standard output is the server's too: it is for the data alone.
limited nbdcopy -- [ "$QNBD" serve started.qcow2 ] - | cmp - disk.raw ||
    fail "nbdcopy [ ... ] reads something else"
[ "$(limited nbdinfo --size -- [ "$QNBD" serve started.qcow2 ])" -eq \
    $((40 * mib)) ] || fail "nbdinfo [ ... ]"
limited nbdcopy -- [ "$QNBD" serve -r full.qcow2 ] \
    [ "$QNBD" serve empty.qcow2 ]
expect_same_disk empty.qcow2 disk.raw
expect_clean empty.qcow2

# Also where the test fails; the mount would outlive it.
unmount()
{
	local status=$?
	! mountpoint -q mounted || umount mounted
	return "$status"
}
trap 'unmount; _cleanup' EXIT

# A file that is the disk, for programs that know nothing of any of this.
mount_disk()
{
	mkdir mounted
	nbdfuse mounted "$1" &
	for _ in {1..100}; do
		[ ! -e mounted/nbd ] || return 0
		sleep 0.1
	done
	return 1
}

echo "the disk as a file:"
if ! command -v nbdfuse >/dev/null || [ ! -w /dev/fuse ]; then
	echo "SKIP this part: nbdfuse needs FUSE, and there is no /dev/fuse"
else
	start_qnbd full.qcow2
	if mount_disk "$uri"; then
		cmp mounted/nbd disk.raw
		dd if=other.raw of=mounted/nbd bs=300k conv=notrunc,fsync \
		    2>/dev/null
		cmp mounted/nbd other.raw
		unmount
		wait "$!"
		stop_qnbd
		expect_same_disk full.qcow2 other.raw
		expect_clean full.qcow2
	else
		echo "SKIP this part: nbdfuse could not mount here"
	fi
fi
