#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards TLS, with clients that others wrote (libnbd and QEMU, both on GnuTLS):
# that certificates and pre-shared keys work with them, data is the same on both
# sides, nobody gets in who should not, --allow and --tls-optional mean what
# they say, SIGHUP changes certificates and keeps sessions, clients stuck in a
# handshake hold up nobody, and keys are told to nobody.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires openssl nbdinfo nbdcopy qemu-img qemu-io

"$top/tests/pki.sh" "$tmp/pki"
pki=$tmp/pki

qemu-img create -q -f raw disk.raw 32M
qemu-io -f raw -c 'write -P 7 0 3M' -c 'write -P 9 5000001 777777' disk.raw \
    >/dev/null
qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2

# tls_uri WHOSE [EXPORT]: of the server's unix socket.
tls_uri()
{
	echo "nbds+unix://localhost/${2:-}?socket=$sock" \
	    "&tls-certificates=$pki/$1" | tr -d ' '
}

# psk_uri FILE [USER [EXPORT]]
psk_uri()
{
	echo "nbds+unix://${2:-alice}@localhost/${3:-}?socket=$sock" \
	    "&tls-psk-file=$pki/$1" | tr -d ' '
}

# gets_in URI
gets_in()
{
	expect_status 0 timeout 30 nbdinfo --size "$1"
	[ "$(cat out)" = 33554432 ] || fail "the size is $(cat out)"
}

