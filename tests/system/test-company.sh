#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the ways to serve that end by themselves: --run, whose command must
# find the export and whose status must come out; --stdio, one client over
# pipes or a socket, whose end must be the server's; --exit-with-parent, which
# must leave no orphan.  And who may connect: the mode of a unix socket, the
# clients of one export, the time for the handshake.  And what must end or crash
# no server: a reader of --stdio that stands still, SIGCHLD ignored by whoever
# starts it, the longest name with the longest description.

# What is between single quotes here is for the shells of --run.
# shellcheck disable=SC2016
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdcopy nbdinfo python3

qemu-img create -q -f qcow2 disk.qcow2 1M
qemu-img create -q -f qcow2 other.qcow2 2M

# refused REGEX ARG...
refused()
{
	local regex=$1
	shift
	expect_status 64 timeout 20 "$QNBD" serve "$@"
	expect_text "$tmp/err" "$regex"
}

ended()
{
	local tenths
	for tenths in {1..100}; do
		[ -e "/proc/$1" ] || return 0
		[ "$(sed 's/.*) //' "/proc/$1/stat" | cut -c 1)" != Z ] ||
		    return 0
		sleep 0.1
	done
	fail "process $1 is there after ${tenths%?} s"
}

echo "--run:"
mkdir own
expect_status 7 env TMPDIR="$tmp/own" "$QNBD" serve --run \
    'nbdinfo --size "$uri"; echo "$exportname $unixsocket $port."; exit 7' \
    disk.qcow2
expect_text "$tmp/out" '^1048576$'
expect_text "$tmp/out" "^disk $tmp/own/qnbd-.*/socket \.\$"
[ "$(wc -l <"$tmp/out")" -eq 2 ] || fail "the URI was printed, too"
[ -z "$(ls own)" ] || fail "a private socket stayed behind"
expect_status 0 "$QNBD" serve -p 0 --run \
    'nbdinfo --size "nbd://localhost:$port/$exportname"' b=disk.qcow2
expect_text "$tmp/out" '^1048576$'
expect_status 0 "$QNBD" serve --run \
    'qemu-io -f raw -c "write -P 7 0 64k" "$uri"' disk.qcow2
qemu-io -r -f qcow2 -c 'read -P 7 0 64k' disk.qcow2 >/dev/null
qemu-img check -q disk.qcow2
expect_status 143 "$QNBD" serve --run 'kill $$' disk.qcow2
expect_status 127 "$QNBD" serve --run /no/such/command disk.qcow2
expect_status 7 timeout 30 python3 -c 'import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.argv[1], sys.argv[1:])' "$QNBD" serve --run 'exit 7' disk.qcow2
# What qnbd itself does not die of, a command does.
expect_status 153 "$QNBD" serve --run \
    'ulimit -f 1; exec head -c 9999 /dev/zero >grown' disk.qcow2
refused '--run needs a command$' --run '' disk.qcow2
refused '--fork leaves what ' --fork --run true disk.qcow2

echo "--run, and the server is stopped first:"
"$QNBD" serve --run 'echo $$ >child; exec sleep 1000' disk.qcow2 2>log &
server=$!
_servers+=("$server")
for _ in {1..100}; do
	[ ! -s child ] || break
	sleep 0.1
done
kill -TERM "$server"
ended "$server"
ended "$(cat child)"
expect_text log 'stopped$'

echo "the longest name and description:"
name=$(printf 'n%.0s' {1..4096})
expect_status 0 "$QNBD" serve --description "${name//n/d}" --run \
    'nbdinfo --json "$uri" >long' "$name=disk.qcow2"
expect_text long 'd{4096}'

echo "--stdio:"
cat >talk.py <<'END'
"""talk.py pipe|socket PROGRAM...: a whole session, and its end."""
import socket
import struct
import subprocess
import sys

kind, program = sys.argv[1], sys.argv[2:]
if kind == "socket":
    ours, theirs = socket.socketpair()
    child = subprocess.Popen(program, stdin=theirs, stdout=theirs)
    theirs.close()
    stream = ours.makefile("rwb", buffering=0)
    send, recv = stream, stream
else:
    child = subprocess.Popen(program, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, bufsize=0)
    send, recv = child.stdin, child.stdout


def read(count):
    data = b""
    while len(data) < count:
        piece = recv.read(count - len(data))
        assert piece, "the server said no more"
        data += piece
    return data


def write(data):
    while data:
        data = data[send.write(data):]


assert read(18)[:8] == b"NBDMAGIC"
write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
assert struct.unpack(">Q", read(10)[:8]) == (1 << 20,)
data = bytes(range(256)) * 2048
write(struct.pack(">IHHQQI", 0x25609513, 0, 1, 1, 65536, len(data)) + data)
assert read(16) == struct.pack(">IIQ", 0x67446698, 0, 1)
write(struct.pack(">IHHQQI", 0x25609513, 0, 0, 2, 65536, len(data)))
assert read(16) == struct.pack(">IIQ", 0x67446698, 0, 2)
assert read(len(data)) == data
write(struct.pack(">IHHQQI", 0x25609513, 0, 2, 3, 0, 0))
assert recv.read(1) == b""
assert child.wait(20) == 0
END
for kind in pipe socket; do
	python3 talk.py $kind "$QNBD" serve --stdio disk.qcow2 2>log
	expect_text log 'why="client disconnected"$'
	expect_text log 'stopped$'
