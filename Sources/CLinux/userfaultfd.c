#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
    NEW_FROM_DEVICE = 0xaa00,
    EVENT_PAGEFAULT = 0x12,
};
#define API 0xAAull
#define IOCTL_API 0xc018aa3ful
#define IOCTL_REGISTER 0xc020aa00ul
#define IOCTL_UNREGISTER 0x8010aa01ul
#define IOCTL_WAKE 0x8010aa02ul
#define IOCTL_COPY 0xc028aa03ul
#define IOCTL_ZEROPAGE 0xc020aa04ul
#define IOCTL_MOVE 0xc028aa05ul
#define IOCTL_WRITEPROTECT 0xc018aa06ul
#define IOCTL_CONTINUE 0xc020aa07ul
#define IOCTL_POISON 0xc020aa08ul
#define IOCTL_RWPROTECT 0xc018aa09ul
#define IOCTL_SET_MODE 0x4010aa0aul
/* The same bits for both protections. */
#define PROTECTION_ARM 1ull
#define PROTECTION_DISARM_AND_WAKE 0ull
#define PROTECTION_DISARM_QUIETLY 2ull

struct api { uint64_t api, features, ioctls; };
struct registration { uint64_t start, length, mode, ioctls; };
struct range { uint64_t start, length; };
struct transfer { uint64_t to, from, length, mode; int64_t done; };
struct placement { uint64_t start, length, mode; int64_t done; };
struct protection { uint64_t start, length, mode; };
struct __attribute__((packed)) message {
    uint8_t event, reserved1;
    uint16_t reserved2;
    uint32_t reserved3;
    uint64_t flags, address, thread;
};
_Static_assert(sizeof(struct message) == 32, "struct uffd_msg is 32 bytes");

int clinux_uffd_open(void)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        return fd;
    }
    int refused = errno;
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        return -refused;
    }
    fd = ioctl(device, NEW_FROM_DEVICE, O_CLOEXEC | O_NONBLOCK);
    refused = errno;
    close(device);
    return fd >= 0 ? fd : -refused;
}

int clinux_uffd_api(int fd, uint64_t features, uint64_t *offered)
{
    struct api argument = {.api = API, .features = features};
    if (ioctl(fd, IOCTL_API, &argument) < 0) {
        return -errno;
    }
    *offered = argument.features;
    return 0;
}

int clinux_uffd_register(int fd, uint64_t start, uint64_t length, uint64_t mode)
{
    struct registration argument = {start, length, mode, 0};
    return ioctl(fd, IOCTL_REGISTER, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_unregister(int fd, uint64_t start, uint64_t length)
{
    struct range argument = {start, length};
    return ioctl(fd, IOCTL_UNREGISTER, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_wake(int fd, uint64_t start, uint64_t length)
{
    struct range argument = {start, length};
    return ioctl(fd, IOCTL_WAKE, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_copy(int fd, uint64_t to, uint64_t from, uint64_t length)
{
    struct transfer argument = {to, from, length, 0, 0};
    return ioctl(fd, IOCTL_COPY, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_zero(int fd, uint64_t start, uint64_t length)
{
    struct placement argument = {start, length, 0, 0};
    return ioctl(fd, IOCTL_ZEROPAGE, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_poison(int fd, uint64_t start, uint64_t length)
{
    struct placement argument = {start, length, 0, 0};
    return ioctl(fd, IOCTL_POISON, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_continue(int fd, uint64_t start, uint64_t length)
{
    struct placement argument = {start, length, 0, 0};
    return ioctl(fd, IOCTL_CONTINUE, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_move(int fd, uint64_t to, uint64_t from, uint64_t length, uint64_t *moved)
{
    struct transfer argument = {to, from, length, 0, 0};
    int answer = ioctl(fd, IOCTL_MOVE, &argument) < 0 ? -errno : 0;
    /* On failure the field holds bytes done, or repeats the negated errno. */
    *moved = argument.done > 0 ? (uint64_t)argument.done : 0;
    return answer;
}

static int protect(int fd, unsigned long call, uint64_t start, uint64_t length, uint64_t mode)
{
    struct protection argument = {start, length, mode};
    return ioctl(fd, call, &argument) < 0 ? -errno : 0;
}

static uint64_t disarming(bool wake)
{
    return wake ? PROTECTION_DISARM_AND_WAKE : PROTECTION_DISARM_QUIETLY;
}

int clinux_uffd_arm(int fd, uint64_t start, uint64_t length)
{
    return protect(fd, IOCTL_RWPROTECT, start, length, PROTECTION_ARM);
}

int clinux_uffd_disarm(int fd, uint64_t start, uint64_t length, bool wake)
{
    return protect(fd, IOCTL_RWPROTECT, start, length, disarming(wake));
}

int clinux_uffd_arm_writes(int fd, uint64_t start, uint64_t length)
{
    return protect(fd, IOCTL_WRITEPROTECT, start, length, PROTECTION_ARM);
}

int clinux_uffd_disarm_writes(int fd, uint64_t start, uint64_t length, bool wake)
{
    return protect(fd, IOCTL_WRITEPROTECT, start, length, disarming(wake));
}

int clinux_uffd_set_mode(int fd, uint64_t enable, uint64_t disable)
{
    struct mode { uint64_t enable, disable; } argument = {enable, disable};
    return ioctl(fd, IOCTL_SET_MODE, &argument) < 0 ? -errno : 0;
}

int clinux_uffd_read(int fd, struct clinux_fault *faults, int capacity)
{
    struct message messages[64];
    size_t room = sizeof messages;
    if (capacity < 64) {
        room = (size_t)capacity * sizeof messages[0];
    }
    ssize_t bytes = read(fd, messages, room);
    if (bytes < 0) {
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
    }
    int count = 0;
    for (size_t i = 0; i < (size_t)bytes / sizeof messages[0]; i++) {
        if (messages[i].event == EVENT_PAGEFAULT) {
            faults[count].address = messages[i].address & ~UINT64_C(4095);
            faults[count].flags = messages[i].flags;
            count++;
        }
    }
    return count;
}
