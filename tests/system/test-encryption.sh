#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards images with the legacy AES encryption against being read or written
# otherwise than QEMU does, with clusters of all sizes and in chains; against
# guests' bytes that reach the file as they are; and against keys that are taken
# for what they are not, or shown.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdcopy python3

# Longer than the 16 bytes that are used of it.
printf 'correct horse battery' >key
printf 'another' >other-key
secrets=(--object "secret,id=key,file=$tmp/key"
	--object "secret,id=other,file=$tmp/other-key")

# opts IMAGE [KEY [BACKING-KEY]]: how QEMU is told of them.
opts()
{
	echo "driver=qcow2,file.driver=file,file.filename=$1${2:+\
,encrypt.format=aes,encrypt.key-secret=$2}${3:+\
,backing.encrypt.format=aes,backing.encrypt.key-secret=$3}"
}

# qemu_io OPTS COMMAND...: each must work.
qemu_io()
{
	local options=$1 arguments=() command
	shift
	for command; do
		arguments+=(-c "$command")
	done
	qemu-io "${secrets[@]}" --image-opts "$options" "${arguments[@]}" \
	    >qemu-io.out 2>&1 || fail "qemu-io: $(cat qemu-io.out)"
	! grep -q -i -e failed -e error qemu-io.out ||
	    fail "qemu-io: $(cat qemu-io.out)"
}

# raw_of OPTS FILE: what QEMU sees.
raw_of()
{
	qemu-img convert "${secrets[@]}" --image-opts "$1" -O raw "$2"
}

# clean OPTS
clean()
{
	qemu-img check -q "${secrets[@]}" --image-opts "$1" >check.out 2>&1 ||
	    fail "not clean: $(cat check.out)"
}

# make_there NAME OPTIONS [ARG...]: made by QEMU, NAME.qcow2 of 8M.
make_there()
{
	qemu-img create -q "${secrets[@]}" -f qcow2 \
	    -o "encrypt.format=aes,encrypt.key-secret=key,$2" "${@:3}" \
	    "$1.qcow2" 8M
}

# same_here OPTS ARG...: `qnbd serve -r ARG...` shows what QEMU sees.
same_here()
{
	raw_of "$1" expected
	shift
	start_qnbd -r "$@"
	nbdcopy "$uri" seen
	stop_qnbd
	cmp expected seen || fail "read otherwise than by QEMU: $*"
}

mapfile -t writes <<-END
	write -P 1 0 4M
	write -P 2 512 512
	write -P 3 1000 3
	write -P 4 4194300 70000
	write -P 5 5M 1
	write -z 100k 200k
	discard 1M 128k
	write -P 6 8388607 1
	write -P 7 6000001 123456
END

echo "made there, read here:"
for options in cluster_size=512 cluster_size=4k cluster_size=64k \
    cluster_size=2M cluster_size=64k,compat=0.10; do
	make_there there $options
	qemu_io "$(opts there.qcow2 key)" "${writes[@]}"
	same_here "$(opts there.qcow2 key)" --key-file key there.qcow2
done

echo "compressed clusters are not encrypted:"
make_there compressed cluster_size=64k
seq 100000 200000 >text
qemu_io "$(opts compressed.qcow2 key)" "write -c -s text 64k 64k" \
    "write -P 1 128k 64k" "write -c -s text 192k 64k"
same_here "$(opts compressed.qcow2 key)" --key-file key compressed.qcow2
cmp -i 0:65536 -n 65536 text seen
start_qnbd --key-file key compressed.qcow2
qemu-io -f raw -c 'write -q -P 9 70000 10000' "$uri"
stop_qnbd
clean "$(opts compressed.qcow2 key)"
same_here "$(opts compressed.qcow2 key)" --key-file key compressed.qcow2

