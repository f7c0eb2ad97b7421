#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against what goes wrong around a server: images that are cut short,
# foreign, absurd, damaged, locked or short of a backing file, addresses in use,
# clients that send garbage or vanish, a disk that is full.  Each gets words
# that help and the right exit status, nothing hangs, and nothing is lost.
#
#	test-bad-input.sh [NAME...]	only these; test_NAME below
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io qemu-nbd nbdcopy nbdinfo python3

# limited COMMAND...: ends what hangs, with status 124.
limited()
{
	timeout "$server_seconds_max" "$@"
}

# refused STATUS REGEX ARG...: qnbd serve ends so, soon, and left no socket.
refused()
{
	local status=$1 regex=$2

	shift 2
	expect_status "$status" limited "$QNBD" serve -u "$tmp/none.sock" "$@"
	expect_text "$tmp/err" "$regex"
	[ ! -s "$tmp/out" ] || fail "output from: qnbd serve $*"
	[ ! -e "$tmp/none.sock" ] || fail "a socket stayed behind"
}

# with_fields IMAGE OFFSET:BYTES:VALUE...: a copy of good.qcow2 with these.
with_fields()
{
	cp good.qcow2 "$1"
	python3 - "$@" <<'END'
import sys
with open(sys.argv[1], "r+b") as image:
    for field in sys.argv[2:]:
        offset, count, value = (int(part, 0) for part in field.split(":"))
        image.seek(offset)
        image.write(value.to_bytes(count, "big"))
END
}

# refused_fields NAME REGEX OFFSET:BYTES:VALUE...: read-only too.
refused_fields()
{
	with_fields "$1.qcow2" "${@:3}"
	refused 1 "^qnbd: (.*/)?$1.qcow2.*$2" "$1.qcow2"
	refused 1 "^qnbd: (.*/)?$1.qcow2.*$2" -r "$1.qcow2"
	rm "$1.qcow2"
}

# io STATUS COMMAND...: of qemu-io on what is served.
io()
{
	local expected=$1 status=0 arguments=(-r) command

	shift
	[[ $* != *write* ]] || arguments=()
	for command; do
		arguments+=(-c "$command")
	done
	limited qemu-io -f raw "${arguments[@]}" "$uri" >"$tmp/io" 2>&1 ||
	    status=$?
	if grep -q -i -e 'failed' "$tmp/io"; then
		status=1
	fi
	[ "$status" -eq "$expected" ] || {
		cat "$tmp/io" >&2
		fail "status $status, not $expected, from qemu-io: $*"
	}
}

expect_clean()
{
	qemu-img check -q -f qcow2 "$1" || {
		qemu-img check -f qcow2 "$1" | tail -n 20 >&2 || :
		fail "$1: qemu-img check is not content"
	}
}

# What QEMU does in the background, started and ready.
_wait_for()
{
	local tenths

	for ((tenths = 0; tenths < server_seconds_max * 10; tenths++)); do
		[ ! -e "$1" ] || return 0
		sleep 0.1
	done
	fail "there is no $1"
}

qemu-img create -q -f qcow2 good.qcow2 2G
qemu-io -f qcow2 -c 'write -q -P 1 0 1M' -c 'write -q -P 2 1536M 1M' good.qcow2

test_cut_short()
{
	local bytes

	for bytes in 0 3 4 71 104 511; do
		head -c "$bytes" good.qcow2 >cut.qcow2
		refused 1 '^qnbd: cut.qcow2(:| is) ' cut.qcow2
		refused 1 '^qnbd: cut.qcow2(:| is) ' -r cut.qcow2
	done
	for bytes in 65536 196608; do
		head -c "$bytes" good.qcow2 >cut.qcow2
		refused 1 '^qnbd: cut.qcow2: .*past the end of the file' \
		    cut.qcow2
	done
}

