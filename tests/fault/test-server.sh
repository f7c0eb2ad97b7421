#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what a server does whose disk, memory or log fails: reads that fail
# hit nobody else, a failed sync stays failed, a file cut short is an error and
# no zeros, a log that nobody reads holds nobody up, the longest chain fits a
# stack, and each allocation of its life may fail.
#
#	test-server.sh [NAME...]	only these of server_faults.py
#
# TEST_ROUNDS multiplies how many of the allocations are tried.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires python3

programs=$(dirname "$QNBD")/tests/fault
lives_max=$((150 * ${TEST_ROUNDS:-1}))
with_preload=(read_fails read_fails_raw sync_fails sync_fails_raw fua_fails
    fua_fails_raw)
without=(is_cut is_cut_raw log_pipe_is_full log_pipe_is_broken log_is_closed
    long_chain long_chain_threads)
QNBD_PRELOAD='' failing=$QNBD
failures=0 skipped=0

case ${QNBD_SANITIZE:-} in
'')
	cases=("${with_preload[@]}" "${without[@]}")
	QNBD_PRELOAD=$programs/preload.so
	[ -e "$QNBD_PRELOAD" ] || fail "make check builds $QNBD_PRELOAD"
	;;
*)
	cases=("${without[@]}")
	failing=$programs/qnbd-failing
	[ -e "$failing" ] || fail "make check builds $failing"
	lives_max=$((lives_max / 5))
	skipped=${#with_preload[@]}
	echo "left out: ${with_preload[*]}, for the sanitizers bear no" \
	    "LD_PRELOAD; allocations of libraries, and most of qnbd's own"
	;;
esac
export QNBD_PRELOAD

[ $# -eq 0 ] || cases=("$@")
python3 -B "$top/tests/fault/server_faults.py" "${cases[@]}" >out ||
    failures=$?
cat out
passed=$(tail -n 1 out | cut -d ' ' -f 1)
if [ $# -eq 0 ]; then
	if QNBD=$failing python3 -B "$top/tests/fault/server_memory.py" \
	    $lives_max; then
		passed=$((passed + 1))
	else
		failures=$((failures + 1))
	fi
fi
[ $failures -eq 0 ] || fail "a fault does harm"
echo "$passed passed, $failures failed, $skipped skipped"
