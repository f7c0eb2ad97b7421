#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `rebase`, `commit` and `flatten` against changing what an image holds,
# at all lengths that the images of a chain may have to each other, and against
# images that other programs take otherwise: what qnbd made is checked and read
# by qemu-img, and what qemu-img made of the same files holds the same.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3

# content FILE FORMAT: the hash of what the disk holds, through its chain.
content()
{
	rm -f content.raw
	qemu-img convert -f "$2" -O raw "$1" content.raw
	sha256sum <content.raw
}

# clean FILE: two programs find nothing wrong with it.
clean()
{
	qemu-img check -q -f qcow2 "$1" || fail "qemu-img finds $1 not clean"
	expect_status 0 "$QNBD" check "$1"
}

backing_of()
{
	qemu-img info -U --output=json "$1" | python3 -c '
import json, sys
info = json.load(sys.stdin)
print(info.get("backing-filename", "-"), info.get("backing-filename-format",
      "-"))'
}

# io FILE FORMAT COMMAND...
io()
{
	local file=$1 format=$2 command
	local -a commands=()
	shift 2
	for command; do
		commands+=(-c "$command")
	done
	qemu-io -f "$format" "${commands[@]}" "$file" >io.out 2>&1 ||
	    fail "$(cat io.out)"
	! grep -Eiq 'fail|error' io.out || fail "$(cat io.out)"
}

# Three images of other lengths, whose parts differ, are equal, or are zeros:
# base A, base B, and an overlay over A.  make_bases FORMAT SIZE-A SIZE-B
make_bases()
{
	local format=$1 name
	rm -f a.img b.img
	for name in a b; do
		qemu-img create -q -f "$format" $name.img "$2"
		shift
		io $name.img "$format" 'write -q -P 1 0 200k' \
		    'write -q -P 2 256k 100k'
	done
	io a.img "$format" 'write -q -P 3 300k 30k' 'write -q -z 64k 64k' \
	    'write -q -P 4 500k 7k'
	io b.img "$format" 'write -q -P 5 120k 100k' 'write -q -P 6 400k 64k' \
	    'write -q -P 7 490k 8k'
}

# make_top OPTIONS SIZE FORMAT
make_top()
{
	rm -f top.qcow2
	qemu-img create -q -f qcow2 -o "$1" -b a.img -F "$3" top.qcow2 "$2"
	io top.qcow2 qcow2 'write -q -P 9 10k 9k' 'write -q -P 8 260k 512' \
	    'write -q -P 10 350k 1k'
	# Version 2 cannot say zeros but by writing them.
	io top.qcow2 qcow2 'write -q -z 192k 8k'
}

# ---- rebase ----

