/* SPDX-License-Identifier: MIT */
/*
 * Guards against requests that servers have judged wrongly: ranges past the
 * end or wrapping round 2^64, flags on the wrong command (one server aborts
 * on a FAST_ZERO it did not offer), writes to read-only exports, FUA where it
 * does nothing, and lengths at the limit of a payload (CVE-2005-3534).
 */
#include "tests/unit/test_proto.h"

#include "proto/request.h"

#define EXPORT_BYTES (UINT64_C(8) << 30)
#define COMMAND_MAX NBD_CMD_BLOCK_STATUS

/* An export with all we know, for a client that negotiated everything. */
static struct nbd_terms terms;

static void
set_up(void)
{
	terms = (struct nbd_terms){
		.export_bytes = EXPORT_BYTES,
		.block_bytes_min = 1,
		.transmission_flags = NBD_FLAG_HAS_FLAGS |
			NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES |
			NBD_FLAG_SEND_DF | NBD_FLAG_CAN_MULTI_CONN |
			NBD_FLAG_SEND_CACHE | NBD_FLAG_SEND_FAST_ZERO,
		.structured_replies = true,
		.contexts = 1,
	};
}

static uint32_t
check(uint16_t type, uint16_t flags, uint64_t offset, uint64_t length)
{
	const struct nbd_request request = {
		.type = type,
		.flags = flags,
		.offset = offset,
		.length = length,
	};

	return nbd_request_check(&request, &terms);
}

/* The same, with a range that suits the command. */
static uint32_t
check_flags(uint16_t type, uint16_t flags)
{
	return check(type, flags, 0, type == NBD_CMD_FLUSH ? 0 : 4096);
}

static bool
has_range(uint16_t type)
{
	return type != NBD_CMD_DISC && type != NBD_CMD_FLUSH;
}

static uint32_t
past_end_error(uint16_t type)
{
	return type == NBD_CMD_WRITE || type == NBD_CMD_WRITE_ZEROES ?
		NBD_ENOSPC : NBD_EINVAL;
}

START_TEST(good_request_passes)
{
	ck_assert_uint_eq(check_flags((uint16_t)_i, 0), NBD_SUCCESS);
}
END_TEST

START_TEST(request_up_to_the_last_byte_passes)
{
	uint16_t type = (uint16_t)_i;

	if (!has_range(type))
		return;
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES - 1, 1), NBD_SUCCESS);
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES - 4096, 4096),
		NBD_SUCCESS);
}
END_TEST

/* Past the end: ENOSPC for what writes data, EINVAL for the others. */
START_TEST(request_past_the_end_is_refused)
{
	uint16_t type = (uint16_t)_i;

	if (!has_range(type))
		return;
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES - 4095, 4096),
		past_end_error(type));
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES, 1),
		past_end_error(type));
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES + 1, 1),
		past_end_error(type));
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES - UINT32_MAX + 1,
		UINT32_MAX), past_end_error(type));
}
END_TEST

/* offset + length wraps to something small. */
START_TEST(request_wrapping_round_is_refused)
{
	uint16_t type = (uint16_t)_i;

	if (!has_range(type))
		return;
	ck_assert_uint_eq(check(type, 0, UINT64_MAX, 1),
		past_end_error(type));
	ck_assert_uint_eq(check(type, 0, UINT64_MAX - 4095, 8192),
		past_end_error(type));
	ck_assert_uint_eq(check(type, 0, UINT64_C(1) << 63, 4096),
		past_end_error(type));
}
END_TEST

START_TEST(request_of_no_bytes_succeeds)
{
	uint16_t type = (uint16_t)_i;

	if (!has_range(type) || type == NBD_CMD_BLOCK_STATUS)
		return;
	ck_assert_uint_eq(check(type, 0, 0, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check(type, 0, EXPORT_BYTES + 1, 0),
		past_end_error(type));
}
END_TEST

/* The reply needs an extent, and an extent needs a length. */
START_TEST(status_of_no_bytes_is_refused)
{
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, 0, 0, 0), NBD_EINVAL);
}
END_TEST

START_TEST(empty_export_has_nothing_to_read)
{
	terms.export_bytes = 0;
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, 1), NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, 0, 1), NBD_ENOSPC);
}
END_TEST

