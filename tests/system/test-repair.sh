#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards repair: leaks are given back, refcounts and flags follow the tables,
# unusable refcounts get a new place, a dirty image is repaired when it is
# opened for writing, and by nobody else.  qemu-img must be content afterwards,
# and the disk must read as before.
#
# Then images are damaged at random and repaired, each by qnbd and by qemu-img:
# tests/damage/repairs.py says what must come of that.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3

bash "$top/tests/damage/make-seeds.sh" seeds
cp seeds/09-base.raw .

# poke FILE STATEMENTS: changes numbers at offsets.
poke()
{
	python3 - "$@" <<'END'
import struct, sys
with open(sys.argv[1], "rb") as file:
    data = bytearray(file.read())
def get(at):
    return struct.unpack_from(">Q", data, at)[0]
def get32(at):
    return struct.unpack_from(">I", data, at)[0]
def put(at, value):
    struct.pack_into(">Q", data, at, value)
def put16(at, value):
    struct.pack_into(">H", data, at, value)
def put32(at, value):
    struct.pack_into(">I", data, at, value)
HOST = 0x00fffffffffffe00
COPIED = 1 << 63
l1, reftable, snapshots = get(40), get(48), get(64)
l2, block = get(l1) & HOST, get(reftable)
exec(sys.argv[2])
with open(sys.argv[1], "wb") as file:
    file.write(data)
END
}

# repaired FILE SOUND STATUS [ARG...]: check with ARGs ends with the status,
# qemu-img is content, the disk is that of SOUND, and no repair is left to do.
repaired()
{
	expect_status "$3" "$QNBD" check "${@:4}" "$1"
	qemu-img check -q -f qcow2 "$1" || {
		qemu-img check -f qcow2 "$1" >&2 || :
		fail "$1: qemu-img check is not content"
	}
	qemu-img compare -q -f qcow2 -F qcow2 "$1" "$2" ||
	    fail "$1: reads differently"
	cp "$1" again
	"$QNBD" check --repair all again >again.out 2>&1 ||
	    fail "$1: a second repair ends with $?"
	cmp "$1" again || fail "$1: there was more to repair"
}

# damaged NAME SEED STATEMENTS: NAME.qcow2 is one of the seeds, damaged.
damaged()
{
	cp seeds/"$2"*.qcow2 sound.qcow2
	cp sound.qcow2 "$1.qcow2"
	poke "$1.qcow2" "$3"
}

# One cluster more, which nobody uses.
leak='data.extend(bytes(512)); put16(get(reftable + 8) + 2 * 2, 1)'

echo "leaks:"
damaged leak 10 "$leak"
expect_status 3 "$QNBD" check leak.qcow2
expect_text "$tmp/out" 'give it back: qnbd check --repair leaks leak.qcow2'
repaired leak.qcow2 sound.qcow2 0 -r leaks
expect_text "$tmp/out" '^leak.qcow2: gave 1 leaked clusters back$'
expect_text "$tmp/err" '^leaked: cluster 258 at 0x20400 has refcount 1'
damaged leak 10 "$leak"
"$QNBD" check --json --repair leaks leak.qcow2 >ours.json 2>err
damaged leak 10 "$leak"
qemu-img check -f qcow2 --output=json -r leaks leak.qcow2 >theirs.json
grep -q '"leaks-fixed": 1' ours.json || fail "no leaks-fixed in the JSON"
python3 - <<'END' || fail "the JSON is not qemu-img's"
import json
ours, theirs = (json.load(open(name + ".json")) for name in ("ours", "theirs"))
assert ours == theirs, (ours, theirs)
END

echo "leaks only:"
damaged low 10 "put16(block + 2 * 200, 0); $leak"
expect_status 2 "$QNBD" check --json --repair leaks low.qcow2
expect_text "$tmp/out" '"leaks-fixed": 1'
expect_text "$tmp/out" '"corruptions": 2'
grep -q '"leaks":' "$tmp/out" && fail "there still is a leak"
repaired low.qcow2 sound.qcow2 0 -r all

echo "refcounts and flags:"
for change in 'put16(block + 2 * 200, 0)' \
    'put16(block + 2 * 200, 2); put16(block + 2 * 3, 0)' \
    'put(l2, get(l2) & ~COPIED)' 'put(l1, get(l1) & ~COPIED)' \
    'put(l1, get(l1) & ~COPIED); put16(block + 2 * 100, 9)'; do
	damaged refcounts 10 "$change"
	repaired refcounts.qcow2 sound.qcow2 0 --repair all
