#include "clinux.h"

#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>

struct clinux_ring {
    struct io_uring ring;
    int file;
    /* The memory that is registered from the first transfer to or from it on. */
    uint64_t start, length;
    bool is_registered, is_refused;
};

int clinux_ring_open(int file, unsigned depth, struct clinux_ring **out)
{
    struct clinux_ring *ring = calloc(1, sizeof *ring);
    if (ring == NULL) {
        return -ENOMEM;
    }
    /* Completions wait for the next system call of the thread that asked, or wake it from poll(2) or
     * read(2), instead of interrupting it wherever it is: Linux 5.19. */
    int answer = io_uring_queue_init(depth, &ring->ring, IORING_SETUP_COOP_TASKRUN);
    if (answer == -EINVAL) {
        answer = io_uring_queue_init(depth, &ring->ring, 0);
    }
    if (answer < 0) {
        free(ring);
        return answer;
    }
    ring->file = file;
    *out = ring;
    return 0;
}

void clinux_ring_close(struct clinux_ring *ring)
{
    io_uring_queue_exit(&ring->ring);
    free(ring);
}

int clinux_ring_descriptor(const struct clinux_ring *ring)
{
    return ring->ring.ring_fd;
}

void clinux_ring_let_go(struct clinux_ring *ring)
{
    if (ring->is_registered) {
        io_uring_unregister_buffers(&ring->ring);
        ring->is_registered = false;
    }
}

void clinux_ring_offer(struct clinux_ring *ring, uint64_t start, uint64_t length)
{
    clinux_ring_let_go(ring);
    ring->start = start;
    ring->length = length;
    ring->is_refused = false;
}

/* Registered buffers spare the kernel finding and pinning their pages for each transfer. They count
 * towards RLIMIT_MEMLOCK: where that is not enough, transfers go without. */
static bool is_fixed(struct clinux_ring *ring, uint64_t address, uint32_t length)
{
    if (ring->is_refused || address < ring->start || address + length > ring->start + ring->length) {
        return false;
    }
    if (!ring->is_registered) {
        struct iovec memory = {(void *)(uintptr_t)ring->start, ring->length};
        ring->is_registered = io_uring_register_buffers(&ring->ring, &memory, 1) == 0;
        ring->is_refused = !ring->is_registered;
    }
    return ring->is_registered;
}

bool clinux_ring_start(struct clinux_ring *ring)
{
    while (io_uring_sq_ready(&ring->ring) > 0) {
        int answer = io_uring_submit(&ring->ring);
        if (answer <= 0 && answer != -EINTR) {
            return false;
        }
    }
    return true;
}

int clinux_ring_read(struct clinux_ring *ring, void *to, uint32_t length, uint64_t offset, uint64_t token)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);
    if (sqe == NULL) {
        return -EBUSY;
    }
    if (is_fixed(ring, (uint64_t)(uintptr_t)to, length)) {
        io_uring_prep_read_fixed(sqe, ring->file, to, length, offset, 0);
    } else {
        io_uring_prep_read(sqe, ring->file, to, length, offset);
    }
    io_uring_sqe_set_data64(sqe, token);
    return 0;
}

int clinux_ring_write(struct clinux_ring *ring, const void *from, uint32_t length, uint64_t offset,
                      uint64_t token)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&ring->ring);
    if (sqe == NULL) {
        return -EBUSY;
    }
    if (is_fixed(ring, (uint64_t)(uintptr_t)from, length)) {
        io_uring_prep_write_fixed(sqe, ring->file, from, length, offset, 0);
    } else {
        io_uring_prep_write(sqe, ring->file, from, length, offset);
    }
    io_uring_sqe_set_data64(sqe, token);
    return 0;
}

/* Waits until one has finished. What the kernel would not start before may start now. */
static int wait_for_one(struct clinux_ring *ring)
{
    for (;;) {
        struct io_uring_cqe *cqe;
        int answer;
        if (clinux_ring_start(ring)) {
            answer = io_uring_wait_cqe(&ring->ring, &cqe);
        } else {
            sched_yield();
            answer = io_uring_peek_cqe(&ring->ring, &cqe);
        }
        if (answer != -EINTR && answer != -EAGAIN) {
            return answer;
        }
    }
}

int clinux_ring_reap(struct clinux_ring *ring, struct clinux_completion *completions, int capacity, bool wait)
{
    struct io_uring_cqe *cqe;
    int count = 0;
    int answer = wait ? wait_for_one(ring) : 0;
    if (answer < 0) {
        return answer;
    }
    while (count < capacity && io_uring_peek_cqe(&ring->ring, &cqe) == 0) {
        completions[count].token = io_uring_cqe_get_data64(cqe);
        completions[count].result = cqe->res;
        count++;
        io_uring_cqe_seen(&ring->ring, cqe);
    }
    return count;
}