# The first half of the disk is there; the other half's table and data are not.
test_half_lost()
{
	head -c $((0x150000)) good.qcow2 >half.qcow2
	start_qnbd -r half.qcow2
	io 0 'read -P 1 0 1M' 'read -P 0 1M 64k'
	io 1 'read 1536M 4k'
	io 0 'read -P 1 0 1M'
	stop_qnbd
	expect_text "$log" 'past the end of the file .*half.qcow2'
	# Lost is lost: it may not come back as zeros once the file has grown.
	refused 1 '^qnbd: half.qcow2.*(cut short|damaged)' half.qcow2
	expect_text "$tmp/err" 'serve -r'
}

# Data that is not there is not zeros either.
test_data_lost()
{
	head -c $((0x1a0000)) good.qcow2 >data.qcow2
	start_qnbd -r data.qcow2
	io 0 'read -P 2 1536M 256k'
	io 1 'read 1573500k 4k'
	io 0 'read -P 2 1536M 256k'
	stop_qnbd
	expect_text "$log" 'past the end of the file .*data.qcow2'
	# The file grows; what is there now is no substitute for what was lost.
	start_qnbd data.qcow2
	io 0 'write -P 7 2M 8M' 'read -P 7 2M 8M' 'read -P 2 1536M 256k'
	io 1 'read 1573500k 4k'
	stop_qnbd
}

test_foreign()
{
	refused_fields magic 'is not a qcow2 image' 0:4:0x7f454c46
	expect_text "$tmp/err" '-f raw'
	refused_fields version1 'version 1 is not supported' 4:4:1
	refused_fields version4 'version 4 is not supported' 4:4:4
	head -c 1M /dev/urandom >noise.qcow2
	refused 1 'noise.qcow2 is not a qcow2 image' noise.qcow2
	mkdir -p directory
	refused 1 '^qnbd: .*directory' directory
	mkfifo fifo
	refused 1 '^qnbd: .*fifo' fifo
	refused 1 '^qnbd: .*/dev/zero' /dev/zero
	refused 1 '^qnbd: cannot open absent.qcow2: No such file' absent.qcow2
}

test_absurd()
{
	refused_fields size 'size is 18446744073709551615 bytes' \
	    24:8:0xffffffffffffffff
	refused_fields size63 '9223372036854775807 bytes needs' \
	    24:8:0x7fffffffffffffff
	refused_fields bits8 'cluster_bits is 8' 20:4:8
	refused_fields bits22 'cluster_bits is 22' 20:4:22
	refused_fields bits99 'cluster_bits is 4294967295' 20:4:0xffffffff
	refused_fields l1 'L1 table is .* bytes long' 36:4:0xffffffff
	refused_fields short 'l1_size is 1, but' 36:4:1
	refused_fields far 'L1 table at .* past the end' 40:8:0x7fffffffff0000
	refused_fields odd 'not aligned' 40:8:0x30200
	refused_fields wrap 'past the end|more than' 40:8:0xffffffffffff0000
	refused_fields counts 'refcount table is .* bytes long' \
	    56:4:0xffffffff
	refused_fields counts0 'refcount' 56:4:0
	refused_fields order 'refcount_order is 7' 96:4:7
	refused_fields snaps 'nb_snapshots is 4294967295' \
	    60:4:0xffffffff 64:8:0x10000
	refused_fields header 'header' 100:4:0x7fffffff
	refused_fields name 'backing' 8:8:0x200 16:4:0xffffffff
}

# A name table says what the bits are called.
test_features()
{
	refused_fields bit 'unknown: bit 40' 72:8:$((1 << 40))
	# qemu-img wrote a table at 112; its first name becomes that of bit 40.
	with_fields named.qcow2 72:8:$((1 << 40)) 112:4:0x6803f857 \
	    120:1:0 121:1:40 122:8:0x6672657368206f6e 130:1:0
	refused 1 'fresh on' named.qcow2
	refused 1 'fresh on' -r named.qcow2
	refused_fields external 'external data file' 72:8:4
	refused_fields extended 'extended L2' 72:8:16
	refused_fields aes 'encrypted' 32:4:1
	refused_fields luks 'encrypted with LUKS' 32:4:2
}

