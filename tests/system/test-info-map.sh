#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `info` and `map` against telling another story than qemu-img does
# about the same file, and against opening or locking more than they should.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3

# same_json FIRST SECOND [KEY]: equal, whatever the order; KEY is left out.
same_json()
{
	python3 - "$@" <<'END' || fail "$1 and $2 differ"
import json, sys
def load(path):
    with open(path) as file:
        value = json.load(file)
    for each in value if isinstance(value, list) else [value]:
        for key in sys.argv[3:]:
            each.pop(key, None)
    return value
first, second = load(sys.argv[1]), load(sys.argv[2])
if first != second:
    sys.exit(f"qnbd:     {first}\nqemu-img: {second}")
END
}

# same_info FILE, same_map_of FILE
same_info()
{
	expect_status 0 "$QNBD" info --json "$1"
	cp "$tmp/out" ours
	qemu_info -U -f qcow2 "$1" >theirs
	same_json ours theirs
	expect_status 0 "$QNBD" info "$1"
	expect_text "$tmp/out" "^format +qcow2$"
	offset=$({ qemu-io -r -U -f qcow2 -c info "$1" 2>/dev/null || :; } |
	    sed -n 's/^vm state offset: //p')
	# It does not open what is encrypted, nor all chains.
	[ -z "$offset" ] || {
		expect_text "$tmp/out" "^VM state at +$offset "
		offsets=$((${offsets:-0} + 1))
	}
}

same_map_of()
{
	expect_status 0 "$QNBD" map --json "$1"
	cp "$tmp/out" ours
	qemu-img map -U -f qcow2 --output=json "$1" >theirs
	same_map ours theirs
}

mkdir sub
qemu-img create -q -f raw base.raw 3M
qemu-io -f raw -c 'write -q -P 5 1M 64k' base.raw
qemu-img create -q -f qcow2 -b base.raw -F raw middle.qcow2 2M
qemu-io -c 'write -q -P 6 128k 64k' -c 'write -q -z 256k 64k' middle.qcow2
qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 top.qcow2 4M
qemu-io -c 'write -q -P 7 1536k 100k' -c 'discard -q 1536k 64k' top.qcow2
qemu-img convert -c -O qcow2 base.raw compressed.qcow2
qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k old.qcow2 10M
qemu-io -c 'write -q -P 1 5000 20000' old.qcow2
qemu-img snapshot -c "first one" old.qcow2
qemu-img create -q -f qcow2 \
    -o compression_type=zstd,lazy_refcounts=on,refcount_bits=64 new.qcow2 5000k
qemu-img bitmap --add -g 32k new.qcow2 monday
qemu-img bitmap --add --disable new.qcow2 tuesday
qemu-img snapshot -c s1 new.qcow2
qemu-img snapshot -c s2 new.qcow2
qemu-img create -q -f qcow2 -o cluster_size=512 sub/tiny.qcow2 300k
qemu-io -c 'write -q -P 9 100k 1000' sub/tiny.qcow2
# More runs than are asked for at once.
qemu-img create -q -f qcow2 -o cluster_size=512 many.qcow2 1M
writes=()
for ((i = 0; i < 200; i++)); do
	writes+=(-c "write -q -z $((2048 + i * 3072)) 1536")
done
qemu-io "${writes[@]}" many.qcow2
# Nothing but holes at the end of a chain, of which one is short.
qemu-img create -q -f qcow2 short.qcow2 2M
qemu-io -c 'write -q 0 64k' short.qcow2
qemu-img create -q -f qcow2 -b short.qcow2 -F qcow2 longer.qcow2 4M
qemu-img create -q -f qcow2 -b longer.qcow2 -F qcow2 holes.qcow2
qemu-io -c 'write -q -z 64k 64k' holes.qcow2
qemu-img create -q -f qcow2 -b ../base.raw -F raw sub/outside.qcow2

for image in middle.qcow2 top.qcow2 compressed.qcow2 old.qcow2 new.qcow2 \
    many.qcow2 holes.qcow2 sub/tiny.qcow2 "$tmp/top.qcow2"; do
	echo "$image:"
	same_info "$image"
	same_map_of "$image"
done

echo "a raw file:"
expect_status 0 "$QNBD" info --json -f raw base.raw
cp "$tmp/out" ours
qemu_info -f raw base.raw >theirs
same_json ours theirs
expect_status 0 "$QNBD" map --json -f raw base.raw
cp "$tmp/out" ours
qemu-img map -f raw --output=json base.raw >theirs
same_map ours theirs

echo "a chain:"
expect_status 0 "$QNBD" info --json --chain top.qcow2
cp "$tmp/out" ours
qemu_info --backing-chain top.qcow2 >theirs
same_json ours theirs

echo "one file only, unless told:"
rm -f missing.raw
qemu-img create -q -f qcow2 -u -b missing.raw -F raw alone.qcow2 1M
same_info alone.qcow2
expect_status 1 "$QNBD" info --chain alone.qcow2
expect_text "$tmp/err" 'missing.raw'
same_info sub/outside.qcow2
expect_status 77 "$QNBD" info --chain sub/outside.qcow2
expect_status 77 "$QNBD" map sub/outside.qcow2
expect_status 0 "$QNBD" map --backing-dir "$tmp" sub/outside.qcow2

echo "lines for programs:"
expect_status 0 "$QNBD" map compressed.qcow2
expect_text "$tmp/out" $'^1048576\t65536\tcompressed\t-\t'
expect_status 0 "$QNBD" map --json compressed.qcow2
[ "$(grep -c '"compressed": true' "$tmp/out")" -eq 1 ] ||
    fail "other runs are compressed"

echo "a file in use:"
requires qemu-nbd
qemu-nbd -t -f qcow2 -k "$tmp/qemu.sock" top.qcow2 &
_servers+=($!)
for ((i = 0; i < 100; i++)); do
	[ ! -S qemu.sock ] || break
	sleep 0.1
done
expect_status 0 "$QNBD" info top.qcow2
expect_text "$tmp/out" '^in use +yes, .* writes to it$'
expect_status 0 "$QNBD" info --json top.qcow2
expect_text "$tmp/out" '"in-use": true'
expect_status 0 "$QNBD" map --json top.qcow2
expect_text "$tmp/err" 'top.qcow2 is in use'

echo "no image:"
expect_status 1 "$QNBD" info absent.qcow2
expect_text "$tmp/err" '^qnbd: cannot open absent.qcow2: No such file'
expect_status 1 "$QNBD" map absent.qcow2
expect_text "$tmp/err" '^qnbd: .*absent.qcow2'
expect_status 1 "$QNBD" info base.raw
expect_text "$tmp/err" '^qnbd: .*base.raw'
mkfifo fifo
expect_status 1 timeout 10 "$QNBD" info fifo

# Guards against a write to the host's inode for reads, and against an owner's
# privilege being taken for granted.
echo "reading leaves the time of the last read alone, where it may:"
touch -a -d '3 days ago' old.qcow2
before=$(stat -c %X old.qcow2)
expect_status 0 "$QNBD" map old.qcow2
[ "$(stat -c %X old.qcow2)" -eq "$before" ] ||
    fail "the time of the last read has changed"
if [ "$(id -u)" -eq 0 ]; then
	chmod 755 "$tmp"
	chmod 644 old.qcow2
	cp "$QNBD" program
	expect_status 0 setpriv --reuid 65534 --regid 65534 --clear-groups \
	    "$tmp/program" map old.qcow2
else
	echo "not root: a reader who is not the owner was not tried"
fi

[ "${offsets:-0}" -gt 2 ] || fail "qemu-io told of no VM state"
