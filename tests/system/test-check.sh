#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `check` against another judgement than qemu-img's: on sound images of
# every kind all numbers are the same, and on hundreds of damaged ones both end
# with the same exit code; where they may not is explained in damage.py.  Also
# against changing the image, opening more than the one file, and checking what
# somebody writes to.
#
# The damage is the same each time; try others with QNBD_SEED=NUMBER, and more
# with QNBD_DAMAGES=NUMBER.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io mke2fs python3

# same_check FILE [SPEC]: the exit code, and every number.  SPEC names the file
# to qemu-img where it needs more than the name.
same_check()
{
	local ours=0 theirs=0
	"$QNBD" check --json "$1" >ours.json 2>err || ours=$?
	if [ $# -eq 1 ]; then
		qemu-img check -f qcow2 --output=json "$1" >theirs.json \
		    2>/dev/null || theirs=$?
	else
		qemu-img check --output=json --object "$secret" --image-opts \
		    "$2" >theirs.json 2>/dev/null || theirs=$?
	fi
	[ "$ours" -eq "$theirs" ] || fail "$1: $ours, qemu-img $theirs"
	python3 - <<'END2' || fail "$1: they differ"
import json, sys
def load(path):
    with open(path) as file:
        value = json.load(file)
    value.pop("filename")
    return value
ours, theirs = load("ours.json"), load("theirs.json")
if ours != theirs:
    sys.exit(f"qnbd:     {ours}\nqemu-img: {theirs}")
END2
	status=$ours
}

# flip FILE OFFSET VALUE: one byte.
flip()
{
	printf '%b' "$(printf '\\x%02x' "$3")" |
	    dd of="$1" bs=1 seek=$(($2)) conv=notrunc status=none
}

# create_encrypted FORMAT: qemu-img measures how fast the machine derives keys,
# and where that goes wrong ("Unable to get accurate CPU usage", every fourth
# time on some virtual machines) it has to be asked again.
create_encrypted()
{
	local attempt
	for attempt in {1..20}; do
		qemu-img create -q --object $secret -f qcow2 \
		    -o "encrypt.format=$1,encrypt.key-secret=key" \
		    "$1.qcow2" 20M 2>err && return
		echo "attempt $attempt: $(tail -n 1 err)"
	done
	fail "qemu-img cannot create an image with $1"
}

echo "sound images:"
bash "$top/tests/images/make-matrix.sh" .
secret=secret,id=key,data=abc
qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=64k \
    20-extended.qcow2 100M
qemu-io -c 'write -q 1000 5000' -c 'write -q 1M 3M' -c 'write -q -z 2M 70k' \
    -c 'write -q -c 8M 64k' 20-extended.qcow2
qemu-img create -q -f qcow2 -o data_file=21.raw 21-data-file.qcow2 100M
qemu-io -c 'write -q 0 200k' -c 'write -q 1M 3M' 21-data-file.qcow2
qemu-img create -q -f qcow2 -o extended_l2=on,data_file=22.raw \
    22-data-file.qcow2 100M
qemu-io -c 'write -q 0 200k' -c 'write -q 1M 3M' 22-data-file.qcow2
qemu-img create -q -f qcow2 -o refcount_bits=8,cluster_size=2M \
    23-many-snapshots.qcow2 1G
for ((i = 0; i < 20; i++)); do
	qemu-io -c "write -q $((i * 3))M 7M" 23-many-snapshots.qcow2
	qemu-img snapshot -c "$i" 23-many-snapshots.qcow2
done
# Its refcount blocks stand apart from each other, its L2 tables, too.
qemu-img create -q -f qcow2 -o refcount_bits=64,cluster_size=512 \
    24-many-blocks.qcow2 8M
qemu-io -c 'write -q 0 2M' 24-many-blocks.qcow2
for image in [0-9]*.qcow2; do
	before=$(sha256sum <"$image")
	same_check "$image"
	[ "$status" -eq 0 ] || fail "$image: $status"
	[ "$before" = "$(sha256sum <"$image")" ] || fail "$image was changed"
done
for format in luks aes; do
	create_encrypted "$format"
	options=driver=qcow2,file.filename=$format.qcow2,encrypt.key-secret=key
	qemu-io --object $secret --image-opts $options -c 'write -q 0 200k' \
	    -c 'write -q 5M 1M' 2>err || fail "qemu-io: $(cat err)"
	same_check $format.qcow2 $options
	[ "$status" -eq 0 ] || fail "$format.qcow2: $status"
done

echo "one file only:"
mkdir alone
cp 07-top.qcow2 21-data-file.qcow2 alone
for image in alone/*; do
	expect_status 0 "$QNBD" check "$image"
done
expect_text "$tmp/out" '^alone/.* is clean$'

echo "leaks, corruption, dirty images:"
# Of its clusters, 4 is the L2 table, 5 the data.  First the entry goes that
# points at the data, then the refcount of the data.
"$QNBD" create -o preallocation=metadata leak.qcow2 64k
cp leak.qcow2 corrupt.qcow2
flip leak.qcow2 0x40006 0
flip leak.qcow2 0x40005 0
flip leak.qcow2 0x40000 0
same_check leak.qcow2
[ "$status" -eq 3 ] || fail "leak.qcow2: $status"
expect_status 3 "$QNBD" check leak.qcow2
expect_text "$tmp/out" '^leak.qcow2 has 1 leaked clusters$'
expect_text "$tmp/err" '^leaked: cluster 5 at 0x50000 has refcount 1'
flip corrupt.qcow2 0x3000b 0
same_check corrupt.qcow2
[ "$status" -eq 2 ] || fail "corrupt.qcow2: $status"
expect_status 2 "$QNBD" check corrupt.qcow2
expect_text "$tmp/out" '^corrupt.qcow2 is corrupt: '
for bit in 1 2; do
	cp 09-v3-lazy.qcow2 marked.qcow2
	flip marked.qcow2 79 $bit
	same_check marked.qcow2
	[ "$status" -eq 0 ] || fail "marked.qcow2: $status"
done

# poke FILE STATEMENTS: changes numbers at offsets; both must call it corrupt.
poke()
{
	python3 - "$@" <<'END2'
import struct, sys
with open(sys.argv[1], "rb") as file:
    data = bytearray(file.read())
def get(at):
    return struct.unpack_from(">Q", data, at)[0]
def put(at, value):
    struct.pack_into(">Q", data, at, value)
def put32(at, value):
    struct.pack_into(">I", data, at, value)
l1, snapshots = get(40), get(64)
l2 = get(l1) & 0x00fffffffffffe00
exec(sys.argv[2])
with open(sys.argv[1], "wb") as file:
    file.write(data)
END2
	same_check "$1"
	[ "$status" -eq 2 ] || fail "$2: $status"
}

cp 14-resized.qcow2 incomplete.qcow2
poke incomplete.qcow2 'put32(snapshots + 36, 8)'
# The compressed cluster of 20-extended.qcow2 is the 129th, the first is plain.
for change in 'put(l2 + 8, get(l2 + 8) | get(l2 + 8) << 32)' \
    'put(l2 + 128 * 16 + 8, 1)' 'put(l2 + 200 * 16 + 8, 1)'; do
	cp 20-extended.qcow2 changed.qcow2
	poke changed.qcow2 "$change"
done
cp 21-data-file.qcow2 changed.qcow2
poke changed.qcow2 'put(l2, get(l2) & ~(1 << 63) | 1 << 62)'
cp 21-data-file.qcow2 changed.qcow2
poke changed.qcow2 'put(l2 + 8, get(l2 + 8) & ~(1 << 63))'

echo "what cannot be checked:"
expect_status 63 "$QNBD" check -f raw 07-base.raw
expect_status 1 "$QNBD" check 07-base.raw
expect_text "$tmp/err" 'is not a qcow2 image'
expect_status 1 "$QNBD" check absent.qcow2
mkfifo fifo
expect_status 1 timeout 10 "$QNBD" check fifo
cp leak.qcow2 feature.qcow2
flip feature.qcow2 72 128
expect_status 1 "$QNBD" check feature.qcow2
expect_text "$tmp/err" 'unknown: bit 63'
# 2^31 clusters of 512 bytes are one too many.
cp 03-v3-512-refcount64.qcow2 many.qcow2
truncate -s 1T many.qcow2
expect_status 1 "$QNBD" check many.qcow2
expect_text "$tmp/err" 'no more than 2147483647 can be checked'
rm many.qcow2
expect_status 64 "$QNBD" check --repair most leak.qcow2
expect_status 64 "$QNBD" check
expect_status 64 "$QNBD" check 01-v2-64k.qcow2 06-v2-4k-snapshot.qcow2

echo "an image in use:"
start_qnbd 10-ext4.qcow2
expect_status 75 "$QNBD" check 10-ext4.qcow2
expect_text "$tmp/err" '^qnbd: cannot open 10-ext4.qcow2: it is locked by'
stop_qnbd
start_qnbd -r 10-ext4.qcow2
expect_status 0 "$QNBD" check 10-ext4.qcow2
stop_qnbd

echo "damage:"
python3 -B "$top/tests/system/damage.py" "$QNBD" "${QNBD_SEED:-1}" \
    "${QNBD_DAMAGES:-300}" [01]*.qcow2
