#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what the power may do: for random workloads on images of several
# kinds, every state that a crash could leave on the disk is checked, read and
# written on (crash.c says which and how).  A sample of the states is shown to
# qemu-img check too, which must find leaks at most.
#
#	test-crash.sh [WORKLOAD...]
#
# QNBD_SEED is the first seed, TEST_ROUNDS multiplies the number of seeds.
# tests/mutants/run lists the lines of the engine whose loss this test sees.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

crash=$(dirname "$QNBD")/tests/crash/crash
[ -x "$crash" ] || fail "there is no $crash; make check builds it"
seed=${QNBD_SEED:-1}
rounds=${TEST_ROUNDS:-1}
workloads=" ${*:-fill churn flush overwrite grow served leave} "
distinct_min=20000
sample_one_in=400
slower=1
case ${QNBD_SANITIZE:-} in
*thread*) slower=20 ;;
*address*) slower=4 ;;
esac
echo "QNBD_SEED=$seed TEST_ROUNDS=$rounds"
[ "$slower" -eq 1 ] || echo "one seed in $slower: the sanitizer is slow"

states=0 distinct=0 failures=0
mkdir states

# try SEEDS WORKLOAD IMAGE...
try()
{
	local seeds=$(($1 * rounds / slower)) workload=$2 image line
	case $workloads in
	*" $workload "*) ;;
	*) return 0 ;;
	esac
	[ "$seeds" -gt 0 ] || seeds=1
	for image in "${@:3}"; do
		mkdir -p "states/$image.$workload"
		"$crash" -d "states/$image.$workload" -n $sample_one_in \
		    "$image" "$workload" "$seed" "$seeds" >out ||
		    failures=$((failures + 1))
		cat out
		line=$(tail -n 1 out)
		[[ $line =~ ([0-9]+)\ states,\ ([0-9]+)\ distinct ]] ||
		    fail "$image $workload: the program ended early"
		states=$((states + BASH_REMATCH[1]))
		distinct=$((distinct + BASH_REMATCH[2]))
	done
}

# make_full NAME CLUSTER-SIZE DISK-SIZE: NAME.qcow2 holds data that a snapshot
# shares, compressed-NAME.qcow2 the same data compressed.
make_full()
{
	qemu-img create -q -f qcow2 -o cluster_size="$2" "$1.qcow2" "$3"
	"$crash" "$1.qcow2" prepare
	qemu-img convert -c -f qcow2 -O qcow2 -o cluster_size="$2" \
	    "$1.qcow2" "compressed-$1.qcow2"
	qemu-img snapshot -c one "$1.qcow2"
}

qemu-img create -q -f qcow2 -o cluster_size=512 512.qcow2 1M
qemu-img create -q -f qcow2 -o cluster_size=4k 4k.qcow2 4M
qemu-img create -q -f qcow2 -o cluster_size=64k 64k.qcow2 16M
# Where refcounts are wide and clusters small, tables are soon too small.
qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 wide.qcow2 6M
# Where L2 tables are there already, new clusters alone decide on the order.
for size in 4k 64k; do
	qemu-img create -q -f qcow2 -o cluster_size=$size tables-$size.qcow2 4M
	qemu-io -f qcow2 -c 'write -q -z 0 64k' -c 'write -q -z 2M 64k' \
	    tables-$size.qcow2
done
make_full full-512 512 512k
make_full full-4k 4k 512k
make_full full-64k 64k 2M

for workload in fill churn flush; do
	try 20 $workload 512.qcow2 4k.qcow2
	try 8 $workload 64k.qcow2
done
try 8 fill tables-4k.qcow2 tables-64k.qcow2
try 16 overwrite full-512.qcow2 full-4k.qcow2 full-64k.qcow2 \
    compressed-full-512.qcow2 compressed-full-4k.qcow2
try 8 overwrite compressed-full-64k.qcow2
try 4 grow wide.qcow2
try 12 served 512.qcow2 4k.qcow2
try 12 leave 512.qcow2 4k.qcow2

checked=0
while IFS= read -r state; do
	status=0
	qemu-img check -f qcow2 "$state" >check.out 2>&1 || status=$?
	# 3 says that there are leaks and nothing worse.
	if [ $status -ne 0 ] && [ $status -ne 3 ]; then
		cat check.out
		echo "$state: qemu-img check ends with status $status"
		failures=$((failures + 1))
	fi
	checked=$((checked + 1))
done < <(find states -name '*.qcow2' | sort)

echo "$states states, $distinct distinct, $checked shown to qemu-img," \
    "$failures verdicts against"
[ $failures -eq 0 ] || fail "a crash may do harm"
[ $checked -gt 0 ] || fail "no state was shown to qemu-img"
if [ $slower -eq 1 ] && [ $# -eq 0 ] && [ "$distinct" -lt $distinct_min ]; then
	fail "only $distinct distinct states; $distinct_min are asked for"
fi
