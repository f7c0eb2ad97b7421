/* SPDX-License-Identifier: MIT */
/*
 * The io_uring engine: one ring per loop, made and used by its own thread.
 *
 * System calls: one io_uring_enter per turn, which submits everything queued,
 * runs deferred completions and waits.  Idle sockets hold no memory: their
 * receives pick a buffer from a ring of RECV_BUFFERS only when data is there;
 * a receive with data that finds none waits in starved until one comes back.
 *
 * Needs kernel 6.1 (SINGLE_ISSUER, DEFER_TASKRUN, buffer rings); nothing newer
 * is used.
 */
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include "runtime/iov.h"
#include "runtime/log.h"
#include "runtime/loop_internal.h"

#define SQ_ENTRIES 1024
#define CQ_ENTRIES 8192
#define RECV_BUFFERS 16	/* a power of two */
#define RECV_GROUP 0

/* How long a wait for the next request may spin. */
#define SPIN_NS 30000

/* Operations since the last wait that one client at a time may cause. */
#define CALM_OPS 4
#define RECV_STRIDE_BYTES (LOOP_RECV_HEADROOM_BYTES + LOOP_RECV_BYTES)
#define RECV_MEMORY_BYTES ((size_t)RECV_BUFFERS * RECV_STRIDE_BYTES)

/* Kernel threads per loop for what cannot be done without blocking. */
#define IOWQ_BOUNDED_MAX 64
#define IOWQ_UNBOUNDED_MAX 16

struct uring {
	struct io_uring ring;
	int event_fd;
	uint64_t event_count;		/* where the armed read puts it */
	struct io_uring_buf_ring *recv_ring;
	char *recv_memory;
	unsigned recv_free;		/* buffers the kernel may pick */
	bool spins;			/* see wait_long() */
	uint64_t submitted;		/* at the last wait */
	struct op *starved;		/* OP_RECV_POOLED without a buffer, */
	struct op **starved_end;	/* oldest first */
};

/* user_data of what is not a struct op. */
#define TAG_EVENT ((void *)1)
#define TAG_NOTHING ((void *)2)

/* engine_tag of a send or a whole receive that is not to be continued. */
#define TAG_CANCELLED 1

static struct io_uring_sqe *
get_sqe(struct loop *loop, struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);

	while (!sqe) {
		loop->stats.enters++;
		io_uring_submit(&uring->ring);
		sqe = io_uring_get_sqe(&uring->ring);
	}
	return sqe;
}

static void
arm_event(struct loop *loop, struct uring *uring)
{
	struct io_uring_sqe *sqe = get_sqe(loop, uring);

	io_uring_prep_read(sqe, uring->event_fd, &uring->event_count,
	    sizeof(uring->event_count), 0);
	io_uring_sqe_set_data(sqe, TAG_EVENT);
}

/* ---- the buffers of pooled receives ---- */

static char *
recv_buffer(struct uring *uring, unsigned index)
{
	return uring->recv_memory + (size_t)index * RECV_STRIDE_BYTES +
	    LOOP_RECV_HEADROOM_BYTES;
}

static void
recv_buffer_offer(struct uring *uring, unsigned index)
{
	io_uring_buf_ring_add(uring->recv_ring, recv_buffer(uring, index),
	    LOOP_RECV_BYTES, index, io_uring_buf_ring_mask(RECV_BUFFERS), 0);
	io_uring_buf_ring_advance(uring->recv_ring, 1);
	uring->recv_free++;
}

