#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `convert` against a copy that does not hold what its source does, that
# is not sound, or that holds more than it must; and against losing what was
# there when it fails, is interrupted, or finds no room, or by a power failure.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3 mke2fs

mkdir matrix
bash "$top/tests/images/make-matrix.sh" "$tmp/matrix" ||
    fail "the images cannot be made"

nothing_left()
{
	local left

	left=$(find "$tmp" -name '.qnbd-*')
	[ -z "$left" ] || fail "left behind: $left"
}

# expect_whole COPY FORMAT: qemu-img finds it sound.
expect_whole()
{
	[ "$2" = raw ] || qemu-img check -q -f qcow2 "$1" ||
	    fail "$1 is not clean"
}

# expect_sha COPY FORMAT SHA BYTES: qemu-img reads these bytes in it, and at
# most what is left of the last sector, which qemu-img did not see before.
expect_sha()
{
	qemu-img convert -t unsafe -f "$2" -O raw "$1" read-back
	[ "$(head -c "$4" read-back | sha256sum | cut -d ' ' -f 1)" = "$3" ] ||
	    fail "$1 does not hold what its source does"
	[ $(($(stat -c %s read-back) - $4)) -le 512 ] ||
	    fail "$1 is longer than its source"
	rm read-back
}

# mapped IMAGE FORMAT: how many bytes are data.
mapped()
{
	qemu-img map -f "$2" --output=json "$1" | python3 -c '
import json, sys
print(sum(run["length"] for run in json.load(sys.stdin) if run["data"]))'
}

echo "images of all kinds:"
count=0
while read -r kind name format bytes sha snapshot; do
	source=(-f "$format")
	[ "$kind" = image ] || source+=(-l "$snapshot")
	# Of a disk that was shorter then, qemu-img shows more than there was.
	if [ "$kind $name" = "snapshot 14-resized.qcow2" ]; then
		bytes=8388608
		sha=$(qemu-img convert -t unsafe -l "snapshot.name=$snapshot" \
		    -O raw "matrix/$name" full && head -c $bytes full |
		    sha256sum | cut -d ' ' -f 1)
	fi
	for output in raw qcow2; do
		rm -f copy
		"$QNBD" convert "${source[@]}" -O $output "matrix/$name" copy ||
		    fail "convert ${source[*]} -O $output $name"
		expect_whole copy $output
		expect_sha copy $output "$sha" "$bytes"
		count=$((count + 1))
	done </dev/null
	# What qemu-img wrote with other clusters is read and written, too.
	[ "$kind" = image ] || continue
	for options in cluster_size=2M cluster_size=512,compat=0.10 \
	    '-c cluster_size=512,compression_type=zstd' '-c compat=0.10'; do
		compress=()
		[ "$options" = "${options#-c }" ] || compress=(-c)
		rm -f copy
		"$QNBD" convert "${source[@]}" "${compress[@]}" \
		    -o "${options#-c }" "matrix/$name" copy ||
		    fail "convert ${source[*]} $options $name"
		expect_whole copy qcow2
		expect_sha copy qcow2 "$sha" "$bytes"
		count=$((count + 1))
	done </dev/null
done <matrix/manifest
[ "$count" -ge 100 ] || fail "only $count copies"
nothing_left

echo "no more than there is:"
qemu-img create -q -f raw sparse.raw 1G
qemu-io -f raw -c 'write -q -P 1 10M 64k' -c 'write -q -P 2 500M 3M' \
    -c 'write -q -P 0 600M 3M' -c 'write -q -P 3 700M 512' \
    -c 'write -q -P 4 1048575k 1k' sparse.raw
for output in raw qcow2; do
	"$QNBD" convert -f raw -O $output sparse.raw ours
	qemu-img convert -f raw -O $output sparse.raw theirs
	qemu-img compare -q -f raw -F $output sparse.raw ours ||
	    fail "$output: the copy differs"
	[ "$(mapped ours $output)" -le "$(mapped theirs $output)" ] ||
	    fail "$output: $(mapped ours $output) bytes are data, but" \
	        "$(mapped theirs $output) suffice"
	[ "$(du -k ours | cut -f 1)" -lt 6000 ] || fail "$output: it takes more"
	rm ours theirs
done
"$QNBD" create empty.qcow2 16T
timeout 60 "$QNBD" convert empty.qcow2 copy.qcow2 ||
    fail "an empty disk takes long"

echo "data in the order of the disk:"
head -c 40M /dev/urandom >noise.raw
"$QNBD" convert -f raw --threads 2 noise.raw noise.qcow2
qemu-img map -f qcow2 --output=json noise.qcow2 | python3 -c '
import json, sys
runs = json.load(sys.stdin)
assert len(runs) < 100, f"{len(runs)} fragments"' ||
    fail "the copy is scattered"