# load OPTS OPERATIONS ARG...: random load here, seen there.
random_load=$(dirname "$QNBD")/tests/system/random_load
seed=${LOAD_SEED:-$(date +%s%N | cut -c 5-15)}
load()
{
	local options=$1 operations=$2
	shift 2
	[ -x "$random_load" ] || return 0
	raw_of "$options" model
	start_qnbd --threads 2 "$@"
	timeout $((60 + operations / 10)) "$random_load" "$uri" model \
	    "$seed" "$operations" ||
	    fail "random_load, seed $seed, status $?: $*"
	stop_qnbd
	clean "$options"
	qemu-img compare -q "${secrets[@]}" --image-opts "$options" \
	    "driver=raw,file.filename=model" ||
	    fail "it differs from the model, seed $seed: $*"
}

echo "made here, written here by four clients, read there: LOAD_SEED=$seed"
for options in cluster_size=512 cluster_size=4k cluster_size=64k \
    cluster_size=2M compat=0.10,cluster_size=4k \
    preallocation=metadata,cluster_size=4k; do
	rm -f here.qcow2
	"$QNBD" create -o encryption=on,$options here.qcow2 32M 2>/dev/null
	load "$(opts here.qcow2 key)" 1500 --key-file key here.qcow2
done
load "$(opts here.qcow2 key)" 1500 --key-file key --io threads here.qcow2
load "$(opts there.qcow2 key)" 1000 --key-file key there.qcow2
echo "requests of many steps, at any byte:"
start_qnbd --key-file key here.qcow2
qemu-io -f raw -c 'write -P 5 777 20M' -c 'read -P 5 777 20M' \
    -c 'write -P 6 5000001 9M' -c 'read -P 6 5000001 9M' \
    -c 'read -P 5 777 4999224' "$uri" >out
! grep -q -i failed out || fail "long requests: $(cat out)"
stop_qnbd
clean "$(opts here.qcow2 key)"
qemu_io "$(opts here.qcow2 key)" 'read -P 5 777 4999224' \
    'read -P 6 5000001 9M' 'read -P 5 14437185 6M'
echo "shared with a snapshot:"
qemu-img convert "${secrets[@]}" --image-opts "$(opts there.qcow2 key)" \
    -O raw before
qemu-img snapshot "${secrets[@]}" --image-opts -c one \
    "$(opts there.qcow2 key)"
load "$(opts there.qcow2 key)" 1000 --key-file key there.qcow2
qemu-img snapshot "${secrets[@]}" --image-opts -a one \
    "$(opts there.qcow2 key)"
raw_of "$(opts there.qcow2 key)" after
cmp before after || fail "the snapshot is not what it was"

echo "chains:"
qemu-img create -q "${secrets[@]}" -f qcow2 \
    -o encrypt.format=aes,encrypt.key-secret=other,cluster_size=4k \
    base.qcow2 6M
qemu_io "$(opts base.qcow2 other)" 'write -P 8 1000 5M'
qemu-img create -q -f qcow2 plain-base.qcow2 6M
qemu-io -c 'write -q -P 9 1000 5M' plain-base.qcow2
"$QNBD" create -b base.qcow2 -F qcow2 -o encryption=on top.qcow2 8M \
    2>/dev/null
"$QNBD" create -b plain-base.qcow2 -F qcow2 -o encryption=on \
    over-plain.qcow2 8M 2>/dev/null
"$QNBD" create -b base.qcow2 -F qcow2 plain-top.qcow2 8M
load "$(opts top.qcow2 key other)" 1000 --key-file key \
    --key-file other-key top.qcow2
load "$(opts over-plain.qcow2 key)" 1000 --key-file key over-plain.qcow2
load "$(opts plain-top.qcow2 '' other)" 1000 --key-file other-key \
    plain-top.qcow2
"$QNBD" create -b base.qcow2 -F qcow2 -o encryption=on one-key.qcow2 8M \
    2>/dev/null
load "$(opts one-key.qcow2 other other)" 300 --key-file other-key \
    one-key.qcow2

