#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards the life of the server as a process: who is told that it is ready, who
# may come, how it goes to the background, and how it ends.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdinfo nbdcopy python3 systemd-socket-activate

qemu-img create -q -f qcow2 disk.qcow2 8M
qemu-io -c 'write -q -P 7 1M 64k' disk.qcow2

# client CODE: Python with connect(), which goes up to transmission.
client()
{
	timeout "$server_seconds_max" python3 - "$sock" <<END
import os, signal, socket, struct, sys, time

def receive(s, count):
    data = b""
    while len(data) < count:
        more = s.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data

def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[1])
    receive(s, 18)
    s.sendall(struct.pack(">I8sIIIH", 3, b"IHAVEOPT", 7, 6, 0, 0))
    receive(s, 20 + 12 + 20)
    return s

def request(s, command, offset, length, flags=0):
    s.sendall(struct.pack(">IHHQQI", 0x25609513, flags, command, 1,
                          offset, length))

def error(s):
    return struct.unpack(">IIQ", receive(s, 16))[1]

$1
END
}

echo "the background:"
expect_status 0 "$QNBD" serve -r --fork --pid-file pid.txt -u bg.sock \
    disk.qcow2
expect_text "$tmp/out" '^nbd\+unix:///disk\?socket='
pid=$(cat pid.txt)
timeout 20 nbdinfo --size "$(cat "$tmp/out")" >/dev/null ||
    fail "the server in the background does not answer"
# The session is the fourth behind the name, which may hold blanks.
[ "$(sed 's/.*) //' "/proc/$pid/stat" | cut -d ' ' -f 4)" = "$pid" ] ||
    fail "it is not in a session of its own"
kill -HUP "$pid"
sleep 0.2
kill -0 "$pid" || fail "a hangup ended it"
expect_status 1 "$QNBD" serve -r --pid-file pid.txt -u other.sock absent.qcow2
expect_status 75 "$QNBD" serve -r --pid-file pid.txt -u bg.sock disk.qcow2
[ "$(cat pid.txt)" = "$pid" ] ||
    fail "servers that failed touched the pid file of the one that runs"
kill -TERM "$pid"
for ((i = 0; i < server_seconds_max * 10; i++)); do
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.1
done
[ ! -e pid.txt ] || fail "the pid file stayed behind"
[ ! -e bg.sock ] || fail "the socket file stayed behind"
expect_status 1 "$QNBD" serve -r --fork -u bg.sock absent.qcow2
expect_text "$tmp/err" '^qnbd: .*absent.qcow2'
expect_status 1 "$QNBD" serve -r --pid-file no/such/dir -u bg.sock disk.qcow2
expect_text "$tmp/err" 'cannot write the process id to no/such/dir'
[ ! -e bg.sock ] || fail "the socket file stayed behind"

echo "a word to the service manager:"
python3 - "$QNBD" <<'END'
import os, signal, socket, subprocess, sys
notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path = os.path.abspath("notify")
notify.bind(path)
notify.settimeout(30)
server = subprocess.Popen([sys.argv[1], "serve", "-r", "-u", "n.sock",
                           "disk.qcow2"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL,
                          env=dict(os.environ, NOTIFY_SOCKET=path))
try:
    assert b"READY=1" in notify.recv(4096)
    socket.socket(socket.AF_UNIX).connect("n.sock")
    server.send_signal(signal.SIGTERM)
    assert b"STOPPING=1" in notify.recv(4096)
    assert server.wait(30) == 0
finally:
    server.kill()
END

echo "sockets handed over:"
systemd-socket-activate -l "$tmp/sa.sock" "$QNBD" serve -r disk.qcow2 \
    >/dev/null 2>sa.txt &
_servers+=($!)
for ((i = 0; i < 100; i++)); do
	[ ! -S sa.sock ] || break
	sleep 0.1
done
timeout 20 nbdinfo --size "nbd+unix:///disk?socket=$tmp/sa.sock" \
    >/dev/null || fail "no answer on the socket handed over"
kill -TERM "${_servers[-1]}"
wait "${_servers[-1]}" || fail "status $? after socket activation"
timeout 20 nbdinfo --size -- [ "$QNBD" serve -r disk.qcow2 ] >/dev/null ||
    fail "nbdinfo [ qnbd serve ... ] fails"
timeout 20 nbdcopy -- [ "$QNBD" serve -r disk.qcow2 ] copy.raw
qemu-img compare -q disk.qcow2 -F raw copy.raw ||
    fail "nbdcopy [ qnbd serve ... ] copied something else"

echo "a full house:"
start_qnbd -r --max-connections 2 disk.qcow2
client '
first, second = connect(), connect()
try:
    connect()
    sys.exit("a third client was let in")
except (EOFError, ConnectionResetError, BrokenPipeError):
    pass
first.close()
for attempt in range(100):
    try:
        connect()
        break
    except (EOFError, ConnectionResetError, BrokenPipeError):
        time.sleep(0.05)
else:
    sys.exit("a place that was left is not given away")
request(second, 0, 0, 512)
assert error(second) == 0
'
stop_qnbd
expect_text "$log" 'turned away.*--max-connections'

echo "one line for each client:"
start_qnbd -r disk.qcow2
client '
s = connect()
for i in range(3):
    request(s, 0, 1 << 20, 4096)
    assert error(s) == 0
    assert receive(s, 4096) == bytes([7]) * 4096
request(s, 2, 0, 0)
assert s.recv(1) == b""
'
stop_qnbd
expect_text "$log" 'peer="unix .*" export="disk" requests=3 read=12288 '
expect_text "$log" ' written=0 seconds=[0-9.]+ why="client disconnected"$'

echo "the end, in good order:"
start_qnbd -r disk.qcow2
client "
s = connect()
os.kill($pid, signal.SIGTERM)
time.sleep(0.3)
request(s, 0, 0, 512)
assert error(s) == 108, 'a request after SIGTERM is not ESHUTDOWN'
assert s.recv(1) == b''
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    sys.exit('clients are still let in')
except OSError:
    pass
"
wait_qnbd 0
expect_text "$log" 'stopping signal=TERM$'

echo "the end, at once:"
start_qnbd -r disk.qcow2
client "
s = connect()
os.kill($pid, signal.SIGINT)
time.sleep(0.2)
os.kill($pid, signal.SIGTERM)
try:
    assert s.recv(1) == b''
except ConnectionResetError:
    pass
"
wait_qnbd 1
expect_text "$log" 'told to stop twice'