done
damaged copied 05 'put(l1, get(l1) ^ COPIED)'
repaired copied.qcow2 sound.qcow2 0 --repair all
# Two entries with one cluster share it from then on.
damaged shared 10 'put(l2 + 8 * 3, get(l2))'
cp shared.qcow2 as-it-was.qcow2
repaired shared.qcow2 as-it-was.qcow2 0 --repair all
# A compressed cluster is not copied; no zero cluster has room in the middle.
damaged compressed 07 'put(l2 + 8 * 8, get(l2 + 8 * 8) | COPIED)'
repaired compressed.qcow2 sound.qcow2 0 --repair all
damaged unaligned 07 'put(l2 + 8 * 3, (get(l2 + 8 * 3) | 1) + 512)'
repaired unaligned.qcow2 sound.qcow2 0 --repair all

echo "refcounts anew:"
for seed in 01 03 04 05 08; do
	for change in 'put(reftable, 0)' 'put(reftable, 512 + get(reftable))' \
	    'put(reftable, get(reftable) | 2)' 'put(reftable, l1)' \
	    'put(reftable, 1 << 40)' 'put(reftable + 8, get(reftable))' \
	    'put(48, l1)' 'put(48, 1 << 40)'; do
		damaged "anew-$seed" $seed "$change"
		repaired "anew-$seed.qcow2" sound.qcow2 0 --repair all
		expect_text "$tmp/out" 'have been written anew$'
	done
done
# A hundred blocks, and a table of more than one cluster.
qemu-img create -q -f qcow2 \
    -o cluster_size=512,refcount_bits=64,preallocation=metadata wide.qcow2 6M
qemu-io -f qcow2 -c 'write -q -P 3 1M 3M' wide.qcow2
cp wide.qcow2 sound.qcow2
poke wide.qcow2 'put(48, get(48) + 1024)'
repaired wide.qcow2 sound.qcow2 0 --repair all

echo "snapshots:"
# The first entry gets MORE or fewer bytes of extra data, those behind it move.
more_extra='old = get32(snapshots + 36); at = snapshots + 40 + old
table = data[snapshots:at + min(more, 0)] + bytes(max(more, 0)) + data[at:]
data[snapshots:snapshots + 8192] = table[:8192]
put32(snapshots + 36, old + more)'
for more in -16 1976; do
	damaged snapshot 05 "more = $more; $more_extra"
	qemu-img check -q snapshot.qcow2 2>err &&
	    fail "qemu-img has nothing against $more bytes of extra data"
	repaired snapshot.qcow2 sound.qcow2 0 --repair all
	expect_text "$tmp/out" '^snapshot.qcow2: repaired 1 faults'
	for image in sound.qcow2 snapshot.qcow2; do
		# Without the last column, of which nothing was known.
		qemu-img snapshot -l $image | cut -c 1-70 >$image.list
		cp $image applied-$image
		qemu-img snapshot -a second applied-$image
	done
	cmp sound.qcow2.list snapshot.qcow2.list || fail "other snapshots"
	qemu-img compare -q applied-sound.qcow2 applied-snapshot.qcow2 ||
	    fail "a snapshot reads differently"
done

echo "what is not guessed at:"
damaged lost 10 'put(l2 + 8, get(l2 + 8) | 1 << 60); '"$leak"
cp lost.qcow2 before.qcow2
expect_status 2 "$QNBD" check --repair all lost.qcow2
expect_text "$tmp/out" '^lost.qcow2 is still corrupt: 1 faults'
expect_text "$tmp/out" 'they are kept while it is corrupt'
expect_text "$tmp/err" '^corrupt: entry 1 of the L2 table'
cmp lost.qcow2 before.qcow2 || fail "it was written to, and to no end"

# New refcounts, but old ones that are higher are kept.
damaged kept 10 'put(l2 + 8, get(l2 + 8) | 1 << 60); put(reftable + 8, 0)
put16(block + 2 * 40, 7)'
expect_status 2 "$QNBD" check --repair all kept.qcow2
expect_text "$tmp/out" 'have been written anew$'
expect_text "$tmp/err" 'after the repair, cluster 40 at 0x5000 has refcount 7'
# An entry points past the end, where new refcounts would go.
damaged beyond 10 'put(l2 + 8 * 20, COPIED | len(data)); put(reftable + 8, 0)'
cp beyond.qcow2 before.qcow2
expect_status 2 "$QNBD" check --repair all beyond.qcow2
cmp beyond.qcow2 before.qcow2 || fail "what is lost reads as zeros now"