echo "a disk that ends in a sector:"
"$QNBD" create -o encryption=on,cluster_size=4k odd.qcow2 1M 2>/dev/null
# The size is at byte 24, big endian.
printf '\x00\x00\x00\x00\x00\x0f\xff\x85' |
    dd of=odd.qcow2 bs=1 seek=24 conv=notrunc status=none
start_qnbd --key-file key odd.qcow2
qemu-io -f raw -c 'write -q -P 1 1048400 53' -c 'write -q -P 2 1048000 300' \
    -c 'read -P 1 1048400 53' -c 'read -P 2 1048000 300' \
    -c 'write -q -P 3 1048452 1' -c 'read -P 3 1048452 1' \
    -c 'read -P 1 1048400 52' "$uri" >out
! grep -q -i failed out || fail "odd.qcow2: $(cat out)"
stop_qnbd
clean "$(opts odd.qcow2 key)"
qemu_io "$(opts odd.qcow2 key)" 'read -P 2 1048000 64'

echo "no byte of the guest is in the file:"
marker='this is what nobody may see'
head -c 300000 < <(yes "$marker") >marked
for options in cluster_size=512 cluster_size=64k; do
	rm -f secret.qcow2
	"$QNBD" create -o encryption=on,$options secret.qcow2 8M 2>/dev/null
	start_qnbd --key-file key secret.qcow2
	qemu-io -f raw -c 'write -q -s marked 0 300000' \
	    -c 'write -q -f -s marked 1000 3000' \
	    -c 'write -q -s marked 4M 700' -c 'write -q -s marked 4196000 1' \
	    -c 'write -q -z 64k 64k' -c 'write -q -s marked 70000 1000' \
	    -c 'write -q -z -u 128k 64k' -c 'write -q -s marked 131072 64k' \
	    -c 'discard -q 0 128k' -c 'write -q -s marked 5 200000' "$uri"
	stop_qnbd
	! grep -q -a 'nobody may see' secret.qcow2 ||
	    fail "$options: plain text is in the file"
	clean "$(opts secret.qcow2 key)"
	raw_of "$(opts secret.qcow2 key)" raw
	cmp -i 5:0 -n 200000 raw marked || fail "$options: it was not written"
done

echo "what is told of one:"
for image in there.qcow2 top.qcow2; do
	"$QNBD" info --json $image >ours.json
	qemu_info $image >theirs.json
	python3 - <<-'END' || fail "info of $image"
	import json
	ours, theirs = (json.load(open(name + ".json"))
	                for name in ("ours", "theirs"))
	# The name with the path joined to it is compared elsewhere.
	assert ours == theirs, (ours, theirs)
	END
done
"$QNBD" info there.qcow2 >out
expect_text out '^encryption +AES'
"$QNBD" info --chain top.qcow2 >out
expect_status 0 "$QNBD" check there.qcow2
expect_status 0 "$QNBD" map --json there.qcow2
cp out ours.json
qemu-img map --output=json "${secrets[@]}" --image-opts \
    "$(opts there.qcow2 key)" >theirs.json
same_map ours.json theirs.json

echo "made:"
expect_status 0 "$QNBD" create -o encrypt.format=aes made.qcow2 4M
expect_text err 'warning: the AES encryption of qcow2 is weak'
qemu-img info --output=json made.qcow2 >out
expect_text out '"format": "aes"'
for mode in metadata falloc full; do
	rm made.qcow2
	"$QNBD" create -o encryption=on,preallocation=$mode made.qcow2 4M \
	    2>/dev/null
	clean "$(opts made.qcow2 key)"
	qemu_io "$(opts made.qcow2 key)" 'read -P 0 0 4M'
	start_qnbd --key-file key made.qcow2
	qemu-io -f raw -c 'read -P 0 0 4M' -c 'write -P 1 1000 100000' \
	    -c 'read -P 0 0 1000' "$uri" >out
	! grep -q -i failed out || fail "preallocated: $(cat out)"
	stop_qnbd
	qemu_io "$(opts made.qcow2 key)" 'read -P 1 1000 100000' \
	    'read -P 0 0 1000' 'read -P 0 101000 3M'
