#include "library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

static struct cnbd_library library;
static bool is_loaded;

static void load(void)
{
    /* Stays loaded: its thread-local destructors outlive any connection. */
    void *handle = dlopen("libnbd.so.0", RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        return;
    }
    bool is_complete = true;
#define CNBD_LOAD(name)                                                                                  \
    library.name = (__typeof__(&name))dlsym(handle, #name);                                              \
    is_complete = is_complete && library.name != NULL;
    CNBD_CALLS(CNBD_LOAD)
#undef CNBD_LOAD
    is_loaded = is_complete;
}

const struct cnbd_library *cnbd_library(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return is_loaded ? &library : NULL;
}