echo "on the disk where that was asked for, and before it replaces another:"
# Pages that the kernel has not written; 0 where it cannot tell.
unwritten()
{
	python3 - "$1" <<'END'
import ctypes, os, struct, sys
CACHESTAT = 451
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open(sys.argv[1], os.O_RDONLY)
span = struct.pack("QQ", 0, os.fstat(fd).st_size)
counts = ctypes.create_string_buffer(40)
libc.syscall(CACHESTAT, fd, span, counts, 0)
cached, dirty, writeback, *_ = struct.unpack("5Q", counts.raw)
print(dirty + writeback)
END
}
for output in raw qcow2; do
	for option in --sync --force; do
		"$QNBD" convert $option -f raw -O $output noise.raw synced
		[ "$(unwritten synced)" = 0 ] ||
		    fail "$option: $(unwritten synced) pages are not written"
		qemu-img compare -q -f raw -F $output noise.raw synced ||
		    fail "$option: the copy differs"
		[ $option = --force ] || "$QNBD" create --force synced 1M
	done
	rm synced
done

echo "compressed:"
python3 -c '
import random, sys
draw = random.Random(1)
for _ in range(1024):
    sys.stdout.buffer.write(draw.randbytes(20000) + bytes(20000) +
                            b"compress me " * 2128)' >text.raw
for type in zlib zstd; do
	"$QNBD" convert -f raw -c -o compression_type=$type text.raw ours
	qemu-img convert -f raw -c -O qcow2 -o compression_type=$type \
	    text.raw theirs
	qemu-img check -q ours
	qemu-img compare -q -f raw -F qcow2 text.raw ours ||
	    fail "$type: the copy differs"
	[ "$(stat -c %s ours)" -lt $(($(stat -c %s theirs) * 103 / 100)) ] ||
	    fail "$type: $(stat -c %s ours) bytes, but $(stat -c %s theirs)" \
	        "suffice"
	rm ours theirs
done
expect_status 64 "$QNBD" convert -c -O raw -f raw text.raw new.qcow2
expect_status 64 "$QNBD" convert -c -o preallocation=metadata text.raw new

echo "sizes that are no whole sectors, or nothing:"
for size in 0 1 511 513 1000001; do
	head -c $size /dev/urandom >odd.raw
	"$QNBD" convert --force -f raw odd.raw odd.qcow2
	qemu-img check -q odd.qcow2
	qemu-img compare -q -f raw -F qcow2 odd.raw odd.qcow2 ||
	    fail "$size bytes: the copy differs"
	"$QNBD" convert --force -f raw -O raw odd.raw odd.copy
	cmp odd.raw odd.copy
done

echo "on a backing file:"
qemu-img create -q -f raw base.raw 20M
qemu-io -f raw -c 'write -q -P 1 0 10M' base.raw
cp base.raw changed.raw
qemu-io -f raw -c 'write -q -P 2 1M 64k' -c 'write -q -P 0 5M 1M' \
    -c 'write -q -P 3 15M 64k' changed.raw
"$QNBD" convert -f raw -b base.raw -F raw changed.raw on-base.qcow2
expect_whole on-base.qcow2 qcow2
qemu-img compare -q -f raw -F qcow2 changed.raw on-base.qcow2 ||
    fail "with a backing file the copy differs"
[ "$(stat -c %s on-base.qcow2)" -lt 1000000 ] ||
    fail "it holds what its backing file has"
qemu-img info on-base.qcow2 >out
expect_text out 'backing file format: raw'
# A longer one must not show behind the end of the source.
head -c 1000000 changed.raw >short.raw
"$QNBD" convert -f raw -b base.raw -F raw short.raw short.qcow2
qemu-img compare -q -f raw -F qcow2 short.raw short.qcow2 ||
    fail "what is behind the end of the source is not zeros"
mkdir elsewhere
mv base.raw elsewhere
"$QNBD" convert --force -f raw -b elsewhere/base.raw -F raw changed.raw \
    on-base.qcow2
qemu-img compare -q -f raw -F qcow2 changed.raw on-base.qcow2
expect_status 1 "$QNBD" convert -f raw -b absent -F raw changed.raw new
expect_text err 'absent: No such file'
expect_status 64 "$QNBD" convert -f raw -b base.raw changed.raw new

echo "into what is there:"
for output in raw qcow2; do
	qemu-img create -q -f $output there.$output 30M
	qemu-io -f $output -c 'write -q -P 9 0 30M' there.$output
	expect_status 0 "$QNBD" convert -n -f raw -O $output changed.raw \
	    there.$output
	expect_whole there.$output $output
	qemu-io -f $output -c 'read -P 9 20M 10M' there.$output >out
	! grep -q -i fail out || fail "what is behind was changed"
	qemu-img convert -f $output -O raw there.$output out.raw
	cmp -n "$((20 << 20))" changed.raw out.raw || fail "-n: it differs"
