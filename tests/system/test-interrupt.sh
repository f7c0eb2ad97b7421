#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards long work that is stopped by a signal: it must end at once, say in what
# state it leaves the image, and leave it clean, with the disk as it was before
# or as it would have been.  And what is told of the progress: on a terminal, to
# a descriptor, and nothing to anybody else.
#
# A command that tells its progress to a pipe that is full waits there, which is
# in the middle of its work, and hears of the signal.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3

# interrupt STATUS SIGNAL ROOM COMMAND...: when so many bytes of progress have
# been told, and no line more fits.  What it says is in err.
interrupt()
{
	timeout 120 python3 - "$@" <<'END' || fail "${*:4}"
import fcntl, os, signal, subprocess, sys, time
status, number, room, *arguments = sys.argv[1:]
read, write = os.pipe()
size = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
os.write(write, bytes(size - int(room)))
process = subprocess.Popen(arguments + ["--progress", str(write)],
                           pass_fds=[write], stdout=open("out", "wb"),
                           stderr=open("err", "wb"))
time.sleep(0.7)
if process.poll() is not None:
    sys.exit(f"it does not wait: status {process.returncode}")
began = time.time()
process.send_signal(getattr(signal, "SIG" + number))
if process.wait() != int(status):
    sys.exit(f"status {process.returncode}, not {status}: " +
             open("err").read())
if time.time() - began > 1:
    sys.exit(f"it took {time.time() - began} s")
END
}

clean()
{
	qemu-img check -q -f qcow2 "$1" || fail "$1 is not clean"
}

same()
{
	qemu-img compare -q "$1" "$2" || fail "$1 does not hold what $2 does"
}

has_snapshot()
{
	qemu-img snapshot -l "$1" | grep -q " $2 "
}

# Of many small tables: with data, which a snapshot has otherwise.
make_tables()
{
	qemu-img create -q -f qcow2 -o cluster_size=4k "$1" 32M
	for ((at = 0; at < 32; at += 2)); do
		echo "write -q -P $((at + 1)) ${at}M 300k"
	done | qemu-io "$1" >/dev/null
	qemu-img snapshot -c old "$1"
	qemu-io -c 'write -q -P 99 1M 20M' "$1"
}

echo "snapshots:"
make_tables disk.qcow2
cp disk.qcow2 before.qcow2
for signal in INT TERM HUP; do
	interrupt 1 $signal 30 "$QNBD" snapshot create disk.qcow2 new
	expect_text err 'make the snapshot "new".*stopped; the image is as it'
	clean disk.qcow2
	has_snapshot disk.qcow2 new && fail "it was made"
	same disk.qcow2 before.qcow2
done
interrupt 1 INT 30 "$QNBD" snapshot apply disk.qcow2 old
expect_text err 'apply the snapshot "old".*stopped; the image is as it was'
clean disk.qcow2
same disk.qcow2 before.qcow2
interrupt 1 INT 0 "$QNBD" snapshot delete disk.qcow2 old
expect_text err 'delete the snapshot "old".*stopped; the image is as it was'
clean disk.qcow2
cmp disk.qcow2 before.qcow2 || fail "something was done"
# Too late: the rest is done.
interrupt 0 TERM 30 "$QNBD" snapshot delete disk.qcow2 old
clean disk.qcow2
has_snapshot disk.qcow2 old && fail "it is there"
same disk.qcow2 before.qcow2
cp before.qcow2 disk.qcow2
interrupt 0 INT 100 "$QNBD" snapshot apply disk.qcow2 old
clean disk.qcow2
qemu-img snapshot -a old before.qcow2
same disk.qcow2 before.qcow2

echo "resize:"
for mode in metadata falloc full; do
	cp before.qcow2 disk.qcow2
	interrupt 1 INT 30 "$QNBD" resize --preallocation $mode disk.qcow2 500M
	expect_text err 'cannot resize.*stopped; it has its old length'
	clean disk.qcow2
	cmp <(qemu-img info -f qcow2 disk.qcow2 | grep virtual) \
	    <(qemu-img info -f qcow2 before.qcow2 | grep virtual)
	same disk.qcow2 before.qcow2
	expect_status 0 "$QNBD" check disk.qcow2
done
truncate -s 1M disk.raw
interrupt 1 INT 30 "$QNBD" resize -f raw --preallocation full disk.raw 500M
[ "$(stat -c %s disk.raw)" -eq 1048576 ] || fail "disk.raw has another length"
# Tables go some at a time, from the end.
qemu-img create -q -f qcow2 -o cluster_size=512 long.qcow2 2G
qemu-io -c 'write -q -P 1 0 10k' -c 'write -q -P 2 100M 10k' \
    -c 'write -q -P 3 900M 10k' -c 'write -q -P 4 2047M 10k' long.qcow2
interrupt 1 TERM 15 "$QNBD" resize --shrink long.qcow2 5k
expect_text err 'stopped; it has its new length, and the same command goes on'
clean long.qcow2
qemu-io -c 'read -q -P 1 0 5k' long.qcow2
allocated()
{
	"$QNBD" check --json long.qcow2 |
	    sed -n 's/.*"allocated-clusters": \([0-9]*\).*/\1/p'
}
[ "$(allocated)" -gt 10 ] || fail "all was given back at once"
expect_status 0 "$QNBD" resize --shrink long.qcow2 5k
[ "$(allocated)" -eq 10 ] || fail "not all was given back"
clean long.qcow2