START_TEST(read_only_export_refuses_what_writes)
{
	terms.transmission_flags |= NBD_FLAG_READ_ONLY;
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE, 0), NBD_EPERM);
	ck_assert_uint_eq(check_flags(NBD_CMD_TRIM, 0), NBD_EPERM);
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE_ZEROES, 0), NBD_EPERM);
	ck_assert_uint_eq(check_flags(NBD_CMD_READ, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check_flags(NBD_CMD_FLUSH, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check_flags(NBD_CMD_CACHE, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check_flags(NBD_CMD_BLOCK_STATUS, 0), NBD_SUCCESS);
}
END_TEST

/* EPERM says more than EINVAL: a read-only export offers no TRIM. */
START_TEST(read_only_export_says_eperm_for_what_it_does_not_offer)
{
	terms.transmission_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
	ck_assert_uint_eq(check_flags(NBD_CMD_TRIM, 0), NBD_EPERM);
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE_ZEROES, 0), NBD_EPERM);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, EXPORT_BYTES, 1),
		NBD_EPERM);
}
END_TEST

START_TEST(unknown_command_is_refused)
{
	unsigned type;

	for (type = COMMAND_MAX + 1; type <= UINT16_MAX; type++)
		ck_assert_uint_eq(check((uint16_t)type, 0, 0, 0), NBD_EINVAL);
}
END_TEST

START_TEST(command_not_offered_is_refused)
{
	terms.transmission_flags = NBD_FLAG_HAS_FLAGS;
	ck_assert_uint_eq(check_flags(NBD_CMD_READ, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check_flags(NBD_CMD_FLUSH, 0), NBD_EINVAL);
	ck_assert_uint_eq(check_flags(NBD_CMD_TRIM, 0), NBD_EINVAL);
	ck_assert_uint_eq(check_flags(NBD_CMD_CACHE, 0), NBD_EINVAL);
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE_ZEROES, 0), NBD_EINVAL);
}
END_TEST

/* Existing clients set it on reads and flushes too. */
START_TEST(fua_passes_on_every_command)
{
	ck_assert_uint_eq(check_flags((uint16_t)_i, NBD_CMD_FLAG_FUA),
		NBD_SUCCESS);
}
END_TEST

START_TEST(fua_not_offered_is_refused)
{
	terms.transmission_flags &= ~NBD_FLAG_SEND_FUA;
	if (_i != NBD_CMD_DISC)
		ck_assert_uint_eq(check_flags((uint16_t)_i,
			NBD_CMD_FLAG_FUA), NBD_EINVAL);
}
END_TEST

/* Each flag passes on its command, and on no other. */
START_TEST(flag_on_the_wrong_command_is_refused)
{
	uint16_t type = (uint16_t)_i;
	uint32_t expected;
	uint16_t known = NBD_CMD_FLAG_FUA;
	int bit;

	if (type == NBD_CMD_DISC)
		return;
	if (type == NBD_CMD_READ)
		known |= NBD_CMD_FLAG_DF;
	if (type == NBD_CMD_WRITE_ZEROES)
		known |= NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
	if (type == NBD_CMD_BLOCK_STATUS)
		known |= NBD_CMD_FLAG_REQ_ONE;
	for (bit = 0; bit < 16; bit++) {
		expected = known >> bit & 1 ? NBD_SUCCESS : NBD_EINVAL;
		ck_assert_uint_eq(check_flags(type, (uint16_t)(1 << bit)),
			expected);
		ck_assert_uint_eq(check_flags(type,
			(uint16_t)(known | 1 << bit)), expected);
	}
}
END_TEST

START_TEST(fast_zero_not_offered_is_refused)
{
	terms.transmission_flags &= ~NBD_FLAG_SEND_FAST_ZERO;
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE_ZEROES,
		NBD_CMD_FLAG_FAST_ZERO), NBD_EINVAL);
	ck_assert_uint_eq(check_flags(NBD_CMD_WRITE_ZEROES,
		NBD_CMD_FLAG_NO_HOLE), NBD_SUCCESS);
}
END_TEST

START_TEST(df_without_structured_replies_is_refused)
{
	terms.structured_replies = false;
	ck_assert_uint_eq(check_flags(NBD_CMD_READ, NBD_CMD_FLAG_DF),
		NBD_EINVAL);
}
END_TEST

START_TEST(flush_with_a_range_is_refused)
{
	ck_assert_uint_eq(check(NBD_CMD_FLUSH, 0, 0, 0), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_FLUSH, 0, 4096, 0), NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_FLUSH, 0, 0, 4096), NBD_EINVAL);
}
END_TEST

/* A client that says goodbye badly still goes. */
START_TEST(disc_passes_whatever_it_holds)
{
	terms.transmission_flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
	ck_assert_uint_eq(check(NBD_CMD_DISC, 0xffff, UINT64_MAX,
		UINT32_MAX), NBD_SUCCESS);
}
END_TEST

START_TEST(status_without_context_is_refused)
{
	terms.contexts = 0;
	ck_assert_uint_eq(check_flags(NBD_CMD_BLOCK_STATUS, 0), NBD_EINVAL);
}
END_TEST

