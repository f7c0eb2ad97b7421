#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Certificates and keys for tests of TLS, in a new directory:
#
#	tests/pki.sh DIR
#
#	DIR/server	for qnbd serve --tls: for localhost and 127.0.0.1
#	DIR/client	of a client: CN=client1, DNS:host1.example.com
#	DIR/other	of another: CN=client2
#	DIR/revoked	of one in DIR/revoked-crl.pem: CN=client3
#	DIR/expired	of one that has run out
#	DIR/stranger	of another authority, but CN=client1
#	DIR/renewed	for qnbd serve --tls, later: also for "renewed"
#	DIR/keys.psk	a key for "alice"; DIR/wrong.psk another one
#
# with the file names that qemu, libnbd and nbdkit expect.
set -eu -o pipefail

mkdir "$1"
cd "$1"
umask 077

key()
{
	openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 \
	    -out "$1" 2>/dev/null
}

# authority NAME: all are called the same, as a forger would call his.
authority()
{
	key "$1-key.pem"
	openssl req -x509 -new -key "$1-key.pem" -out "$1-cert.pem" \
	    -subj "/CN=qnbd tests" -days 30 \
	    -addext basicConstraints=critical,CA:TRUE \
	    -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
}

# certificate DIR FILE AUTHORITY CN USE NAMES [OPTION...]
certificate()
{
	local dir=$1 file=$2 authority=$3 name=$4 use=$5 names=$6
	shift 6
	mkdir -p "$dir"
	key "$dir/$file-key.pem"
	openssl req -new -key "$dir/$file-key.pem" -subj "/CN=$name" \
	    -out request.pem 2>/dev/null
	printf '%s\n' "extendedKeyUsage=$use" "subjectAltName=$names" \
	    >extensions
	openssl x509 -req -in request.pem -CA "$authority-cert.pem" \
	    -CAkey "$authority-key.pem" -CAcreateserial -extfile extensions \
	    -out "$dir/$file-cert.pem" "$@" 2>/dev/null
	cp ca-cert.pem "$dir/"
}

authority ca
authority other-ca
certificate server server ca localhost serverAuth \
    DNS:localhost,IP:127.0.0.1 -days 20
certificate renewed server ca renewed serverAuth \
    DNS:renewed,DNS:localhost,IP:127.0.0.1 -days 20
certificate client client ca client1 clientAuth DNS:host1.example.com -days 20
certificate other client ca client2 clientAuth DNS:host2.example.com -days 20
certificate revoked client ca client3 clientAuth DNS:host3 -days 20
certificate expired client ca client1 clientAuth DNS:host1.example.com -days 0
certificate stranger client other-ca client1 clientAuth \
    DNS:host1.example.com -days 20

# Who was revoked is in a list that the authority signs.
: >index
cat >ca.conf <<'END'
[ca]
default_ca = it
[it]
database = index
default_md = sha256
default_crl_days = 10
END
openssl ca -config ca.conf -revoke revoked/client-cert.pem -cert ca-cert.pem \
    -keyfile ca-key.pem 2>/dev/null
openssl ca -config ca.conf -gencrl -cert ca-cert.pem -keyfile ca-key.pem \
    -out revoked-crl.pem 2>/dev/null

echo "alice:$(openssl rand -hex 32)" >keys.psk
echo "alice:$(openssl rand -hex 32)" >wrong.psk
