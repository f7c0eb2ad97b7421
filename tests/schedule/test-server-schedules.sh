#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards what clients of one server may do to each other and to it: 1,000
# random schedules of clients, with TLS and without, network, server and disk in
# one simulated world; and that an equal seed gives equal events, in the same
# process and in another.  server_schedules.c says which faults that is about.
#
# QNBD_SEED is the first seed, TEST_ROUNDS multiplies the number of schedules.
# A failure prints its seed, and the command that plays it again.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img

schedules=$(dirname "$QNBD")/tests/schedule/server_schedules
[ -x "$schedules" ] || fail "there is no $schedules; make check builds it"
draw_seeds 40 15

# try CLUSTER-SIZE DISK-SIZE SCHEDULES
try()
{
	local image=$1.qcow2 bad
	qemu-img create -q -f qcow2 -o cluster_size="$1" "$image" "$2"
	"$schedules" "$image" "$seed" $(($3 * rounds / slower)) >out && {
		tail -n 1 out
		return
	}
	cat out
	bad=$(grep -o -m 1 '^seed [0-9]*' out) || fail "it ended early"
	echo "play it again with: qemu-img create -f qcow2" \
	    "-o cluster_size=$1 $image $2 &&" \
	    "$schedules $image ${bad#seed } 1 [trace]"
	fail "clusters of $1"
}

# The hash of the events of some seeds.
hash_events()
{
	"$schedules" 4k.qcow2 "$seed" 25 | grep '^hash ' ||
	    fail "no hash is told"
}

try 512 1M 400
try 4k 4M 500
try 64k 4M 100

first=$(hash_events)
second=$(hash_events)
[ "$first" = "$second" ] || fail "other events in another process"
echo "the same events in another process: $first"
