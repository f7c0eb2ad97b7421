#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what trims and zeros leave of clusters, as qemu-img map sees it: with
# --discard unmap, ignore and no-unref, and with --detect-zeroes off, on and
# unmap.  Against clusters that lose their place though they must not, room
# that is not given back, new room for zeros, and zeros above a backing file
# that are taken for a hole through which that is seen.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

# new NAME [OPTIONS]: 4 MiB, the first of them written.
new()
{
	qemu-img create -q -f qcow2 -o "${2:-cluster_size=64k}" "$1.qcow2" 4M
	qemu-io -f qcow2 -c 'write -q -P 1 0 1M' "$1.qcow2"
}

# io COMMAND...: to the server
io()
{
	local command commands=()
	for command; do
		commands+=(-c "$command")
	done
	qemu-io -f raw "${commands[@]}" "$uri" >io.out 2>&1 || {
		cat io.out >&2
		fail "qemu-io $*"
	}
	! grep -i -e fail -e error -e verification io.out || fail "qemu-io $*"
}

# map NAME: of each run its start, length, data or zero, and offset
map()
{
	qemu-img map -f qcow2 --output=json "$1.qcow2" |
	    python3 -c 'import json, sys
for run in json.load(sys.stdin):
    print(run["start"], run["length"], "zero" if run["zero"] else "data",
          run["depth"] if run["present"] else "-", run.get("offset", "-"))'
}

# expect_map NAME RUN...: it ends clean, with these runs
expect_map()
{
	stop_qnbd
	qemu-img check -q -f qcow2 "$1.qcow2" || fail "$1 is not clean"
	map "$1" >runs
	printf '%s\n' "${@:2}" | diff - runs >&2 || fail "$1: other runs"
	"$QNBD" map --json "$1.qcow2" >ours
	qemu-img map -f qcow2 --output=json "$1.qcow2" >theirs
	python3 - <<-'END' || fail "$1: qnbd map sees it otherwise"
	import json, sys
	keys = ["start", "length", "depth", "present", "zero", "data", "offset"]
	ours, theirs = ([[run.get(key) for key in keys]
	                 for run in json.load(open(name))]
	                for name in ["ours", "theirs"])
	sys.exit(ours != theirs and f"{ours}\n{theirs}")
	END
}

# Blocks of 512 bytes that the host has given the file.
blocks()
{
	stat -c %b "$1.qcow2"
}

mib=1048576
rest="$mib $((3 * mib)) zero - -"

