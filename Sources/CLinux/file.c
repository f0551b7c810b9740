#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* tmpfs takes O_DIRECT since Linux 6.6, and keeps its files in RAM all the same. */
static bool is_memory(int fd)
{
    struct statfs system;
    return fstatfs(fd, &system) == 0 && (system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC);
}

static int prepare(int fd, uint64_t size, bool is_device)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (S_ISBLK(status.st_mode) != is_device) { /* exchanged since it was looked at */
        return CLINUX_STORE_KIND;
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        return errno == EWOULDBLOCK ? CLINUX_STORE_LOCKED : -errno;
    }
    if (is_device) {
        uint64_t bytes;
        if (ioctl(fd, BLKGETSIZE64, &bytes) < 0) {
            return -errno;
        }
        return bytes < size ? CLINUX_STORE_TOO_SMALL : 0;
    }
    if (!S_ISREG(status.st_mode)) {
        return CLINUX_STORE_KIND;
    }
    if (status.st_size != 0) {
        return CLINUX_STORE_NOT_EMPTY;
    }
    if (is_memory(fd)) {
        return CLINUX_STORE_NO_DIRECT;
    }
    return ftruncate(fd, (off_t)size) < 0 ? -errno : 0;
}

int clinux_store_allocate(int fd, uint64_t offset, uint64_t length)
{
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (!S_ISREG(status.st_mode)) {
        return -EOPNOTSUPP;
    }
    return fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length) < 0 ? -errno : 0;
}

/* Not by trying alone: a file system would first be filled up. */
static int reserve(int fd, uint64_t size)
{
    struct statfs system;
    if (fstatfs(fd, &system) == 0 && size / (uint64_t)system.f_bsize > system.f_bavail) {
        return -ENOSPC;
    }
    return clinux_store_allocate(fd, 0, size);
}

static int open_store(const char *path, uint64_t size, bool preallocate)
{
    struct stat status;
    bool exists = stat(path, &status) == 0;
    bool is_device = exists && S_ISBLK(status.st_mode);
    /* Before O_DIRECT is asked of a pipe or a terminal. */
    if (exists && !is_device && !S_ISREG(status.st_mode)) {
        return CLINUX_STORE_KIND;
    }
    /* Without O_CREAT, O_EXCL is for block devices: EBUSY when it, the disk that it is a part of, or a
     * part of it is mounted, below another device, or opened like this by somebody else (open(2)). */
    int fd = open(path, O_RDWR | O_CLOEXEC | O_DIRECT | (is_device ? O_EXCL : O_CREAT), 0600);
    if (fd < 0) {
        return errno == EINVAL ? CLINUX_STORE_NO_DIRECT
               : is_device && errno == EBUSY ? CLINUX_STORE_IN_USE : -errno;
    }
    int answer = prepare(fd, size, is_device);
    if (answer < 0) {
        close(fd);
        return answer;
    }
    /* Nameless from here on: nobody else can open it, and its space is freed
     * when this process ends, however it ends. */
    if (!is_device) {
        unlink(path);
    }
    answer = preallocate ? reserve(fd, size) : 0;
    if (answer < 0) {
        close(fd);
        return answer;
    }
    return fd;
}

int clinux_store_file_open(const char *path, uint64_t size, bool preallocate)
{
    /* Devices have stable names that are links, and the file itself must be unlinked. */
    char *target = realpath(path, NULL);
    int answer = open_store(target != NULL ? target : path, size, preallocate);
    free(target);
    return answer;
}

/* struct statx of Linux 6.1, which the build machine's headers may not know. */
struct statx_alignment {
    uint32_t mask;
    uint8_t before[148];
    uint32_t memory;
    uint32_t offset;
    uint8_t after[96];
};

#define STATX_DIOALIGN_BIT 0x2000u

int clinux_store_block_size(int fd)
{
    struct stat status;
    int sector = 4096;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    if (S_ISBLK(status.st_mode)) {
        return ioctl(fd, BLKSSZGET, &sector) < 0 ? -errno : sector;
    }
    struct statx_alignment alignment = {0};
    if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN_BIT, &alignment) < 0 ||
        !(alignment.mask & STATX_DIOALIGN_BIT)) {
        return sector; /* the kernel does not say: every sector divides a page */
    }
    if (alignment.offset == 0) {
        return CLINUX_STORE_NO_DIRECT;
    }
    return (int)(alignment.offset > alignment.memory ? alignment.offset : alignment.memory);
}

int clinux_store_discard(int fd, uint64_t offset, uint64_t length)
{
    uint64_t range[2] = {offset, length};
    struct stat status;
    if (fstat(fd, &status) < 0) {
        return -errno;
    }
    int answer = S_ISBLK(status.st_mode)
                     ? ioctl(fd, BLKDISCARD, range)
                     : fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)length);
    return answer < 0 ? -errno : 0;
}
