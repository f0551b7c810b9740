#include "bareloops.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

/* What of umap.h is needed. */
struct calls {
    void *(*map)(void *address, size_t length, int protection, int flags, int file, off_t offset);
    int (*unmap)(void *address, size_t length);
};

static int load(const char *library, struct calls *calls)
{
    /* Stays loaded: threads of its own may still be ending. */
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return -ENOENT;
    }
    *calls = (struct calls){
        .map = (__typeof__(calls->map))dlsym(handle, "umap"),
        .unmap = (__typeof__(calls->unmap))dlsym(handle, "uunmap"),
    };
    return calls->map != NULL && calls->unmap != NULL ? 0 : -ENOENT;
}

int bare_umap_open(const char *library, int file, uint64_t length, void **base)
{
    struct calls calls;
    int answer = load(library, &calls);
    if (answer < 0) {
        return answer;
    }
    /* Otherwise it sets memory aside for most of the machine's pages. */
    setenv("UMAP_BUFSIZE", "65536", 0);
    void *mapped = calls.map(NULL, length, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) {
        return -EIO;
    }
    *base = mapped;
    return 0;
}

void bare_umap_close(const char *library, void *base, uint64_t length)
{
    struct calls calls;
    if (load(library, &calls) == 0) {
        calls.unmap(base, length);
        munmap(base, length); /* which it leaves to us */
    }
}
