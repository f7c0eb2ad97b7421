/* SPDX-License-Identifier: MIT */
/*
 * Guards against errors that the specification reserves for one command
 * leaking into others, and against raw errno values on the wire.
 */
#include "tests/unit/test_proto.h"

#include <errno.h>

#include "proto/error.h"
#include "proto/nbd.h"
#include "proto/request.h"

static const struct nbd_request plain_read = {
	.type = NBD_CMD_READ,
	.length = 4096,
};

static bool
is_defined(uint32_t error)
{
	switch (error) {
	case NBD_SUCCESS:
	case NBD_EPERM:
	case NBD_EIO:
	case NBD_EINVAL:
	case NBD_ENOSPC:
	case NBD_ESHUTDOWN:
		return true;
	default:
		return false;
	}
}

START_TEST(no_error_is_success)
{
	ck_assert_uint_eq(nbd_error_from_errno(0, &plain_read), NBD_SUCCESS);
}
END_TEST

START_TEST(every_way_of_no_room_is_enospc)
{
	ck_assert_uint_eq(nbd_error_from_errno(-ENOSPC, &plain_read), 28);
	ck_assert_uint_eq(nbd_error_from_errno(-EDQUOT, &plain_read), 28);
	ck_assert_uint_eq(nbd_error_from_errno(-EFBIG, &plain_read), 28);
}
END_TEST

START_TEST(every_way_of_not_allowed_is_eperm)
{
	ck_assert_uint_eq(nbd_error_from_errno(-EPERM, &plain_read), 1);
	ck_assert_uint_eq(nbd_error_from_errno(-EACCES, &plain_read), 1);
	ck_assert_uint_eq(nbd_error_from_errno(-EROFS, &plain_read), 1);
}
END_TEST

START_TEST(failing_storage_is_eio)
{
	static const int failures[] = {
		EIO, EBADMSG, EILSEQ, ENODATA, ENODEV, ENXIO, EREMOTEIO,
		ESTALE, ETIMEDOUT, EUCLEAN,
	};
	size_t index;

	for (index = 0; index < sizeof(failures) / sizeof(*failures); index++)
		ck_assert_uint_eq(nbd_error_from_errno(-failures[index],
			&plain_read), 5);
}
END_TEST

/* A server should not say ENOMEM if at all possible, and it is. */
START_TEST(lack_of_memory_is_eio)
{
	ck_assert_uint_eq(nbd_error_from_errno(-ENOMEM, &plain_read), 5);
}
END_TEST

START_TEST(shutdown_is_eshutdown)
{
	ck_assert_uint_eq(nbd_error_from_errno(-ESHUTDOWN, &plain_read), 108);
}
END_TEST

START_TEST(any_errno_becomes_a_defined_error)
{
	uint32_t error;
	int number;

	for (number = 0; number < 4096; number++) {
		error = nbd_error_from_errno(-number, &plain_read);
		ck_assert(is_defined(error));
		ck_assert((error == NBD_SUCCESS) == (number == 0));
	}
	ck_assert_uint_eq(nbd_error_from_errno(-EXDEV, &plain_read), 22);
}
END_TEST

/* "Not faster" is an answer to FAST_ZERO alone. */
START_TEST(enotsup_answers_fast_zero_only)
{
	const struct nbd_request zero = { .type = NBD_CMD_WRITE_ZEROES };
	const struct nbd_request fast_zero = {
		.type = NBD_CMD_WRITE_ZEROES,
		.flags = NBD_CMD_FLAG_FAST_ZERO | NBD_CMD_FLAG_FUA,
	};
	const struct nbd_request trim = {
		.type = NBD_CMD_TRIM,
		.flags = NBD_CMD_FLAG_FAST_ZERO,
	};

	ck_assert_uint_eq(nbd_error_from_errno(-ENOTSUP, &fast_zero), 95);
	ck_assert_uint_eq(nbd_error_from_errno(-EOPNOTSUPP, &fast_zero), 95);
	ck_assert_uint_eq(nbd_error_from_errno(-ENOTSUP, &zero), 22);
	ck_assert_uint_eq(nbd_error_from_errno(-ENOTSUP, &trim), 22);
	ck_assert_uint_eq(nbd_error_from_errno(-ENOTSUP, &plain_read), 22);
}
END_TEST

START_TEST(eoverflow_answers_df_reads)
{
	const struct nbd_request df_read = {
		.type = NBD_CMD_READ,
		.flags = NBD_CMD_FLAG_DF,
	};

	ck_assert_uint_eq(nbd_error_from_errno(-EOVERFLOW, &df_read), 75);
	ck_assert_uint_eq(nbd_error_from_errno(-EOVERFLOW, &plain_read), 22);
}
END_TEST