# Corrupt ones are only looked at; it is said how to repair them.  Dirty ones
# are, too, where nobody writes (test-repair.sh has the rest).
test_dirty_and_corrupt()
{
	with_fields dirty.qcow2 72:8:1
	with_fields corrupt.qcow2 72:8:2
	refused 1 '^qnbd: corrupt.qcow2 is marked as corrupt' corrupt.qcow2
	expect_text "$tmp/err" \
	    '^  repair: qnbd check --repair all corrupt.qcow2'
	expect_text "$tmp/err" 'qnbd serve -r corrupt.qcow2'
	start_qnbd -r dirty.qcow2 corrupt.qcow2
	uri="nbd+unix:///dirty?socket=$sock"
	io 0 'read -P 1 0 1M'
	uri="nbd+unix:///corrupt?socket=$sock"
	io 0 'read -P 2 1536M 1M'
	stop_qnbd
	[ "$(od -An -tu1 -j 79 -N 1 dirty.qcow2)" -eq 1 ] ||
	    fail "dirty.qcow2 was only read, but is not dirty any more"
}

# Entries that lie: the range behind them fails, the rest can be read.  If it
# is no accident of a lost end, the image is marked and written no more.
test_bad_entries()
{
	local l2=$((0x40000)) l1=$((0x30000))

	# Not aligned; past the end; the header; the same L2 table itself.
	with_fields entries.qcow2 \
	    $((l2 + 0)):8:0x8000000000050200 \
	    $((l2 + 8)):8:0x80007ffffff00000 \
	    $((l2 + 16)):8:0x8000000000000000 \
	    $((l2 + 24)):8:0x8000000000040000
	start_qnbd entries.qcow2
	io 1 'read 0 4k'
	io 1 'read 64k 4k'
	io 1 'write 64k 4k'
	io 1 'read 192k 4k'
	io 1 'write 192k 4k'
	io 1 'write 256k 64k'
	io 1 'write 512M 64k'
	io 0 'read -P 1 256k 768k' 'read -P 2 1536M 1M'
	# What could not be made stable shows in the exit status.
	kill -TERM "$pid"
	wait_qnbd 1
	expect_text "$log" 'entries.qcow2'
	[ "$(grep -c 'the image is corrupt' "$log")" -eq 1 ] ||
	    fail "it is not said once that the image is corrupt"
	refused 1 '^qnbd: entries.qcow2 is marked as corrupt' entries.qcow2
	# Reserved bits alone are no proof.
	with_fields reserved.qcow2 $((l2 + 0)):8:0x8200000000050000
	start_qnbd reserved.qcow2
	io 1 'read 0 4k'
	io 1 'write 0 4k'
	io 0 'write -P 5 256k 64k' 'read -P 5 256k 64k'
	stop_qnbd
	# An L2 table where the refcount table is.
	with_fields overlap.qcow2 $l1:8:0x8000000000010000
	refused 1 'overlap.qcow2 is corrupt' overlap.qcow2
	start_qnbd -r overlap.qcow2
	io 0 'read -P 2 1536M 1M'
	stop_qnbd
}

