# SPDX-License-Identifier: MIT
# shellcheck shell=bash
#
# What system tests share.  A test begins with
#
#	. "${abs_top_srcdir:-.}/tests/functions.sh"
#
# and then stands in a private directory, $tmp, which goes away at its end
# together with every server it started.  By hand, from the top of the tree:
#
#	QNBD=build/qnbd tests/system/test-NAME.sh
#
# Variables for the test:
#	QNBD	the program under test (an absolute path)
#	tmp	the private directory, also the current one
#	top	the source tree (an absolute path)
#	sock	the unix socket of the latest start_qnbd
#	uri	its NBD URI, with the empty export name
#	log	what that server wrote to standard error
#	pid	its process id, or empty when none runs
# and what may be set for tests that draw at random or take long:
#	QNBD_SEED	the first seed
#	TEST_ROUNDS	times as much as make check does (1)
#	QNBD_SANITIZE	the sanitizers of this build, set by make check; where
#			they are slow a test does less and says so

set -eu -o pipefail

# How long a server may take to start or to stop, under sanitizers too.
server_seconds_max=60

# Where mke2fs is; not in everybody's path.
PATH=$PATH:/usr/sbin:/sbin

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

_find_qnbd()
{
	local candidate
	for candidate in "${QNBD:-}" "${abs_top_builddir:-.}/qnbd" \
	    "$top/build/qnbd" "$top/qnbd"; do
		if [ -n "$candidate" ] && [ -x "$candidate" ]; then
			QNBD=$(realpath -s "$candidate")
			export QNBD
			return
		fi
	done
	echo "FAIL: no program to test; build it, or set QNBD" >&2
	exit 1
}

# draw_seeds THREAD ADDRESS: for tests that try many seeds.  Sets the first one,
# $seed, how many times as much as usual is done, $rounds, and that only one in
# $slower is tried, which is 1 but for the two sanitizers.
draw_seeds()
{
	seed=${QNBD_SEED:-1}
	rounds=${TEST_ROUNDS:-1}
	slower=1
	case ${QNBD_SANITIZE:-} in
	*thread*) slower=$1 ;;
	*address*) slower=$2 ;;
	esac
	echo "QNBD_SEED=$seed TEST_ROUNDS=$rounds"
	[ "$slower" -eq 1 ] ||
	    echo "one seed in $slower: the sanitizer is slow"
}

# Prints why and ends the test as failed.
fail()
{
	echo "FAIL: $*" >&2
	exit 1
}

# Prints why and ends the test as skipped.
skip()
{
	echo "SKIP: $*" >&2
	exit 77
}

_package_of()
{
	case $1 in
	qemu-img | qemu-io | qemu-nbd) echo qemu-utils ;;
	qemu-system-*) echo qemu-system-x86 ;;
	nbdinfo | nbdcopy | nbdsh) echo libnbd-bin ;;
	mke2fs | e2fsck | debugfs) echo e2fsprogs ;;
	systemd-*) echo systemd ;;
	busybox) echo busybox-static ;;
	certtool) echo gnutls-bin ;;
	depmod | modprobe) echo kmod ;;
	mkfs.vfat) echo dosfstools ;;
	mcopy) echo mtools ;;
	*) echo "$1" ;;
	esac
}

# requires TOOL...: the test is skipped where one is missing.
requires()
{
	local tool
	for tool; do
		command -v "$tool" >/dev/null ||
		    skip "$tool is missing; install $(_package_of "$tool")"
	done
}

memory=

# make_memory: sets $memory, a directory in memory, which goes away as $tmp
# does; not 0 where there is none to be had.
make_memory()
{
	memory=$(mktemp -d /dev/shm/qnbd-test.XXXXXX 2>/dev/null)
}

_servers=()
_logs=()
pid=

