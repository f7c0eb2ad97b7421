#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `create` against making other images than qemu-img does from the same
# options, against images that are not sound, and against losing a file that
# was there: what fails must leave everything as it was.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3

# same_image NAME: ours and theirs tell the same, are sound and hold the same.
same_image()
{
	qemu_info -U "ours/$1" >ours.json
	qemu_info -U "theirs/$1" >theirs.json
	python3 - <<'END2' || fail "$1: ours and theirs differ"
import json, sys
def load(path):
    with open(path) as file:
        value = json.load(file)
    for key in "filename", "actual-size", "full-backing-filename":
        value.pop(key, None)
    return value
ours, theirs = load("ours.json"), load("theirs.json")
if ours != theirs:
    sys.exit(f"qnbd:     {ours}\nqemu-img: {theirs}")
END2
	qemu-img check -q -f qcow2 "ours/$1" || fail "$1 is not clean"
	expect_status 0 "$QNBD" check "ours/$1"
	expect_status 0 "$QNBD" check "theirs/$1"
}

# same OPTIONS SIZE [ARGUMENT...]: made by both, they are the same.
count=0
same()
{
	local name=$count.qcow2
	count=$((count + 1))
	"$QNBD" create -o "$1" "${@:3}" "ours/$name" "$2" ||
	    fail "create -o $1 ${*:3} $name $2"
	qemu-img create -q -f qcow2 -o "$1" "${@:3}" "theirs/$name" "$2"
	same_image "$name"
	last=ours/$name
}

# refused REGEX ARGUMENT...: by both, ours with such a message, and no file.
refused()
{
	local status=0
	"$QNBD" create "${@:2}" 2>err || status=$?
	case $status in
	1 | 64) ;;
	*) fail "status $status from: create ${*:2}" ;;
	esac
	expect_text err "^qnbd: .*$1"
	[ ! -e new.qcow2 ] || fail "a file was left behind by: create ${*:2}"
	! qemu-img create -q -f qcow2 "${@:2}" >/dev/null 2>&1 ||
	    fail "qemu-img makes it: create ${*:2}"
}

mkdir ours theirs

echo "options:"
for compat in 0.10 1.1; do
	for cluster in 512 4k 64k 2M; do
		same compat=$compat,cluster_size=$cluster 100M
	done
	same compat=$compat 0
	same compat=$compat 513
	same compat=$compat,preallocation=metadata 100M
done
for bits in 1 2 4 8 16 32 64; do
	same refcount_bits=$bits 1G
	same refcount_bits=$bits,preallocation=metadata,cluster_size=4k 30M
done
same lazy_refcounts=on 1G
same lazy_refcounts=off,compression_type=zlib 1G
same compression_type=zstd,cluster_size=512 1G
same extended_l2=off,data_file_raw=off 1M
same compat=v2 1M
same compat=v3 1M
for mode in off metadata falloc full; do
	same preallocation=$mode,cluster_size=512 5M
	same preallocation=$mode,cluster_size=64k 9000k
done
echo "$count images are the same"

echo "sizes:"
same cluster_size=64k 16T
[ "$(stat -c %s "$last")" -lt 1000000 ] || fail "an empty image is large"
same cluster_size=512 100G
same cluster_size=2M 1P
same cluster_size=64k,preallocation=metadata 100G
# So many tables take qemu-img half a minute.
"$QNBD" create -o cluster_size=512,preallocation=metadata tables.qcow2 1G
qemu-img check -q -f qcow2 tables.qcow2 || fail "tables.qcow2 is not clean"
expect_status 0 "$QNBD" check tables.qcow2
rm tables.qcow2
"$QNBD" create sizes.qcow2 1.5M
qemu-img info sizes.qcow2 >out
expect_text out '1572864 bytes'

echo "what is written there can be read:"
for options in cluster_size=512 preallocation=metadata refcount_bits=1 \
    compat=0.10; do
	rm -f written.qcow2
	"$QNBD" create -o $options written.qcow2 20M
	qemu-io -c 'write -q -P 7 123 5000' -c 'write -q -P 8 19M 1M' \
	    -c 'read -P 7 123 5000' -c 'read -P 8 19M 1M' \
	    -c 'read -P 0 10M 1M' written.qcow2 >out
	! grep -q -i fail out || fail "$options: $(cat out)"
	qemu-img check -q written.qcow2 || fail "$options: not clean"