test_locked()
{
	local holder

	qemu-img create -q -f qcow2 locked.qcow2 8M
	qemu-nbd -t -f qcow2 -k "$tmp/holder.sock" locked.qcow2 &
	holder=$!
	_servers+=("$holder")
	_wait_for holder.sock
	refused 75 "locked.qcow2: it is locked by qemu-nbd \(pid $holder\)" \
	    locked.qcow2
	expect_text "$tmp/err" '^  stop that program first'
	refused 75 'locked.qcow2: it is locked' -r locked.qcow2
	start_qnbd -r --force-share locked.qcow2
	io 0 'read -P 0 0 8M'
	stop_qnbd
	kill -KILL "$holder"
	wait "$holder" || :
	# And ours keeps others out, writers and readers.
	start_qnbd locked.qcow2
	refused 75 "it is locked by qnbd \(pid $pid\)" locked.qcow2
	if qemu-io -f qcow2 -c 'read 0 512' locked.qcow2 >"$tmp/io" 2>&1; then
		fail "QEMU opens what we write"
	fi
	expect_text "$tmp/io" 'Failed to get .*lock'
	kill -KILL "$pid"
	wait "$pid" || :
	# The lock goes with its holder, however that ends.
	start_qnbd locked.qcow2
	stop_qnbd
	start_qnbd -r locked.qcow2
	holder=$pid
	start_qnbd -r locked.qcow2
	refused 75 'locked.qcow2: it is ' locked.qcow2
	stop_qnbd
	pid=$holder
	stop_qnbd
}

test_backing()
{
	qemu-img create -q -f qcow2 base.qcow2 8M
	qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
	qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 above.qcow2
	mv base.qcow2 elsewhere.qcow2
	refused 1 'top.qcow2 needs its backing file base.qcow2' top.qcow2
	expect_text "$tmp/err" '/base.qcow2 does not exist$'
	expect_text "$tmp/err" \
	    '^  chain: top.qcow2 -> base.qcow2 \(missing\).*rebase --unsafe'
	refused 1 'needs its backing file base.qcow2' -r above.qcow2
	expect_text "$tmp/err" 'above.qcow2 -> top.qcow2 -> base.qcow2'
	mv elsewhere.qcow2 base.qcow2
	# No format: a guest could have written a qcow2 header into a raw disk.
	qemu-img rebase -u -b base.qcow2 -F '' top.qcow2 2>/dev/null ||
	    unsay_format top.qcow2
	refused 1 'top.qcow2 does not say which format its backing file' \
	    top.qcow2
	expect_text "$tmp/err" 'qnbd rebase --unsafe -F'
	start_qnbd --backing-format qcow2 top.qcow2
	io 0 'read -P 0 0 8M'
	stop_qnbd
	# Round and round, out of the directory, and other protocols.
	qemu-img rebase -u -b top.qcow2 -F qcow2 top.qcow2
	refused 1 'comes back to a file it has' top.qcow2
	qemu-img rebase -u -b /etc/passwd -F raw top.qcow2
	refused 77 'names the backing file /etc/passwd' -r top.qcow2
	qemu-img rebase -u -b nbd://127.0.0.1:1/x -F raw top.qcow2
	refused 77 'only plain file names are allowed' -r top.qcow2
	qemu-img rebase -u -b 'json:{"driver":"null-co"}' -F raw top.qcow2
	refused 77 'only plain file names are allowed' -r top.qcow2
}

# unsay_format IMAGE: takes out the header extension that names it.
unsay_format()
{
	python3 - "$1" <<'END'
import struct, sys
with open(sys.argv[1], "r+b") as image:
    header = image.read(65536)
    at, = struct.unpack(">I", header[100:104])
    while True:
        kind, length = struct.unpack(">II", header[at:at + 8])
        if kind == 0xE2792ACA:
            image.seek(at)
            image.write(struct.pack(">I", 0x12345678))
            break
        assert kind, "there is no backing format"
        at += 8 + (length + 7) // 8 * 8
END
}