# Our result against the content before, and against that of qemu-img.
try_rebase()
{
	local options=$1 size=$2 format=$3 before
	make_top "$options" "$size" "$format"
	before=$(content top.qcow2 qcow2)
	cp top.qcow2 theirs.qcow2
	"$QNBD" rebase -b b.img -F "$format" top.qcow2
	[ "$(backing_of top.qcow2)" = "b.img $format" ] ||
	    fail "the header says $(backing_of top.qcow2)"
	[ "$(content top.qcow2 qcow2)" = "$before" ] ||
	    fail "rebase changed the disk: $options $size $format"
	clean top.qcow2
	# And back, then to nothing at all.
	"$QNBD" rebase -b a.img -F "$format" top.qcow2
	[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "back again"
	"$QNBD" rebase -b '' top.qcow2
	[ "$(backing_of top.qcow2)" = "- -" ] || fail "it has a backing file"
	[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "to nothing"
	clean top.qcow2
	# What qemu-img rebases, qnbd rebases back.
	qemu-img rebase -f qcow2 -b b.img -F "$format" theirs.qcow2
	before=$(content theirs.qcow2 qcow2)
	"$QNBD" rebase -b a.img -F "$format" theirs.qcow2
	[ "$(content theirs.qcow2 qcow2)" = "$before" ] || fail "theirs"
	clean theirs.qcow2
}

# ---- commit ----

try_commit()
{
	local options=$1 size=$2 format=$3 before file_bytes
	make_top "$options" "$size" "$format"
	before=$(content top.qcow2 qcow2)
	cp a.img theirs.img
	cp top.qcow2 theirs.qcow2
	"$QNBD" commit -d top.qcow2
	[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "commit -d"
	cmp -s theirs.qcow2 top.qcow2 || fail "-d changed the overlay"
	"$QNBD" commit top.qcow2
	[ "$(content top.qcow2 qcow2)" = "$before" ] ||
	    fail "commit changed the disk: $options $size $format"
	clean top.qcow2
	[ "$format" = raw ] || clean a.img
	! "$QNBD" map top.qcow2 | grep -q 'top.qcow2$' ||
	    fail "the overlay is not empty"
	# A new one has four clusters, or a little more.
	file_bytes=$(stat -c %s top.qcow2)
	[ "$file_bytes" -le 300000 ] || { [[ $options = *2M* ]] &&
	    [ "$file_bytes" -le $((4 << 21)) ]; } ||
	    fail "it has $file_bytes bytes still"
	# As qemu-img does it.
	qemu-img rebase -u -f qcow2 -b theirs.img -F "$format" theirs.qcow2
	qemu-img commit -q -f qcow2 theirs.qcow2
	qemu-img compare -q -f "$format" -F "$format" a.img theirs.img ||
	    fail "qemu-img commits otherwise: $options $size $format"
	# The overlay can be written to and committed again.
	io top.qcow2 qcow2 'write -q -P 12 0 100k'
	before=$(content top.qcow2 qcow2)
	"$QNBD" commit top.qcow2
	[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "commit again"
	clean top.qcow2
}

# ---- flatten ----

try_flatten()
{
	local options=$1 size=$2 format=$3 before
	make_top "$options" "$size" "$format"
	before=$(content top.qcow2 qcow2)
	"$QNBD" flatten top.qcow2
	[ "$(backing_of top.qcow2)" = "- -" ] || fail "it has a backing file"
	[ "$(content top.qcow2 qcow2)" = "$before" ] ||
	    fail "flatten changed the disk: $options $size $format"
	clean top.qcow2
	# Whoever is asked twice has nothing left to do.
	"$QNBD" flatten top.qcow2
	[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "flatten again"
}

echo "lengths, clusters, versions:"
count=0
for format in qcow2 raw; do
	for options in cluster_size=512 cluster_size=64k,compat=0.10 \
	    cluster_size=4k,refcount_bits=64 cluster_size=2M; do
		for sizes in '700k 700k 700k' '520000 640k 700k' \
		    '700k 520192 620k' '507k 700k 555008'; do
			read -r a b top <<<"$sizes"
			make_bases $format "$a" "$b"
			try_rebase $options "$top" $format
			try_flatten $options "$top" $format
			try_commit $options "$top" $format
			count=$((count + 1))
		done
	done
done
echo "$count chains"

echo "names in the header:"
make_bases qcow2 700k 700k
for options in cluster_size=64k cluster_size=4k cluster_size=64k,compat=0.10; do
	make_top $options 700k qcow2
	for name in b.img a.img "$(printf '%.0s./' {1..509})a.img" \
	    "$(printf '%.0s./' {1..500})b.img" b.img; do
		"$QNBD" rebase --unsafe -b "$name" -F qcow2 top.qcow2
		[ "$(backing_of top.qcow2)" = "$name qcow2" ] ||
		    fail "$name became $(backing_of top.qcow2)"
		clean top.qcow2
	done
	# The file need not be there.
	"$QNBD" rebase -u -b absent.img -F raw top.qcow2
	[ "$(backing_of top.qcow2)" = "absent.img raw" ] || fail "absent"
	"$QNBD" rebase -u -b '' top.qcow2
	[ "$(backing_of top.qcow2)" = "- -" ] || fail "there is a name still"
	"$QNBD" rebase -u -b "$PWD/a.img" -F qcow2 top.qcow2
done
# Where the names of features leave no room, they go.
make_top cluster_size=512 700k qcow2
"$QNBD" rebase --unsafe -b "$(printf '%.0s./' {1..100})b.img" -F qcow2 top.qcow2
clean top.qcow2
cp top.qcow2 before.qcow2
expect_status 1 "$QNBD" rebase --unsafe -b "$(printf '%.0s./' {1..250})b.img" \
    -F qcow2 top.qcow2
expect_text err 'of 512 bytes, has no room for a header'
cmp top.qcow2 before.qcow2 || fail "what failed changed it"

echo "a new image with the longest name:"
name=$(printf '%.0s./' {1..509})b.raw
rm -f b.raw named.qcow2
qemu-img create -q -f raw b.raw 1M
io b.raw raw 'write -q -P 7 0 1M'
"$QNBD" create -b "$name" -F raw named.qcow2
[ "$(backing_of named.qcow2)" = "$name raw" ] || fail "not this name"
io named.qcow2 qcow2 'read -q -P 7 0 1M'
clean named.qcow2
cp named.qcow2 kept.qcow2
expect_status 1 "$QNBD" rebase --unsafe -b "./$name" -F raw named.qcow2
expect_text err 'name is 1025 bytes long, not 1 to 1023'
cmp kept.qcow2 named.qcow2 || fail "it was changed by what was refused"
expect_status 1 "$QNBD" create -b "./$name" -F raw new.qcow2
expect_text err 'name is 1025 bytes long, not 1 to 1023'

echo "extensions that nobody knows:"
# extensions FILE [TYPE...]: adds such to a header that has room for them; or
# prints the types of all there are, in their order.
extensions()
{
	python3 - "$@" <<'END'
import struct
import sys

with open(sys.argv[1], "r+b") as file:
    file.seek(100)
    at, = struct.unpack(">I", file.read(4))
    types = []
    while True:
        file.seek(at)
        kind, length = struct.unpack(">II", file.read(8))
        if kind == 0:
            break
        data = file.read(length)
        whole = kind > 0x33333333 or data == b"%x" % kind * 3
        types.append(f"{kind:x}" if whole else "another")
        at += 8 + (length + 7 & ~7)
    file.seek(at)
    for word in sys.argv[2:]:
        data = word.encode() * 3
        file.write(struct.pack(">II", int(word, 16), len(data)))
        file.write(data.ljust(len(data) + 7 & ~7, b"\0"))
    if len(sys.argv) > 2:
        file.write(bytes(8))
    else:
        print(*types)
END
}
rm -f unknown.qcow2
qemu-img create -q -f qcow2 unknown.qcow2 1M
extensions unknown.qcow2 11111111 33333333 22222222
[[ $(extensions unknown.qcow2) == *"11111111 33333333 22222222" ]] ||
    fail "they were not added"
"$QNBD" rebase --unsafe -b b.raw -F raw unknown.qcow2
"$QNBD" snapshot create unknown.qcow2 one
"$QNBD" snapshot delete unknown.qcow2 one
"$QNBD" resize unknown.qcow2 2M
"$QNBD" rebase --unsafe -b "$name" -F raw unknown.qcow2
[[ " $(extensions unknown.qcow2) " == \
    *" 11111111 33333333 22222222 "* ]] || fail "another order"
"$QNBD" flatten unknown.qcow2
[[ " $(extensions unknown.qcow2) " == \
    *" 11111111 33333333 22222222 "* ]] || fail "another order"
io unknown.qcow2 qcow2 'read -q -P 7 0 1M' 'read -q -P 0 1M 1M'
clean unknown.qcow2

echo "a chain of four, committed into its middle:"
for format in qcow2 raw; do
	make_bases $format 700k 640k
	rm -f mid1.qcow2 mid2.qcow2
	qemu-img create -q -f qcow2 -b a.img -F $format mid1.qcow2 500k
	qemu-img create -q -f qcow2 -b mid1.qcow2 -F qcow2 mid2.qcow2 600k
	qemu-img create -q -f qcow2 -b mid2.qcow2 -F qcow2 top.qcow2 700k
	io mid1.qcow2 qcow2 'write -q -P 21 0 70k' 'write -q -z 310k 10k'
	io mid2.qcow2 qcow2 'write -q -P 22 60k 90k'
	io top.qcow2 qcow2 'write -q -P 23 130k 30k' 'write -q -P 24 690k 1k'
	before=$(content top.qcow2 qcow2)
	cp top.qcow2 kept.qcow2
	"$QNBD" commit -b a.img top.qcow2
	cmp -s top.qcow2 kept.qcow2 || fail "it was emptied"
	[ "$(content a.img $format)" = "$before" ] || fail "into $format"
	"$QNBD" commit -b mid2.qcow2 top.qcow2
	[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "into the next"
	clean top.qcow2
	clean mid2.qcow2
done

echo "a base that needs a longer L1 table:"
rm -f base.img top.qcow2
qemu-img create -q -f qcow2 -o cluster_size=512 base.img 99k
io base.img qcow2 'write -q -P 31 0 99k'
qemu-img create -q -f qcow2 -b base.img -F qcow2 top.qcow2 9M
io top.qcow2 qcow2 'write -q -P 32 98k 20k' 'write -q -P 33 8M 200k'
before=$(content top.qcow2 qcow2)
"$QNBD" commit top.qcow2
[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "a longer L1 table"
[ "$(content base.img qcow2)" = "$before" ] || fail "the base"
clean base.img
clean top.qcow2

echo "an overlay whose refcount blocks lie beside each other:"
make_bases qcow2 700k 700k
rm -f top.qcow2
"$QNBD" create -o cluster_size=512,preallocation=metadata top.qcow2 700k
"$QNBD" rebase --unsafe -b a.img -F qcow2 top.qcow2
io top.qcow2 qcow2 'write -q -P 51 0 700k'
"$QNBD" commit top.qcow2
clean top.qcow2
[ "$(stat -c %s top.qcow2)" -le 65536 ] || fail "it is not short"
io top.qcow2 qcow2 'read -q -P 51 0 700k'

echo "compressed, and encrypted:"
make_bases qcow2 700k 700k
make_top cluster_size=4k 700k qcow2
qemu-img convert -c -f qcow2 -O qcow2 -o cluster_size=4k top.qcow2 \
    compressed.qcow2
"$QNBD" rebase --unsafe -b a.img -F qcow2 compressed.qcow2
before=$(content compressed.qcow2 qcow2)
"$QNBD" rebase -b b.img -F qcow2 compressed.qcow2
[ "$(content compressed.qcow2 qcow2)" = "$before" ] || fail "compressed"
"$QNBD" commit compressed.qcow2
[ "$(content b.img qcow2)" = "$before" ] || fail "committed"
clean compressed.qcow2
printf 'a key' >key
secret=(--object "secret,id=key,file=$tmp/key")
options=encrypt.format=aes,encrypt.key-secret=key
make_bases qcow2 700k 700k
rm -f top.qcow2
qemu-img create -q "${secret[@]}" -f qcow2 -o $options -b a.img -F qcow2 \
    top.qcow2 800k
qemu-io "${secret[@]}" -c 'write -q -P 41 100k 70001' --image-opts \
    driver=qcow2,$options,file.filename=top.qcow2
# decrypted FILE: what it holds.
decrypted()
{
	rm -f content.raw
	qemu-img convert "${secret[@]}" -O raw --image-opts \
	    "driver=qcow2,$options,file.filename=$1" content.raw
	sha256sum <content.raw
}
before=$(decrypted top.qcow2)
expect_status 1 "$QNBD" rebase -b b.img -F qcow2 top.qcow2
expect_text err 'encrypted'
"$QNBD" rebase --key-file key -b b.img -F qcow2 top.qcow2
[ "$(decrypted top.qcow2)" = "$before" ] || fail "an encrypted rebase"
cp top.qcow2 flat.qcow2
"$QNBD" flatten --key-file key flat.qcow2
[ "$(backing_of flat.qcow2)" = "- -" ] || fail "it has a backing file"
[ "$(decrypted flat.qcow2)" = "$before" ] || fail "an encrypted flatten"
# Over a base that is encrypted, too.
"$QNBD" rebase --key-file key -b flat.qcow2 -F qcow2 top.qcow2
"$QNBD" commit --key-file key top.qcow2
[ "$(decrypted flat.qcow2)" = "$before" ] || fail "an encrypted commit"
[ "$(decrypted "top.qcow2,backing.encrypt.format=aes,\
backing.encrypt.key-secret=key")" = "$before" ] || fail "what is emptied"
qemu-img check -q "${secret[@]}" --image-opts \
    driver=qcow2,$options,file.filename=flat.qcow2 || fail "flat is not clean"
expect_status 0 "$QNBD" check flat.qcow2
expect_status 0 "$QNBD" check top.qcow2

# refused STATUS REGEX ARGUMENT...: and top.qcow2 stays as it is.
refused()
{
	cp top.qcow2 before.qcow2
	expect_status "$1" timeout 20 "$QNBD" "${@:3}"
	expect_text err "^(qnbd:|  ).*$2"
	cmp top.qcow2 before.qcow2 || fail "it was changed by: ${*:3}"
}

echo "refused:"
make_bases qcow2 700k 700k
make_top cluster_size=64k 700k qcow2
refused 64 'rebase needs -b BASE' rebase top.qcow2
refused 64 'needs -F qcow2 or -F raw' rebase -b b.img top.qcow2
refused 64 '-F says what BASE is' rebase -b '' -F raw top.qcow2
refused 64 'takes one FILE' rebase -b b.img -F raw top.qcow2 b.img
refused 64 'takes one FILE' commit
refused 64 'takes one FILE' flatten
refused 1 'top.qcow2 cannot be its own backing file' \
    rebase -b top.qcow2 -F qcow2 top.qcow2
refused 1 'top.qcow2 cannot be its own backing file' \
    rebase -u -b ./top.qcow2 -F qcow2 top.qcow2
refused 1 'taken for a protocol' rebase -u -b nbd:x:1 -F raw top.qcow2
refused 1 'cannot open absent.img' rebase -b absent.img -F raw top.qcow2
refused 1 'is not a qcow2 image' rebase -b io.out -F qcow2 top.qcow2
refused 1 'is not a qcow2 image' rebase -b b.img -F qcow2 io.out
qemu-img create -q -f qcow2 -b top.qcow2 -F qcow2 above.qcow2
refused 1 'would come back to top.qcow2: top.qcow2 -> above.qcow2 -> .*top' \
    rebase -b above.qcow2 -F qcow2 top.qcow2
refused 1 'none of the backing files' commit -b b.img top.qcow2
refused 1 'cannot find absent' commit -b absent top.qcow2
refused 1 'has no backing file' commit a.img
mkdir sub
mv a.img sub
refused 1 'a.img does not exist' flatten top.qcow2
expect_text err '^  chain: top.qcow2 -> a.img \(missing\)'
refused 1 'a.img does not exist' commit top.qcow2
refused 1 'a.img does not exist' rebase -b b.img -F qcow2 top.qcow2
"$QNBD" rebase --unsafe -b sub/a.img -F qcow2 top.qcow2
start_qnbd -r sub/a.img
refused 75 'sub/a.img: it is locked' commit top.qcow2
stop_qnbd
start_qnbd top.qcow2
refused 75 'top.qcow2: it is locked' flatten top.qcow2
refused 75 'top.qcow2: it is locked' commit top.qcow2
refused 75 'top.qcow2: it is locked' rebase -u -b b.img -F qcow2 top.qcow2
stop_qnbd
qemu-img snapshot -c one top.qcow2
refused 1 'has internal snapshots' flatten top.qcow2
refused 1 'has internal snapshots' commit top.qcow2
refused 1 'has internal snapshots' rebase -b b.img -F qcow2 top.qcow2
qemu-img snapshot -d one top.qcow2
"$QNBD" rebase -b b.img -F qcow2 top.qcow2

echo "a chain of 64 files, and no more:"
cp b.img 0.qcow2
for number in {1..64}; do
	qemu-img create -q -f qcow2 -u -b $((number - 1)).qcow2 -F qcow2 \
	    "$number.qcow2" 700k
done
refused 1 'would have more than 64 files below it' \
    rebase -b 64.qcow2 -F qcow2 top.qcow2
before=$(content top.qcow2 qcow2)
"$QNBD" rebase -b 63.qcow2 -F qcow2 top.qcow2
[ "$(content top.qcow2 qcow2)" = "$before" ] || fail "it is not the same"

echo "stopped, and gone on with:"
rm -f a.img
qemu-img create -q -f raw a.img 300M
python3 -c '
with open("a.img", "r+b") as file:
    for number in range(300):
        file.write(bytes([number % 255 + 1]) * (1 << 20))'
qemu-img create -q -f qcow2 -b a.img -F raw stopped.qcow2
before=$(content stopped.qcow2 qcow2)
stopped=0
for ((i = 0; i < 200 && stopped < 3; i++)); do
	[ "$(backing_of stopped.qcow2)" = "a.img raw" ] || break
	"$QNBD" flatten stopped.qcow2 2>err &
	flattening=$!
	sleep 0.05
	kill -INT "$flattening" 2>/dev/null || :
	status=0
	wait "$flattening" || status=$?
	[ "$status" -ne 1 ] || {
		expect_text err '^qnbd: stopped; stopped.qcow2 still rests'
		stopped=$((stopped + 1))
		clean stopped.qcow2
	}
done
[ "$stopped" -gt 0 ] || fail "it was never stopped"
"$QNBD" flatten stopped.qcow2
[ "$(backing_of stopped.qcow2)" = "- -" ] || fail "it was not ended"
[ "$(content stopped.qcow2 qcow2)" = "$before" ] || fail "it has changed"
clean stopped.qcow2
