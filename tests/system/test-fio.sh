#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards against anything but the last data written being read back under a
# load that fio checks by checksums, with trims and flushes from four clients
# at once, and again after the server was started anew.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires fio qemu-img python3

fio --enghelp | grep -qw nbd || skip "this fio has no engine for NBD"
# Its own option --loops does not go with verifying random reads and writes.
rounds=${FIO_ROUNDS:-3}
seconds_max=120

cat >load.fio <<'END'
[global]
ioengine=nbd
uri=${QNBD_URI}
verify=crc32c
verify_fatal=1
iodepth=32

# This one must begin at 0: elsewhere fio 3.33 trims and does not write.
[trimmed]
rw=randtrimwrite
bs=4k
size=32m

[mixed]
rw=randrw
bs=4k
offset=32m
size=48m
fsync=64

[unaligned]
rw=randwrite
bssplit=512/30:3k/40:66k/30
blockalign=512
offset=80m
size=16m
fsync=16

[large]
rw=randwrite
bs=1m
offset=96m
size=32m
END

# Every block of the job "trimmed" was written in the end.
cat >again.fio <<'END'
[again]
ioengine=nbd
uri=${QNBD_URI}
rw=read
verify=crc32c
verify_fatal=1
bs=4k
size=32m
END

# run_fio ARG... FILE
run_fio()
{
	local status=0

	rm -f fio.json
	QNBD_URI=$uri timeout "$seconds_max" fio --output-format=json \
	    --output=fio.json "$@" >fio.txt 2>&1 || status=$?
	[ "$status" -eq 0 ] || {
		head -n 20 fio.txt >&2
		fail "status $status from: fio $*"
	}
}

# Each job ended without an error and did what it was made for.
expect_jobs()
{
	python3 - fio.json <<'END' || fail "fio did something else"
import json, sys
with open(sys.argv[1]) as file:
    jobs = {job["jobname"]: job for job in json.load(file)["jobs"]}
expected = {"mixed": ("read", "write", "sync"), "large": ("read", "write"),
            "unaligned": ("read", "write", "sync"),
            "trimmed": ("read", "write", "trim")}
assert set(jobs) == set(expected), jobs.keys()
for name, job in jobs.items():
    assert job["error"] == 0, (name, job["error"])
    for kind in expected[name]:
        assert job[kind]["total_ios"] > 0, (name, kind)
    print(name, *(f"{kind}={job[kind]['total_ios']}"
                  for kind in expected[name]))
END
}

# try_image CLUSTER ARG...: for an image of such clusters and qnbd serve ARG...
try_image()
{
	local cluster=$1 seed round

	shift
	echo "cluster_size=$cluster qnbd serve $*"
	qemu-img create -q -f qcow2 -o "cluster_size=$cluster" x.qcow2 128M
	start_qnbd "$@" x.qcow2
	for ((round = 0; round < rounds; round++)); do
		seed=$RANDOM
		echo "randseed=$seed"
		run_fio --randseed="$seed" load.fio
		expect_jobs
	done
	stop_qnbd
	qemu-img check -q -f qcow2 x.qcow2 || {
		qemu-img check -f qcow2 x.qcow2 >&2 || :
		fail "qemu-img check is not content"
	}
	start_qnbd "$@" -r x.qcow2
	run_fio again.fio
	stop_qnbd
}

try_image 64k --threads 2
try_image 4k --threads 1
try_image 64k --threads 2 --io threads