done
expect_status 1 "$QNBD" create \
    -o encryption=on,compat=0.10,preallocation=metadata new.qcow2 1M
expect_text err 'needs compat=1.1'
expect_status 64 "$QNBD" create -o encrypt.format=luks new.qcow2 1M
expect_text err 'luks is not supported'
expect_status 64 "$QNBD" create -o encrypt.key-secret=hunter2 new.qcow2 1M
expect_text err 'takes no key'
! grep -q hunter2 err || fail "a key was repeated"
expect_status 0 "$QNBD" create -o encryption=off new.qcow2 1M
expect_text <(qemu-img info --output=json new.qcow2) '"dirty-flag"'
! qemu-img info new.qcow2 | grep -q encrypted || fail "encryption=off"

echo "keys:"
# reads ARG...: serving with these shows the right content.
qemu_io "$(opts made.qcow2 key)" 'write -P 0x51 0 4k'
reads()
{
	start_qnbd -r -v "$@" made.qcow2
	qemu-io -r -f raw -c 'read -P 0x51 0 4k' "$uri" >out
	stop_qnbd
	! grep -q -i failed out || fail "not the key: $*"
	! grep -q -e 'correct' -e 'horse' "$log" || fail "a key is in the log"
}
# refused STATUS REGEX ARG...
refused()
{
	expect_status "$1" timeout 30 "$QNBD" serve -r \
	    -u "$tmp/refused.sock" "${@:3}"
	expect_text err "$2"
	! grep -q 'horse' out err || fail "a key is in the message"
}
(cat key; echo) >newline
reads --key-file newline
printf "correct horse ba" >"cut"
reads --key-file cut
reads --key-fd 5 5<key
mkfifo pipe
cat key >pipe &
reads --key-file pipe
mkdir credentials
cp key credentials/disk
export CREDENTIALS_DIRECTORY=$tmp/credentials
reads --key-credential disk
reads --key-file key --threads 1 --io threads
unset CREDENTIALS_DIRECTORY
refused 1 'made.qcow2 is encrypted with AES, and no key is given' made.qcow2
expect_text err '--key-file FILE, --key-fd N or --key-credential NAME'
refused 1 'no key is given' plain-top.qcow2
refused 1 'a key is given, but .*new.qcow2 is not encrypted' \
    --key-file key new.qcow2
refused 1 '2 keys are given, but only 1 of' --key-file key \
    --key-file other-key made.qcow2
: >empty
refused 1 'key in empty is empty' --key-file empty made.qcow2
echo >empty
refused 1 'key in empty is empty' --key-file empty made.qcow2
printf 'correct horse\0battery' >zero
refused 1 'key in zero has a zero byte' --key-file zero made.qcow2
head -c 1024 /dev/zero | tr '\0' h >long
refused 1 'not encrypted' --key-file long new.qcow2
echo h >>long
refused 1 'has more than 1024 bytes' --key-file long made.qcow2
refused 1 'has more than 1024 bytes' --key-file /dev/zero made.qcow2
refused 1 'cannot open the key file absent' --key-file absent made.qcow2
refused 1 'cannot read the key in credentials' --key-file credentials \
    made.qcow2
refused 1 'systemd has passed none' --key-credential disk made.qcow2
refused 64 'no name of a credential' --key-credential ../key made.qcow2
refused 64 'no open descriptor' --key-fd 77 made.qcow2
refused 64 'no open descriptor' --key-fd x made.qcow2
refused 64 'do not go together' --key-fd 0 --key-file key made.qcow2
refused 64 'did you mean --key-file' --keyfile key made.qcow2

echo "no core dump:"
ulimit -c unlimited 2>/dev/null || :
start_qnbd -r --key-file key made.qcow2
expect_text "/proc/$pid/limits" '^Max core file size +([01]) +\1 '
stop_qnbd
