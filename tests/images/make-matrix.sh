#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Makes one image of each kind that other tools make, for tests to read:
#
#	tests/images/make-matrix.sh DIRECTORY
#
# Every image has runs of clusters, writes that are not aligned, the disk's
# last cluster, compressed clusters (one of them overwritten in part), clusters
# that were discarded, and, in version 3, zero clusters with and without room
# behind them.  Each sector written says which write wrote it and where.
#
# DIRECTORY/manifest has a line for each image and each internal snapshot:
#
#	image NAME FORMAT BYTES SHA256
#	snapshot NAME FORMAT BYTES SHA256 SNAPSHOT
#
# BYTES and SHA256 are of the disk as qemu-img reads it.

set -eu -o pipefail

directory=${1:?"usage: $0 DIRECTORY"}
PATH=$PATH:/usr/sbin:/sbin

for tool in qemu-img:qemu-utils qemu-io:qemu-utils mke2fs:e2fsprogs \
    python3:python3; do
	if ! command -v "${tool%%:*}" >/dev/null; then
		echo "SKIP: ${tool%%:*} is missing: apt-get install" \
		    "${tool##*:}" >&2
		exit 77
	fi
done

mkdir -p "$directory"
cd "$directory"
: >manifest
work=$(mktemp -d ./work-XXXXXX)
trap 'rm -rf "$work"' EXIT

# What the next run_commands does to its image, and the data it needs.
commands=()
stamps=()

