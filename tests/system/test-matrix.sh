#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards images of all kinds, made by other tools, against being read wrong,
# and against being harmed by a random load on four connections: a wrong byte,
# a cluster leaked or handed out twice, a snapshot or a backing file changed,
# a map that tells another story than qemu-img does.
#
# LOAD_SEED and LOAD_OPERATIONS change the load.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io nbdcopy mke2fs python3

random_load=$(dirname "$QNBD")/tests/system/random_load
[ -x "$random_load" ] || skip "there is no random_load: install libnbd-dev," \
    "run configure again, then make check"

operations=${LOAD_OPERATIONS:-1200}
seed=${LOAD_SEED:-$(date +%s%N | cut -c 5-15)}
load_seconds_max=$((60 + operations / 10))
echo "LOAD_SEED=$seed LOAD_OPERATIONS=$operations"

mkdir matrix
bash "$top/tests/images/make-matrix.sh" "$tmp/matrix" ||
    fail "the images cannot be made"
cd matrix

# sha_of FILE [BYTES]: of all of it, or of its first BYTES.
sha_of()
{
	head -c "${2:-$(stat -c %s "$1")}" "$1" | sha256sum | cut -d ' ' -f 1
}

# expect_copy IMAGE FORMAT BYTES SHA: nbdcopy reads the whole disk to $tmp/model
# and finds what qemu-img found.  The disk may have a last part of a sector,
# which qemu-img does not show.
expect_copy()
{
	local bytes tail

	timeout "$server_seconds_max" nbdcopy "$uri" "$tmp/model" ||
	    fail "$1: nbdcopy fails"
	bytes=$(stat -c %s "$tmp/model")
	tail=$((bytes - $3))
	if [ "$tail" -lt 0 ] || [ "$tail" -ge 512 ]; then
		fail "$1: it has $bytes bytes, not $3"
	fi
	[ "$(sha_of "$tmp/model" "$3")" = "$4" ] ||
	    fail "$1: nbdcopy and qemu-img read different bytes"
	# A stamp begins with the offset of its sector.
	if [ "$tail" -gt 0 ] && [ "$(tail -c "$tail" "$tmp/model" |
	    head -n 1)" != "last $(printf %#x "$3")" ]; then
		fail "$1: its last $tail bytes are wrong"
	fi
}

# same_picture IMAGE: qemu-img finds the same zeros and the same holes over NBD
# as in the file.  Depth and offset are not known over NBD.  Two differences
# are as they should be:
# - a zero cluster that has room in the file is a hole for qemu-img and none
#   over NBD, where that would mean that writing it may need new space;
# - data that is a hole of the image's own file is zero for qemu-img, which
#   looks there.
same_picture()
{
	qemu-img map -U -f qcow2 --output=json "$1" >"$tmp/map.file" \
	    2>"$tmp/err"
	qemu-img map --output=json "$uri" >"$tmp/map.nbd"
	qemu-img info -U -f qcow2 --backing-chain --output=json "$1" \
	    >"$tmp/chain" 2>"$tmp/err"
	python3 - "$tmp/map.file" "$tmp/map.nbd" "$tmp/chain" <<'END' ||
import json, sys

def runs(path):
    with open(path) as file:
        return json.load(file)

of_file, over_nbd, chain = [runs(path) for path in sys.argv[1:]]
formats = [link["format"] for link in chain]
end = min(sum(run["length"] for run in each) for each in (of_file, over_nbd))

def look(runs, position):
    """The run that covers position; runs are in order, and so are calls."""
    while runs[0]["start"] + runs[0]["length"] <= position:
        runs.pop(0)
    return runs[0]

def expected(run):
    """The (zero, data) that NBD may show for a run of the file."""
    if run["zero"] and run["data"]:
        return {(True, True), (False, True)}
    room = (run["zero"] and "offset" in run
            and formats[run["depth"]] == "qcow2")
    return {(run["zero"], run["data"] or room)}

edges = sorted({run["start"] for run in of_file + over_nbd} - {end})
for start in edges:
    if start >= end:
        break
    ours, theirs = look(over_nbd, start), look(of_file, start)
    if (ours["zero"], ours["data"]) not in expected(theirs):
        sys.exit(f"at {start}: over NBD {ours}, in the file {theirs}")
END
	    fail "$1: two different maps"
}

# count_leaks IMAGE: how many, if there is nothing worse.
count_leaks()
{
	local status=0

	qemu-img check -f qcow2 --output=json "$1" >"$tmp/check" \
	    2>"$tmp/check.err" || status=$?
	case $status in
	0) echo 0 ;;
	3) sed -n 's/.*"leaks": \([0-9]*\).*/\1/p' "$tmp/check" ;;
	*) cat "$tmp/check" "$tmp/check.err" >&2
	   fail "$1: qemu-img check ends with status $status" ;;
	esac
}