done

echo "backing files:"
qemu-img create -q -f qcow2 base.qcow2 5000k
qemu-io -c 'write -q -P 3 0 64k' base.qcow2
qemu-img create -q -f raw base.raw 1000k
for made in ours theirs; do
	cp base.qcow2 base.raw $made
done
same cluster_size=64k 10M -b base.qcow2 -F qcow2
qemu-io -c 'read -P 3 0 64k' "$last" >out
! grep -q -i fail out || fail "the backing file is not seen: $(cat out)"
same cluster_size=512 10M -b base.raw -F raw
same compat=0.10 10M -b "$PWD/base.raw" -F raw
for base in 'base.qcow2 -F qcow2' 'base.raw -F raw'; do
	# shellcheck disable=SC2086 # two words are meant
	"$QNBD" create -b $base ours/sized.qcow2
	# shellcheck disable=SC2086
	qemu-img create -q -f qcow2 -b $base theirs/sized.qcow2
	same_image sized.qcow2
	rm ours/sized.qcow2 theirs/sized.qcow2
done
expect_status 0 qemu-img create -q -f qcow2 -b \
    "$(printf '%.0s./' {1..150})base.raw" -F raw long-name.qcow2 1M

echo "preallocation past the end of a backing file:"
for options in preallocation=full preallocation=metadata,cluster_size=512 \
    preallocation=falloc,compat=0.10,cluster_size=4k; do
	rm -f past.qcow2
	"$QNBD" create -o $options -b base.qcow2 -F qcow2 past.qcow2 9M
	qemu-img check -q -f qcow2 past.qcow2 || fail "$options: not clean"
	qemu-img compare -q -f qcow2 -F qcow2 base.qcow2 past.qcow2 ||
	    fail "$options: not what the backing file holds"
	size=$(stat -c %s past.qcow2)
	qemu-io -c 'write -q -P 9 8M 1M' -c 'read -q -P 9 8M 1M' \
	    -c 'read -q -P 3 0 64k' past.qcow2 >out
	! grep -q -i fail out || fail "$options: $(cat out)"
	[ "$(stat -c %s past.qcow2)" -eq "$size" ] ||
	    fail "$options: what is past the end had no place yet"
	rm -f converted.qcow2
	qemu-img convert -f qcow2 -O raw past.qcow2 past.raw
	"$QNBD" convert -f raw -o $options -b base.qcow2 -F qcow2 past.raw \
	    converted.qcow2
	qemu-img compare -q -f raw -F qcow2 past.raw converted.qcow2 ||
	    fail "$options: convert"
	qemu-img check -q -f qcow2 converted.qcow2 ||
	    fail "$options: convert: not clean"
done

echo "refused:"
refused 'power of two from 512 to 2M' -o cluster_size=3000 new.qcow2 1M
refused 'power of two' -o cluster_size=256 new.qcow2 1M
refused 'power of two' -o cluster_size=4M new.qcow2 1M
refused 'power of two' -o cluster_size=0 new.qcow2 1M
refused 'refcount_bits=many: this is a number' -o refcount_bits=many \
    new.qcow2 1M
refused 'must have 1, 2, 4' -o refcount_bits=3 new.qcow2 1M
refused 'must have 1, 2, 4' -o refcount_bits=128 new.qcow2 1M
refused 'must have 1, 2, 4' -o refcount_bits=0 new.qcow2 1M
refused 'need compat=1.1' -o compat=0.10,refcount_bits=8 new.qcow2 1M
refused 'needs compat=1.1' -o compat=0.10,lazy_refcounts=on new.qcow2 1M
refused 'needs compat=1.1' -o compat=0.10,compression_type=zstd \
    new.qcow2 1M
refused 'one of 0.10, v2, 1.1, v3' -o compat=1.2 new.qcow2 1M
refused 'one of zlib, zstd' -o compression_type=lz4 new.qcow2 1M
refused 'one of off, metadata' -o preallocation=some new.qcow2 1M
refused 'did you mean cluster_size\?' -o clustersize=64k new.qcow2 1M
refused 'needs a value' -o cluster_size new.qcow2 1M
refused 'too large for clusters of 512 bytes' -o cluster_size=512 \
    new.qcow2 1T
