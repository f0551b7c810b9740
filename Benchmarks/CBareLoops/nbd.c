#include "bareloops.h"

#include <clinux.h>
#include <dlfcn.h>
#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE = 4096, DEPTH_MAX = 64 };

/* Loaded, as a pager loads it: the lab's host has no libnbd. */
struct calls {
    __typeof__(&nbd_create) create;
    __typeof__(&nbd_close) close;
    __typeof__(&nbd_connect_uri) connect_uri;
    __typeof__(&nbd_pread) pread;
    __typeof__(&nbd_pwrite) pwrite;
    __typeof__(&nbd_aio_pread) aio_pread;
    __typeof__(&nbd_poll) poll;
};

struct bare_nbd {
    struct calls calls;
    struct nbd_handle *handle;
    int under_way;
    char *buffers;
};

static int load(struct calls *calls)
{
    void *library = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        return -ENOENT;
    }
    *calls = (struct calls){
        .create = (__typeof__(&nbd_create))dlsym(library, "nbd_create"),
        .close = (__typeof__(&nbd_close))dlsym(library, "nbd_close"),
        .connect_uri = (__typeof__(&nbd_connect_uri))dlsym(library, "nbd_connect_uri"),
        .pread = (__typeof__(&nbd_pread))dlsym(library, "nbd_pread"),
        .pwrite = (__typeof__(&nbd_pwrite))dlsym(library, "nbd_pwrite"),
        .aio_pread = (__typeof__(&nbd_aio_pread))dlsym(library, "nbd_aio_pread"),
        .poll = (__typeof__(&nbd_poll))dlsym(library, "nbd_poll"),
    };
    return 0;
}

int bare_nbd_open(const char *uri, struct bare_nbd **out)
{
    struct calls calls;
    int answer = load(&calls);
    if (answer < 0) {
        return answer;
    }
    struct bare_nbd *nbd = calloc(1, sizeof *nbd);
    nbd->calls = calls;
    nbd->handle = calls.create();
    nbd->buffers = aligned_alloc(PAGE, DEPTH_MAX * PAGE);
    if (calls.connect_uri(nbd->handle, uri) < 0) {
        bare_nbd_close(nbd);
        return -ENOTCONN;
    }
    *out = nbd;
    return 0;
}

void bare_nbd_close(struct bare_nbd *nbd)
{
    nbd->calls.close(nbd->handle);
    free(nbd->buffers);
    free(nbd);
}

int bare_nbd_fill(struct bare_nbd *nbd, const void *contents, uint64_t length)
{
    enum { PART = 1 << 20 };
    for (uint64_t done = 0; done < length; done += PART) {
        uint64_t part = length - done < PART ? length - done : PART;
        if (nbd->calls.pwrite(nbd->handle, (const char *)contents + done, part, done, 0) < 0) {
            return -EIO;
        }
    }
    return 0;
}

int bare_nbd_read(struct bare_nbd *nbd, void *page, uint64_t number)
{
    return nbd->calls.pread(nbd->handle, page, PAGE, number * PAGE, 0) < 0 ? -EIO : 0;
}

static int set_done(void *data, int *error)
{
    if (*error != 0) {
        abort();
    }
    *(int *)data = 1;
    return 1;
}

int bare_nbd_begin(struct bare_nbd *nbd, void *page, uint64_t number, int *done)
{
    nbd_completion_callback callback = {.callback = set_done, .user_data = done};
    *done = 0;
    return nbd->calls.aio_pread(nbd->handle, page, PAGE, number * PAGE, callback, 0) < 0 ? -EIO : 0;
}

int bare_nbd_go_on(struct bare_nbd *nbd)
{
    int answer;
    while ((answer = nbd->calls.poll(nbd->handle, 0)) > 0) {
    }
    return answer < 0 ? -EIO : 0;
}

static int finished(void *data, int *error)
{
    if (*error != 0) {
        abort();
    }
    (*(int *)data)--;
    return 1;
}

int bare_nbd_read_many(struct bare_nbd *nbd, const uint32_t *order, int count, int depth, uint64_t *elapsed)
{
    nbd_completion_callback callback = {.callback = finished, .user_data = &nbd->under_way};
    uint64_t start = clinux_now();
    for (int next = 0; next < count || nbd->under_way > 0;) {
        while (next < count && nbd->under_way < depth) {
            /* Which buffer makes no difference: nobody looks at it. */
            char *buffer = nbd->buffers + next % DEPTH_MAX * PAGE;
            nbd->under_way++;
            if (nbd->calls.aio_pread(nbd->handle, buffer, PAGE, (uint64_t)order[next] * PAGE, callback, 0) < 0) {
                return -EIO;
            }
            next++;
        }
        if (nbd->calls.poll(nbd->handle, -1) < 0) {
            return -EIO;
        }
    }
    *elapsed = clinux_now() - start;
    return 0;
}