echo "chains:"
qemu-img create -q -f raw base.raw 32M
qemu-io -f raw -c 'write -q -P 7 0 32M' base.raw
truncate -s 32M zeros.raw
qemu-img create -q -f qcow2 -b base.raw -F raw top.qcow2
qemu-io -c 'write -q -P 8 1M 20M' top.qcow2
qemu-img convert -O raw top.qcow2 shown.raw
whole()
{
	clean top.qcow2
	qemu-img compare -q -f qcow2 -F raw top.qcow2 shown.raw ||
	    fail "the disk is another"
}
interrupt 1 INT 30 "$QNBD" rebase -b zeros.raw -F raw top.qcow2
expect_text err 'stopped; top.qcow2 still rests on what it did'
whole
interrupt 1 TERM 30 "$QNBD" flatten top.qcow2
expect_text err 'stopped; top.qcow2 still rests on what it did'
whole
interrupt 1 INT 30 "$QNBD" commit top.qcow2
expect_text err 'stopped; top.qcow2 still holds all of it'
whole

echo "the state of a machine:"
head -c 20M /dev/urandom >state
cp before.qcow2 disk.qcow2
interrupt 1 INT 30 "$QNBD" vmstate save --snapshot vm disk.qcow2 state
expect_text err 'make the snapshot "vm".*stopped; the image is as it was'
clean disk.qcow2
has_snapshot disk.qcow2 vm && fail "it was made"
same disk.qcow2 before.qcow2
expect_status 0 "$QNBD" vmstate save --snapshot vm disk.qcow2 state
cp disk.qcow2 before.qcow2
interrupt 1 TERM 30 "$QNBD" vmstate load --snapshot vm disk.qcow2 loaded
expect_text err 'stopped; there is no loaded'
[ ! -e loaded ] || fail "half a state is left"

echo "repair:"
qemu-img create -q -f qcow2 -o cluster_size=512,lazy_refcounts=on \
    lazy.qcow2 8M
(qemu-io -c 'write -q -P 1 0 4M' -c 'abort' lazy.qcow2 || :) >/dev/null 2>&1
interrupt 1 INT 30 "$QNBD" check -r all lazy.qcow2
expect_text err 'nothing is lost; the next repair goes on'
expect_status 0 "$QNBD" check -r all lazy.qcow2
clean lazy.qcow2
qemu-io -c 'read -q -P 1 0 4M' lazy.qcow2

echo "what changes nothing dies of it:"
for command in check measure map compare; do
	second=()
	[ $command = compare ] && second=(before.qcow2)
	interrupt -2 INT 0 "$QNBD" $command disk.qcow2 "${second[@]}"
	interrupt -15 TERM 0 "$QNBD" $command disk.qcow2 "${second[@]}"
	[ ! -s err ] || fail "$command complains"
done
cmp disk.qcow2 before.qcow2 || fail "disk.qcow2 was changed"

# tell TEXT COMMAND...: on a terminal it says so; else nothing.
tell()
{
	timeout 60 python3 - "${@:2}" <<'END' >told || fail "${*:2}"
import os, subprocess, sys
read, write = os.openpty()
process = subprocess.Popen(sys.argv[1:], stderr=write,
                           stdout=subprocess.DEVNULL)
os.close(write)
text = b""
try:
    while part := os.read(read, 4096):
        text += part
except OSError:
    pass
sys.stdout.buffer.write(text)
sys.exit(process.wait())
END
	expect_text told "$1: [0-9]+ %"
}

echo "on a terminal:"
tell 'making a snapshot' "$QNBD" snapshot create disk.qcow2 one
tell 'applying a snapshot' "$QNBD" snapshot apply disk.qcow2 one
tell 'deleting a snapshot' "$QNBD" snapshot delete disk.qcow2 one
tell resizing "$QNBD" resize --preallocation metadata disk.qcow2 100M
tell resizing "$QNBD" resize --shrink disk.qcow2 10M
tell checking "$QNBD" check disk.qcow2
tell 'checking and repairing' "$QNBD" check -r all disk.qcow2
tell measuring "$QNBD" measure disk.qcow2
tell mapping "$QNBD" map disk.qcow2
tell drawing "$QNBD" map --svg picture.svg disk.qcow2
tell comparing "$QNBD" compare disk.qcow2 disk.qcow2
tell copying "$QNBD" convert disk.qcow2 copy.qcow2
tell saving "$QNBD" vmstate save --snapshot new disk.qcow2 state
tell loading "$QNBD" vmstate load --snapshot new disk.qcow2 loaded
cmp state loaded || fail "the state is another"
tell rebasing "$QNBD" rebase -b zeros.raw -F raw top.qcow2
tell committing "$QNBD" commit top.qcow2
tell copying "$QNBD" flatten top.qcow2
"$QNBD" snapshot create disk.qcow2 one 2>err
[ ! -s err ] || fail "it talks to what is no terminal"
echo "all of them stop"