done
cat >deaf.py <<'END'
"""deaf.py PROGRAM...: asks for more than pipes hold, and reads none of it."""
import struct
import subprocess
import sys
import time

child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, bufsize=0)
child.stdin.write(struct.pack(">I", 3) + b"IHAVEOPT" +
                  struct.pack(">II", 1, 0))
assert len(child.stdout.read(18)) == 18
assert len(child.stdout.read(10)) == 10
for cookie in range(8):
    child.stdin.write(struct.pack(">IHHQQI", 0x25609513, 0, 0, cookie, 0,
                                  1 << 20))
time.sleep(1)
child.terminate()
assert child.wait(50) == 0
END
python3 deaf.py "$QNBD" serve --stdio disk.qcow2 2>log
expect_text log 'nobody reads standard output'
qemu-img check -q disk.qcow2
"$QNBD" serve --stdio disk.qcow2 </dev/null >out 2>log
[ "$(head -c 8 out)" = NBDMAGIC ] || fail "no greeting"
refused '--stdio serves the one client .* with listening$' \
    --stdio -p 0 disk.qcow2
refused '--stdio serves the one client .* with --run$' \
    --stdio --run true disk.qcow2
expect_status 1 nbdinfo --size -- [ "$QNBD" serve --stdio disk.qcow2 ]
expect_text "$tmp/err" 'but a socket was handed over$'

echo "--exit-with-parent:"
bash -c '"$0" serve --exit-with-parent -u parent.sock disk.qcow2 2>log &
    echo $! >child; while [ ! -S parent.sock ]; do sleep 0.1; done
    kill -KILL $$' "$QNBD" || :
ended "$(cat child)"
expect_text log 'stopping signal=TERM$'
[ ! -e parent.sock ] || fail "it did not clean up"

echo "who may connect to a unix socket:"
start_qnbd --socket-mode 0600 --socket-owner 65534:65533 disk.qcow2
[ "$(stat -c '%a %u:%g' "$sock")" = '600 65534:65533' ] ||
    fail "$(stat -c '%a %u:%g' "$sock")"
stop_qnbd
start_qnbd --socket-owner :65533 disk.qcow2
[ "$(stat -c '%u:%g' "$sock")" = "$(id -u):65533" ] || fail "the group"
stop_qnbd
refused '--socket-mode 0888: ' --socket-mode 0888 disk.qcow2
refused '--socket-mode u=rw: ' --socket-mode u=rw disk.qcow2
refused '--socket-owner nobody-at-all: ' --socket-owner nobody-at-all \
    disk.qcow2
refused '--socket-owner ::' --socket-owner : disk.qcow2

echo "the clients of one export:"
start_qnbd --max-export-connections 1 disk.qcow2 other.qcow2
base=nbd+unix://
first="$base/disk?socket=$sock"
mkfifo hold
qemu-io -f raw "$first" <hold >/dev/null 2>&1 &
holder=$!
exec 7>hold
for _ in {1..100}; do
	! nbdinfo --size "$first" >size 2>err || { sleep 0.1; continue; }
	break
done
# Not all versions of nbdinfo say what they were told.
expect_status 1 nbdcopy "$first" null:
expect_text err 'server policy prevents '
[ "$(nbdinfo --size "$base/other?socket=$sock")" = 2097152 ] ||
    fail "the other export has a place"
exec 7>&-
wait "$holder"
for _ in {1..100}; do
	nbdinfo --size "$first" >size 2>err && break
	sleep 0.1
done
expect_text size '^1048576$'
stop_qnbd

echo "the time for a handshake:"
start_qnbd --timeout 1 disk.qcow2
python3 - "$sock" <<'END'
import socket
import sys
import time
begin = time.monotonic()
client = socket.socket(socket.AF_UNIX)
client.connect(sys.argv[1])
client.settimeout(30)
while client.recv(4096):
    pass
took = time.monotonic() - begin
assert 0.9 < took < 8, took
END
expect_text "$log" 'why="handshake took too long"$'
stop_qnbd

echo "the time of a dead peer:"
cat >timer.py <<'END'
"""The kernel's timer on the server's side of a connection, and its seconds."""
import os
import socket

port = int(os.environ["port"])
client = socket.create_connection(("127.0.0.1", port))
client.recv(18)
ends = [f"{each:04X}" for each in (port, client.getsockname()[1])]
with open("/proc/net/tcp") as table:
    for row in map(str.split, table):
        if [end[-4:] for end in row[1:3]] == ends:
            kind, ticks = row[5].split(":")
            print(int(kind), int(ticks, 16) / os.sysconf("SC_CLK_TCK"))
END
"$QNBD" serve -p 0 --dead-peer 44 disk.qcow2 --run 'python3 timer.py' \
    >out 2>log
# 2: keepalive.
expect_text out '^2 2[0-4]\.'

echo "vsock:"
if "$QNBD" serve --listen vsock:54321 --run 'echo "$uri $port"' disk.qcow2 \
    >out 2>log; then
	expect_text out '^nbd\+vsock://[0-9]+:54321/disk 54321$'
else
	expect_text log 'cannot listen on vsock port 54321: '
fi
refused 'this takes unix:PATH, tcp:ADDR:PORT or vsock:PORT$' \
    --listen vsock:x disk.qcow2
