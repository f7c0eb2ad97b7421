#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
#
# Guards `map --svg` against pictures that are no XML, that tell of other
# amounts than qemu-img does, that paint a cell twice or beside its place, that
# hide a single bad cluster, and that replace what is no picture.
. "${abs_top_srcdir:-.}/tests/functions.sh"
requires qemu-img qemu-io python3

cat >picture.py <<'END'
"""
picture.py PICTURE MAP CHECK CLUSTER_BYTES FILE_BYTES: judges a picture by the
JSON of qemu-img.  Imported: load() tells what is in one.
"""
import json
import re
import sys
import xml.etree.ElementTree as tree

SVG = "{http://www.w3.org/2000/svg}"
LEFT, CELL, PART, COLUMNS = 96, 14, 2, 64


def load(path):
    """[{label: bytes}] and [{label: {(x, y) of parts}}], chart by chart."""
    root = tree.parse(path).getroot()
    assert root.tag == SVG + "svg", root.tag
    amounts, places = [{}, {}], [{}, {}]
    for element in root.iter(SVG + "path"):
        title = element.find(SVG + "title")
        if title is None:
            continue
        label, count = re.fullmatch(r"(.*): (\d+) bytes", title.text).groups()
        chart = int(re.match(r"c(\d+)k", element.get("class"))[1])
        amounts[chart][label] = int(count)
        parts = places[chart].setdefault(label, set())
        rectangles = re.findall(r"M(\d+) (\d+)h(\d+)v(\d+)h-(\d+)z",
                                element.get("d"))
        assert rectangles, label
        for x, y, width, height, back in (map(int, r) for r in rectangles):
            assert height == CELL and back == width > 0
            assert LEFT <= x and x + width <= LEFT + COLUMNS * CELL
            for part in range(x, x + width, PART):
                assert (part, y) not in parts, f"{label} is painted twice"
                parts.add((part, y))
    for chart in places:
        painted = [part for parts in chart.values() for part in parts]
        assert len(painted) == len(set(painted)), "kinds overlap"
        if painted:
            top = min(y for _, y in painted)
            assert all((y - top) % CELL == 0 for _, y in painted)
    return amounts, places


def cells(parts, top):
    """The numbers of the cells that have such parts."""
    return sorted({(y - top) // CELL * COLUMNS + (x - LEFT) // CELL
                   for x, y in parts})


def judge(picture, map_path, check_path, cluster_bytes, file_bytes):
    (disk, file), _ = load(picture)
    with open(map_path) as source:
        extents = json.load(source)
    with open(check_path) as source:
        check = json.load(source)
    below = sum(v for k, v in disk.items() if k.startswith("data in "))
    told = {
        "data": sum(v for k, v in disk.items() if k == "data" or
                    k == "data, compressed"),
        "below": below,
        "zeros": disk.get("zeros", 0) + disk.get("zeros, with room kept", 0),
        "absent": disk.get("nothing, reads as zeros", 0),
    }
    expected = dict.fromkeys(told, 0)
    for extent in extents:
        kind = ("absent" if not extent["present"] else
                "zeros" if extent["zero"] else
                "below" if extent["depth"] else "data")
        expected[kind] += extent["length"]
    assert told == expected, (told, expected)
    assert sum(file.values()) == file_bytes, (file, file_bytes)
    leaked = check.get("leaks", 0) * cluster_bytes
    assert file.get("leaked", 0) == leaked, (file, leaked)
    assert file["header"] == cluster_bytes, file
    # What is compressed shares clusters; the file's last may be cut short.
    plain = (check.get("allocated-clusters", 0) -
             check.get("compressed-clusters", 0)) * cluster_bytes
    mine = file.get("data", 0) + file.get("room kept for zeros", 0)
    assert plain - cluster_bytes < mine <= plain, (mine, plain)


if __name__ == "__main__":
    judge(*sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5]))
END

# same_amounts IMAGE CLUSTER_BYTES: as qemu-img says.
same_amounts()
{
	expect_status 0 "$QNBD" map --svg new.svg "$1"
	[ ! -s "$tmp/out" ] || fail "it prints something"
	qemu-img map -f qcow2 --output=json "$1" >map.json
	qemu-img check -f qcow2 --output=json "$1" >check.json || :
	python3 picture.py new.svg map.json check.json "$2" \
	    "$(stat -c %s "$1")" || fail "$1: the picture is wrong"
}

mkdir matrix
bash "$top/tests/images/make-matrix.sh" "$tmp/matrix" ||
    fail "the images cannot be made"