done
qemu-img create -q -f raw small.raw 1M
expect_status 1 "$QNBD" convert -n -f raw -O raw changed.raw small.raw
expect_text err 'small.raw has 1048576 bytes, less than'
expect_status 1 "$QNBD" convert -n -f raw -O raw changed.raw absent.raw
for option in -c '-b changed.raw -F raw' '-o cluster_size=4k' --force; do
	# shellcheck disable=SC2086 # words are meant
	expect_status 64 "$QNBD" convert -n $option changed.raw small.raw
done

echo "refused:"
cp changed.raw same.raw
sum=$(sha256sum <same.raw)
ln -s same.raw link.raw
for target in same.raw link.raw; do
	for option in --force -n; do
		expect_status 1 "$QNBD" convert $option -f raw -O raw \
		    same.raw $target
		expect_text err 'cannot be converted into itself'
	done
done
cp matrix/07-* .
expect_status 1 "$QNBD" convert --force 07-top.qcow2 07-base.raw
expect_text err '07-base.raw is a backing file of 07-top.qcow2'
expect_status 1 "$QNBD" convert -f raw same.raw changed.raw
expect_text err 'changed.raw is there already'
expect_status 1 "$QNBD" convert -f raw same.raw /dev/null
expect_status 1 "$QNBD" convert --force -f raw same.raw elsewhere
expect_status 1 "$QNBD" convert same.raw new.qcow2
expect_text err 'is not a qcow2 image'
expect_status 1 "$QNBD" convert absent new.qcow2
expect_status 64 "$QNBD" convert -O raw -o cluster_size=4k same.raw new
expect_status 64 "$QNBD" convert -o clutser_size=4k same.raw new
expect_status 64 "$QNBD" convert same.raw
expect_status 1 "$QNBD" convert -f raw -o cluster_size=3000 same.raw new
expect_text err 'power of two'
mv 07-base.raw gone
expect_status 1 "$QNBD" convert 07-top.qcow2 new.qcow2
expect_text err '07-base.raw'
start_qnbd noise.qcow2
expect_status 75 "$QNBD" convert noise.qcow2 new.qcow2
expect_status 75 "$QNBD" convert --force -f raw same.raw noise.qcow2
expect_status 75 "$QNBD" convert -n -f raw same.raw noise.qcow2
expect_status 0 "$QNBD" convert -U noise.qcow2 shared.qcow2
stop_qnbd
[ "$(sha256sum <same.raw)" = "$sum" ] || fail "a source was changed"
if [ -e new.qcow2 ] || [ -e new ]; then
	fail "half a copy got its name"
fi
nothing_left

echo "a damaged source, and no room:"
cp noise.qcow2 damaged.qcow2
printf '\377' | dd of=damaged.qcow2 bs=1 conv=notrunc status=none \
    seek=$(($(od -An -t u8 --endian=big -j 40 -N 8 damaged.qcow2) + 1))
expect_status 1 "$QNBD" convert damaged.qcow2 new.qcow2
for output in raw qcow2; do
	if (ulimit -f 1000 && "$QNBD" convert -f raw -O $output noise.raw \
	    new.$output) >/dev/null 2>err; then
		fail "it wrote more than it may"
	fi
	expect_text err 'cannot (write|make)'
	[ ! -e new.$output ] || fail "half a copy got its name"
done
nothing_left

echo "progress, and an interruption:"
"$QNBD" convert -f raw --progress 5 noise.raw told.qcow2 5>told 2>err
[ ! -s err ] || fail "it talks to what is no terminal"
[ "$(tail -n 1 told)" = "41943040 41943040" ] ||
    fail "the end was not told: $(tail -n 1 told)"
"$QNBD" convert -f raw --progress 1 noise.raw untold.qcow2 | :
[ -e untold.qcow2 ] || fail "it needs somebody to listen"
# interrupt STATUS ARGUMENT...: while it waits at a full pipe for us to
# hear of its progress.
interrupt()
{
	timeout 120 python3 - "$@" <<'END' || fail "${*:2}"
import fcntl, os, signal, subprocess, sys, time
status, *arguments = sys.argv[1:]
read, write = os.pipe()
fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
os.write(write, bytes(4096))
process = subprocess.Popen(arguments + ["--progress", str(write)],
                           pass_fds=[write], stderr=open("err", "wb"))
time.sleep(1)
if process.poll() is not None:
    sys.exit("it does not wait")
process.send_signal(signal.SIGINT)
if process.wait() != int(status):
    sys.exit(f"status {process.returncode}, not {status}")
END
}
interrupt -2 "$QNBD" convert -f raw noise.raw new.qcow2
[ ! -e new.qcow2 ] || fail "half a copy got its name"
nothing_left
qemu-img create -q -f qcow2 part.qcow2 40M
interrupt 1 "$QNBD" convert -n --threads 1 -f raw noise.raw part.qcow2
expect_text err 'part.qcow2 holds a part of the copy'
qemu-img check -q part.qcow2 || fail "an interruption leaves damage"
nothing_left
echo "$count copies, all is well"
