#include "clinux.h"

#include <errno.h>
#include <sys/epoll.h>

_Static_assert(CLINUX_POLL_READABLE == EPOLLIN && CLINUX_POLL_WRITABLE == EPOLLOUT &&
                   CLINUX_POLL_HANGUP == EPOLLRDHUP,
               "events go to the kernel as they are");

int clinux_poller_open(void)
{
    int poller = epoll_create1(EPOLL_CLOEXEC);
    return poller >= 0 ? poller : -errno;
}

static int control(int poller, int operation, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events};
    return epoll_ctl(poller, operation, fd, &event) < 0 ? -errno : 0;
}

int clinux_poller_add(int poller, int fd, uint32_t events)
{
    return control(poller, EPOLL_CTL_ADD, fd, events);
}

int clinux_poller_change(int poller, int fd, uint32_t events)
{
    return control(poller, EPOLL_CTL_MOD, fd, events);
}

int clinux_poller_remove(int poller, int fd)
{
    return control(poller, EPOLL_CTL_DEL, fd, 0);
}

bool clinux_poller_wait(int poller, uint64_t nanoseconds)
{
    enum { EVENTS = 32, GONE = EPOLLRDHUP | EPOLLHUP | EPOLLERR };
    struct epoll_event events[EVENTS];
    bool is_gone = false;
    int count = epoll_wait(poller, events, EVENTS, (int)((nanoseconds + 999999) / 1000000));
    for (int i = 0; i < count; i++) {
        is_gone = is_gone || (events[i].events & GONE) != 0;
    }
    return is_gone;
}