test_addresses()
{
	local other port

	python3 -c '
import socket, sys, time
s = socket.socket()
s.bind(("127.0.0.1", 0))
s.listen()
with open("port.new", "w") as file:
    print(s.getsockname()[1], file=file)
import os
os.rename("port.new", "port")
time.sleep(600)' &
	other=$!
	_servers+=("$other")
	_wait_for port
	port=$(cat port)
	expect_status 75 limited "$QNBD" serve -p "$port" good.qcow2
	expect_text "$tmp/err" "^qnbd: .*$port.*in use"
	kill "$other"
	# A live socket, a stale one, and what is none.
	start_qnbd good.qcow2
	qemu-img create -q -f qcow2 other.qcow2 8M
	expect_status 75 limited "$QNBD" serve -r -u "$sock" other.qcow2
	expect_text "$tmp/err" 'another server'
	io 0 'read -P 1 0 4k'
	kill -KILL "$pid"
	wait "$pid" || :
	[ -S "$sock" ] || fail "no stale socket to try"
	limited nbdinfo --size -- [ "$QNBD" serve -r good.qcow2 ] >/dev/null ||
	    fail "the image is not free again"
	mkfifo stale.ready
	"$QNBD" serve -u "$sock" --ready-fd 9 good.qcow2 9>stale.ready \
	    >stale.out 2>stale.log &
	pid=$!
	_servers+=("$pid")
	read -r -t "$server_seconds_max" <stale.ready ||
	    fail "a stale socket is in the way"
	io 0 'read -P 1 0 4k'
	stop_qnbd
	echo precious >precious.sock
	expect_status 1 limited "$QNBD" serve -u precious.sock good.qcow2
	[ "$(cat precious.sock)" = precious ] || fail "a file was replaced"
	expect_status 1 limited "$QNBD" serve -u no/such/place good.qcow2
	expect_text "$tmp/err" 'no/such/place'
}

# Random bytes at each stage, as many clients at once, must harm nobody.
test_garbage()
{
	start_qnbd good.qcow2
	python3 - "$sock" "$RANDOM" <<'END'
import random, socket, struct, sys
path, seed = sys.argv[1:]
print("seed", seed)
chance = random.Random(int(seed))
flags = struct.pack(">I", 3)
go = struct.pack(">8sIIIH", b"IHAVEOPT", 7, 6, 0, 0)
write = struct.pack(">IHHQQI", 0x25609513, 0, 1, 7, 1 << 20, 1 << 20)
for number in range(300):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        before = (b"", flags, flags + go, flags + go + write)[number % 4]
        try:
            client.sendall(before)
            # A request is never whole, so nothing may be written.
            client.sendall(chance.randbytes(chance.randrange(1, 2000)))
            if number % 3 == 0:
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
        except ConnectionError:
            pass
END
	io 0 'read -P 1 0 1M' 'read -P 0 1M 1M' 'read -P 2 1536M 1M'
	stop_qnbd
	expect_clean good.qcow2
}

# A client is killed while it copies: what it wrote stands or does not, all
# else is whole, and the next one goes on.
test_client_gone()
{
	local round client

	qemu-img create -q -f qcow2 gone.qcow2 512M
	# The end of the pipe is no error.
	yes 'what is copied' 2>/dev/null | head -c 256M >source.raw || :
	start_qnbd gone.qcow2
	for round in 1 2 3 4 5; do
		nbdcopy --connections=2 source.raw "$uri" &
		client=$!
		sleep "0.0$round"
		kill -KILL "$client" 2>/dev/null || :
		wait "$client" || :
		io 0 'write -P 9 300M 64k' 'read -P 9 300M 64k'
	done
	limited nbdcopy --flush source.raw "$uri" || fail "nbdcopy fails"
	io 0 'read -P 9 300M 64k'
	stop_qnbd
	expect_clean gone.qcow2
	qemu-img convert -f qcow2 -O raw gone.qcow2 gone.raw
	cmp -n $((256 * 1024 * 1024)) gone.raw source.raw ||
	    fail "the copy differs"
	rm gone.raw source.raw gone.qcow2
}

# disk_full fill|verify ARG...
disk_full()
{
	limited python3 -B "$top/tests/system/disk_full.py" "$@" ||
	    fail "disk_full.py $*"
}

