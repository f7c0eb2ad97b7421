/* SPDX-License-Identifier: MIT */
#include "tests/fault/scenario.h"

#include "qcow2/create.h"

#define KIB 1024u
#define MIB (1024u * KIB)
#define K(n) ((n) * KIB)

/* Clusters of 1 KiB, of which eight are written; an L2 table has 128. */
#define SMALL(...) {.cluster_bytes = KIB, .disk_bytes = 512 * KIB, \
	.filled_bytes = 8 * KIB, __VA_ARGS__}
#define PLAIN SMALL(.version = 3)

#define ENCRYPTED SMALL(.flags = LAYOUT_ENCRYPTED)

/* As PLAIN, with all that clusters can be. */
#define MIXED SMALL(.flags = LAYOUT_COMPRESSED | LAYOUT_SHARED)

/* As PLAIN, but little above the backing files: they have data to 256 KiB. */
#define CHAIN(...) {.cluster_bytes = KIB, .disk_bytes = 512 * KIB, \
	.filled_bytes = 2 * KIB, .flags = LAYOUT_CHAIN, __VA_ARGS__}
#define CHAINED CHAIN(.version = 3)

#define READ ACTION_READ
#define WRITE ACTION_WRITE
#define COMPRESS ACTION_COMPRESS
#define ZERO ACTION_ZERO
#define DISCARD ACTION_DISCARD
#define FLUSH {ACTION_FLUSH, 0, 0, 0}
#define STATUS ACTION_STATUS
#define CREATE(number) {ACTION_SNAPSHOT_CREATE, number, 0, 0}
#define DELETE(number) {ACTION_SNAPSHOT_DELETE, number, 0, 0}
#define APPLY(number) {ACTION_SNAPSHOT_APPLY, number, 0, 0}
#define RESIZE(bytes, preallocation) {ACTION_RESIZE, bytes, preallocation, 0}
#define NO_HOLE IMAGE_NO_HOLE
#define FAST IMAGE_FAST
#define FUA IMAGE_FUA

