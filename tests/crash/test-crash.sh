#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what the power may do: for workloads on images of several kinds, every
# state that a crash could leave on the disk is checked, read and written on
# (crash.c says which and how).  All states of the shortest sequences, and a
# sample of all others, are shown to qemu-img check too, which must find leaks
# at most.  Some of these are read by qemu-io, and repaired, half of them by
# qemu-img and half by qnbd, after which the other has nothing to say against
# them.
#
#	test-crash.sh [WORKLOAD...]
#	test-crash.sh --replay IMAGE WORKLOAD SEED [STATE]
#
# QNBD_SEED is the first seed, TEST_ROUNDS multiplies the number of seeds.  One
# round, which is what make check does, has each workload on each of its images
# at least once, and of the sequences all up to two requests (on some images a
# part of these) and some of three.  With more rounds (make crash-long) all
# sequences are tried.  Under sanitizers it is one image in eight.
# tests/mutants/run lists the lines of the engine whose loss this test sees.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

crash=$(dirname "$QNBD")/tests/crash/crash
[ -x "$crash" ] || fail "there is no $crash; make check builds it"
draw_seeds 20 7
distinct_min=$((20000 * rounds))
rate_min=300
encryption_key='the key of tests'
sample_one_in=1000
read_one_in=8
jobs_max=$(nproc)
one_job_in=1
[ "$slower" -eq 1 ] || one_job_in=8

# All sequences, and those that have one request, and two.
sequences=6174
short_sequences=18
medium_sequences=342
# From one sequence of three requests to the next that is tried.
stride=107

# The same of those with one operation on snapshots, and with one change of
# length: with one request at most.
snapshot_sequences=3027
short_snapshot_sequences=111
resize_sequences=5045
short_resize_sequences=185

# ---- images; the name says how one is used ----

# make NAME SIZE OPTIONS [ARG...]: an empty NAME.qcow2.
make()
{
	qemu-img create -q -f qcow2 -o "$3" "${@:4}" "$1.qcow2" "$2"
}

# NAME.qcow2 holds data that a snapshot shares, compressed-NAME.qcow2 the same
# data compressed.  CONTENT is what crash prepares.
make_full()
{
	local name=$1 size=$2 cluster=$3 content=$4
	make "$name" "$size" "cluster_size=$cluster"
	"$crash" "$name.qcow2" "$content"
	qemu-img convert -c -f qcow2 -O qcow2 -o cluster_size="$cluster" \
	    "$name.qcow2" "compressed-$name.qcow2"
	cp "$name.qcow2" "alone-$name.qcow2"
	qemu-img snapshot -c one "$name.qcow2"
}

# Encrypted, full and empty; made here, as that takes no key.
make_encrypted()
{
	local size
	for size in 512:1M 4k:4M 64k:16M; do
		"$QNBD" create -o "encryption=on,cluster_size=${size%:*}" \
		    "encrypted-${size%:*}.qcow2" "${size#*:}" 2>/dev/null
	done
	for size in 512 4k; do
		"$QNBD" create -o "encryption=on,cluster_size=$size" \
		    encrypted-full-$size.qcow2 512k 2>/dev/null
		"$crash" encrypted-full-$size.qcow2 prepare
	done
	qemu-img snapshot --object "secret,id=key,data=$encryption_key" \
	    -c one --image-opts driver=qcow2,encrypt.key-secret=key,\
file.filename=encrypted-full-4k.qcow2
	"$QNBD" create -o encryption=on,cluster_size=4k -b base.raw -F raw \
	    over-raw-encrypted-4k.qcow2 1M 2>/dev/null
}

# What stands below others: full in the first three quarters, and one of both
# ends there.
make_bases()
{
	make base 1M cluster_size=4k
	"$crash" base.qcow2 prepare
	qemu-img convert -f qcow2 -O raw base.qcow2 base.raw
	truncate -s 768K base.raw
}

# make_over NAME SIZE OPTIONS: over-raw-NAME.qcow2, over-qcow2-NAME.qcow2
make_over()
{
	local format
	for format in raw qcow2; do
		make "over-$format-$1" "$2" "$3" -b base.$format -F $format
		cp "over-$format-$1.qcow2" "over-$format-places-$1.qcow2"
		"$crash" -b base.$format "over-$format-places-$1.qcow2" \
		    prepare-places
	done
}