# start_qnbd [ARG...]: qnbd serve on a new unix socket; returns once it
# listens.  ARGs are options and images.  Several servers may run at once:
# keep $pid, $sock and $log of the earlier ones.
start_qnbd()
{
	local number=${#_servers[@]}
	sock=$tmp/server$number.sock
	log=$tmp/server$number.log
	# shellcheck disable=SC2034 # for the test
	uri="nbd+unix:///?socket=$sock"
	mkfifo "$tmp/ready$number"
	"$QNBD" serve --listen "unix:$sock" --ready-fd 9 "$@" \
	    9>"$tmp/ready$number" >"$tmp/server$number.out" 2>"$log" &
	pid=$!
	_servers+=("$pid")
	_logs+=("$log")
	# The newline says it listens; an end without one, that it died.
	if ! read -r -t "$server_seconds_max" <"$tmp/ready$number"; then
		fail "the server did not start: qnbd serve $*"
	fi
}

_is_running()
{
	kill -0 "$1" 2>/dev/null
}

# wait_qnbd [STATUS]: waits for the server $pid to end by itself and checks
# its exit status, 0 if none is told.
wait_qnbd()
{
	local expected=${1:-0} status=0 tenths=0 number
	while _is_running "$pid"; do
		[ "$tenths" -lt $((server_seconds_max * 10)) ] ||
		    fail "the server did not end within $server_seconds_max s"
		sleep 0.1
		tenths=$((tenths + 1))
	done
	wait "$pid" || status=$?
	for number in "${!_servers[@]}"; do
		if [ "${_servers[number]}" = "$pid" ]; then
			_servers[number]=
		fi
	done
	pid=
	[ "$status" -eq "$expected" ] ||
	    fail "the server ended with status $status, not $expected"
}

# stop_qnbd: SIGTERM to the server $pid, which must end cleanly with status 0.
stop_qnbd()
{
	[ -n "$pid" ] || fail "stop_qnbd: no server runs"
	kill -TERM "$pid" 2>/dev/null || :
	wait_qnbd 0
}

# expect_status STATUS COMMAND...: runs it, output to $tmp/out and $tmp/err.
expect_status()
{
	local expected=$1 status=0
	shift
	"$@" >"$tmp/out" 2>"$tmp/err" || status=$?
	if [ "$status" -ne "$expected" ]; then
		cat "$tmp/out" "$tmp/err" >&2
		fail "status $status, not $expected, from: $*"
	fi
}

# expect_text FILE REGEX: FILE must have a line that matches.
expect_text()
{
	if ! grep -Eq -e "$2" "$1"; then
		cat "$1" >&2
		fail "${1##*/} has no line like: $2"
	fi
}

# qemu_info ARG...: what qemu-img tells of an image or its chain, as JSON; but
# not of the "children", QEMU's own nodes, which it does from 8.1 on.
qemu_info()
{
	qemu-img info --output=json "$@" | python3 -c '
import json, sys
value = json.load(sys.stdin)
for each in value if isinstance(value, list) else [value]:
    each.pop("children", None)
json.dump(value, sys.stdout, indent=4)'
}

# same_map OURS THEIRS: what `qnbd map --json` and `qemu-img map` print is the
# same.  QEMU tells what is compressed from 8.2 on.
same_map()
{
	python3 - "$1" "$2" <<'END' || fail "the maps differ"
import json, sys
ours, theirs = (json.load(open(path)) for path in sys.argv[1:])
for run, other in zip(ours, theirs):
    if "compressed" not in other:
        del run["compressed"]
if ours != theirs:
    sys.exit(f"qnbd:     {ours}\nqemu-img: {theirs}")
END
}

_cleanup()
{
	local status=$? server file
	trap - EXIT
	for server in "${_servers[@]}"; do
		# It ended already, and its number may be another's by now.
		[ -n "$server" ] || continue
		if _is_running "$server"; then
			kill -KILL "$server" 2>/dev/null || :
			wait "$server" 2>/dev/null || :
		fi
	done
	if [ "$status" -ne 0 ] && [ "$status" -ne 77 ]; then
		for file in "${_logs[@]}"; do
			echo "--- ${file##*/} (last 50 lines)"
			tail -n 50 "$file" || :
		done >&2
	fi
	cd /
	rm -rf "$tmp" ${memory:+"$memory"}
	exit "$status"
}

_find_qnbd
# Short, because the path of a unix socket has at most 107 bytes.
tmp=$(mktemp -d /tmp/qnbd-test.XXXXXX)
trap _cleanup EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp"