/* And commands longer than any payload; but a fast zero of any length. */
START_TEST(eoverflow_answers_long_commands_without_payload)
{
	static const uint16_t types[] = {
		NBD_CMD_TRIM, NBD_CMD_CACHE, NBD_CMD_WRITE_ZEROES,
		NBD_CMD_BLOCK_STATUS,
	};
	struct nbd_request request = { .type = NBD_CMD_WRITE };
	size_t index;

	request.length = NBD_PAYLOAD_BYTES_MAX + 1;
	ck_assert_uint_eq(nbd_error_from_errno(-EOVERFLOW, &request), 22);
	for (index = 0; index < sizeof(types) / sizeof(*types); index++) {
		request.type = types[index];
		request.length = NBD_PAYLOAD_BYTES_MAX + 1;
		ck_assert_uint_eq(nbd_error_from_errno(-EOVERFLOW, &request),
			75);
		request.length = NBD_PAYLOAD_BYTES_MAX;
		ck_assert_uint_eq(nbd_error_from_errno(-EOVERFLOW, &request),
			22);
	}
	request.type = NBD_CMD_WRITE_ZEROES;
	request.flags = NBD_CMD_FLAG_FAST_ZERO;
	request.length = NBD_PAYLOAD_BYTES_MAX + 1;
	ck_assert_uint_eq(nbd_error_from_errno(-EOVERFLOW, &request), 22);
}
END_TEST

START_TEST(client_sees_errno)
{
	ck_assert_int_eq(nbd_error_to_errno(0), 0);
	ck_assert_int_eq(nbd_error_to_errno(1), -EPERM);
	ck_assert_int_eq(nbd_error_to_errno(5), -EIO);
	ck_assert_int_eq(nbd_error_to_errno(12), -ENOMEM);
	ck_assert_int_eq(nbd_error_to_errno(22), -EINVAL);
	ck_assert_int_eq(nbd_error_to_errno(28), -ENOSPC);
	ck_assert_int_eq(nbd_error_to_errno(75), -EOVERFLOW);
	ck_assert_int_eq(nbd_error_to_errno(95), -ENOTSUP);
	ck_assert_int_eq(nbd_error_to_errno(108), -ESHUTDOWN);
}
END_TEST

/* Never 0, never positive: the client would take it for success. */
START_TEST(client_takes_unknown_errors_for_einval)
{
	ck_assert_int_eq(nbd_error_to_errno(2), -EINVAL);
	ck_assert_int_eq(nbd_error_to_errno(0x80000000), -EINVAL);
	ck_assert_int_eq(nbd_error_to_errno(UINT32_MAX), -EINVAL);
}
END_TEST

START_TEST(error_names_are_those_of_the_specification)
{
	ck_assert_str_eq(nbd_error_name(0), "success");
	ck_assert_str_eq(nbd_error_name(1), "EPERM");
	ck_assert_str_eq(nbd_error_name(5), "EIO");
	ck_assert_str_eq(nbd_error_name(12), "ENOMEM");
	ck_assert_str_eq(nbd_error_name(22), "EINVAL");
	ck_assert_str_eq(nbd_error_name(28), "ENOSPC");
	ck_assert_str_eq(nbd_error_name(75), "EOVERFLOW");
	ck_assert_str_eq(nbd_error_name(95), "ENOTSUP");
	ck_assert_str_eq(nbd_error_name(108), "ESHUTDOWN");
	ck_assert_str_eq(nbd_error_name(2), "unknown");
}
END_TEST

TCase *
test_proto_error(void)
{
	TCase *tcase = tcase_create("error");

	tcase_add_test(tcase, no_error_is_success);
	tcase_add_test(tcase, every_way_of_no_room_is_enospc);
	tcase_add_test(tcase, every_way_of_not_allowed_is_eperm);
	tcase_add_test(tcase, failing_storage_is_eio);
	tcase_add_test(tcase, lack_of_memory_is_eio);
	tcase_add_test(tcase, shutdown_is_eshutdown);
	tcase_add_test(tcase, any_errno_becomes_a_defined_error);
	tcase_add_test(tcase, enotsup_answers_fast_zero_only);
	tcase_add_test(tcase, eoverflow_answers_df_reads);
	tcase_add_test(tcase,
		eoverflow_answers_long_commands_without_payload);
	tcase_add_test(tcase, client_sees_errno);
	tcase_add_test(tcase, client_takes_unknown_errors_for_einval);
	tcase_add_test(tcase, error_names_are_those_of_the_specification);
	return tcase;
}
