#!/bin/bash
# SPDX-License-Identifier: MIT
#
# Makes ten small images of the kinds of tests/images/make-matrix.sh, for tests
# that damage them:
#
#	tests/damage/make-seeds.sh DIRECTORY

set -eu -o pipefail

directory=${1:?"usage: $0 DIRECTORY"}
mkdir -p "$directory"
cd "$directory"

run_commands()	# IMAGE COMMAND...
{
	local image=$1 command arguments=()

	shift
	for command; do
		arguments+=(-c "$command")
	done
	qemu-io -f qcow2 -t unsafe -d unmap "${arguments[@]}" "$image" >out ||
	    { cat out >&2; exit 1; }
	if grep -i -e failed -e invalid out >&2; then
		echo "FAIL: cannot fill $image" >&2
		exit 1
	fi
}

# Clusters of each kind; zero clusters only where VERSION has them.
fill()	# IMAGE VERSION CLUSTER_BYTES
{
	local c=$3

	run_commands "$1" "write -P 1 0 $((4 * c))" \
	    "write -P 2 $((5 * c + c / 2)) $c" \
	    "write -P 3 -c $((8 * c)) $c" "write -P 4 -c $((9 * c)) $c" \
	    "write -P 5 $((11 * c)) $c" "discard $((2 * c)) $c"
	if [ "$2" -eq 3 ]; then
		run_commands "$1" "write -z $((3 * c)) $c" \
		    "write -z -u $((12 * c)) $c"
	fi
}

make()	# IMAGE VERSION CLUSTER_BYTES CLUSTERS [OPTION]
{
	local compat=1.1

	[ "$2" -eq 3 ] || compat=0.10
	qemu-img create -q -f qcow2 \
	    -o "compat=$compat,cluster_size=$3${5:+,$5}" "$1" $(($3 * $4))
	fill "$@"
}

make 01-v2-64k.qcow2 2 65536 14
make 02-v3-64k-zstd.qcow2 3 65536 14 compression_type=zstd
make 03-v3-512-refcount64.qcow2 3 512 200 refcount_bits=64
# Under the second block of refcounts, and the last L2 table.
run_commands 03-v3-512-refcount64.qcow2 'write -P 6 64k 16k' \
    'write -P 7 99k 1k'
make 04-v3-4k-refcount1.qcow2 3 4096 30 refcount_bits=1
make 05-v3-8k-snapshots.qcow2 3 8192 20
qemu-img snapshot -c first 05-v3-8k-snapshots.qcow2
run_commands 05-v3-8k-snapshots.qcow2 'write -P 6 0 8k' 'write -P 7 100k 8k'
qemu-img snapshot -c second 05-v3-8k-snapshots.qcow2
make 06-v2-512-snapshot.qcow2 2 512 150
qemu-img snapshot -c only 06-v2-512-snapshot.qcow2
run_commands 06-v2-512-snapshot.qcow2 'write -P 6 512 1k' \
    'write -P 7 40k 10k'
make 07-lazy.qcow2 3 4096 30 lazy_refcounts=on
make 08-bitmaps.qcow2 3 4096 40
qemu-img bitmap --add 08-bitmaps.qcow2 monday
make 09-base.raw.qcow2 3 4096 20
qemu-img convert -f qcow2 -O raw 09-base.raw.qcow2 09-base.raw
rm 09-base.raw.qcow2
qemu-img create -q -f qcow2 -o cluster_size=4k -b 09-base.raw -F raw \
    09-backed.qcow2 200k
fill 09-backed.qcow2 3 4096
make 10-512.qcow2 3 512 500
run_commands 10-512.qcow2 'write -P 6 40k 100k' 'write -P 7 230k 20k'
rm out
for image in *.qcow2; do
	qemu-img check -q -f qcow2 "$image"
done