const struct scenario scenarios[] = {
	/* ---- reading ---- */
	{"reading plain, shared, compressed and missing clusters", MIXED,
	    .count = 4, .steps = {
		{READ, 512, K(3), 0},
		{READ, K(7), K(6), 0},
		{READ, K(300), K(2), 0},
		{READ, K(1) + 512, 512, 0},
	}},
	{"reading through a qcow2 over a qcow2 over a raw file", CHAINED,
	    .count = 3, .steps = {
		{READ, 0, K(130), 0},
		{READ, K(200), K(100), 0},
		{READ, K(380), K(132), 0},
	}},
	{"block status and prefetch", CHAINED, .count = 4, .steps = {
		{STATUS, 0, K(256), 0},
		{READ, 0, K(64), STEP_PREFETCH},
		{STATUS, K(256), K(256), 0},
		{READ, K(256), K(256), STEP_PREFETCH},
	}},
	{"a cache of a single table", SMALL(.cache_bytes = 1), .count = 7,
	    .steps = {
		{READ, 0, K(8), 0},
		{WRITE, K(130), K(1), 0},
		{WRITE, K(260), K(1), 0},
		{READ, 0, K(8), 0},
		FLUSH,
		{READ, K(130), K(1), 0},
		{WRITE, K(390), K(1), 0},
	}},
	/* ---- allocating ---- */
	{"allocating writes, which grow the file by a reserve", PLAIN,
	    .count = 3, .steps = {
		{WRITE, K(16) + 512, K(3), 0},
		FLUSH,
		{WRITE, K(24), 512, 0},
	}},
	{"a new L2 table", PLAIN, .count = 2, .steps = {
		{WRITE, K(256) + 512, 1024, 0},
		FLUSH,
	}},
	{"several L2 tables before the first flush", PLAIN, .count = 5,
	    .steps = {
		{WRITE, K(130), 512, 0},
		{WRITE, K(258), 512, 0},
		{WRITE, K(386), 512, 0},
		FLUSH,
		{ZERO, K(300), K(20), NO_HOLE},
	}},
	{"head and tail of a cluster that is not written whole",
	    {.cluster_bytes = K(4), .disk_bytes = K(512),
	    .filled_bytes = K(16), .flags = LAYOUT_SHARED},
	    .count = 3, .steps = {
		{WRITE, K(64) + 512, 512, 0},
		{WRITE, K(33) + 512, K(2), 0},
		FLUSH,
	}},
	{"refcount blocks and a refcount table that grow",
	    {.cluster_bytes = 512, .disk_bytes = K(512),
	    .filled_bytes = K(8)}, .count = 6, .steps = {
		{WRITE, K(64), K(128), 0},
		FLUSH,
		{DISCARD, K(64), K(64), 0},
		{WRITE, K(256), K(128), 0},
		FLUSH,
		{WRITE, K(400), K(64), 0},
	}},
	{"refcounts of 64 bits, whose table grows with the first write",
	    {.cluster_bytes = 512, .disk_bytes = MIB, .filled_bytes = K(8),
	    .refcount_bits = 64}, .count = 3, .steps = {
		{WRITE, K(256), K(256), 0},
		FLUSH,
		{WRITE, K(700), K(64), 0},
	}},
	{"refcounts of one bit", SMALL(.refcount_bits = 1), .count = 6,
	    .steps = {
		{WRITE, K(16), K(4), 0},
		FLUSH,
		{DISCARD, K(2), K(4), 0},
		FLUSH,
		{WRITE, K(20), K(6), 0},
		FLUSH,
	}},
	{"version 2", SMALL(.version = 2, .flags = LAYOUT_COMPRESSED),
	    .count = 6, .steps = {
		{WRITE, K(1) + 512, K(2), 0},
		{ZERO, K(4), K(2) + 512, 0},
		{ZERO, K(6), K(2), NO_HOLE},
		{DISCARD, K(3), K(1), 0},
		FLUSH,
		{WRITE, K(256), K(3), FUA},
	}},
	{"a write over many tables", {.cluster_bytes = 512,
	    .disk_bytes = K(512), .filled_bytes = K(4)}, .count = 2,
	    .steps = {
		{WRITE, K(1) + 512, K(150), 0},
		FLUSH,
	}},
	{"clusters of 2 MiB", {.cluster_bytes = 2 * MIB,
	    .disk_bytes = 6 * MIB, .filled_bytes = K(64)}, .count = 4,
	    .steps = {
		{WRITE, K(512), K(4), 0},
		{WRITE, 2 * MIB + K(768), K(64), 0},
		FLUSH,
		{WRITE, 4 * MIB - 512, 1024, 0},
	}},
	{"clusters of 64 KiB, with slices of tables", {.cluster_bytes = K(64),
	    .disk_bytes = MIB, .filled_bytes = K(128),
	    .flags = LAYOUT_COMPRESSED}, .count = 4, .steps = {
		{WRITE, K(100), K(8), 0},
		{WRITE, K(500), K(80), 0},
		{DISCARD, K(0), K(64), 0},
		FLUSH,
	}},
	/* ---- compressing ---- */
	{"compressed clusters, packed and written over", MIXED, .count = 7,
	    .steps = {
		{COMPRESS, K(16), K(1), STEP_TOGETHER},
		{COMPRESS, K(20), K(1), 0},
		{WRITE, K(16), K(1), 0},
		FLUSH,
		{COMPRESS, K(24), K(1), STEP_TOGETHER},
		{DISCARD, K(20), K(1), 0},
		{READ, K(24), K(1), 0},
	}},
	{"a compressed cluster in a new L2 table, refcounts of two bits",
	    SMALL(.refcount_bits = 2), .count = 5, .steps = {
		{COMPRESS, K(256), K(1), 0},
		{COMPRESS, K(257), K(1), 0},
		{COMPRESS, K(258), K(1), 0},
		{COMPRESS, K(259), K(1), 0},
		FLUSH,
	}},
	{"compressed clusters over a chain", CHAINED, .count = 4, .steps = {
		{COMPRESS, K(64), K(1), 0},
		{COMPRESS, K(300), K(1), 0},
		FLUSH,
		{WRITE, K(64) + 512, 512, 0},
	}},
	/* ---- copying ---- */
	{"copies of shared and compressed clusters", MIXED, .count = 4,
	    .steps = {
		{WRITE, K(2) + 512, 512, 0},
		{WRITE, K(1) + 512, 512, 0},
		{WRITE, K(8), 512, 0},
		FLUSH,
	}},
	{"a compressed cluster overwritten whole", MIXED, .count = 4,
	    .steps = {
		{WRITE, K(1), K(1), 0},
		FLUSH,
		{READ, 0, K(4), 0},
		{WRITE, K(1), K(1), FUA},
	}},
	{"copy-on-write across the chain", CHAINED, .count = 5, .steps = {
		{WRITE, K(64) + 512, 512, 0},
		{WRITE, K(10) + 512, 512, 0},
		{WRITE, K(191) + 512, K(2), 0},
		FLUSH,
		{WRITE, K(383) + 512, K(1), 0},
	}},
	{"zeros and discards over the chain", CHAINED, .count = 5, .steps = {
		{ZERO, K(63) + 512, K(4), 0},
		{DISCARD, 0, K(16), 0},
		{ZERO, K(20), K(8), NO_HOLE},
		FLUSH,
		{READ, 0, K(80), 0},
	}},
	{"version 2 over a chain, where zeros are written",
	    CHAIN(.version = 2), .count = 4, .steps = {
		{ZERO, K(63) + 512, K(4), 0},
		{ZERO, K(100), K(4), FAST},
		{DISCARD, 0, K(16), 0},
		FLUSH,
	}},
	{"an L2 table that a snapshot shares",
	    SMALL(.flags = LAYOUT_SNAPSHOT), .count = 4, .steps = {
		{WRITE, K(2) + 512, 512, 0},
		FLUSH,
		{WRITE, K(5), K(1), FUA},
		{WRITE, K(3), K(2), 0},
	}},
	{"discards of what a snapshot has", SMALL(.flags = LAYOUT_SNAPSHOT |
	    LAYOUT_COMPRESSED), .count = 5, .steps = {
		{DISCARD, 0, K(4), 0},
		FLUSH,
		{ZERO, K(4), K(2), NO_HOLE},
		FLUSH,
		{WRITE, K(1), K(6), 0},
	}},
	/* ---- zeros, discards, quarantine ---- */
	{"zeros with and without room", MIXED, .count = 4, .steps = {
		{ZERO, 512, K(3), 0},
		{ZERO, K(5), K(2), NO_HOLE},
		{ZERO, K(20), K(2), NO_HOLE},
		FLUSH,
	}},
	{"fast zeros, and writes into the room that was kept", MIXED,
	    .count = 6, .steps = {
		{ZERO, K(3), K(4), FAST | NO_HOLE},
		{ZERO, K(1) + 512, 512, FAST},
		FLUSH,
		{WRITE, K(3) + 512, K(1), 0},
		{ZERO, K(4), K(1), FAST | FUA},
		FLUSH,
	}},
	{"discards", MIXED, .count = 5, .steps = {
		{DISCARD, 0, K(4), 0},
		FLUSH,
		{WRITE, K(30), K(2), 0},
		{DISCARD, K(5), K(2), FUA},
		{WRITE, K(5), K(1), 0},
	}},
	{"clusters that are punched and used again", PLAIN, .count = 7,
	    .steps = {
		{DISCARD, 0, K(8), 0},
		FLUSH,
		FLUSH,
		{WRITE, K(40), K(7), 0},
		FLUSH,
		{DISCARD, K(40), K(3), FUA},
		{WRITE, 0, K(4), FUA},
	}},
	{"a full disk of discards and writes",
	    {.cluster_bytes = K(4), .disk_bytes = K(256),
	    .filled_bytes = K(256)}, .count = 6, .steps = {
		{DISCARD, 0, K(128), 0},
		FLUSH,
		{WRITE, 0, K(64), 0},
		{ZERO, K(128), K(64), 0},
		FLUSH,
		{WRITE, K(96), K(96), 0},
	}},
	/* ---- stable ---- */
	{"flushes", MIXED, .count = 5, .steps = {
		{WRITE, 0, K(1), 0},
		FLUSH,
		{WRITE, 512, 512, 0},
		FLUSH,
		FLUSH,
	}},
	/* The first barrier is for what was found; then FUA may go alone. */
	{"FUA", MIXED, .lone_fua = true, .count = 5, .steps = {
		FLUSH,
		{WRITE, 0, 1024, FUA},
		{WRITE, K(3), K(2), FUA},
		{WRITE, K(40), 512, FUA},
		{ZERO, K(5), K(1), FUA},
	}},
	{"FUA beside FUA and beside a write", MIXED, .count = 5, .steps = {
		{WRITE, 0, 1024, FUA | STEP_TOGETHER},
		{WRITE, K(3), K(2), FUA},
		{WRITE, K(5), K(1), FUA | STEP_TOGETHER},
		{WRITE, K(50), K(1), STEP_TOGETHER},
		{WRITE, K(200), K(1), FUA},
	}},
	/* ---- encrypted ---- */
	{"encrypted, in place, whole sectors and parts", ENCRYPTED,
	    .count = 6, .steps = {
		{WRITE, 100, 300, 0},
		{WRITE, K(1), K(2), 0},
		{WRITE, K(3) + 700, 1000, FUA},
		{READ, 0, K(8), 0},
		FLUSH,
		{WRITE, 512, 100, 0},
	}},
	{"encrypted, stable", ENCRYPTED, .lone_fua = true, .count = 4,
	    .steps = {
		FLUSH,
		{WRITE, K(1), K(1), FUA},
		{WRITE, K(3), K(1), FUA | STEP_TOGETHER},
		{WRITE, K(4), K(1), FUA},
	}},
	{"encrypted, allocating and zeroing", ENCRYPTED, .count = 8,
	    .steps = {
		{WRITE, K(16) + 512, K(3), 0},
		{WRITE, K(30) + 10, 5, 0},
		{ZERO, K(2) + 512, K(3), NO_HOLE},
		{DISCARD, 0, K(2), 0},
		FLUSH,
		{WRITE, K(3) + 512, 512, 0},
		{WRITE, K(256), K(2), 0},
		FLUSH,
	}},
	{"encrypted, over a chain", {.cluster_bytes = KIB,
	    .disk_bytes = K(512), .filled_bytes = K(2),
	    .flags = LAYOUT_CHAIN | LAYOUT_ENCRYPTED | LAYOUT_COMPRESSED},
	    .count = 6, .steps = {
		{READ, 0, K(130), 0},
		{WRITE, K(64) + 512, 512, 0},
		{WRITE, K(1) + 512, 512, 0},
		{ZERO, K(100), K(4) + 512, 0},
		FLUSH,
		{READ, 0, K(130), 0},
	}},
	{"encrypted, two clients in a sector", ENCRYPTED, .count = 6,
	    .steps = {
		{WRITE, 100, 100, STEP_TOGETHER},
		{WRITE, 300, 100, 0},
		{WRITE, 300, 1000, STEP_TOGETHER},
		{WRITE, K(1) + 400, 300, FUA},
		{READ, 0, K(2), 0},
		FLUSH,
	}},
	/* ---- two clients ---- */
	{"two clients allocate at once", PLAIN, .count = 5, .steps = {
		{WRITE, K(130) + 512, K(2), STEP_TOGETHER},
		{WRITE, K(140) + 512, K(2), 0},
		{WRITE, K(300), K(3), STEP_TOGETHER},
		{READ, 0, K(8), 0},
		FLUSH,
	}},
	{"two clients discard and write neighbours", MIXED, .count = 5,
	    .steps = {
		{DISCARD, 0, K(3), STEP_TOGETHER},
		{WRITE, K(3), K(3), 0},
		{ZERO, K(8), K(1), STEP_TOGETHER},
		{WRITE, K(7), K(1), 0},
		FLUSH,
	}},
	{"two clients copy one shared table",
	    SMALL(.flags = LAYOUT_SNAPSHOT), .count = 3, .steps = {
		{WRITE, K(1) + 512, 512, STEP_TOGETHER},
		{WRITE, K(6) + 512, 512, 0},
		FLUSH,
	}},
	/* ---- snapshots ---- */
	{"snapshots that are made", MIXED, .count = 6, .steps = {
		{WRITE, K(16), K(2), 0},
		CREATE(1),
		{WRITE, K(2) + 512, 512, 0},
		CREATE(2),
		{WRITE, K(1), K(4), 0},
		FLUSH,
	}},
	{"snapshots that are made beside writes", PLAIN, .count = 7,
	    .steps = {
		{WRITE, K(130), K(1), 0},
		{WRITE, K(2) + 512, 512, STEP_TOGETHER},
		CREATE(1),
		{WRITE, K(4), K(1), STEP_TOGETHER},
		{DISCARD, K(130), K(1), STEP_TOGETHER},
		CREATE(2),
		FLUSH,
	}},
	{"snapshots that are deleted", MIXED, .count = 7, .steps = {
		CREATE(1),
		{WRITE, K(0), K(3), 0},
		CREATE(2),
		DELETE(1),
		{WRITE, K(2) + 512, K(2), 0},
		DELETE(2),
		{WRITE, K(4), K(1), FUA},
	}},
	{"a snapshot that is deleted beside writes", PLAIN, .count = 6,
	    .steps = {
		CREATE(1),
		{WRITE, K(4), K(1), 0},
		{WRITE, K(2) + 512, 512, STEP_TOGETHER},
		{WRITE, K(5) + 512, 512, STEP_TOGETHER},
		DELETE(1),
		FLUSH,
	}},
	{"a snapshot that is applied", MIXED, .count = 7, .steps = {
		CREATE(1),
		{WRITE, K(0), K(3), 0},
		{WRITE, K(200), K(1), 0},
		APPLY(1),
		{WRITE, K(2) + 512, 512, 0},
		APPLY(1),
		FLUSH,
	}},
	{"a snapshot that is applied beside writes", PLAIN, .count = 7,
	    .steps = {
		CREATE(1),
		{WRITE, K(2), K(1), 0},
		CREATE(2),
		{WRITE, K(2) + 512, 512, STEP_TOGETHER},
		{WRITE, K(5) + 512, 512, STEP_TOGETHER},
		APPLY(1),
		FLUSH,
	}},
	{"snapshots in version 2", SMALL(.version = 2,
	    .flags = LAYOUT_COMPRESSED), .count = 7, .steps = {
		CREATE(1),
		{WRITE, K(1) + 512, K(2), 0},
		CREATE(2),
		APPLY(1),
		{WRITE, K(3), K(1), 0},
		DELETE(1),
		FLUSH,
	}},
	{"snapshots with a cache of a single table",
	    SMALL(.cache_bytes = 1), .count = 7, .steps = {
		{WRITE, K(130), K(1), 0},
		CREATE(1),
		{WRITE, K(1), K(1), 0},
		CREATE(2),
		APPLY(1),
		{WRITE, K(130), K(1), 0},
		DELETE(2),
	}},
	{"snapshots with slices of tables, and a cache of one",
	    {.cluster_bytes = K(64), .disk_bytes = MIB,
	    .filled_bytes = K(128), .cache_bytes = 1}, .count = 6, .steps = {
		CREATE(1),
		{WRITE, K(100), K(8), 0},
		APPLY(1),
		{WRITE, K(500), K(8), 0},
		DELETE(1),
		FLUSH,
	}},
	{"snapshots that refcounts of one bit cannot count",
	    SMALL(.refcount_bits = 1), .count = 5, .steps = {
		{WRITE, K(130), K(1), 0},
		{WRITE, K(2) + 512, 512, STEP_TOGETHER},
		CREATE(1),
		{WRITE, K(3) + 512, 512, 0},
		FLUSH,
	}},
	{"snapshots where refcount blocks are soon full",
	    {.cluster_bytes = 512, .disk_bytes = K(256),
	    .filled_bytes = K(40), .refcount_bits = 64}, .count = 6,
	    .steps = {
		CREATE(1),
		{WRITE, K(0), K(40), 0},
		CREATE(2),
		APPLY(1),
		DELETE(2),
		FLUSH,
	}},
	{"snapshots on a block device", SMALL(.device_bytes = MIB),
	    .count = 6, .steps = {
		CREATE(1),
		{WRITE, K(2), K(3), 0},
		APPLY(1),
		{WRITE, K(4), K(1), 0},
		DELETE(1),
		FLUSH,
	}},
	{"closing after snapshots were made and applied", PLAIN,
	    .moment = CLOSING, .count = 4, .steps = {
		CREATE(1),
		{WRITE, K(2), K(2), 0},
		APPLY(1),
		{WRITE, K(5), K(1), 0},
	}},
	/* ---- resizing ---- */
	{"a disk that becomes longer, with its L1 table", PLAIN, .count = 4,
	    .steps = {
		RESIZE(MIB + K(5), CREATE_OFF),
		{WRITE, MIB, K(5), 0},
		FLUSH,
		{READ, K(500), K(100), 0},
	}},
	{"a disk that becomes shorter, and longer again",
	    SMALL(.flags = LAYOUT_COMPRESSED), .count = 7, .steps = {
		{WRITE, K(130), K(2), 0},
		{WRITE, K(300), K(2), 0},
		RESIZE(K(6) + 512, CREATE_OFF),
		{WRITE, K(5), K(1), 0},
		RESIZE(K(600), CREATE_OFF),
		{READ, 0, K(400), 0},
		FLUSH,
	}},
	{"a disk that is resized beside writes", PLAIN, .count = 7, .steps = {
		{WRITE, K(300), K(2), STEP_TOGETHER},
		{WRITE, K(2) + 512, 512, STEP_TOGETHER},
		RESIZE(K(130) + 512, CREATE_OFF),
		{WRITE, K(129), K(1), STEP_TOGETHER},
		{DISCARD, K(1), K(2), STEP_TOGETHER},
		RESIZE(K(700), CREATE_OFF),
		FLUSH,
	}},
	{"a longer disk, set aside and filled", PLAIN, .count = 5, .steps = {
		RESIZE(K(516), CREATE_METADATA),
		RESIZE(K(520) + 512, CREATE_FALLOC),
		RESIZE(K(523), CREATE_FULL),
		{WRITE, K(514) + 512, K(7), 0},
		FLUSH,
	}},
	{"a longer disk, filled, where tables are small",
	    {.cluster_bytes = 512, .disk_bytes = K(256),
	    .filled_bytes = K(8), .refcount_bits = 64}, .count = 3, .steps = {
		RESIZE(K(300), CREATE_FULL),
		{WRITE, K(290), K(4), 0},
		FLUSH,
	}},
	{"a disk that is resized over a chain", CHAINED, .count = 5,
	    .steps = {
		RESIZE(K(100) + 512, CREATE_OFF),
		{WRITE, K(99), K(1), 0},
		RESIZE(K(400) + 512, CREATE_OFF),
		{READ, K(90), K(310), 0},
		FLUSH,
	}},
	{"a disk that is resized over a chain, version 2",
	    CHAIN(.version = 2), .count = 3, .steps = {
		RESIZE(K(200) + 512, CREATE_OFF),
		RESIZE(K(260), CREATE_OFF),
		FLUSH,
	}},
	{"a disk that is resized beside snapshots", PLAIN, .count = 8,
	    .steps = {
		CREATE(1),
		RESIZE(K(5) + 512, CREATE_OFF),
		{WRITE, K(4), K(1), 0},
		CREATE(2),
		RESIZE(K(600), CREATE_OFF),
		APPLY(1),
		{WRITE, K(300), K(1), 0},
		DELETE(2),
	}},
	{"an encrypted disk that is resized", ENCRYPTED, .count = 5,
	    .steps = {
		RESIZE(K(5) + 512, CREATE_OFF),
		RESIZE(K(515), CREATE_FULL),
		{WRITE, K(5), K(1), 0},
		RESIZE(K(4), CREATE_OFF),
		FLUSH,
	}},
	{"a disk that is resized, on a block device, with a cache of one",
	    SMALL(.device_bytes = MIB, .cache_bytes = 1), .count = 5,
	    .steps = {
		{WRITE, K(300), K(2), 0},
		RESIZE(K(6) + 512, CREATE_OFF),
		RESIZE(MIB, CREATE_OFF),
		{WRITE, K(900), K(2), 0},
		FLUSH,
	}},
	{"a raw file that is resized", {.disk_bytes = K(512),
	    .filled_bytes = K(64), .flags = LAYOUT_RAW}, .count = 5,
	    .steps = {
		RESIZE(K(20), CREATE_OFF),
		{WRITE, K(8), K(2), 0},
		RESIZE(K(530), CREATE_FALLOC),
		RESIZE(K(540), CREATE_FULL),
		FLUSH,
	}},
	{"closing after the disk became shorter", PLAIN, .moment = CLOSING,
	    .count = 2, .steps = {
		RESIZE(K(3) + 512, CREATE_OFF),
		{WRITE, K(2), K(1), 0},
	}},
	/* ---- other kinds of files ---- */
	{"a block device", SMALL(.device_bytes = MIB), .count = 6, .steps = {
		{WRITE, K(16) + 512, K(3), 0},
		FLUSH,
		{DISCARD, 0, K(4), FUA},
		{WRITE, K(40), K(6), 0},
		{ZERO, K(4), K(2), NO_HOLE},
		FLUSH,
	}},
	{"a raw file", {.disk_bytes = K(512), .filled_bytes = K(64),
	    .flags = LAYOUT_RAW}, .count = 8, .steps = {
		{READ, K(4), K(128), 0},
		{WRITE, K(8) + 512, K(3), 0},
		FLUSH,
		{WRITE, K(100), K(2), 0},
		{ZERO, K(16), K(8), 0},
		{DISCARD, K(32), K(16), FUA},
		{ZERO, K(48), K(2), NO_HOLE},
		{STATUS, 0, K(512), 0},
	}},
	{"a raw file, stable", {.disk_bytes = K(512), .filled_bytes = K(64),
	    .flags = LAYOUT_RAW}, .lone_fua = true, .count = 4, .steps = {
		{WRITE, K(8) + 512, K(3), FUA},
		{WRITE, K(20), K(1), FUA | STEP_TOGETHER},
		{WRITE, K(30), K(1), FUA},
		{ZERO, K(40), K(1), FUA},
	}},
	/* ---- opening and closing ---- */
	{"opening", MIXED, .moment = OPENING, .count = 2, .steps = {
		{WRITE, 0, K(1), 0},
		FLUSH,
	}},
	{"opening an image with a snapshot",
	    SMALL(.flags = LAYOUT_SNAPSHOT), .moment = OPENING, .count = 2,
	    .steps = {
		{WRITE, K(2), K(1), 0},
		FLUSH,
	}},
	{"opening for writing, which makes bitmaps invalid",
	    SMALL(.flags = LAYOUT_BITMAP), .moment = OPENING, .count = 2,
	    .steps = {
		{WRITE, K(2), K(1), 0},
		FLUSH,
	}},
	{"opening a chain", CHAINED, .moment = OPENING, .count = 2,
	    .steps = {
		{READ, 0, K(128), 0},
		{WRITE, K(64) + 512, 512, 0},
	}},
	{"opening a raw file", {.disk_bytes = K(512),
	    .filled_bytes = K(64), .flags = LAYOUT_RAW}, .moment = OPENING,
	    .count = 1, .steps = {
		{WRITE, 0, K(1), 0},
	}},
	{"opening an encrypted image", ENCRYPTED, .moment = OPENING,
	    .count = 2, .steps = {
		{WRITE, K(2), K(1), 0},
		FLUSH,
	}},
	{"closing", MIXED, .moment = CLOSING, .count = 3, .steps = {
		{WRITE, K(16), K(3), 0},
		{DISCARD, K(4), K(2), 0},
		{WRITE, 0, 1024, 0},
	}},
	{"closing with a table that has grown",
	    {.cluster_bytes = 512, .disk_bytes = K(512),
	    .filled_bytes = K(8), .refcount_bits = 64}, .moment = CLOSING,
	    .count = 2, .steps = {
		{WRITE, K(64), K(128), 0},
		{DISCARD, 0, K(8), 0},
	}},
	{"closing a raw file", {.disk_bytes = K(512),
	    .filled_bytes = K(64), .flags = LAYOUT_RAW}, .moment = CLOSING,
	    .count = 1, .steps = {
		{WRITE, 0, K(1), 0},
	}},
};

const unsigned scenarios_count = sizeof(scenarios) / sizeof(scenarios[0]);