static int
recv_buffers_init(struct uring *uring)
{
	size_t ring_bytes = RECV_BUFFERS * sizeof(struct io_uring_buf);
	struct io_uring_buf_reg reg = {
		.ring_entries = RECV_BUFFERS, .bgid = RECV_GROUP,
	};
	void *ring;
	int err;

	ring = mmap(NULL, ring_bytes, PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ring == MAP_FAILED)
		return -errno;
	uring->recv_memory = mmap(NULL, RECV_MEMORY_BYTES,
	    PROT_READ | PROT_WRITE,
	    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (uring->recv_memory == MAP_FAILED) {
		err = -errno;
		goto unmap_ring;
	}
	reg.ring_addr = (uintptr_t)ring;
	err = io_uring_register_buf_ring(&uring->ring, &reg, 0);
	if (err)
		goto unmap_memory;
	uring->recv_ring = ring;
	io_uring_buf_ring_init(uring->recv_ring);
	for (unsigned i = 0; i < RECV_BUFFERS; i++)
		recv_buffer_offer(uring, i);
	return 0;
unmap_memory:
	munmap(uring->recv_memory, RECV_MEMORY_BYTES);
unmap_ring:
	munmap(ring, ring_bytes);
	return err;
}

/* flags: 0, or IORING_RECVSEND_POLL_FIRST, kept in the operation's tag. */
static void
prepare_recv_pooled(struct loop *loop, struct uring *uring, struct op *op,
    uint16_t flags)
{
	struct io_uring_sqe *sqe = get_sqe(loop, uring);

	op->engine_tag = flags;
	io_uring_prep_recv(sqe, op->fd, NULL, LOOP_RECV_BYTES, 0);
	sqe->ioprio |= flags;
	sqe->flags |= IOSQE_BUFFER_SELECT;
	sqe->buf_group = RECV_GROUP;
	io_uring_sqe_set_data(sqe, op);
}

/* There is a buffer for one of those that wait for it. */
static void
feed_starved(struct loop *loop, struct uring *uring)
{
	struct op *starved = uring->starved;

	if (!starved)
		return;
	uring->starved = starved->engine_next;
	if (!uring->starved)
		uring->starved_end = &uring->starved;
	prepare_recv_pooled(loop, uring, starved, IORING_RECVSEND_POLL_FIRST);
}

static void
uring_recv_put(struct loop *loop, struct op *op)
{
	struct uring *uring = loop->engine;

	recv_buffer_offer(uring, op->engine_tag);
	feed_starved(loop, uring);
}

/* ---- making and freeing ---- */

static int
uring_init(struct loop *loop)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER |
		    IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
		    IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
		.cq_entries = CQ_ENTRIES,
	};
	unsigned iowq_max[2] = {IOWQ_BOUNDED_MAX, IOWQ_UNBOUNDED_MAX};
	struct uring *uring = calloc(1, sizeof(*uring));
	int err;

	if (!uring)
		return -ENOMEM;
	uring->starved_end = &uring->starved;
	err = io_uring_queue_init_params(SQ_ENTRIES, &uring->ring, &params);
	if (err)
		goto free_uring;
	uring->event_fd = eventfd(0, EFD_CLOEXEC);
	if (uring->event_fd < 0) {
		err = -errno;
		goto exit_ring;
	}
	err = recv_buffers_init(uring);
	if (err)
		goto close_event;
	/* Both only make things cheaper. */
	io_uring_register_ring_fd(&uring->ring);
	io_uring_register_iowq_max_workers(&uring->ring, iowq_max);
	loop->engine = uring;
	arm_event(loop, uring);
	return 0;
close_event:
	close(uring->event_fd);
exit_ring:
	io_uring_queue_exit(&uring->ring);
free_uring:
	free(uring);
	return err;
}

static void
uring_destroy(struct loop *loop)
{
	struct uring *uring = loop->engine;

	io_uring_queue_exit(&uring->ring);
	munmap(uring->recv_ring, RECV_BUFFERS * sizeof(struct io_uring_buf));
	munmap(uring->recv_memory, RECV_MEMORY_BYTES);
	close(uring->event_fd);
	free(uring);
}

/* ---- operations ---- */

static void
prepare_write(struct io_uring_sqe *sqe, struct op *op)
{
	if (op->iov_count == 1)
		io_uring_prep_write(sqe, op->fd, op->iov->iov_base,
		    op->iov->iov_len, op->offset);
	else
		io_uring_prep_writev(sqe, op->fd, op->iov, op->iov_count,
		    op->offset);
	if (op->flags & OP_DSYNC)
		sqe->rw_flags = RWF_DSYNC;
}

static void
prepare_read(struct io_uring_sqe *sqe, struct op *op)
{
	if (op->iov_count == 1)
		io_uring_prep_read(sqe, op->fd, op->iov->iov_base,
		    op->iov->iov_len, op->offset);
	else
		io_uring_prep_readv(sqe, op->fd, op->iov, op->iov_count,
		    op->offset);
}

/*
 * Sends and whole receives: op->result counts what was moved so far, because
 * the kernel gives up on MSG_WAITALL after some hundred pieces.  What is left
 * of a piece begun goes out by itself, so that no iovec has to be changed.
 */
static void
prepare_send(struct io_uring_sqe *sqe, struct op *op)
{
	int flags = MSG_NOSIGNAL |
	    (op->flags & OP_BY_PIECES ? 0 : MSG_WAITALL);
	size_t sent = (size_t)op->result;
	struct iovec *iov = op->iov;
	unsigned iov_count = op->iov_count;

	while (iov_count > 1 && sent >= iov->iov_len) {
		sent -= iov->iov_len;
		iov++;
		iov_count--;
	}
	if (iov_count == 1 || sent > 0) {
		io_uring_prep_send(sqe, op->fd, (char *)iov->iov_base + sent,
		    iov->iov_len - sent, flags);
		return;
	}
	op->message = (struct msghdr){
		.msg_iov = iov, .msg_iovlen = iov_count,
	};
	io_uring_prep_sendmsg(sqe, op->fd, &op->message, flags);
}

