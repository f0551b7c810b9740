#include "clinux.h"

#include <errno.h>
#include <glib.h>

/*
 * One GSource on a GMainContext of its own: the fault server must never run on
 * the host program's contexts, whose threads can hold locks while they wait
 * for a fault themselves.
 */
struct clinux_loop {
    GMainContext *context;
    GSource *source;
    uint64_t (*dispatch)(void *);
    void *argument;
    gint stopping;
};

struct source {
    GSource base;
    struct clinux_loop *loop;
};

static gboolean dispatch(GSource *source, GSourceFunc callback, gpointer data)
{
    (void)callback;
    (void)data;
    struct clinux_loop *loop = ((struct source *)source)->loop;
    uint64_t pause = loop->dispatch(loop->argument);
    /* Here, where the source is blocked, and nowhere else: on an idle context this
     * call wakes the context, which would then never sleep. */
    g_source_set_ready_time(source, g_get_monotonic_time() + (gint64)(pause / 1000));
    return G_SOURCE_CONTINUE;
}

/* Without prepare and check, GLib dispatches exactly when a watched descriptor
 * is ready or the ready time has come. */
static GSourceFuncs functions = {.dispatch = dispatch};

int clinux_loop_new(uint64_t (*callback)(void *), void *argument, struct clinux_loop **out)
{
    struct clinux_loop *loop = g_try_new0(struct clinux_loop, 1);
    if (loop == NULL) {
        return -ENOMEM;
    }
    loop->context = g_main_context_new();
    loop->dispatch = callback;
    loop->argument = argument;
    loop->source = g_source_new(&functions, sizeof(struct source));
    ((struct source *)loop->source)->loop = loop;
    g_source_set_name(loop->source, "frostline-faults");
    g_source_attach(loop->source, loop->context);
    *out = loop;
    return 0;
}

/* Any thread: GLib takes the context's lock, and wakes it. */
void *clinux_loop_watch(struct clinux_loop *loop, int descriptor)
{
    return g_source_add_unix_fd(loop->source, descriptor, G_IO_IN);
}

void clinux_loop_unwatch(struct clinux_loop *loop, void *watch)
{
    g_source_remove_unix_fd(loop->source, watch);
}

void clinux_loop_run(struct clinux_loop *loop)
{
    g_source_set_ready_time(loop->source, 0);
    while (!g_atomic_int_get(&loop->stopping)) {
        g_main_context_iteration(loop->context, TRUE);
    }
}

void clinux_loop_stop(struct clinux_loop *loop)
{
    g_atomic_int_set(&loop->stopping, 1);
    g_main_context_wakeup(loop->context);
}

void clinux_loop_free(struct clinux_loop *loop)
{
    g_source_destroy(loop->source);
    g_source_unref(loop->source);
    g_main_context_unref(loop->context);
    g_free(loop);
}