echo "amounts:"
for image in matrix/*.qcow2; do
	case $image in
	*17-no-bytes*)
		expect_status 0 "$QNBD" map --svg new.svg "$image"
		expect_text new.svg 'there is nothing in it'
		continue
		;;
	*08-odd*) continue ;;	# qemu-img does not see all of it
	esac
	# Where a file has holes, qemu-img may take clusters there for zeros.
	cp --sparse=never "$image" dense
	mv dense "$image"
	same_amounts "$image" "$(qemu-img info -f qcow2 --output=json "$image" |
	    python3 -c 'import json, sys
print(json.load(sys.stdin)["cluster-size"])')"
done
expect_status 0 "$QNBD" map --svg new.svg matrix/05-v3-2m-snapshots.qcow2
for label in 'data of snapshots only' 'snapshot table' 'L1 tables' \
    'L2 tables' refcounts 'room kept for zeros' 'data, compressed' \
    'zeros, with room kept'; do
	expect_text new.svg "<title>$label: [0-9]+ bytes"
done
expect_status 0 "$QNBD" map --svg new.svg matrix/13-bitmaps.qcow2
expect_text new.svg '<title>bitmaps: [0-9]+ bytes'
expect_status 0 "$QNBD" map --svg new.svg matrix/07-top.qcow2
expect_text new.svg '<title>data in 07-middle.qcow2: [0-9]+ bytes'
expect_text new.svg '<title>data in 07-base.raw: [0-9]+ bytes'

echo "places:"
qemu-img create -q -f qcow2 -o cluster_size=4k places.qcow2 1G
qemu-io -f qcow2 -c 'write -q 0 512k' -c 'write -q 300M 4k' \
    -c 'write -q -z 1023M 512k' -c 'write -q 2M 500k' \
    -c 'write -q -z 2M 4k' -c 'write -q -z -u 2052k 4k' \
    -c 'write -q -c 2548k 4k' -c 'write -q 2552k 4k' places.qcow2
expect_status 0 "$QNBD" map --svg new.svg places.qcow2
python3 - <<'END' || fail "clusters are not in their cells"
import picture
amounts, (disk, file) = picture.load("new.svg")
top = min(y for parts in disk.values() for _, y in parts)
assert picture.cells(disk["data"], top) == [0, 4, 600], disk["data"]
assert picture.cells(disk["zeros"], top) == [4, 2046], disk["zeros"]
rest = picture.cells(disk["nothing, reads as zeros"], top)
assert rest == sorted(set(range(2048)) - {0, 2046}), len(rest)
# 4 KiB of 512 KiB are one part; all of a cell are seven, whatever is in it.
assert len(disk["data"]) == 7 + 3 + 1, disk["data"]
for kind in "data, compressed", "zeros, with room kept":
    assert len(disk[kind]) == 1, disk[kind]
    assert picture.cells(disk[kind], top) == [4], disk[kind]
END

echo "a single leaked cluster among very many:"
qemu-img create -q -f qcow2 leaky.qcow2 1G
qemu-io -f qcow2 -c 'write -q 0 1G' leaky.qcow2
python3 - <<'END'
import struct
with open("leaky.qcow2", "r+b") as file:
    file.seek(40)
    l1, = struct.unpack(">Q", file.read(8))
    file.seek(l1)
    l2 = struct.unpack(">Q", file.read(8))[0] & 0x00fffffffffffe00
    file.seek(l2 + 8 * 1000)
    file.write(bytes(8))
END
same_amounts leaky.qcow2 65536
python3 - <<'END' || fail "the leaked cluster does not show"
import picture
amounts, (disk, file) = picture.load("new.svg")
assert amounts[1]["leaked"] == 65536, amounts
assert len(file["leaked"]) == 1, file["leaked"]
END

echo "large images make no large pictures:"
"$QNBD" create large.qcow2 64T
expect_status 0 timeout 60 "$QNBD" map --svg new.svg large.qcow2
[ "$(stat -c %s new.svg)" -lt 100000 ] || fail "it is large"
python3 -c '
with open("stripes.raw", "wb") as file:
    for i in range(20480):
        file.write(b"x" * 512 + bytes(512))
'
qemu-img convert -f raw -O qcow2 -S 512 -o cluster_size=512 \
    stripes.raw stripes.qcow2
same_amounts stripes.qcow2 512
[ "$(stat -c %s new.svg)" -lt 400000 ] || fail "it is large"

echo "raw images:"
truncate -s 100M stripes.raw
expect_status 0 "$QNBD" map --svg new.svg -f raw stripes.raw
expect_text new.svg 'the file is the disk'
expect_text new.svg '<title>data: [0-9]+ bytes'

echo "names of all kinds:"
odd=$'a&b<c>"\'\xc3\xbc\xff\n.qcow2'
"$QNBD" create "$odd" 1M
"$QNBD" map --svg "$odd.svg" "./$odd"
"$QNBD" create -b "./$odd" -F qcow2 top.qcow2
qemu-io -c 'write -q 0 64k' "./$odd"
expect_status 0 "$QNBD" map --svg new.svg top.qcow2
python3 - "$odd.svg" <<'END' || fail "the name is wrong"
import sys
import xml.etree.ElementTree as tree
import picture
title = tree.parse(sys.argv[1]).getroot().find(picture.SVG + "title").text
assert title == "a&b<c>\"'\u00fc\\xff\\x0a.qcow2", repr(title)
amounts, _ = picture.load("new.svg")
assert [label for label in amounts[0] if "a&b<c>" in label], amounts
END

echo "where the picture goes:"
"$QNBD" map --svg /dev/stdout places.qcow2 | cat >piped.svg
expect_status 0 "$QNBD" map --svg again.svg places.qcow2
cmp piped.svg again.svg || fail "a pipe gets another picture"
expect_status 0 "$QNBD" map --svg again.svg large.qcow2
! cmp -s piped.svg again.svg || fail "a picture was not replaced"
for path in places.qcow2 stripes.raw matrix; do
	expect_status 1 "$QNBD" map --svg $path large.qcow2
	expect_text "$tmp/err" "^qnbd: $path is there already, and is no pic"
done
qemu-img check -q places.qcow2 || fail "an image was overwritten"
expect_status 1 "$QNBD" map --svg absent/new.svg places.qcow2
expect_text "$tmp/err" '^qnbd: cannot write absent/new.svg: No such file'
expect_status 1 "$QNBD" map --svg /dev/full places.qcow2
expect_text "$tmp/err" '^qnbd: cannot write /dev/full: No space left'
expect_status 64 "$QNBD" map --svg new.svg
expect_status 64 "$QNBD" map --json --svg new.svg places.qcow2
rm new.svg
expect_status 1 "$QNBD" map --svg new.svg absent.qcow2
[ ! -e new.svg ] || fail "a picture of nothing"
