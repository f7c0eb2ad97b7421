#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against work and memory that grow with the image: one of 16 TiB, with
# an L2 table behind each of its 32,768 L1 entries, opens in under 100 ms, and
# the cache of its 2 GiB of tables keeps to its limit.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires python3 qemu-io nbdinfo

# Besides the cache: the program, and buffers of the requests under way.
rest_kib_max=$((24 << 10))

"$top/tests/images/make-full-l1.py" large.qcow2
expect_status 0 "$QNBD" check large.qcow2

# Prints how many milliseconds pass from the start of a server until it
# listens: the best of ten, since other programs run here, too.
best_opening_ms()
{
	python3 - "$QNBD" serve --listen "unix:$tmp/open.sock" "$@" <<'END'
import os, subprocess, sys, time

def opening():
    ready, told = os.pipe()
    begin = time.monotonic()
    server = subprocess.Popen(
        sys.argv[1:] + ["--ready-fd", str(told)], pass_fds=[told],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(told)
    listens = os.read(ready, 1) == b"\n"
    seconds = time.monotonic() - begin
    os.close(ready)
    server.terminate()
    if server.wait() or not listens:
        sys.exit("the server did not start")
    return seconds

print(round(min(opening() for _ in range(10)) * 1000))
END
}

opening_ms=$(best_opening_ms large.qcow2)
echo "opening takes $opening_ms ms"
if [ -n "${QNBD_SANITIZE:-}" ]; then
	echo "neither time nor memory is judged: a sanitizer needs its own"
else
	[ "$opening_ms" -lt 100 ] || fail "opening takes $opening_ms ms"
fi

# peak_kib: the most memory that the server $pid has had.
peak_kib()
{
	awk '$1 == "VmHWM:" { print $2 }' "/proc/$pid/status"
}

# Block status of the whole disk loads every table.
for cache_mib in 8 64; do
	start_qnbd --metadata-cache "${cache_mib}M" large.qcow2
	totals=$(nbdinfo --map --totals "$uri")
	[[ $totals =~ 17592186044416\ 100\.0%\ +3\ hole,zero ]] ||
	    fail "nbdinfo sees $totals"
	peak=$(peak_kib)
	echo "a cache of $cache_mib MiB: $peak KiB at the most"
	[ -n "${QNBD_SANITIZE:-}" ] ||
	    [ "$peak" -lt $(((cache_mib << 10) + rest_kib_max)) ] ||
	    fail "a cache of $cache_mib MiB takes $peak KiB"
	stop_qnbd
done

# Far apart in the disk, and so in the tables.
start_qnbd large.qcow2
for offset in 0 1T 8191G $((16384 * 1024 - 1))M; do
	qemu-io -f raw -c "write -q -P 0x5a $offset 64k" \
	    -c "read -q -P 0x5a $offset 64k" "$uri"
done
stop_qnbd
expect_status 0 "$QNBD" check large.qcow2