static void
prepare_recv(struct io_uring_sqe *sqe, struct op *op)
{
	io_uring_prep_recv(sqe, op->fd, (char *)op->iov->iov_base + op->result,
	    op->iov->iov_len - (size_t)op->result,
	    op->flags & OP_WAIT_ALL ? MSG_WAITALL : 0);
}

static bool
is_whole(const struct op *op)
{
	return op->kind == OP_SEND ||
	    (op->kind == OP_RECV && op->flags & OP_WAIT_ALL);
}

static void
prepare(struct loop *loop, struct uring *uring, struct op *op)
{
	struct io_uring_sqe *sqe;

	if (op->kind == OP_RECV_POOLED) {
		prepare_recv_pooled(loop, uring, op, 0);
		return;
	}
	sqe = get_sqe(loop, uring);
	switch (op->kind) {
	case OP_READV:
		prepare_read(sqe, op);
		break;
	case OP_WRITEV:
		prepare_write(sqe, op);
		break;
	case OP_FDATASYNC:
		io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
		break;
	case OP_FALLOCATE:
		io_uring_prep_fallocate(sqe, op->fd, (int)op->flags,
		    (off_t)op->offset, (off_t)op->length);
		break;
	case OP_ACCEPT:
		io_uring_prep_accept(sqe, op->fd, NULL, NULL,
		    SOCK_NONBLOCK | SOCK_CLOEXEC);
		break;
	case OP_RECV:
		prepare_recv(sqe, op);
		break;
	case OP_SEND:
		prepare_send(sqe, op);
		break;
	case OP_POLL_IN:
		io_uring_prep_poll_add(sqe, op->fd, POLLIN);
		break;
	case OP_POLL_OUT:
		io_uring_prep_poll_add(sqe, op->fd, POLLOUT);
		break;
	case OP_RECV_POOLED:
		break;
	}
	io_uring_sqe_set_data(sqe, op);
}

/* Done by a kernel worker if it cannot be done at once. */
static bool
is_file_op(const struct op *op)
{
	return op->kind <= OP_FALLOCATE;
}

static void
uring_submit(struct loop *loop, struct op *op)
{
	op->result = 0;
	op->engine_tag = 0;
	if (is_file_op(op))
		loop->elsewhere++;
	prepare(loop, loop->engine, op);
}

static void
uring_cancel(struct loop *loop, struct op *op)
{
	struct uring *uring = loop->engine;
	struct io_uring_sqe *sqe;

	for (struct op **link = &uring->starved; *link;
	    link = &(*link)->engine_next) {
		if (*link != op)
			continue;
		*link = op->engine_next;
		if (!*link)
			uring->starved_end = link;
		loop_complete(loop, op, -ECANCELED);
		return;
	}
	if (is_whole(op))
		op->engine_tag = TAG_CANCELLED;
	sqe = get_sqe(loop, uring);
	io_uring_prep_cancel(sqe, op, 0);
	io_uring_sqe_set_data(sqe, TAG_NOTHING);
}

/* ---- completions ---- */

/*
 * No buffer was left.  The kernel looks for one before it looks for data, so
 * the receive first has to wait for data: in starved it would hold up others
 * that have some, and keep the buffer it is given from them.
 */
static void
starve(struct loop *loop, struct uring *uring, struct op *op)
{
	if (uring->recv_free > 0 || op->engine_tag == 0) {
		prepare_recv_pooled(loop, uring, op,
		    IORING_RECVSEND_POLL_FIRST);
		return;
	}
	op->engine_next = NULL;
	*uring->starved_end = op;
	uring->starved_end = &op->engine_next;
}

/* A receive that ends without a buffer leaves the one it was fed to others. */
static void
complete_recv_pooled(struct loop *loop, struct uring *uring, struct op *op,
    const struct io_uring_cqe *cqe)
{
	if (cqe->res == -ENOBUFS) {
		starve(loop, uring, op);
		return;
	}
	op->pooled = NULL;
	if (cqe->flags & IORING_CQE_F_BUFFER) {
		op->engine_tag = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
		uring->recv_free--;
		if (cqe->res > 0)
			op->pooled = recv_buffer(uring, op->engine_tag);
		else
			recv_buffer_offer(uring, op->engine_tag);
	}
	if (!op->pooled && uring->recv_free > 0)
		feed_starved(loop, uring);
	loop_complete(loop, op, cqe->res);
}

/* A failure after the first bytes is left for the next operation to meet. */
static void
complete_whole(struct loop *loop, struct uring *uring, struct op *op,
    int result)
{
	int64_t length = (int64_t)iov_bytes(op->iov, op->iov_count);

	if (result > 0)
		op->result += result;
	if (result > 0 && op->result < length &&
	    op->engine_tag != TAG_CANCELLED) {
		prepare(loop, uring, op);
		return;
	}
	loop_complete(loop, op, op->result > 0 ? op->result : result);
}

