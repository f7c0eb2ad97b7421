#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `compare` against another verdict than qemu-img's, and against another
# byte than the first that differs.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io mke2fs python3

mkdir matrix
bash "$top/tests/images/make-matrix.sh" "$tmp/matrix" ||
    fail "the images cannot be made"

# verdict STATUS A FORMAT B FORMAT [OPTION]: from both programs.
verdict()
{
	local status=0

	expect_status "$1" "$QNBD" compare "${@:6}" -f "$3" -F "$5" "$2" "$4"
	qemu-img compare -q "${@:6}" -f "$3" -F "$5" "$2" "$4" 2>/dev/null ||
	    status=$?
	[ "$status" -eq "$1" ] || fail "qemu-img says $status: $2 $4"
}

echo "images of all kinds:"
count=0
while read -r kind name format bytes _; do
	[ "$kind" = image ] || continue
	qemu-img convert -t unsafe -f "$format" -O raw "matrix/$name" disk
	"$QNBD" convert --force -f "$format" "matrix/$name" copy.qcow2
	# Of that one qemu-img does not see the last part of a sector.
	if [ "$name" = 08-odd-size.qcow2 ]; then
		expect_status 0 "$QNBD" compare "matrix/$name" copy.qcow2
		continue
	fi
	verdict 0 "matrix/$name" "$format" copy.qcow2 qcow2
	verdict 0 copy.qcow2 qcow2 "matrix/$name" "$format"
	count=$((count + 1))
	[ "$bytes" -gt 0 ] || continue
	cp disk changed
	at=$((bytes / 3))
	printf '\377' | dd of=changed bs=1 seek=$at conv=notrunc status=none
	printf '\377' | dd of=changed bs=1 seek=$((bytes - 1)) conv=notrunc \
	    status=none
	verdict 1 "matrix/$name" "$format" changed raw
	expect_text out " differ from byte $at on\$"
done <matrix/manifest
[ "$count" -ge 12 ] || fail "only $count images"

echo "the first difference, whoever finds it:"
head -c 30M /dev/urandom >noise
for at in 0 1 262143 262144 29999999; do
	# A byte of each page from there on: all that are at work find one.
	python3 - $at <<'END'
import sys
with open("noise", "rb") as file:
    data = bytearray(file.read())
for byte in range(int(sys.argv[1]), len(data), 4096):
    data[byte] ^= 255
with open("changed", "wb") as file:
    file.write(data)
END
	for threads in 1 2 8; do
		expect_status 1 "$QNBD" compare --threads $threads -f raw \
		    -F raw noise changed
		expect_text out " differ from byte $at on\$"
	done
done

echo "sizes:"
qemu-img create -q -f raw short.raw 1M
qemu-img create -q -f qcow2 long.qcow2 3M
verdict 0 short.raw raw long.qcow2 qcow2
expect_text out 'the longer one ends with zeros'
verdict 0 long.qcow2 qcow2 short.raw raw
verdict 1 short.raw raw long.qcow2 qcow2 -s
expect_text out 'not of the same size'
qemu-io -c 'write -q -P 1 2M 512' long.qcow2
verdict 1 short.raw raw long.qcow2 qcow2
expect_text out 'differ from byte 2097152 on'

echo "strict:"
qemu-img create -q -f qcow2 plain.qcow2 3M
cp plain.qcow2 zero.qcow2
verdict 0 plain.qcow2 qcow2 zero.qcow2 qcow2 -s
qemu-io -c 'write -q -z 1M 64k' zero.qcow2
verdict 0 plain.qcow2 qcow2 zero.qcow2 qcow2
verdict 1 plain.qcow2 qcow2 zero.qcow2 qcow2 -s
expect_text out 'allocated differently from byte 1048576 on'
qemu-io -c 'write -q -P 5 1M 64k' zero.qcow2
cp zero.qcow2 same.qcow2
verdict 0 zero.qcow2 qcow2 same.qcow2 qcow2 -s

echo "errors:"
expect_status 2 "$QNBD" compare plain.qcow2 absent
expect_text err 'cannot open absent'
expect_status 2 "$QNBD" compare plain.qcow2 short.raw
expect_status 64 "$QNBD" compare plain.qcow2
[ -z "$("$QNBD" compare -q zero.qcow2 same.qcow2)" ] || fail "it is not quiet"
start_qnbd plain.qcow2
expect_status 75 "$QNBD" compare plain.qcow2 zero.qcow2
expect_status 1 "$QNBD" compare -U plain.qcow2 zero.qcow2
stop_qnbd
# Entries that point nowhere: what comes before them is compared.
cp zero.qcow2 damaged.qcow2
python3 - <<'END'
import struct
with open("damaged.qcow2", "r+b") as file:
    file.seek(40)
    l1, = struct.unpack(">Q", file.read(8))
    file.seek(l1)
    l2 = struct.unpack(">Q", file.read(8))[0] & 0x00fffffffffffe00
    file.seek(l2 + 16 * 8)
    file.write(struct.pack(">Q", 1 << 63 | 1 << 40))
END
expect_status 2 "$QNBD" compare zero.qcow2 damaged.qcow2
expect_text err 'cannot read damaged.qcow2 at byte'
echo "$count images, all is well"
