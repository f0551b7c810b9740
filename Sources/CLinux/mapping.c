#include "clinux.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* One line of /proc/self/maps. */
struct line {
    unsigned long long low, high, offset, inode;
    unsigned major, minor;
    char permissions[5];
};

/* The device that memfds and shared anonymous memory are on: a mount of shmem inside the
 * kernel, without huge pages of hugetlbfs and without names that others could open. */
static int shared_memory_device(dev_t *device)
{
    int fd = memfd_create("frostline-probe", MFD_CLOEXEC);
    if (fd < 0) {
        return -errno;
    }
    struct stat status;
    int answer = fstat(fd, &status) < 0 ? -errno : 0;
    close(fd);
    *device = status.st_dev;
    return answer;
}

static enum clinux_memory kind_of(const struct line *line, dev_t shared)
{
    if (strncmp(line->permissions, "rw", 2) != 0) {
        return CLINUX_MEMORY_NOT_WRITABLE;
    }
    if (line->permissions[3] == 'p') {
        return line->inode == 0 ? CLINUX_MEMORY_PRIVATE_ANONYMOUS : CLINUX_MEMORY_PRIVATE_FILE;
    }
    return makedev(line->major, line->minor) == shared ? CLINUX_MEMORY_SHARED : CLINUX_MEMORY_OTHER_FILE;
}

/* Mappings of one file are one block only where its offsets go on. */
static bool continues(const struct line *before, const struct line *line)
{
    return before->inode == line->inode
           && (line->inode == 0 || before->offset + (before->high - before->low) == line->offset);
}

static bool next_line(FILE *maps, char **text, size_t *room, struct line *line)
{
    while (getline(text, room, maps) > 0) {
        if (sscanf(*text, "%llx-%llx %4s %llx %x:%x %llu", &line->low, &line->high, line->permissions,
                   &line->offset, &line->major, &line->minor, &line->inode) == 7) {
            return true;
        }
    }
    return false;
}

/* Reads the mappings from `start` on, until one shows that the range is no block. */
static int walk(FILE *maps, uint64_t start, uint64_t end, dev_t shared, char **text, size_t *room)
{
    struct line line, before;
    enum clinux_memory kind = CLINUX_MEMORY_UNMAPPED;
    uint64_t covered = start;
    while (covered < end && next_line(maps, text, room, &line)) {
        if (line.high <= covered) {
            continue;
        }
        if (line.low > covered) {
            return CLINUX_MEMORY_UNMAPPED;
        }
        enum clinux_memory found = kind_of(&line, shared);
        if (found != CLINUX_MEMORY_PRIVATE_ANONYMOUS && found != CLINUX_MEMORY_SHARED) {
            return found;
        }
        if (covered > start && (found != kind || !continues(&before, &line))) {
            return CLINUX_MEMORY_MIXED;
        }
        kind = found;
        covered = line.high;
        before = line;
    }
    return covered < end ? CLINUX_MEMORY_UNMAPPED : (int)kind;
}

int clinux_memory_kind(uint64_t start, uint64_t length)
{
    dev_t shared;
    int answer = shared_memory_device(&shared);
    if (answer < 0) {
        return answer;
    }
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return -errno;
    }
    char *text = NULL;
    size_t room = 0;
    answer = walk(maps, start, start + length, shared, &text, &room);
    free(text);
    fclose(maps);
    return answer;
}
