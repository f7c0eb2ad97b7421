#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `qnbd tls` against certificates that other programs' TLS refuses, keys
# that others may read, names that become something else in a certificate, a
# renewal that changes the authority or, when it is interrupted, leaves a key
# that is not the certificate's, and problems that `show` does not see.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires openssl certtool qemu-nbd qemu-img nbdinfo

usage_error()
{
	local regex=$1
	shift
	expect_status 64 "$QNBD" tls "$@"
	expect_text "$tmp/err" "^qnbd: $regex"
}

show_has()
{
	expect_status 1 "$QNBD" tls show --dir "$1"
	expect_text "$tmp/out" "^problem: $2"
}

echo "mistakes:"
usage_error 'tls needs init, client or show$'
usage_error 'unknown word inti; did you mean init\?$' inti --dir d
usage_error 'tls show needs --dir DIR$' show
usage_error 'tls init needs --host NAME: ' init --dir d
usage_error 'tls client takes one NAME$' client --dir d
usage_error '--host is for tls init$' client --dir d --host h name
usage_error '--json is for tls show$' init --dir d --host h --json
usage_error '--renew is for tls init and tls client$' show --dir d --renew
usage_error '--new-key is for --renew$' init --dir d --host h --new-key
usage_error '--days is for tls init and tls client$' show --dir d --days 9
expect_status 1 "$QNBD" tls init --dir d --host 'x,IP:10.0.0.1'
expect_text "$tmp/err" '^qnbd: x,IP:10.0.0.1 is no host name'
expect_status 1 "$QNBD" tls show --dir d
expect_text "$tmp/err" '^  make them: qnbd tls init --dir d --host NAME$'
[ ! -e d ] || fail "a mistake made a directory"

echo "made, and believed by OpenSSL and GnuTLS:"
expect_status 0 "$QNBD" tls init --dir d --host localhost --host 127.0.0.1 \
    --host ::1
expect_status 0 "$QNBD" tls client --dir d alice
[ "$(stat -c %a d/ca-key.pem d/server-key.pem d/alice/client-key.pem |
    sort -u)" = 600 ] || fail "a key that others may read"
openssl verify -x509_strict -purpose sslserver -verify_hostname localhost \
    -CAfile d/ca-cert.pem d/server-cert.pem
openssl verify -x509_strict -purpose sslserver -verify_ip ::1 \
    -CAfile d/ca-cert.pem d/server-cert.pem
openssl verify -x509_strict -purpose sslclient \
    -CAfile d/ca-cert.pem d/alice/client-cert.pem
for pair in '1 d/server-cert' '2 d/alice/client-cert'; do
	certtool --verify --load-ca-certificate d/ca-cert.pem \
	    --verify-purpose="1.3.6.1.5.5.7.3.${pair%% *}" \
	    --infile "${pair#* }.pem" >verified
	expect_text verified 'Verified. The certificate is trusted'
done
if openssl verify -purpose sslserver -CAfile d/ca-cert.pem \
    d/alice/client-cert.pem; then
	fail "a client's certificate passes for a server's"
fi
# RFC 2253: the default is not the same in all versions of OpenSSL.
[ "$(openssl x509 -noout -subject -nameopt RFC2253 \
    -in d/alice/client-cert.pem)" = 'subject=CN=alice' ] ||
    fail "the client has another name"

echo "used by another server and another client:"
qemu-img create -q -f raw disk 1M
qemu-nbd -f raw -k "$tmp/peer" --object \
    "tls-creds-x509,id=t,dir=$tmp/d,endpoint=server,verify-peer=yes" \
    --tls-creds t disk &
_servers+=($!)
for _ in {1..100}; do
	[ ! -S peer ] || break
	sleep 0.1
done
nbdinfo --size "nbds+unix:///?socket=$tmp/peer&tls-certificates=$tmp/d/alice\
&tls-hostname=localhost" >size 2>err || :
expect_text size '^1048576$'

echo "nothing is replaced unasked, and a renewal keeps the authority:"
cp -a d before
# The same file by another name, to know it again.
ln d/server-key.pem same-key
expect_status 1 "$QNBD" tls init --dir d --host localhost
expect_text "$tmp/err" 'add --renew$'
expect_status 1 "$QNBD" tls client --dir d alice
expect_text "$tmp/err" 'add --renew$'
diff -r d before
mv d/ca-key.pem away.pem
expect_status 1 "$QNBD" tls init --dir d --host localhost
[ ! -e d/ca-key.pem ] || fail "a key was left that is not the authority's"
mv away.pem d/ca-key.pem
expect_status 0 "$QNBD" tls init --dir d --host example.com --renew
cmp d/ca-cert.pem before/ca-cert.pem
expect_text "$tmp/out" '^d/server-cert.pem is renewed; a server that runs takes'
openssl verify -verify_hostname example.com -CAfile d/ca-cert.pem \
    d/server-cert.pem