/* Against an advertised minimum; 0 and the whole are aligned to all. */
START_TEST(unaligned_request_is_refused)
{
	uint16_t type = (uint16_t)_i;

	terms.block_bytes_min = 512;
	if (!has_range(type))
		return;
	ck_assert_uint_eq(check(type, 0, 512, 512), NBD_SUCCESS);
	ck_assert_uint_eq(check(type, 0, 256, 512), NBD_EINVAL);
	ck_assert_uint_eq(check(type, 0, 512, 511), NBD_EINVAL);
	ck_assert_uint_eq(check(type, 0, 1, 1), NBD_EINVAL);
}
END_TEST

START_TEST(payload_of_32_mib_passes)
{
	const uint32_t limit = 32 << 20;

	ck_assert_uint_eq(NBD_PAYLOAD_BYTES_MAX, limit);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, limit - 1), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, limit), NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, limit),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, 0, limit), NBD_SUCCESS);
}
END_TEST

/* EOVERFLOW is for clients that can know it; others get EINVAL. */
START_TEST(read_over_32_mib_is_refused)
{
	const uint32_t over = (32 << 20) + 1;

	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, over), NBD_EOVERFLOW);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, UINT32_MAX),
		NBD_EOVERFLOW);
	ck_assert_uint_eq(check(NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, over),
		NBD_EOVERFLOW);
	terms.structured_replies = false;
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, over), NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_READ, 0, 0, UINT32_MAX), NBD_EINVAL);
}
END_TEST

/* Never carried out, even by a caller that forgot to hang up. */
START_TEST(write_over_32_mib_is_refused)
{
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, 0, (32 << 20) + 1),
		NBD_EINVAL);
	ck_assert_uint_eq(check(NBD_CMD_WRITE, 0, 0, UINT32_MAX),
		NBD_EINVAL);
}
END_TEST

/*
 * The Linux client trims and zeroes nearly 4 GiB at a time, and a status of
 * 4 GiB met assertions elsewhere (CVE-2025-47711, CVE-2025-47712).
 */
START_TEST(command_without_payload_may_span_4_gib)
{
	ck_assert_uint_eq(check(NBD_CMD_TRIM, 0, 0, UINT32_MAX),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_WRITE_ZEROES, 0, 0, UINT32_MAX),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_CACHE, 0, 0, UINT32_MAX),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, 0, 0, UINT32_MAX),
		NBD_SUCCESS);
	ck_assert_uint_eq(check(NBD_CMD_BLOCK_STATUS, 0,
		EXPORT_BYTES - UINT32_MAX, UINT32_MAX), NBD_SUCCESS);
}
END_TEST

/* Run once for each command there is. */
static void
add_for_each_command(TCase *tcase, const TTest *test)
{
	tcase_add_loop_test(tcase, test, NBD_CMD_READ, COMMAND_MAX + 1);
}

static void
add_range_tests(TCase *tcase)
{
	add_for_each_command(tcase, request_up_to_the_last_byte_passes);
	add_for_each_command(tcase, request_past_the_end_is_refused);
	add_for_each_command(tcase, request_wrapping_round_is_refused);
	add_for_each_command(tcase, request_of_no_bytes_succeeds);
	add_for_each_command(tcase, unaligned_request_is_refused);
	tcase_add_test(tcase, status_of_no_bytes_is_refused);
	tcase_add_test(tcase, empty_export_has_nothing_to_read);
	tcase_add_test(tcase, payload_of_32_mib_passes);
	tcase_add_test(tcase, read_over_32_mib_is_refused);
	tcase_add_test(tcase, write_over_32_mib_is_refused);
	tcase_add_test(tcase, command_without_payload_may_span_4_gib);
}

static void
add_command_tests(TCase *tcase)
{
	add_for_each_command(tcase, good_request_passes);
	tcase_add_test(tcase, read_only_export_refuses_what_writes);
	tcase_add_test(tcase,
		read_only_export_says_eperm_for_what_it_does_not_offer);
	tcase_add_test(tcase, unknown_command_is_refused);
	tcase_add_test(tcase, command_not_offered_is_refused);
	add_for_each_command(tcase, fua_passes_on_every_command);
	add_for_each_command(tcase, fua_not_offered_is_refused);
	add_for_each_command(tcase, flag_on_the_wrong_command_is_refused);
	tcase_add_test(tcase, fast_zero_not_offered_is_refused);
	tcase_add_test(tcase, df_without_structured_replies_is_refused);
	tcase_add_test(tcase, flush_with_a_range_is_refused);
	tcase_add_test(tcase, disc_passes_whatever_it_holds);
	tcase_add_test(tcase, status_without_context_is_refused);
}

TCase *
test_proto_request_check(void)
{
	TCase *tcase = tcase_create("request_check");

	tcase_add_checked_fixture(tcase, set_up, NULL);
	add_command_tests(tcase);
	add_range_tests(tcase);
	return tcase;
}