# Makes files: sectors that hold the text and their place on the disk.  With
# "noise" for the text they are random, so that they do not compress.
make_stamps()	# "FILE TEXT OFFSET LENGTH"...
{
	python3 -c '
import random, sys

def sectors(text, offset, length):
	for at in range(offset, offset + length, 512):
		line = f"{text} {at:#x}\n".encode()
		sector = (line * (512 // len(line) + 1))[:512]
		yield sector[:offset + length - at]

for stamp in sys.argv[1:]:
	name, text, offset, length = stamp.split()
	offset, length = int(offset), int(length)
	with open(name, "wb") as file:
		if text == "noise":
			file.write(random.Random(offset).randbytes(length))
		else:
			file.writelines(sectors(text, offset, length))
' "$@"
}

write()	# TEXT OFFSET LENGTH [FLAG]
{
	local file=$work/data-${#stamps[@]}

	stamps+=("$file $1 $2 $3")
	commands+=(-c "write ${4:-} -s $file $2 $3")
}

run_commands()	# IMAGE
{
	local output

	make_stamps "${stamps[@]}"
	if ! output=$(qemu-io -f qcow2 -t unsafe -d unmap "${commands[@]}" \
	    "$1" 2>&1) || grep -q -i -e 'failed' -e 'invalid' \
	    -e 'not aligned' <<<"$output"; then
		printf '%s\n' "$output" >&2
		echo "FAIL: cannot fill $1" >&2
		exit 1
	fi
	commands=()
	stamps=()
}

# One of everything, in cluster numbers up to 39 and at the end of the disk.
fill()	# IMAGE VERSION CLUSTER_BYTES DISK_BYTES
{
	local c=$3 l2_span=$(($3 * $3 / 8)) last=$((($4 - 1) / $3 * $3))

	write run 0 $((4 * c))
	write unaligned $((5 * c + 512)) $((2 * c))
	write last $last $(($4 - last))
	if [ $((l2_span + 2 * c)) -lt "$4" ]; then
		write boundary $((l2_span - c)) $((2 * c))
	fi
	write compressed $((16 * c)) "$c" -c
	write compressed $((17 * c)) "$c" -c
	write compressed $((18 * c)) "$c" -c
	write compressed $((19 * c)) "$c" -c
	write noise $((20 * c)) "$c" -c
	write overwritten $((18 * c + c / 2)) 512
	commands+=(-c "discard $((2 * c)) $c" -c "discard $((17 * c)) $c")
	if [ "$2" = 3 ]; then
		write zeroed $((28 * c)) $((4 * c))
		commands+=(-c "write -z $((24 * c)) $((2 * c))")
		commands+=(-c "write -z $((28 * c)) $c")
		commands+=(-c "write -z -u $((30 * c)) $c")
		commands+=(-c "write -z $((31 * c + 512)) 512")
	fi
	write again $((32 * c)) $((8 * c))
	run_commands "$1"
}

# What a guest does after a snapshot: changes shared clusters and others.
change()	# IMAGE CLUSTER_BYTES
{
	local c=$2

	write changed $((c)) $((c))
	write changed $((3 * c + 512)) 1024
	write changed $((16 * c + 512)) 512
	write changed $((36 * c)) $((8 * c))
	commands+=(-c "discard $((33 * c)) $c")
	run_commands "$1"
}

record()	# NAME FORMAT [SNAPSHOT]
{
	local kind=image from=()

	if [ $# -eq 3 ]; then
		kind=snapshot
		from=(-l "snapshot.name=$3")
	fi
	qemu-img convert -t unsafe -f "$2" "${from[@]}" -O raw "$1" "$work/disk"
	echo "$kind $1 $2 $(stat -c %s "$work/disk")" \
	    "$(sha256sum <"$work/disk" | cut -d ' ' -f 1)" \
	    "${@:3}" | sed 's/ *$//' >>manifest
	rm "$work/disk"
}

create()	# IMAGE OPTIONS DISK_BYTES [ARGUMENT...]
{
	rm -f "$1"
	qemu-img create -q -f qcow2 -o "$2" "${@:4}" "$1" "$3"
}

mib=$((1024 * 1024))

make_v2_64k()
{
	create 01-v2-64k.qcow2 compat=0.10,cluster_size=64k $((64 * mib))
	fill 01-v2-64k.qcow2 2 65536 $((64 * mib))
	record 01-v2-64k.qcow2 qcow2
}

make_v3_64k_zstd()
{
	create 02-v3-64k-zstd.qcow2 \
	    compat=1.1,cluster_size=64k,compression_type=zstd $((64 * mib))
	fill 02-v3-64k-zstd.qcow2 3 65536 $((64 * mib))
	record 02-v3-64k-zstd.qcow2 qcow2
}

make_v3_512()
{
	create 03-v3-512-refcount64.qcow2 \
	    compat=1.1,cluster_size=512,refcount_bits=64 $((8 * mib))
	fill 03-v3-512-refcount64.qcow2 3 512 $((8 * mib))
	record 03-v3-512-refcount64.qcow2 qcow2
}

make_v3_4k_refcount1()
{
	create 04-v3-4k-refcount1.qcow2 \
	    compat=1.1,cluster_size=4k,refcount_bits=1 $((32 * mib))
	fill 04-v3-4k-refcount1.qcow2 3 4096 $((32 * mib))
	record 04-v3-4k-refcount1.qcow2 qcow2
}

make_v3_2m_snapshots()
{
	local image=05-v3-2m-snapshots.qcow2

	create $image compat=1.1,cluster_size=2M $((128 * mib))
	fill $image 3 $((2 * mib)) $((128 * mib))
	qemu-img snapshot -c first $image
	change $image $((2 * mib))
	qemu-img snapshot -c second $image
	write later 0 $((3 * mib))
	write later $((60 * mib)) 4096
	run_commands $image
	record $image qcow2
	record $image qcow2 first
	record $image qcow2 second
}

make_v2_4k_snapshot()
{
	local image=06-v2-4k-snapshot.qcow2

	create $image compat=0.10,cluster_size=4k $((16 * mib))
	fill $image 2 4096 $((16 * mib))
	qemu-img snapshot -c only $image
	change $image 4096
	record $image qcow2
	record $image qcow2 only
}

# The middle is shorter than the top, the base longer than both.
make_chain()
{
	make_stamps "07-base.raw base 0 $((6 * mib))" \
	    "$work/tail tail $((40 * mib)) $((8 * mib))"
	truncate -s $((40 * mib)) 07-base.raw
	cat "$work/tail" >>07-base.raw
	create 07-middle.qcow2 compat=0.10,cluster_size=4k $((24 * mib + 512)) \
	    -b 07-base.raw -F raw
	fill 07-middle.qcow2 2 4096 $((24 * mib + 512))
	create 07-top.qcow2 compat=1.1,cluster_size=64k $((40 * mib)) \
	    -b 07-middle.qcow2 -F qcow2
	write top $((mib)) 65536
	write top $((mib + 131072 + 512)) 1024
	# Behind these lies the middle's end, and then nothing.
	write top $((24 * mib - 512)) 512
	write top $((24 * mib + 65536 + 1024)) 512
	commands+=(-c "write -z $((2 * mib)) 131072")
	write top $((3 * mib)) 65536
	commands+=(-c "write -z $((3 * mib)) 65536")
	commands+=(-c "discard $((4 * mib)) 65536")
	write top $((5 * mib)) 65536 -c
	run_commands 07-top.qcow2
	record 07-base.raw raw
	record 07-middle.qcow2 qcow2
	record 07-top.qcow2 qcow2
}

# The disk ends 24 bytes into a sector.  qemu-img knows only whole sectors and
# does not show those bytes.
make_odd_size()
{
	local image=08-odd-size.qcow2 bytes=$((16 * mib + 5 * 512 + 24))

	create $image compat=1.1,cluster_size=64k $((bytes - 24 + 512))
	fill $image 3 65536 $((bytes - 24 + 512))
	printf %b "$(printf '\\x%02x' $((bytes >> 24)) \
	    $((bytes >> 16 & 255)) $((bytes >> 8 & 255)) $((bytes & 255)))" |
	    dd of=$image bs=1 seek=28 conv=notrunc status=none
	record $image qcow2
}

make_lazy()
{
	create 09-v3-lazy.qcow2 \
	    compat=1.1,cluster_size=64k,lazy_refcounts=on $((32 * mib))
	fill 09-v3-lazy.qcow2 3 65536 $((32 * mib))
	record 09-v3-lazy.qcow2 qcow2
}

make_ext4()
{
	local tree=$work/tree raw=$work/ext4.raw

	mkdir "$tree" "$tree/directory"
	make_stamps "$tree/file file 0 $((5 * mib + 77))" \
	    "$tree/directory/noise noise 0 $((2 * mib))"
	ln -s directory/noise "$tree/link"
	find "$tree" -exec touch -h -d @1700000000 {} +
	truncate -s $((64 * mib)) "$raw"
	export E2FSPROGS_FAKE_TIME=1700000000
	mke2fs -q -t ext4 -d "$tree" -L matrix \
	    -U 11111111-2222-3333-4444-555555555555 \
	    -E hash_seed=11111111-2222-3333-4444-555555555555,root_owner=0:0 \
	    "$raw"
	# The one time that touch does not set.
	for file in / /file /directory /directory/noise /link; do
		printf 'set_inode_field %s ctime @1700000000\n' "$file"
	done | debugfs -w -f - "$raw" >/dev/null 2>&1
	rm -f 10-ext4.qcow2
	qemu-img convert -f raw -O qcow2 -o compat=1.1 "$raw" 10-ext4.qcow2
	record 10-ext4.qcow2 qcow2
}

# ---- beside the matrix ----

# All clusters are compressed, and share host clusters.
make_compressed()	# NAME OPTIONS
{
	make_stamps "$work/all all 0 $((8 * mib))" "$work/some noise 0 $mib"
	cat "$work/all" "$work/some" >"$work/both"
	rm -f "$1"
	qemu-img convert -c -f raw -O qcow2 -o "$2" "$work/both" "$1"
	record "$1" qcow2
}

make_bitmaps()
{
	local image=13-bitmaps.qcow2

	create $image compat=1.1,cluster_size=64k $((32 * mib))
	qemu-img bitmap --add $image monday
	fill $image 3 65536 $((32 * mib))
	qemu-img bitmap --add --disable -g 1M $image tuesday
	record $image qcow2
}

# Its snapshot is of a smaller disk than it is now.
make_resized()
{
	local image=14-resized.qcow2

	create $image compat=1.1,cluster_size=4k $((8 * mib))
	fill $image 3 4096 $((8 * mib))
	qemu-img snapshot -c small $image
	qemu-img resize -q -f qcow2 $image $((24 * mib))
	change $image 4096
	write grown $((24 * mib - 8192)) 8192
	run_commands $image
	record $image qcow2
	record $image qcow2 small
}

make_preallocated()
{
	local image=15-preallocated.qcow2

	create $image compat=1.1,cluster_size=64k,preallocation=metadata \
	    $((16 * mib))
	write part $((2 * mib)) 65536
	run_commands $image
	record $image qcow2
}

make_empty()
{
	create 16-empty.qcow2 compat=1.1 $((8 * mib))
	record 16-empty.qcow2 qcow2
	create 17-no-bytes.qcow2 compat=1.1 0
	record 17-no-bytes.qcow2 qcow2
}

make_v2_64k
make_v3_64k_zstd
make_v3_512
make_v3_4k_refcount1
make_v3_2m_snapshots
make_v2_4k_snapshot
make_chain
make_odd_size
make_lazy
make_ext4
make_compressed 11-compressed-zlib.qcow2 compat=0.10,cluster_size=16k
make_compressed 12-compressed-zstd.qcow2 \
    compat=1.1,cluster_size=256k,compression_type=zstd
make_bitmaps
make_resized
make_preallocated
make_empty

for image in *.qcow2; do
	qemu-img check -q -f qcow2 "$image" || {
		echo "FAIL: $image is not clean" >&2
		exit 1
	}
done
