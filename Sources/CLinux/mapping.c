#include "clinux.h"

#include <dirent.h>
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

/* The mounts inside the kernel that memory without names that others could open is on:
 * memfds and shared anonymous memory, of ordinary pages, and of huge pages of 2 MiB. */
struct devices {
    dev_t shared, huge;
    bool has_huge;
};

static int device_of_memfd(unsigned flags, dev_t *device)
{
    int fd = memfd_create("frostline-probe", MFD_CLOEXEC | flags);
    if (fd < 0) {
        return -errno;
    }
    struct stat status;
    int answer = fstat(fd, &status) < 0 ? -errno : 0;
    close(fd);
    *device = status.st_dev;
    return answer;
}

static int find_devices(struct devices *devices)
{
    enum { HUGETLB = 4, HUGE_2MB = 21 << 26 }; /* MFD_HUGETLB, MFD_HUGE_2MB: Linux 4.14 */
    /* A mount for each size of huge pages; an error where the kernel has none. */
    devices->has_huge = device_of_memfd(HUGETLB | HUGE_2MB, &devices->huge) == 0;
    return device_of_memfd(0, &devices->shared);
}

static enum clinux_memory kind_of(const struct line *line, const struct devices *devices)
{
    dev_t device = makedev(line->major, line->minor);

    if (strncmp(line->permissions, "rw", 2) != 0) {
        return CLINUX_MEMORY_NOT_WRITABLE;
    }
    if (line->permissions[3] == 'p') {
        return line->inode == 0 ? CLINUX_MEMORY_PRIVATE_ANONYMOUS : CLINUX_MEMORY_PRIVATE_FILE;
    }
    if (devices->has_huge && device == devices->huge) {
        return CLINUX_MEMORY_SHARED_HUGE;
    }
    return device == devices->shared ? CLINUX_MEMORY_SHARED : CLINUX_MEMORY_OTHER_FILE;
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
static int walk(FILE *maps, uint64_t start, uint64_t end, const struct devices *devices,
                char **text, size_t *room)
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
        enum clinux_memory found = kind_of(&line, devices);
        if (found != CLINUX_MEMORY_PRIVATE_ANONYMOUS && found != CLINUX_MEMORY_SHARED
            && found != CLINUX_MEMORY_SHARED_HUGE) {
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
    struct devices devices;
    int answer = find_devices(&devices);
    if (answer < 0) {
        return answer;
    }
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return -errno;
    }
    char *text = NULL;
    size_t room = 0;
    answer = walk(maps, start, start + length, &devices, &text, &room);
    free(text);
    fclose(maps);
    return answer;
}

/* The mapping that an address lies in. */
static int find_line(uint64_t address, struct line *line)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    if (maps == NULL) {
        return -errno;
    }
    char *text = NULL;
    size_t room = 0;
    int answer = -ENOENT;
    while (answer < 0 && next_line(maps, &text, &room, line)) {
        if (line->low <= address && address < line->high) {
            answer = 0;
        }
    }
    free(text);
    fclose(maps);
    return answer;
}

static bool same_file(const struct line *line, const struct line *other)
{
    return line->inode == other->inode && line->major == other->major && line->minor == other->minor;
}

/* Maps a part of the file of `line` by a descriptor, if that is one of it. Other threads may
 * close and open descriptors meanwhile: what was really mapped is looked at afterwards. */
static int map_by_descriptor(int fd, const struct line *line, uint64_t offset, uint64_t length, void **out)
{
    struct stat status;
    struct line mapped;

    if (fstat(fd, &status) < 0 || status.st_ino != line->inode
        || status.st_dev != makedev(line->major, line->minor)) {
        return -ENOENT;
    }
    /* The pages have been reserved by the mapping that there is, if at all. */
    void *again = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)offset);
    if (again == MAP_FAILED) {
        return -errno;
    }
    if (find_line((uint64_t)(uintptr_t)again, &mapped) < 0 || !same_file(&mapped, line)
        || mapped.offset > offset) {
        munmap(again, length);
        return -ENOENT;
    }
    *out = again;
    return 0;
}

int clinux_map_huge_again(void *address, uint64_t length, void **out)
{
    struct line line;
    uint64_t start = (uint64_t)(uintptr_t)address;
    int answer = find_line(start, &line);
    if (answer < 0) {
        return answer;
    }
    DIR *descriptors = opendir("/proc/self/fd");
    if (descriptors == NULL) {
        return -errno;
    }
    struct dirent *entry;
    answer = -ENOENT;
    while (answer == -ENOENT && (entry = readdir(descriptors)) != NULL) {
        if (entry->d_name[0] != '.') {
            uint64_t offset = line.offset + (start - line.low);
            answer = map_by_descriptor(atoi(entry->d_name), &line, offset, length, out);
        }
    }
    closedir(descriptors);
    if (answer == 0) {
        madvise(*out, length, MADV_DONTDUMP);
        madvise(*out, length, MADV_DONTFORK);
    }
    return answer;
}
