#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `measure` against other numbers than qemu-img's, and against such as
# are too small.  They are qemu-img's wherever the clusters of an image have no
# holes in the file.  Where they have, which depends on the file system, QEMU
# looks for holes only if there are many; we always do, and may promise less.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io mke2fs python3

mkdir matrix
bash "$top/tests/images/make-matrix.sh" "$tmp/matrix" ||
    fail "the images cannot be made"

# same ARGUMENT...: both print the same.
count=0
less=0
same()
{
	"$QNBD" measure --json "$@" >ours || fail "measure $*"
	qemu-img measure --output=json "$@" >theirs
	cmp -s ours theirs || {
		cat ours theirs >&2
		fail "another number: measure $*"
	}
	count=$((count + 1))
}

# fits ARGUMENT... FILE: both print the same, or ours is less and enough for
# what both make of it.
fits()
{
	"$QNBD" measure --json "$@" >ours || fail "measure $*"
	qemu-img measure --output=json "$@" >theirs
	count=$((count + 1))
	! cmp -s ours theirs || return 0
	rm -f made.*
	"$QNBD" convert "$@" made.ours
	qemu-img convert "$@" made.theirs
	python3 - <<'END' || fail "not to be believed: measure $*"
import json, os, sys
ours, theirs = (json.load(open(name)) for name in ("ours", "theirs"))
made = [os.stat("made." + name).st_size for name in ("ours", "theirs")]
if not max(made) <= ours.pop("required") <= theirs.pop("required"):
    sys.exit(f"{open('ours').read()} of {made}")
if ours != theirs:
    sys.exit(f"{ours}\n{theirs}")
END
	less=$((less + 1))
}

echo "sizes:"
for size in 0 1 512 64k 1000001 100M 30G 16T; do
	same -O raw --size $size
	for options in cluster_size=64k cluster_size=2M compat=0.10 \
	    refcount_bits=1 refcount_bits=64 preallocation=metadata \
	    preallocation=falloc preallocation=full \
	    cluster_size=4k,refcount_bits=32,lazy_refcounts=on; do
		case $size,$options in
		16T,cluster_size=4k,*) continue ;;
		esac
		same -O qcow2 -o $options --size $size
	done
done
for bits in 1 2 4 8 16 32 64; do
	for cluster in 512 1k 4k 32k 1M; do
		for size in 3M 10000001 7G; do
			same -O qcow2 --size $size \
			    -o cluster_size=$cluster,refcount_bits=$bits
		done
	done
done

echo "images of all kinds:"
while read -r kind name format _; do
	[ "$kind" = image ] || continue
	same -O raw -f "$format" "matrix/$name"
	for cluster in 512 4k 64k 2M; do
		fits -O qcow2 -f "$format" -o cluster_size=$cluster \
		    "matrix/$name"
	done
	same -O qcow2 -f "$format" -o preallocation=full "matrix/$name"
	cp --sparse=never "matrix/$name" matrix/dense
	for cluster in 512 4k 64k 2M; do
		same -O qcow2 -f "$format" -o cluster_size=$cluster \
		    matrix/dense
	done
done <matrix/manifest
echo "$less promise less, and keep it"

echo "what convert makes is not larger:"
for name in 01-v2-64k.qcow2 14-resized.qcow2; do
	"$QNBD" convert "matrix/$name" copy.qcow2
	"$QNBD" measure --json "matrix/$name" >ours
	python3 - "$(stat -c %s copy.qcow2)" <<'END' || fail "$name"
import json, sys
with open("ours") as file:
    assert int(sys.argv[1]) <= json.load(file)["required"]
END
	rm copy.qcow2
done

echo "refused:"
expect_status 64 "$QNBD" measure
expect_status 64 "$QNBD" measure --size 1M matrix/manifest
expect_status 64 "$QNBD" measure -O raw -o cluster_size=4k --size 1M
expect_status 1 "$QNBD" measure -o cluster_size=0 -f raw matrix/manifest
expect_text err 'power of two'
expect_status 1 "$QNBD" measure -o cluster_size=512 --size 1T
expect_text err 'too large'
expect_status 1 "$QNBD" measure absent
expect_text err 'cannot open absent'
"$QNBD" measure --size 1G >ours
expect_text ours '^fully allocated +1 GiB \(1074135040 bytes\)$'
echo "$count are the same"