new start
map start >runs
read -r first <runs
offset=${first##* }
[ "$first" = "0 $mib data 0 $offset" ] || fail "an unusual start: $first"

echo "unmap:"
cp --sparse=never start.qcow2 unmap.qcow2
start_qnbd --discard unmap unmap.qcow2
io 'discard 0 1M' 'read -P 0 0 1M'
expect_map unmap "0 $((4 * mib)) zero - -"
[ "$(blocks unmap)" -lt 1024 ] || fail "unmap gave no room back"

echo "ignore:"
cp start.qcow2 ignore.qcow2
start_qnbd --discard ignore ignore.qcow2
io 'discard 0 1M' 'read -P 1 0 1M'
expect_map ignore "$first" "$rest"

echo "no-unref:"
cp --sparse=never start.qcow2 stay.qcow2
start_qnbd --discard no-unref stay.qcow2
io 'discard 0 512k' 'write -q -z -u 512k 512k' 'discard 2M 1M' \
    'read -P 0 0 1M'
expect_map stay "0 $mib zero 0 $offset" "$rest"
[ "$(blocks stay)" -lt 1024 ] || fail "no-unref gave no room back"
start_qnbd --discard no-unref stay.qcow2
io 'write -q -P 2 64k 128k' 'read -P 0 0 64k' 'read -P 2 64k 128k'
expect_map stay "0 65536 zero 0 $offset" \
    "65536 131072 data 0 $((offset + 65536))" \
    "196608 $((mib - 196608)) zero 0 $((offset + 196608))" "$rest"

# As a guest has them; what loses its place makes the file longer.
echo "no-unref, trims and writes by turns:"
cp start.qcow2 turns.qcow2
turns=()
for ((i = 2; i < 10; i++)); do
	turns+=('discard 0 1M' "write -q -P $i 0 1M" flush)
done
start_qnbd --discard no-unref turns.qcow2
io "${turns[@]}" 'read -P 9 0 1M'
expect_map turns "$first" "$rest"
[ "$(stat -c %s turns.qcow2)" -le $((offset + mib)) ] ||
    fail "trims and writes by turns made the file longer"

echo "no-unref, of clusters that cannot stay:"
qemu-img convert -c -f qcow2 -O qcow2 start.qcow2 packed.qcow2
start_qnbd --discard no-unref packed.qcow2
io 'discard 0 1M' 'read -P 0 0 1M'
expect_map packed "0 $((4 * mib)) zero - -"
cp start.qcow2 shared.qcow2
qemu-img snapshot -c one shared.qcow2
start_qnbd --discard no-unref shared.qcow2
io 'discard 0 1M' 'read -P 0 0 1M'
expect_map shared "0 $((4 * mib)) zero - -"
qemu-img convert -f qcow2 -O raw -l one shared.qcow2 one.raw
qemu-img compare -q -f raw -F qcow2 one.raw start.qcow2 ||
    fail "a trim went through to a snapshot"

echo "no-unref, where it cannot be:"
new old compat=0.10
expect_status 1 "$QNBD" serve --discard no-unref old.qcow2
expect_text "$tmp/err" 'version 2'
expect_text "$tmp/err" '--discard unmap'
expect_status 64 "$QNBD" serve -f raw --discard no-unref old.qcow2
expect_text "$tmp/err" 'no-unref is for qcow2'

# zeros NAME OPTION...: half of what is there and as much more, by writes
zeros()
{
	cp start.qcow2 "$1.qcow2"
	start_qnbd "${@:2}" "$1.qcow2"
	io 'write -q -P 3 2M 64k' 'write -q -P 0 512k 1M' \
	    'read -P 0 512k 1M' 'read -P 1 0 512k'
}
half=$((mib / 2))
after=$((2 * mib))
data="$after 65536"
end="$((after + 65536)) $((after - 65536)) zero - -"

echo "zeros found in writes, or not:"
zeros off --detect-zeroes off
expect_map off "0 $mib data 0 $offset" \
    "$mib $half data 0 $((offset + mib + 65536))" \
    "$((mib + half)) $half zero - -" \
    "$data data 0 $((offset + mib))" "$end"
zeros on --detect-zeroes on
expect_map on "0 $half data 0 $offset" "$half $half zero 0 $((offset + half))" \
    "$mib $mib zero - -" "$data data 0 $((offset + mib))" "$end"
zeros freed --detect-zeroes unmap
expect_map freed "0 $half data 0 $offset" "$half $((mib + half)) zero - -" \
    "$data data 0 $((offset + mib))" "$end"
zeros stays --detect-zeroes unmap --discard no-unref
expect_map stays "0 $half data 0 $offset" \
    "$half $half zero 0 $((offset + half))" "$mib $mib zero - -" \
    "$data data 0 $((offset + mib))" "$end"
expect_status 64 "$QNBD" serve --detect-zeroes unmap --discard ignore \
    start.qcow2
expect_text "$tmp/err" '--discard ignore forbids'

echo "zeros found in writes to a raw file:"
for mode in on unmap; do
	head -c 1M /dev/zero | tr '\0' x >raw
	start_qnbd -f raw --detect-zeroes $mode raw
	io 'write -q -P 0 0 1M' 'read -P 0 0 1M'
	stop_qnbd
	cmp -n 1048576 raw /dev/zero || fail "raw, $mode: not zeros"
done

# The seed of many a lost file: zeros without a host cluster are this image's
# own word, and not a hole to the backing file.
echo "zeros above a backing file:"
qemu-img create -q -f qcow2 -b start.qcow2 -F qcow2 above.qcow2
start_qnbd --detect-zeroes unmap above.qcow2
io 'write -q -z -u 0 128k' 'discard 128k 128k' 'write -q -P 0 256k 128k' \
    'read -P 0 0 384k' 'read -P 1 384k 640k'
expect_map above "0 393216 zero 0 -" \
    "393216 $((mib - 393216)) data 1 $((offset + 393216))" "$rest"