# try_full CLUSTER THREADS: the commands make_small, free_room, remove_small
# are for the file system; the server goes on, is started anew, is killed.
try_full()
{
	local ending seed=$RANDOM

	for ending in goes-on stopped killed; do
		echo "cluster_size=$1 --threads $2, $ending, seed=$seed"
		make_small
		qemu-img create -q -f qcow2 -o "cluster_size=$1" \
		    small/full.qcow2 64M
		start_qnbd --threads "$2" small/full.qcow2
		limit_server
		disk_full fill "$sock" state "$seed"
		case $ending in
		stopped)
			stop_qnbd
			expect_clean small/full.qcow2
			;;
		killed)
			kill -KILL "$pid"
			wait "$pid" || :
			;;
		esac
		free_room
		if [ "$ending" != goes-on ]; then
			start_qnbd --threads "$2" small/full.qcow2
		fi
		disk_full verify "$sock" state
		stop_qnbd
		if [ "$ending" = killed ]; then
			# Leaks, at most.
			qemu-img check -q -f qcow2 -r leaks small/full.qcow2 \
			    >"$tmp/check" 2>&1 || {
				tail -n 20 "$tmp/check" >&2
				fail "it is damaged"
			}
		fi
		expect_clean small/full.qcow2
		remove_small
	done
}

# Full before the first byte, so that not even a reserve can be had.
try_full_at_once()
{
	echo "full before the first write"
	make_small
	qemu-img create -q -f qcow2 small/full.qcow2 64M
	dd if=/dev/zero of=small/filler bs=4k 2>"$tmp/dd" || :
	start_qnbd small/full.qcow2
	io 1 'write -P 1 0 64k'
	io 0 'read -P 0 0 64k'
	rm small/filler
	io 0 'write -P 2 0 1M' 'read -P 2 0 1M' 'write -P 3 60M 64k' \
	    'read -P 3 60M 64k'
	stop_qnbd
	start_qnbd -r small/full.qcow2
	io 0 'read -P 2 0 1M' 'read -P 3 60M 64k'
	stop_qnbd
	expect_clean small/full.qcow2
	remove_small
}

# A file system of its own, where we may mount one.
test_disk_full()
{
	mkdir -p small
	if mount -t tmpfs -o size=6m qnbd-test small 2>/dev/null; then
		umount small
		make_small() { mount -t tmpfs -o size=6m qnbd-test small; }
		limit_server() { :; }
		free_room() { mount -o remount,size=64m small; }
		remove_small() { umount small; }
		try_full_at_once
		try_full 512 1
		try_full 4k 2
		try_full 64k 2
	else
		echo "no file system can be mounted here: not tried"
	fi
	# The same by a limit to the file's size, which anybody may have.
	requires prlimit
	make_small() { rm -f small/full.qcow2; }
	limit_server() { prlimit --pid "$pid" --fsize=6000000:; }
	free_room()
	{
		# A new server has no limit anyway.
		if [ "$ending" = goes-on ]; then
			prlimit --pid "$pid" --fsize=unlimited:
		fi
	}
	remove_small() { :; }
	try_full 64k 2
	# In memory, where a thread of the server writes that minds signals.
	make_memory || return 0
	rm -r small
	ln -s "$memory" small
	try_full 64k 2
}

# Before the directory goes, though a server may still use it; the status is
# for _cleanup.
unmount_small()
{
	local status=$?

	set +e
	umount -l "$tmp/small" 2>/dev/null
	(exit "$status")
	_cleanup
}

trap unmount_small EXIT
[ $# -gt 0 ] || set -- cut_short half_lost data_lost foreign absurd features \
    dirty_and_corrupt bad_entries locked backing addresses garbage \
    client_gone disk_full
count=0
for name; do
	echo "$name:"
	"test_$name"
	count=$((count + 1))
done
echo "$count passed, 0 failed, 0 skipped"