echo "what others hold, or cannot be:"
start_qnbd seeds/10-512.qcow2
expect_status 75 "$QNBD" check --repair all seeds/10-512.qcow2
stop_qnbd
start_qnbd -r seeds/10-512.qcow2
expect_status 75 "$QNBD" check --repair all seeds/10-512.qcow2
stop_qnbd
expect_status 63 "$QNBD" check -r all -f raw 09-base.raw
expect_status 1 "$QNBD" check -r all 09-base.raw

echo "dirty and corrupt images:"
qemu-img create -q -f qcow2 -o lazy_refcounts=on,cluster_size=4k lazy.qcow2 64M
(qemu-io -f qcow2 -c 'write -q -P 7 0 2M' -c 'write -q -P 8 20M 4M' -c flush \
    -c 'sigraise 9' lazy.qcow2 || :) 2>/dev/null
expect_status 2 "$QNBD" check lazy.qcow2
cp lazy.qcow2 checked.qcow2
cp lazy.qcow2 read.qcow2
cp lazy.qcow2 served.qcow2
cp lazy.qcow2 hopeless.qcow2
expect_status 0 "$QNBD" check --repair all checked.qcow2
qemu-img check -q checked.qcow2 || fail "checked.qcow2 is not clean"
"$QNBD" info checked.qcow2 >out
grep -q '^state' out && fail "checked.qcow2 is still dirty"
# Where entries are stable and the length is not, there was no flush.
cp lazy.qcow2 short.qcow2
truncate -s -8K short.qcow2
expect_status 0 "$QNBD" check --repair all short.qcow2
qemu-img check -q short.qcow2 || fail "short.qcow2 is not clean"
qemu-io -r -f qcow2 -c 'read -P 8 20M 4088k' -c 'read -P 0 24568k 8k' \
    short.qcow2 >out
grep -q 'verification failed' out && fail "the end is not what it may be"
for options in '-r' '-r --force-share'; do
	# shellcheck disable=SC2086 # two words
	start_qnbd $options read.qcow2
	qemu-io -r -f raw -c 'read -q -P 8 20M 4M' "$uri"
	stop_qnbd
	cmp read.qcow2 lazy.qcow2 || fail "it was only read, but is repaired"
done
start_qnbd served.qcow2
qemu-io -f raw -c 'read -P 7 0 2M' -c 'read -P 8 20M 4M' \
    -c 'write -q -P 9 40M 1M' "$uri" >out
grep -q 'verification failed' out && fail "a flushed byte is lost"
[ "$(grep -c 'repaired an image that was not closed cleanly' "$log")" -eq 1 ] ||
    fail "there is not one line about the repair"
stop_qnbd
qemu-img check -q served.qcow2 || fail "served.qcow2 is not clean"
# One below another image is only read.
qemu-img create -q -f qcow2 -b read.qcow2 -F qcow2 above.qcow2
start_qnbd above.qcow2
qemu-io -f raw -c 'write -q 0 64k' "$uri"
stop_qnbd
cmp read.qcow2 lazy.qcow2 || fail "a backing file was repaired"
poke hopeless.qcow2 'put(l2, get(l2) | 1 << 60)'
expect_status 1 "$QNBD" serve --listen "unix:$tmp/s" hopeless.qcow2
expect_text "$tmp/err" '^qnbd: hopeless.qcow2 was not closed cleanly'
expect_text "$tmp/err" 'find out more: qnbd check hopeless.qcow2'
damaged corrupt 10 'put32(76, 2)'
expect_status 1 "$QNBD" serve --listen "unix:$tmp/s" corrupt.qcow2
expect_text "$tmp/err" 'qnbd check --repair all corrupt.qcow2'
repaired corrupt.qcow2 sound.qcow2 0 --repair all
start_qnbd corrupt.qcow2
stop_qnbd
# An autoclear bit that means nothing here is gone with the first change (O7).
damaged autoclear 10 'put32(88, 1); put16(block + 2 * 200, 2)'
expect_status 0 "$QNBD" check --repair leaks autoclear.qcow2
[ "$(od -An -tu1 -j 91 -N 1 autoclear.qcow2)" -eq 0 ] ||
    fail "an unknown autoclear bit outlives a repair"

echo "damage:"
python3 -B "$top/tests/damage/repairs.py" "$QNBD" "${QNBD_SEED:-1}" \
    "${QNBD_REPAIRS:-100}" seeds/*.qcow2