refused 'would hide all that the backing file holds' -b base.raw -F raw \
    -o preallocation=metadata new.qcow2 1M
refused 'encrypt.format=luks is not supported' -o encrypt.format=luks \
    new.qcow2 1M
refused 'external data files are not' -o data_file_raw=on new.qcow2 1M
refused 'is no size' new.qcow2 many
refused 'is no size' new.qcow2 1X
refused 'is no size that a disk can have' new.qcow2 9000000T
refused 'how large' new.qcow2
refused 'absent.qcow2: No such file' -b absent.qcow2 -F qcow2 new.qcow2 1M
refused 'is not a qcow2 image' -b base.raw -F qcow2 new.qcow2 1M
refused 'needs -F' -b base.qcow2 new.qcow2 1M
refused 'does not fit' -b "$(printf '%.0s./' {1..200})base.raw" -F raw \
    -o cluster_size=512 new.qcow2 1M
refused 'taken for a protocol' -b nbd:localhost:1 -F raw new.qcow2 1M
refused 'cannot make a file in absent' absent/new.qcow2 1M
# What qemu-img makes, and the reason why this does not.
not_here()
{
	expect_status 64 "$QNBD" create -o "$1" new.qcow2 1M
	expect_text err "^qnbd: -o ${1%%=*}.*$2"
	[ ! -e new.qcow2 ] || fail "a file was left behind by: -o $1"
}
not_here extended_l2=on 'extended L2 entries are not supported'
not_here data_file=data.raw 'external data files are not supported'
not_here nocow=on 'chattr \+C'
not_here extent_size_hint=1M 'extsize'
not_here encrypt.cipher-alg=aes-256,encrypt.format=aes 'is for LUKS'
not_here encrypt.key-secret=key 'takes no key'
not_here size=1M 'stands behind FILE'
not_here backing_file=base.raw 'say -b BASE -F FORMAT'
not_here backing_fmt=raw 'say -b BASE -F FORMAT'
expect_status 64 "$QNBD" create -F raw new.qcow2 1M
expect_status 64 "$QNBD" create a b c

echo "files that are there:"
echo precious >precious
expect_status 1 "$QNBD" create precious 1M
expect_text err 'precious is there already'
[ "$(cat precious)" = precious ] || fail "it was changed"
ln -s nowhere dangling
expect_status 1 "$QNBD" create dangling 1M
expect_status 1 "$QNBD" create --force -o cluster_size=3 precious 1M
[ "$(cat precious)" = precious ] || fail "it was changed by a failure"
ln -s precious link
expect_status 0 "$QNBD" create --force link 1M
[ -L link ] || fail "the link was replaced, not what it leads to"
qemu-img check -q -f qcow2 precious || fail "it was not replaced"
mkdir directory
expect_status 1 "$QNBD" create --force directory 1M
expect_text err 'cannot replace directory'
mkfifo fifo
expect_status 1 timeout 10 "$QNBD" create --force fifo 1M
expect_status 1 "$QNBD" create --force -b precious -F qcow2 precious
expect_text err 'cannot be its own backing file'
start_qnbd precious
expect_status 75 "$QNBD" create --force precious 1M
expect_text err 'it is locked by'
expect_status 75 "$QNBD" create -b precious -F qcow2 new.qcow2
stop_qnbd

echo "no room:"
# In memory, too, where another thread does not take the signal of it.
rooms=(.)
! make_memory || rooms+=("$memory")
for room in "${rooms[@]}"; do
	# shellcheck disable=SC2016 # for that shell to expand
	expect_status 1 bash -c 'ulimit -f 100
	    exec "$0" create -o preallocation=full "$1/new.qcow2" 10M' \
	    "$QNBD" "$room"
	expect_text err 'cannot write .*new.qcow2: No space left on device'
	[ -z "$(find "$room" -maxdepth 1 -name '*new*')" ] ||
	    fail "half an image was left behind"
done

shopt -s nullglob dotglob
left=(.qnbd-* ours/.qnbd-* directory/*)
[ ${#left[@]} -eq 0 ] || fail "left behind: ${left[*]}"