# stays_out URI [WHY]: as the server's log has it.
stays_out()
{
	local before
	before=$(wc -l <"$log")
	expect_status 1 timeout 30 nbdinfo --size "$1"
	[ $# -eq 1 ] || expect_new_line "$2" "$before"
}

# needs_tls URI: and the client is told so.  Not all versions of nbdinfo say
# what they were told.
needs_tls()
{
	stays_out "$1" 'why="client disconnected"'
	expect_status 1 timeout 30 nbdcopy "$1" null:
	expect_text err 'server requires TLS encryption first'
}

# expect_new_line REGEX LINES: in the log, behind its first LINES lines; the
# server tells of a client a moment after that is gone.
expect_new_line()
{
	local tenths
	for ((tenths = 0; tenths < 100; tenths++)); do
		! tail -n "+$(($2 + 1))" "$log" | grep -Eq -e "$1" || return 0
		sleep 0.1
	done
	fail "the log has no new line like: $1"
}

echo "certificates:"
start_qnbd --tls "$pki/server" disk.qcow2
expect_text "$tmp/server0.out" '^nbds\+unix:///disk\?socket='
expect_status 0 timeout 30 nbdinfo "$(tls_uri client)"
expect_text out '^protocol: .* with TLS'
needs_tls "$uri"
stays_out "$(tls_uri stranger)" 'why="TLS: .*certificate was refused'
expect_text err 'fatal alert has been received'
stays_out "$(tls_uri expired)" 'certificate was refused: certificate has exp'
# GnuTLS has no certificate to show.
mkdir "$pki/nobody"
cp "$pki/client/ca-cert.pem" "$pki/nobody/"
stays_out "$(tls_uri nobody)" 'TLS: peer did not return a certificate'
gets_in "$(tls_uri revoked)"
stop_qnbd

# moves_data [ARG...]: data goes both ways, whole and in odd pieces.
moves_data()
{
	qemu-img create -q -f qcow2 copy.qcow2 32M
	start_qnbd --tls "$pki/server" "$@" copy.qcow2
	timeout 60 nbdcopy --connections=4 disk.raw "$(tls_uri client)" ||
	    fail "nbdcopy to qnbd $*"
	timeout 60 nbdcopy --connections=4 "$(tls_uri client)" back.raw ||
	    fail "nbdcopy from qnbd $*"
	cmp disk.raw back.raw
	timeout 60 qemu-io --object \
	    "tls-creds-x509,id=tls,endpoint=client,dir=$pki/client" \
	    --image-opts \
	    "driver=nbd,path=$sock,tls-creds=tls,tls-hostname=localhost" \
	    -c 'write -P 5 12345 5432109' -c 'read -P 5 12345 5432109' \
	    -c 'write -z 1M 70001' -c 'read -P 0 1M 70001' -c 'flush' \
	    -c 'discard 20M 2M' -c 'read -P 5 5444453 1' >io.out ||
	    { cat io.out; fail "qemu-io to qnbd $*"; }
	if grep -i 'fail' io.out >&2; then
		fail "qemu-io to qnbd $*"
	fi
	timeout 60 qemu-img convert -n --object \
	    "tls-creds-x509,id=tls,endpoint=client,dir=$pki/client" \
	    --image-opts --target-image-opts \
	    "driver=nbd,path=$sock,tls-creds=tls,tls-hostname=localhost" \
	    driver=raw,file.driver=file,file.filename=back.raw ||
	    fail "qemu-img convert from qnbd $*"
	stop_qnbd
	qemu-img compare -q -f raw -F qcow2 back.raw copy.qcow2 ||
	    fail "what was read differs from the image"
	qemu-img check -q -f qcow2 copy.qcow2
}

echo "data:"
moves_data --threads 2
moves_data --io threads

# On several connections and loops at once, held against a model.
random_load=$(dirname "$QNBD")/tests/system/random_load
operations=${LOAD_OPERATIONS:-2000}
load_seed=${LOAD_SEED:-$(date +%s%N | cut -c 5-15)}
if [ -x "$random_load" ]; then
	echo "load: LOAD_SEED=$load_seed LOAD_OPERATIONS=$operations"
	qemu-img create -q -f qcow2 load.qcow2 32M
	qemu-img create -q -f raw model 32M
	start_qnbd --threads 2 --tls "$pki/server" load.qcow2
	timeout $((60 + operations / 10)) "$random_load" \
	    "$(tls_uri client)" model "$load_seed" "$operations" ||
	    fail "random_load, status $?"
	stop_qnbd
	qemu-img compare -q -f raw -F qcow2 model load.qcow2 ||
	    fail "the image differs from the model"
	qemu-img check -q -f qcow2 load.qcow2
fi

echo "TCP, and TLS 1.2:"
export GNUTLS_SYSTEM_PRIORITY_FILE=$tmp/priority
printf '[overrides]\ndisabled-version = tls1.3\n' >priority
start_qnbd -v --tls "$pki/server" --tls-psk "$pki/keys.psk" \
    --listen tcp:127.0.0.1:0 disk.qcow2
gets_in "$(tls_uri client)"
expect_new_line 'tls=TLSv1.2 CN=client1' 0
gets_in "$(psk_uri keys.psk)"
expect_new_line 'tls=TLSv1.2 USER=alice' 0
unset GNUTLS_SYSTEM_PRIORITY_FILE
stop_qnbd

echo "who is revoked:"
cp -r "$pki/server" "$pki/strict"
cp "$pki/revoked-crl.pem" "$pki/strict/ca-crl.pem"
start_qnbd --tls "$pki/strict" disk.qcow2
gets_in "$(tls_uri client)"
stays_out "$(tls_uri revoked)" 'refused: certificate revoked'
stop_qnbd

echo "no certificate asked for:"
start_qnbd --tls "$pki/server" --tls-no-verify-clients disk.qcow2
gets_in "$(tls_uri nobody)"
stays_out "$uri"
stop_qnbd

echo "pre-shared keys:"
start_qnbd -v --tls-psk "$pki/keys.psk" disk.qcow2
gets_in "$(psk_uri keys.psk)"
expect_new_line 'tls=TLSv1.3 USER=alice' 0
expect_status 0 timeout 30 qemu-io --object \
    "tls-creds-psk,id=tls,endpoint=client,dir=$pki,username=alice" \
    --image-opts "driver=nbd,path=$sock,tls-creds=tls" -c 'read -P 7 0 3M'
stays_out "$(psk_uri wrong.psk)" 'why="TLS: '
expect_text err 'fatal alert has been received'
sed 's/alice/bob/' "$pki/keys.psk" >"$pki/bob.psk"
stays_out "$(psk_uri bob.psk bob)" 'why="TLS: '
stays_out "$(tls_uri client)" 'why="TLS: '
stop_qnbd
key=$(cut -d: -f2 "$pki/keys.psk")
if grep -qF "$key" "$log"; then
	fail "the key is in the log"
fi

echo "who may use what:"
cp disk.qcow2 other.qcow2
start_qnbd --tls "$pki/server" --tls-psk "$pki/keys.psk" \
    --allow one:CN=client1 --allow one:USER=alice \
    --allow two:DNS=HOST2.example.com \
    one=disk.qcow2 two=other.qcow2 three=copy.qcow2
gets_in "$(tls_uri client one)"
gets_in "$(psk_uri keys.psk alice one)"
gets_in "$(tls_uri client three)"
gets_in "$(tls_uri other two)"
stays_out "$(tls_uri client two)" 'CN="?client1'
stays_out "$(tls_uri other one)" 'CN="?client2'
stays_out "$(psk_uri keys.psk alice two)" 'USER="?alice'
nbdinfo --list --json "$(tls_uri other)" >list.json
if grep -q '"export-name": "one"' list.json; then
	fail "LIST tells of an export that is not for the client"
fi
grep -q '"export-name": "two"' list.json || fail "LIST does not tell of two"
stop_qnbd

echo "one without TLS, too:"
start_qnbd --tls "$pki/server" --tls-optional one \
    one=disk.qcow2 two=copy.qcow2
plain="nbd+unix:///one?socket=$sock"
gets_in "$plain"
gets_in "$(tls_uri client one)"
gets_in "$(tls_uri client two)"
needs_tls "nbd+unix:///two?socket=$sock"
expect_text "$tmp/server$((${#_servers[@]} - 1)).out" '^nbd\+unix:///one\?'
expect_text "$tmp/server$((${#_servers[@]} - 1)).out" '^nbds\+unix:///two\?'
stop_qnbd

# served_name: whose certificate a new client meets.
served_name()
{
	"$top/tests/system/tls_peer.py" "$sock" "$pki/client"
}

echo "new certificates on SIGHUP:"
cp -r "$pki/server" "$pki/live"
start_qnbd --tls "$pki/live" disk.qcow2
# A client that stays.
mkfifo orders
timeout 60 qemu-io --object \
    "tls-creds-x509,id=tls,endpoint=client,dir=$pki/client" \
    --image-opts "driver=nbd,path=$sock,tls-creds=tls,tls-hostname=localhost" \
    <orders >stays.out 2>&1 &
stays=$!
exec 8>orders
echo 'read -P 7 0 64k' >&8
[ "$(served_name)" = localhost ] || fail "the first certificate"
cp "$pki/renewed/"*.pem "$pki/live/"
before=$(wc -l <"$log")
kill -HUP "$pid"
expect_new_line 'TLS files read again' "$before"
[ "$(served_name)" = renewed ] || fail "the second certificate"
cp "$pki/server/server-key.pem" "$pki/live/"
before=$(wc -l <"$log")
kill -HUP "$pid"
expect_new_line 'are not used.*server-key.pem: it is not the key of' "$before"
cp "$pki/renewed/server-key.pem" "$pki/live/"
rm "$pki/live/ca-cert.pem"
kill -HUP "$pid"
expect_new_line 'are not used.*ca-cert.pem: No such file' "$before"
[ "$(served_name)" = renewed ] || fail "a bad set of files was taken"
echo 'read -P 9 5000001 777777' >&8
exec 8>&-
wait "$stays" || fail "the client that stayed, status $?"
[ "$(grep -c 'bytes at offset' stays.out)" -eq 2 ] || {
	cat stays.out >&2
	fail "the client that stayed did not read twice"
}
stop_qnbd

# refuses_file NAME REGEX: on SIGHUP, what stands there in place of the file.
refuses_file()
{
	local before
	before=$(wc -l <"$log")
	kill -HUP "$pid"
	expect_new_line "are not used.*$1.pem.*$2" "$before"
	rm "$pki/odd/$1.pem"
	[ ! -e "$pki/server/$1.pem" ] || cp "$pki/server/$1.pem" "$pki/odd/"
}

echo "what is no file, or no end of one, holds up nothing:"
cp -r "$pki/server" "$pki/odd"
start_qnbd --tls "$pki/odd" disk.qcow2
for name in server-cert server-key ca-cert ca-crl; do
	rm -f "$pki/odd/$name.pem"
	mkfifo "$pki/odd/$name.pem"
	refuses_file "$name" 'it is no regular file'
	ln -s /dev/zero "$pki/odd/$name.pem.link"
	mv "$pki/odd/$name.pem.link" "$pki/odd/$name.pem"
	refuses_file "$name" 'it is no regular file'
	rm -f "$pki/odd/$name.pem"
	truncate -s 1T "$pki/odd/$name.pem"
	refuses_file "$name" 'has more than'
done
: >"$pki/odd/ca-crl.pem"
refuses_file ca-crl 'it is no list of revoked certificates$'
: >"$pki/odd/server-cert.pem"
refuses_file server-cert 'it is no certificate for a server'
before=$(wc -l <"$log")
kill -HUP "$pid"
expect_new_line 'TLS files read again' "$before"
gets_in "$(tls_uri client)"
mkfifo "$pki/odd/ca-crl.pem"
kill -HUP "$pid"
kill -TERM "$pid"
wait_qnbd 0

echo "clients stuck in the handshake hold up nobody:"
start_qnbd --tls "$pki/server" --threads 1 disk.qcow2
"$top/tests/system/tls_peer.py" "$sock" "$pki/client" --stuck 200 >stuck.out &
stuck=$!
for ((tenths = 0; tenths < 300; tenths++)); do
	! grep -q stuck stuck.out || break
	sleep 0.1
done
begun=$(date +%s%N)
gets_in "$(tls_uri client)"
took_ms=$((($(date +%s%N) - begun) / 1000000))
[ "$took_ms" -lt 5000 ] || fail "it took $took_ms ms beside stuck clients"
# All of them are cut off when the time for the handshake is over.
wait "$stuck" || fail "stuck clients: status $?"
stop_qnbd

echo "keys stay secret:"
cp -r "$pki/server" "$pki/open"
chmod o+r "$pki/open/server-key.pem"
start_qnbd --tls "$pki/open" disk.qcow2
expect_text "$log" 'every user of this machine can read the keys in .*open/serv'
expect_text "/proc/$pid/limits" '^Max core file size +([01]) +\1 '
stop_qnbd

echo "mistakes:"
# complains REGEX STATUS ARG...
complains()
{
	local regex=$1 status=$2
	shift 2
	expect_status "$status" timeout 30 "$QNBD" serve -u "$tmp/x.sock" "$@" \
	    one=disk.qcow2
	expect_text err "$regex"
}
complains 'needs --tls DIR or --tls-psk FILE' 64 --allow CN=a
complains 'needs --tls DIR or --tls-psk FILE' 64 --tls-optional one
complains 'is for --tls DIR' 64 --tls-psk "$pki/keys.psk" \
    --tls-no-verify-clients
complains 'there is no such export' 64 --tls "$pki/server" --tls-optional two
complains 'this takes CN=NAME' 64 --tls "$pki/server" --allow client1
complains 'there is no export "two"' 64 --tls "$pki/server" --allow two:CN=a
complains 'which is missing' 64 --tls "$pki/server" --allow USER=a
complains 'without --tls-no-verify' 64 --tls "$pki/server" \
    --tls-no-verify-clients --allow CN=a
complains 'everybody may use' 64 --tls "$pki/server" --tls-optional one \
    --allow one:CN=a
complains 'cannot read .*server-cert.pem: No such file' 1 --tls "$pki/client"
complains 'holds server-cert.pem' 1 --tls "$pki/client"
cp -r "$pki/server" "$pki/mixed"
cp "$pki/client/client-key.pem" "$pki/mixed/server-key.pem"
complains 'it is not the key of server-cert.pem' 1 --tls "$pki/mixed"
openssl pkey -in "$pki/server/server-key.pem" -aes128 -passout pass:x \
    -out "$pki/mixed/server-key.pem"
complains 'no private key without a passphrase' 1 --tls "$pki/mixed"
mkfifo fifo
complains 'odd/ca-crl.pem: it is no regular file' 1 --tls "$pki/odd"
complains 'cannot read fifo: it is no regular file' 1 --tls-psk fifo
cp "$pki/expired/client-cert.pem" "$pki/mixed/server-cert.pem"
complains 'has expired' 1 --tls "$pki/mixed"
printf 'alice:0123\n' >short.psk
complains 'short.psk, line 1: the key has less than 16' 1 --tls-psk short.psk
printf '\nalice\n' >bad.psk
complains 'bad.psk, line 2: it is not USER:HEXKEY' 1 --tls-psk bad.psk
cat "$pki/keys.psk" "$pki/keys.psk" >twice.psk
complains 'line 2: this user is in a line above' 1 --tls-psk twice.psk
: >none.psk
complains 'there is no key in none.psk' 1 --tls-psk none.psk
complains 'cross the network in plain text' 77 --tls "$pki/server" \
    --tls-optional one -b 0.0.0.0 -p 0
start_qnbd --tls "$pki/server" --listen tcp:0.0.0.0:0 disk.qcow2
stop_qnbd