# match DIR WHOSE: the certificate is the key's.
match()
{
	openssl x509 -noout -pubkey -in "$1/$2-cert.pem" >one
	openssl pkey -pubout -in "$1/$2-key.pem" >two
	cmp one two || fail "$1: the key is not the certificate's"
}

echo "the key stays, so that nothing that comes between parts the two:"
cmp d/server-key.pem before/server-key.pem
[ "$(stat -c %i d/server-key.pem)" = "$(stat -c %i same-key)" ] ||
    fail "the key was written again"
match d server
expect_status 0 "$QNBD" tls client --dir d alice --renew --days 7
cmp d/alice/client-key.pem before/alice/client-key.pem
match d/alice client
for ((thousandths = 1; thousandths <= 20; thousandths++)); do
	(timeout -s KILL "$(printf '0.%03d' "$thousandths")" "$QNBD" tls init \
	    --dir d --host example.com --renew || :) >out 2>&1
	match d server
done

echo "or is replaced, too:"
expect_status 0 "$QNBD" tls init --dir d --host example.com --renew --new-key
expect_text "$tmp/out" 'is renewed, with a new key;'
if cmp -s d/server-key.pem before/server-key.pem; then
	fail "the key stayed"
fi
match d server
expect_status 0 "$QNBD" tls client --dir d alice --renew --new-key
if cmp -s d/alice/client-key.pem before/alice/client-key.pem; then
	fail "the client's key stayed"
fi
match d/alice client

echo "what an interrupted run leaves is mended as it says:"
cp before/server-cert.pem d/
qemu-img create -q -f qcow2 disk.qcow2 1M
expect_status 1 "$QNBD" serve --tls d -u x.sock disk.qcow2
expect_text "$tmp/err" 'server-key.pem: it is not the key of server-cert.pem'
expect_text "$tmp/err" 'qnbd tls init --dir d --renew --host NAME$'
expect_status 1 "$QNBD" tls show --dir d
expect_text "$tmp/out" '^problem: d/server-key.pem is not the key of .*--renew$'
expect_status 0 "$QNBD" tls init --dir d --renew --host example.com
match d server
rm d/server-cert.pem
expect_status 0 "$QNBD" tls init --dir d --renew --host example.com
match d server
rm d/server-key.pem
expect_status 0 "$QNBD" tls init --dir d --renew --host example.com
match d server
echo junk >d/server-key.pem
expect_status 1 "$QNBD" tls init --dir d --renew --host example.com
expect_text "$tmp/err" 'add --new-key$'
expect_status 0 "$QNBD" tls init --dir d --renew --new-key --host example.com
match d server
mkdir half
cp d/ca-key.pem half/
expect_status 1 "$QNBD" tls init --dir half --host localhost
expect_text "$tmp/err" 'rm half/ca-key.pem, then run this again$'
rm half/ca-key.pem
expect_status 0 "$QNBD" tls init --dir half --host localhost
[ -z "$(find d half -name '*.new')" ] || fail "something is left beside"

echo "shown:"
expect_status 0 "$QNBD" tls show --dir d
expect_text "$tmp/out" '^  hosts +example.com$'
expect_status 0 "$QNBD" tls show --dir before --json
expect_text "$tmp/out" '"hosts": "localhost, 127.0.0.1, ::1"'
expect_text "$tmp/out" "\"sha256\": \"$(openssl x509 -noout -fingerprint \
    -sha256 -in before/ca-cert.pem | sed 's/.*=//')\""
expect_text "$tmp/out" '"problems": \[\]'
chmod 644 d/server-key.pem
show_has d 'server-key.pem may be read by others: chmod 600 d/server-key.pem$'
chmod 600 d/server-key.pem
cp before/server-key.pem d/
show_has d 'd/server-key.pem is not the key of d/server-cert.pem;'
echo junk >d/server-key.pem
show_has d 'd/server-key.pem holds no private key '
rm d/server-key.pem
show_has d 'cannot find server-key.pem: No such file'
expect_status 0 "$QNBD" tls init --dir other --host localhost
cp other/ca-cert.pem before/
show_has before 'server-cert.pem was not signed by ca-cert.pem$'
expect_status 0 "$QNBD" tls init --dir other --host localhost --renew --days 9
show_has other 'server-cert.pem ends on [0-9-]+, in [89] days$'

echo "names:"
for name in ../x a/b .hidden '' "$(printf 'a\nb')" "$(printf '%65s' x)"; do
	expect_status 1 "$QNBD" tls client --dir other "$name"
done
expect_status 0 "$QNBD" tls client --dir other 'Ünï, CN=root'
openssl x509 -noout -subject -nameopt multiline,utf8,-esc_msb \
    -in 'other/Ünï, CN=root/client-cert.pem' >subject
[ "$(grep -c = subject)" -eq 2 ] || fail "a name that became two"