static void
complete(struct loop *loop, struct uring *uring,
    const struct io_uring_cqe *cqe)
{
	void *data = io_uring_cqe_get_data(cqe);
	struct op *op = data;

	if (data == TAG_NOTHING)
		return;
	if (data == TAG_EVENT) {
		arm_event(loop, uring);
		return;
	}
	switch (op->kind) {
	case OP_RECV_POOLED:
		complete_recv_pooled(loop, uring, op, cqe);
		break;
	case OP_POLL_IN:
	case OP_POLL_OUT:
		loop_complete(loop, op, cqe->res < 0 ? cqe->res : 0);
		break;
	default:
		if (is_file_op(op))
			loop->elsewhere--;
		if (is_whole(op))
			complete_whole(loop, uring, op, cqe->res);
		else
			loop_complete(loop, op, cqe->res);
		break;
	}
}

static void
enter(struct loop *loop, struct uring *uring, int64_t timeout_ns)
{
	struct __kernel_timespec timeout = {
		.tv_sec = timeout_ns / 1000000000,
		.tv_nsec = timeout_ns % 1000000000,
	};
	struct io_uring_cqe *cqe;

	loop->stats.enters++;
	if (timeout_ns == 0)
		io_uring_submit_and_get_events(&uring->ring);
	else if (timeout_ns < 0)
		io_uring_submit_and_wait(&uring->ring, 1);
	else
		io_uring_submit_and_wait_timeout(&uring->ring, &cqe, 1,
		    &timeout, NULL);
}

static void
relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/*
 * Looks for completions, or a wake, without a system call: the kernel raises a
 * flag when it has some to deliver.  Whether there is anything.
 */
static bool
spin(struct loop *loop, struct uring *uring, uint64_t deadline_ns)
{
	do {
		for (int i = 0; i < 32; i++) {
			if (io_uring_cq_ready(&uring->ring) ||
			    IO_URING_READ_ONCE(*uring->ring.sq.kflags) &
			    IORING_SQ_TASKRUN)
				return true;
			relax();
		}
		if (atomic_load_explicit(&loop->inbox_full,
		    memory_order_relaxed))
			return true;
	} while (loop_clock_ns(loop) < deadline_ns);
	return false;
}

/*
 * A client that sends one request after the other is back within microseconds,
 * less than it takes to go to sleep and be woken.  So after a wait that short,
 * the next one begins with a spin; a spin in vain ends that.  A loop with
 * more to do than answering one such client does not spin: it costs CPU and
 * gains little.  Nor does one for which another thread is at work, which may
 * want this CPU.
 */
static void
wait_long(struct loop *loop, struct uring *uring, int64_t timeout_ns)
{
	bool is_calm = loop->stats.submitted - uring->submitted <= CALM_OPS;
	uint64_t begin_ns;

	uring->submitted = loop->stats.submitted;
	if (uring->spins && is_calm && loop->elsewhere == 0) {
		enter(loop, uring, 0);
		begin_ns = loop_clock_ns(loop);
		if (spin(loop, uring, begin_ns + SPIN_NS)) {
			if (!io_uring_cq_ready(&uring->ring))
				enter(loop, uring, 0);
			return;
		}
		uring->spins = false;
		enter(loop, uring, timeout_ns);
		return;
	}
	begin_ns = loop_clock_ns(loop);
	enter(loop, uring, timeout_ns);
	uring->spins = loop_clock_ns(loop) - begin_ns < SPIN_NS;
}

static void
uring_wait(struct loop *loop, int64_t timeout_ns)
{
	struct uring *uring = loop->engine;
	struct io_uring_cqe *cqe;
	unsigned head, count = 0;

	if (timeout_ns == 0)
		enter(loop, uring, 0);
	else
		wait_long(loop, uring, timeout_ns);
	io_uring_for_each_cqe(&uring->ring, head, cqe) {
		complete(loop, uring, cqe);
		count++;
	}
	io_uring_cq_advance(&uring->ring, count);
}

static void
uring_wake(struct loop *loop)
{
	struct uring *uring = loop->engine;
	uint64_t one = 1;
	ssize_t put = write(uring->event_fd, &one, sizeof(one));

	assert(put == sizeof(one));
}

const struct loop_engine_ops loop_uring_ops = {
	.name = "io_uring",
	.init = uring_init,
	.destroy = uring_destroy,
	.submit = uring_submit,
	.wait = uring_wait,
	.wake = uring_wake,
	.cancel = uring_cancel,
	.recv_put = uring_recv_put,
	.now_ns = loop_clock_ns,
	.random = loop_system_random,
};
