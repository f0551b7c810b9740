#include "bareloops.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <clinux.h>

enum { PAGE = 4096, DEPTH_MAX = 64, PART = 1 << 20 };

static int read_page(struct io_uring *ring, int fd, char *buffers, uint32_t buffer, uint32_t page)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (sqe == NULL) {
        return -EBUSY;
    }
    io_uring_prep_read(sqe, fd, buffers + (size_t)buffer * PAGE, PAGE, (uint64_t)page * PAGE);
    io_uring_sqe_set_data64(sqe, buffer);
    return 0;
}

static int read_many(struct io_uring *ring, int fd, char *buffers, const uint32_t *order, int count, int depth)
{
    int next = 0, under_way = 0, answer = 0;
    for (; next < depth && next < count && answer == 0; next++, under_way++) {
        answer = read_page(ring, fd, buffers, (uint32_t)next, order[next]);
    }
    while (under_way > 0) {
        struct io_uring_cqe *cqe;
        if (io_uring_submit_and_wait(ring, 1) < 0) {
            return -EIO;
        }
        while (io_uring_peek_cqe(ring, &cqe) == 0) {
            uint32_t buffer = (uint32_t)io_uring_cqe_get_data64(cqe);
            if (cqe->res != PAGE) {
                answer = cqe->res < 0 ? cqe->res : -EIO;
            }
            io_uring_cqe_seen(ring, cqe);
            under_way--;
            if (answer == 0 && next < count) {
                answer = read_page(ring, fd, buffers, buffer, order[next++]);
                under_way += answer == 0;
            }
        }
    }
    return answer;
}

int bare_file_read_many(int fd, const uint32_t *order, int count, int depth, uint64_t *elapsed)
{
    struct io_uring ring;
    if (depth > DEPTH_MAX) {
        return -EINVAL;
    }
    char *buffers = mmap(NULL, DEPTH_MAX * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (buffers == MAP_FAILED) {
        return -errno;
    }
    int answer = io_uring_queue_init(DEPTH_MAX, &ring, 0);
    if (answer == 0) {
        uint64_t start = clinux_now();
        answer = read_many(&ring, fd, buffers, order, count, depth);
        *elapsed = clinux_now() - start;
        io_uring_queue_exit(&ring);
    }
    munmap(buffers, DEPTH_MAX * PAGE);
    return answer;
}

int bare_file_overwrite(int fd, const void *contents, uint64_t length)
{
    for (uint64_t done = 0; done < length; done += PART) {
        uint64_t part = length - done < PART ? length - done : PART;
        if (pwrite(fd, (const char *)contents + done, part, (off_t)done) != (ssize_t)part) {
            return errno != 0 ? -errno : -EIO;
        }
    }
    return 0;
}

int bare_file_create(const char *path, const void *contents, uint64_t length)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_DIRECT, 0600);
    if (fd < 0) {
        return -errno;
    }
    unlink(path);
    int answer = bare_file_overwrite(fd, contents, length);
    if (answer < 0) {
        close(fd);
        return answer;
    }
    return fd;
}
