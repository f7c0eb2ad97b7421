#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards images that are opened anew, in place, while other programs use them:
# against old data after qemu-io or qemu-img wrote there, locks that let a
# writer in or keep a reader out, a chain that is not the one the header names,
# and against a file that is left unclean, or clean for ours only.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io

program=$(dirname "$QNBD")/tests/system/reopen
[ -x "$program" ] || fail "there is no $program; make check builds it"

# ours ARG...: opens an image; what it says to that is in $reply.
ours()
{
	coproc "$program" "$@" 2>>ours.log
	holder=$COPROC_PID
	exec 7<&"${COPROC[0]}" 8>&"${COPROC[1]}"
	read -r reply <&7 || fail "cannot open ${*: -1}: $(cat ours.log)"
	[ "$reply" = ok ] || fail "$reply"
}

# tell COMMAND: sets $reply.
tell()
{
	echo "$*" >&8
	read -r reply <&7 || fail "it ended at: $* ($(cat ours.log))"
}

# expect REPLY COMMAND: a pattern.
expect()
{
	tell "${@:2}"
	# shellcheck disable=SC2053 # a pattern is meant
	[[ $reply == $1 ]] || fail "${*:2}: $reply, not $1"
}

leave()
{
	# The coprocess's own copies, too.
	exec 7<&- 8>&-
	eval "exec ${COPROC[0]}<&- ${COPROC[1]}>&-"
	wait "$holder" || fail "it closed with an error: $(cat ours.log)"
}

# theirs ARG...: qemu-io, which must work.
theirs()
{
	qemu-io "$@" >io.out 2>&1 || fail "qemu-io $*: $(cat io.out)"
	! grep -q -i failed io.out || fail "qemu-io $*: $(cat io.out)"
}

# locked ARG...: qemu-io is kept out.
locked()
{
	! qemu-io "$@" >io.out 2>&1 || fail "qemu-io $*: not kept out"
	grep -q 'lock' io.out || fail "qemu-io $*: $(cat io.out)"
}

clean()
{
	qemu-img check -q -f qcow2 "$1" || fail "$1 is not clean"
}

echo "written by qemu-io while it is open for reading:"
qemu-img create -q -f qcow2 plain.qcow2 16M
theirs -c 'write -q -P 1 0 4M' plain.qcow2
ours -f plain.qcow2
expect 1 read 0 4194304
expect 0 read 8388608 65536
theirs -c 'write -q -P 2 1M 1M' -c 'write -q -P 3 8M 64k' \
    -c 'discard -q 2M 1M' plain.qcow2
qemu-img snapshot -c one plain.qcow2
qemu-img snapshot -d one plain.qcow2
qemu-img resize -q plain.qcow2 32M
theirs -c 'write -q -P 4 31M 1M' plain.qcow2
expect ok invalidate
expect 33554432 size
expect 1 read 0 1048576
expect 2 read 1048576 1048576
expect 0 read 2097152 1048576
expect 3 read 8388608 65536
expect 4 read 32505856 1048576
expect 'error Read-only*' write 0 512 9
leave

echo "locks:"
ours plain.qcow2
locked -c 'write 0 512' plain.qcow2
theirs -r -c 'read -q -P 1 0 1M' plain.qcow2
expect ok reopen w
locked -r -c 'read 0 512' plain.qcow2
expect ok write 0 1048576 5
expect ok write 20000000 70000 6
expect ok reopen r
theirs -r -c 'read -q -P 5 0 1M' -c 'read -q -P 6 20000000 70000' plain.qcow2
locked -c 'write 0 512' plain.qcow2
clean plain.qcow2
mkfifo hold
qemu-io -r plain.qcow2 <hold >/dev/null 2>&1 &
reader=$!
exec 6>hold
sleep 0.3
expect 'error *locked by qemu-io*' reopen w
expect 5 read 0 1048576
exec 6>&-
wait "$reader"
locked -c 'write 0 512' plain.qcow2
expect ok reopen w
expect ok invalidate
locked -r -c 'read 0 512' plain.qcow2
expect ok write 0 65536 7
leave
theirs -c 'read -q -P 7 0 64k' -c 'write -q 0 512' plain.qcow2
clean plain.qcow2

echo "chains:"
for base in one two; do
	qemu-img create -q -f qcow2 $base.qcow2 4M
done
theirs -c 'write -q -P 11 0 4M' one.qcow2
theirs -c 'write -q -P 22 0 4M' two.qcow2
qemu-img create -q -f qcow2 -b one.qcow2 -F qcow2 over.qcow2
theirs -c 'write -q -P 33 0 64k' over.qcow2
ours -f over.qcow2
expect 33 read 0 65536
expect 11 read 65536 65536
qemu-img rebase -u -b two.qcow2 -F qcow2 over.qcow2
expect 11 read 1048576 65536
expect ok invalidate
expect 22 read 65536 65536
theirs -c 'write -q -P 23 1M 64k' two.qcow2
expect ok invalidate
expect 23 read 1048576 65536
qemu-img rebase -u -b absent.qcow2 -F qcow2 over.qcow2
expect 'error *over.qcow2 cannot be read anew*absent.qcow2 does not exist' \
    invalidate
grep -q 'cannot be read anew' ours.log || fail "nothing was logged"
expect 'error Input/output error' read 0 512
qemu-img rebase -u -b one.qcow2 -F qcow2 over.qcow2
expect ok invalidate
expect 11 read 65536 65536
expect 33 read 0 65536
leave

echo "an image that was not closed cleanly:"
qemu-img create -q -f qcow2 -o lazy_refcounts=on dirty.qcow2 16M
(qemu-io -c 'write -q -P 8 0 1M' -c flush -c abort dirty.qcow2 || :) \
    >/dev/null 2>&1
[ "$(od -An -tu1 -j79 -N1 dirty.qcow2 | tr -d ' ')" = 1 ] ||
    fail "it is not dirty"
ours dirty.qcow2
expect 8 read 0 1048576
expect ok reopen w
expect ok write 1048576 1048576 9
expect ok reopen r
clean dirty.qcow2
[ "$(od -An -tu1 -j79 -N1 dirty.qcow2 | tr -d ' ')" = 0 ] ||
    fail "it is still dirty"
expect 8 read 0 1048576
leave

echo "a file that is cut short, and whole again:"
cp plain.qcow2 kept.qcow2
ours -f plain.qcow2
truncate -s 1000 plain.qcow2
expect 'error *cannot be read anew*' invalidate
expect 'error Input/output error' read 0 512
cat kept.qcow2 >plain.qcow2
expect ok invalidate
expect 3 read 8388608 65536
leave

echo "encrypted:"
"$QNBD" create -o encryption=on secret.qcow2 4M 2>/dev/null
secret=(--object 'secret,id=key,data=the key of tests' --image-opts
	'driver=qcow2,encrypt.key-secret=key,file.filename=secret.qcow2')
theirs "${secret[@]}" -c 'write -q -P 1 0 1M'
ours -f -k 'the key of tests' secret.qcow2
expect 1 read 0 1048576
theirs "${secret[@]}" -c 'write -q -P 2 64k 1M'
expect ok invalidate
expect 2 read 65536 1048576
leave
ours -k 'the key of tests' secret.qcow2
expect ok reopen w
expect ok write 1000 5000 3
expect ok reopen r
theirs -r "${secret[@]}" -c 'read -q -P 3 1000 5000' -c 'read -q -P 1 0 1000'
leave