make_images()
{
	local size disk bits image
	for size in 512:1M 4k:4M 64k:16M 2M:16M; do
		disk=${size#*:} size=${size%:*}
		for bits in 1 16 64; do
			make "$size-$bits" "$disk" \
			    "cluster_size=$size,refcount_bits=$bits"
		done
	done
	# Where refcounts are wide and clusters small, tables are soon too
	# small.
	make wide 6M cluster_size=512,refcount_bits=64
	for size in 4k 64k; do
		make zstd-$size 4M cluster_size=$size,compression_type=zstd
	done
	# Where L2 tables are there already, new clusters alone decide on the
	# order.
	for size in 4k 64k; do
		make tables-$size 4M cluster_size=$size
		qemu-io -f qcow2 -c 'write -q -z 0 64k' \
		    -c 'write -q -z 2M 64k' tables-$size.qcow2
	done
	make_full full-512 512k 512 prepare
	make_full full-4k 512k 4k prepare
	make_full full-64k 2M 64k prepare
	make_full places-512 64k 512 prepare-places
	make_full places-4k 4M 4k prepare-places
	make_full places-64k 4M 64k prepare-places
	# Version 2, with a snapshot, and without one.
	make old-4k 4M cluster_size=4k,compat=0.10
	make old-full-512 256k cluster_size=512,compat=0.10
	"$crash" old-full-512.qcow2 prepare
	make old-places-4k 4M cluster_size=4k,compat=0.10
	"$crash" old-places-4k.qcow2 prepare-places
	qemu-img snapshot -c one old-full-512.qcow2
	qemu-img snapshot -c one old-places-4k.qcow2
	for bits in 1 64; do
		cp 2M-$bits.qcow2 alone-places-2M-$bits.qcow2
		"$crash" alone-places-2M-$bits.qcow2 prepare-places
	done
	make_bases
	make_over 512 1M cluster_size=512
	make_over 4k 1M cluster_size=4k
	make_over 64k 1M cluster_size=64k
	make_over 4k-old 1M cluster_size=4k,compat=0.10
	for size in 512 4k 64k; do
		cp $size-16.qcow2 device-$size.qcow2
		cp $size-16.qcow2 short-$size.qcow2
		cp full-$size.qcow2 device-full-$size.qcow2
		cp alone-places-$size.qcow2 device-places-$size.qcow2
	done
	make_encrypted
	bash "$top/tests/damage/make-seeds.sh" seeds
	cp seeds/09-base.raw .
	for image in seeds/*.qcow2; do
		cp "$image" "repair-$(basename "$image")"
	done
	cp seeds/10-512.qcow2 device-repair-10-512.qcow2
	# Full, but for gaps.
	make full-repair 64k cluster_size=512
	qemu-io -f qcow2 -c 'write -q -P 5 0 64k' -c 'discard -q 1k 10k' \
	    -c 'discard -q 40k 9k' full-repair.qcow2
	for size in 512 4k 64k; do
		make lazy-$size 4M cluster_size=$size,lazy_refcounts=on
	done
	make lazy-places-4k 4M cluster_size=4k,lazy_refcounts=on
	"$crash" lazy-places-4k.qcow2 prepare-places
	cp 4k-16.qcow2 bitmaps-4k.qcow2
	cp alone-places-4k.qcow2 bitmaps-places-4k.qcow2
	qemu-img bitmap --add bitmaps-4k.qcow2 one
	qemu-img bitmap --add bitmaps-places-4k.qcow2 one
}

# set_options IMAGE: how crash is told what the name says.
set_options()
{
	options=()
	case $1 in
	over-raw-*) options=(-b base.raw) ;;
	over-qcow2-*) options=(-b base.qcow2) ;;
	full-repair*) options=(-D "$(stat -c %s "$1")") ;;
	device-*64k*) options=(-D $((16 << 20))) ;;
	device-*) options=(-D $((4 << 20))) ;;
	# So short that it is soon full.
	short-*) options=(-D $(($(stat -c %s "$1") + 196608 & ~65535))) ;;
	esac
}

# ---- jobs ----

jobs_seen=0
job_names=()
states=0 distinct=0 clean=0 leaking=0 failures=0 hundredths=0

# start WORKLOAD IMAGE FIRST COUNT STEP SAMPLE-ONE-IN: in the background.
start()
{
	local number=${#job_names[@]} options
	jobs_seen=$((jobs_seen + 1))
	[ $(((jobs_seen + seed) % one_job_in)) -eq 0 ] || return 0
	set_options "$2"
	job_names+=("$2 $1")
	mkdir -p "states/$number"
	ln -s ../../{base.raw,base.qcow2,09-base.raw} "states/$number"
	if [ "$(jobs -pr | wc -l)" -ge "$jobs_max" ]; then
		wait -n || :
	fi
	"$crash" "${options[@]}" -s "$5" -d "states/$number" -n "$6" "$2" \
	    "$1" "$3" "$4" >"out.$number" 2>&1 &
}

is_wanted()
{
	[[ " $workloads " == *" all "* || " $workloads " == *" $1 "* ]]
}

# try SEEDS WORKLOAD IMAGE...: random workloads.
try()
{
	local seeds=$(($1 * rounds / slower)) image
	is_wanted "$2" || return 0
	[ "$seeds" -gt 0 ] || seeds=1
	for image in "${@:3}"; do
		start "$2" "$image.qcow2" "$seed" "$seeds" 1 \
		    "$sample_one_in"
	done
}

# try_sequences WORKLOAD SAMPLE-ONE-IN IMAGE...: the sample is of those of one
# request.  Where it is a thin one, each image has a fifth of those of two, one
# image the next fifth after another.
try_sequences()
{
	local first=$(((seed - 1) * sequences)) image round step=$slower skip=0
	is_wanted "$1" || return 0
	[ "$2" -eq 1 ] || step=$((5 * slower))
	for image in "${@:3}"; do
		start "$1" "$image.qcow2" "$first" $short_sequences 1 \
		    $(($2 * slower))
		if [ "$rounds" -gt 1 ]; then
			for ((round = 0; round < 2 + rounds / 10; round++)); do
				start "$1" "$image.qcow2" \
				    $((first + round * sequences)) \
				    $sequences 1 $((sample_one_in * 10))
			done
			continue
		fi
		start "$1" "$image.qcow2" $((first + short_sequences + skip)) \
		    $(((medium_sequences - short_sequences) / step)) \
		    "$step" $sample_one_in
		skip=$(((skip + 1) % step))
		# The odd round closes the image in the thick of it.
		start "$1" "$image.qcow2" \
		    $((first + sequences + medium_sequences)) \
		    $(((sequences - medium_sequences) / stride / slower)) \
		    $((stride * slower)) $sample_one_in
	done
}

# Every workload with every size of clusters and every width of refcounts, and
# each size with each width.
try_pairs()
{
	local widths=(1 16 64) number=0 workload size
	for workload in sequential random churn collide zero flush close \
	    full crowd fill; do
		try 2 $workload "512-${widths[number % 3]}" \
		    "4k-${widths[(number + 1) % 3]}"
		try 1 $workload "64k-${widths[(number + 2) % 3]}"
		number=$((number + 1))
	done
	if [ "$slower" -gt 1 ]; then
		echo "no clusters of 2 MiB: the sanitizer is slow"
		return
	fi
	for size in 64:close 16:random; do
		try 1 "${size#*:}" "2M-${size%:*}"
	done
	is_wanted sequences || return 0
	start sequences alone-places-2M-64.qcow2 0 $short_sequences 1 \
	    $sample_one_in
	# To look for room among 16 million refcounts takes long.
	start sequences alone-places-2M-1.qcow2 0 6 1 $sample_one_in
}

try_repairs()
{
	local image sample_one_in=50
	for image in *repair*.qcow2; do
		try 40 repair "${image%.qcow2}"
	done
}

# try_operations COUNT SHORT-COUNT WORKLOAD IMAGE...: sequences, of which there
# are so many.
try_operations()
{
	local count=$1 short=$2 first=$(((seed - 1) * $1)) image
	shift 2
	is_wanted "$1" || return 0
	for image in "${@:2}"; do
		if [ "$rounds" -gt 1 ]; then
			start "$1" "$image.qcow2" "$first" "$count" 1 \
			    $((sample_one_in * 10))
			continue
		fi
		start "$1" "$image.qcow2" "$first" $((short / slower + 1)) \
		    "$slower" 200
		start "$1" "$image.qcow2" $((first + count + short)) \
		    $(((count - short) / stride / slower)) \
		    $((stride * slower)) $sample_one_in
	done
}

try_snapshots()
{
	try_operations $snapshot_sequences $short_snapshot_sequences "$@"
}

try_resizes()
{
	try_operations $resize_sequences $short_resize_sequences "$@"
}

try_all()
{
	local workload
	try_pairs
	for workload in fill churn flush; do
		try 4 $workload 512-16 4k-16
		try 2 $workload 64k-16
	done
	try 2 fill tables-4k tables-64k
	try 3 stay 512-16 4k-16
	try 1 stay 64k-16 over-raw-4k
	try 2 stay-full full-4k device-full-4k
	# To inflate so small clusters takes long.
	try 1 stay-full compressed-full-512
	try 2 detect 4k-16 over-qcow2-4k
	try 2 detect-full full-512
	try 3 pack 512-16 512-1 4k-16 4k-64 zstd-4k
	try 2 pack 64k-16 zstd-64k over-raw-4k device-4k
	try 3 overwrite full-512 full-4k full-64k
	try 1 overwrite compressed-full-512 compressed-full-4k \
	    compressed-full-64k device-full-4k device-full-64k
	try 1 grow wide
	try 1 grow 4k-64
	try 2 cover over-raw-512 over-raw-4k over-qcow2-4k over-raw-4k-old
	try 1 cover over-raw-64k over-qcow2-64k
	try 1 fill device-512 device-4k device-64k
	try 2 churn device-512 device-4k device-64k
	try 2 full short-512 short-4k short-64k
	try 2 reopen 512-16 4k-1 lazy-4k encrypted-4k old-4k
	try 1 reopen 64k-16 over-raw-4k device-4k bitmaps-4k
	try 1 reopen-full full-512 compressed-full-4k
	try 12 served 512-16 4k-16
	try 12 leave 512-16 4k-16
	try 3 full 4k-16
	try 2 flush bitmaps-4k
	try 2 fill encrypted-512 encrypted-4k encrypted-64k
	try 2 churn encrypted-512 encrypted-4k encrypted-64k
	try 2 collide encrypted-4k
	try 2 overwrite encrypted-full-512 encrypted-full-4k
	try 2 cover over-raw-encrypted-4k
	for workload in fill churn flush close; do
		try 2 $workload lazy-512 lazy-4k lazy-64k
	done
	try_repairs
	try_sequences sequences 1 alone-places-512 alone-places-4k \
	    alone-places-64k places-4k over-raw-places-4k
	try_sequences sequences 10 lazy-places-4k
	sample_one_in=200
	try 3 snapshots 512-16 4k-16 old-4k lazy-4k
	try 1 snapshots 64k-16 512-64 encrypted-4k
	try 2 snapshots-full full-512 full-4k old-full-512
	try 1 snapshots-full full-64k device-full-4k compressed-full-512
	sample_one_in=1000
	try_snapshots snapshot-sequences places-512 places-4k alone-places-4k \
	    old-places-4k lazy-places-4k
	try_snapshots snapshot-bursts places-4k old-places-4k
	sample_one_in=200
	try 3 resize 512-16 4k-16 old-4k lazy-4k over-qcow2-512 \
	    over-raw-4k over-raw-4k-old
	try 1 resize 64k-16 512-64 encrypted-4k device-4k
	try 2 resize-full alone-full-512 full-4k
	try 1 resize-full compressed-full-512 encrypted-full-512
	try 2 resize-snapshots 512-16 4k-16 lazy-4k
	try 2 resize-tight 512-16 4k-16
	try 2 resize-close 512-16 4k-16 lazy-4k
	sample_one_in=1000
	try_resizes resize-sequences alone-places-512 places-4k \
	    over-raw-places-4k
	try_resizes resize-bursts alone-places-4k
	try_sequences sequences 10 places-512 places-64k \
	    compressed-places-4k over-qcow2-places-64k \
	    over-raw-places-4k-old device-places-512 device-places-4k \
	    bitmaps-places-4k
	try_sequences bursts 10 alone-places-512 alone-places-4k places-4k \
	    over-raw-places-4k device-places-4k
	wait
}

add_up()
{
	local number line
	for number in "${!job_names[@]}"; do
		cat "out.$number"
		line=$(tail -n 1 "out.$number")
		[[ $line =~ ([0-9]+)\ states,\ ([0-9]+)\ distinct:\ \
([0-9]+)\ clean,\ ([0-9]+)\ with\ leaks,\ ([0-9]+)\ failed\;\ ([0-9]+) ]] ||
		    fail "${job_names[number]}: the program ended early"
		states=$((states + BASH_REMATCH[1]))
		distinct=$((distinct + BASH_REMATCH[2]))
		clean=$((clean + BASH_REMATCH[3]))
		leaking=$((leaking + BASH_REMATCH[4]))
		failures=$((failures + BASH_REMATCH[5]))
		hundredths=$((hundredths + BASH_REMATCH[2] * 100 /
		    (BASH_REMATCH[6] + 1)))
	done
}

# ---- what others say of the states ----

# Notes a line for each state that qemu-img or qemu-io has no use for.
# shellcheck disable=SC2016 # for the shells that xargs starts
show_to_qemu()
{
	find states -name '*.qcow2' -type f | sort |
	    xargs -r -P "$jobs_max" -n 20 bash -c '
		complain()
		{
			printf "%s: " "$@" | tr "\n" " "
			echo
		}
		one_in=$0
		secret=secret,id=key,data=$1
		shift
		for state; do
			status=0
			# Byte 35 says how it is encrypted.
			crypt=$(od -An -tu1 -j35 -N1 "$state")
			options=driver=qcow2,file.filename=$state
			[ $crypt -eq 0 ] || options+=,encrypt.key-secret=key
			text=$(qemu-img check --object "$secret" \
			    --image-opts "$options" 2>&1) || status=$?
			# 3 says that there are leaks and nothing worse; what
			# is dirty is repaired.
			# (Version 2 has no bit to say so.)
			if [ $status -eq 2 ] &&
			    { [ $(od -An -tu1 -j79 -N1 "$state") -eq 1 ] ||
			    { [ $(od -An -tu1 -j7 -N1 "$state") -eq 2 ] &&
			    [ "$state" != "${state%-busy.qcow2}" ]; }; }; then
				text=$("$QNBD" check -r all "$state" 2>&1 &&
				    qemu-img check -f qcow2 "$state" 2>&1) ||
				    complain "$state" "qnbd repair" "$text"
				continue
			fi
			if [ $status -ne 0 ] && [ $status -ne 3 ]; then
				complain "$state" "qemu-img check" "$text"
			fi
			[ $((number++ % one_in)) -le 1 ] || continue
			# The disk may be shorter.
			bytes=$((16#$(od -An -tx1 -j24 -N8 "$state" |
			    tr -d " \n")))
			[ $bytes -le 65536 ] || bytes=65536
			text=$(qemu-io -r --object "$secret" \
			    -c "read -q 0 $bytes" \
			    --image-opts "$options" 2>&1) ||
			    complain "$state" qemu-io "$text"
			if [ $((number % 2)) -eq 0 ]; then
				text=$("$QNBD" check -r all "$state" 2>&1 &&
				    qemu-img check --object "$secret" \
				    --image-opts "$options" 2>&1) ||
				    complain "$state" "qnbd repair" "$text"
				continue
			fi
			qemu-img check -q -r leaks --object "$secret" \
			    --image-opts "$options" >/dev/null 2>&1 || :
			text=$("$QNBD" check "$state" 2>&1) ||
			    complain "$state" "qnbd check" "$text"
		done' "$read_one_in" "$encryption_key" >qemu.out
}

# ---- the whole ----

if [ "${1:-}" = --replay ]; then
	[ $# -ge 4 ] || fail "--replay IMAGE WORKLOAD SEED [STATE]"
	make_images
	set_options "$2"
	"$crash" "${options[@]}" "$2" "$3" "$4" 1 "${@:5}"
	exit
fi

workloads=${*:-all}
[ "$slower" -eq 1 ] || echo "and one image in $one_job_in"
make_images
mkdir states
try_all
add_up
show_to_qemu
cat qemu.out
failures=$((failures + $(wc -l <qemu.out)))
checked=$(find states -name '*.qcow2' -type f | wc -l)
rate=$((distinct * 100 / (hundredths + 1)))

echo "$states states, $distinct distinct: $clean clean, $leaking with leaks;" \
    "$rate states/s and core; $checked shown to qemu-img," \
    "$failures verdicts against"
[ "$failures" -eq 0 ] || fail "a crash may do harm"
[ "$checked" -gt 0 ] || fail "no state was shown to qemu-img"
[ "$slower" -eq 1 ] && [ "$workloads" = all ] || exit 0
[ "$distinct" -ge $distinct_min ] ||
    fail "only $distinct distinct states; $distinct_min are asked for"
[ "$rate" -ge $rate_min ] ||
    fail "only $rate states/s and core; $rate_min are asked for"
