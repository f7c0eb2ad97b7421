#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards where the server listens and what it says about it: URIs that clients
# take, socket files that are replaced only if nobody answers, plain text that
# does not leave the machine unasked.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img nbdinfo python3

qemu-img create -q -f qcow2 disk.qcow2 1M
cp disk.qcow2 "two words%.qcow2"

# serve_raw ARG...: a server whose listeners the test chooses itself.
serve_raw()
{
	rm -f ready
	mkfifo ready
	"$QNBD" serve -r --ready-fd 9 "$@" 9>ready >out.txt 2>err.txt &
	pid=$!
	_servers+=("$pid")
	_logs+=("$PWD/err.txt")
	read -r -t "$server_seconds_max" <ready ||
	    fail "the server did not start: qnbd serve -r $*"
}

# refused STATUS REGEX ARG...
refused()
{
	local status=$1 regex=$2
	shift 2
	expect_status "$status" timeout 20 "$QNBD" serve -r "$@"
	expect_text "$tmp/err" "$regex"
}

# Every URI must lead to the export.
expect_uris()
{
	local count=$1 size
	[ "$(wc -l <out.txt)" -eq "$count" ] || fail "not $count URIs"
	while read -r line; do
		size=$(timeout 20 nbdinfo --size "$line") ||
		    fail "a URI leads nowhere: $line"
		[ "$size" -eq 1048576 ] || fail "the wrong export: $line"
	done <out.txt
}

echo "a unix socket, a free port, both addresses:"
serve_raw -u own.sock -p 0 --listen 'tcp:[::1]:0' \
    --listen "unix:$tmp/a b%.sock" disk.qcow2
expect_uris 4
expect_text out.txt \
    "^nbd\+unix:///disk\?socket=$tmp/own.sock$"
expect_text out.txt '^nbd://127.0.0.1:[1-9][0-9]*/disk$'
expect_text out.txt '^nbd://\[::1\]:[1-9][0-9]*/disk$'
expect_text out.txt '/disk\?socket=.*/a%20b%25.sock$'
stop_qnbd
[ ! -e own.sock ] || fail "the socket file stayed behind"

echo "names: one image, several, none:"
serve_raw -u own.sock "two words%.qcow2" b=disk.qcow2 ./disk.qcow2
expect_uris 3
expect_text out.txt '^nbd\+unix:///two%20words%25\?'
expect_text out.txt '^nbd\+unix:///b\?'
timeout 20 nbdinfo --size "nbd+unix:///?socket=$tmp/own.sock" \
    >/dev/null 2>&1 && fail "the empty name means one of three"
stop_qnbd
serve_raw -u own.sock -x '' disk.qcow2
expect_uris 1
expect_text out.txt '^nbd\+unix:///\?socket='
stop_qnbd

echo "a file at the socket's path:"
serve_raw -u own.sock disk.qcow2
refused 75 'cannot listen on unix own.sock: another server' \
    -u own.sock disk.qcow2
timeout 20 nbdinfo --size "$(cat out.txt)" >/dev/null ||
    fail "the first server was disturbed"
kill -KILL "$pid"
wait "$pid" || :
[ -S own.sock ] || fail "no stale socket to try"
serve_raw -u own.sock disk.qcow2
expect_uris 1
stop_qnbd
echo precious >own.sock
refused 1 'a file that is not a socket' -u own.sock disk.qcow2
[ "$(cat own.sock)" = precious ] || fail "a file was replaced"

echo "a port in use:"
serve_raw -p 0 disk.qcow2
port=$(sed 's|.*:\([0-9]*\)/.*|\1|' out.txt)
refused 75 "^qnbd: .*$port.*in use" -p "$port" disk.qcow2
expect_uris 1
stop_qnbd

echo "plain text beyond this machine:"
refused 77 '^qnbd: refusing to serve on tcp 0.0.0.0:[0-9]+' \
    -b 0.0.0.0 -p 0 disk.qcow2
expect_text "$tmp/err" '--insecure-plaintext'
refused 77 '^qnbd: refusing to serve' \
    -u own2.sock --listen 'tcp:[::]:0' disk.qcow2
[ ! -e own2.sock ] || fail "the socket file stayed behind"
serve_raw -b 0.0.0.0 -p 0 --insecure-plaintext disk.qcow2
expect_uris 1
expect_text out.txt '^nbd://localhost:'
stop_qnbd

echo "a terminal gets more than the URI:"
python3 - "$QNBD" disk.qcow2 >terminal.txt <<'END'
import os, pty, signal, sys
def child():
    os.execl(sys.argv[1], "qnbd", "serve", "-r", "-u", "t.sock", *sys.argv[2:])
pid, terminal = pty.fork()
if pid == 0:
    child()
signal.alarm(20)
text = b""
while b"format=raw" not in text:
    text += os.read(terminal, 4096)
os.kill(pid, signal.SIGTERM)
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
assert status == 0, status
print(text.decode())
END
expect_text terminal.txt \
    "^  nbd-client -N disk -unix t.sock /dev/nbd0"
expect_text terminal.txt \
    "^  -drive file=nbd\+unix:///disk\?socket=.*/t.sock,format=raw"