# Bitmaps that were made invalid are what no reference counts: any program that
# does not keep them leaves them behind.  How many clusters that is shows an
# image that nothing but their bit was taken from.
lost_bitmaps()
{
	cp "$1" "$tmp/bitless.qcow2"
	printf '\0' | dd of="$tmp/bitless.qcow2" bs=1 seek=95 conv=notrunc \
	    status=none
	count_leaks "$tmp/bitless.qcow2"
}

# expect_whole IMAGE: it is sound, holds what the model says, its snapshots
# hold what they held.
expect_whole()
{
	local kind name format bytes sha snapshot leaks

	leaks=$(count_leaks "$1")
	[ "$leaks" -eq "$leaks_allowed" ] || {
		qemu-img check -f qcow2 "$1" >&2 || :
		fail "$1: $leaks leaks, not $leaks_allowed"
	}
	head -c "$(($(stat -c %s "$tmp/model") / 512 * 512))" "$tmp/model" \
	    >"$tmp/sectors"
	qemu-img compare -q -f qcow2 -F raw "$1" "$tmp/sectors" 2>"$tmp/err" ||
	    fail "$1: it differs from the model"
	while read -r kind name format bytes sha snapshot; do
		[ "$kind $name" = "snapshot $1" ] || continue
		qemu-img convert -f qcow2 -l "snapshot.name=$snapshot" -O raw \
		    "$1" "$tmp/snapshot"
		[ "$(sha_of "$tmp/snapshot")" = "$sha" ] ||
		    fail "$1: snapshot $snapshot is not what it was"
	done <manifest
}

# expect_bases: the files behind other images were only read.
expect_bases()
{
	sha256sum --quiet -c "$tmp/bases" || fail "a backing file was changed"
}

# load IMAGE OPERATIONS THREADS [keep]: and then what it left is checked.
load()
{
	start_qnbd --threads "$3" "$1"
	timeout "$load_seconds_max" "$random_load" "$uri" "$tmp/model" \
	    "$seed" "$2" "${@:4}" ||
	    fail "$1: random_load, $3 threads, status $?"
	same_picture "$1"
	stop_qnbd
	expect_whole "$1"
	start_qnbd --threads "$3" -r "$1"
	timeout "$server_seconds_max" nbdcopy "$uri" "$tmp/again"
	cmp "$tmp/model" "$tmp/again" || fail "$1: opened anew it differs"
	stop_qnbd
}

# try_image NAME FORMAT BYTES SHA
try_image()
{
	local keep=()

	echo "$1:"
	leaks_allowed=0
	if [ "$1" = 13-bitmaps.qcow2 ]; then
		leaks_allowed=$(lost_bitmaps "$1")
	fi
	start_qnbd -r -f "$2" "$1"
	expect_copy "$@"
	if [ "$2" = qcow2 ]; then
		same_picture "$1"
	fi
	stop_qnbd
	# A base is only read here; a disk of no bytes has nothing to load.
	if [ "$2" != qcow2 ] || [ "$3" -eq 0 ]; then
		return 0
	fi
	# Version 2 cannot say that a trimmed cluster hides its backing file.
	if [ "$1" = 07-middle.qcow2 ]; then
		keep=(keep)
	fi
	load "$1" "$operations" 2 "${keep[@]}"
	load "$1" "$((operations / 2))" 1 "${keep[@]}"
}

count=0
# The top of the chain comes before what it stands on.
while read -r kind name format bytes sha _; do
	[ "$kind" = image ] || continue
	case $name in
	07-top.qcow2)
		sha256sum 07-base.raw 07-middle.qcow2 >"$tmp/bases"
		;;
	07-middle.qcow2)
		expect_bases
		sha256sum 07-base.raw >"$tmp/bases"
		;;
	esac
	try_image "$name" "$format" "$bytes" "$sha" </dev/null
	count=$((count + 1))
done < <(sort -r manifest)
expect_bases
[ "$count" -ge 12 ] || fail "only $count images"
echo "$count passed, 0 failed, 0 skipped"
