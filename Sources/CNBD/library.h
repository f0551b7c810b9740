/*
 * libnbd's functions, as pointers filled by cnbd_library.
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#ifndef CNBD_LIBRARY_H
#define CNBD_LIBRARY_H

#include <libnbd.h>

#define CNBD_CALLS(call)                                                                                 \
    call(nbd_create) call(nbd_close) call(nbd_get_error) call(nbd_get_errno)                             \
    call(nbd_supports_uri) call(nbd_supports_tls) call(nbd_set_uri_allow_transports)                     \
    call(nbd_set_uri_allow_local_file) call(nbd_set_tls_certificates) call(nbd_set_tls_psk_file)         \
    call(nbd_aio_connect_uri) call(nbd_aio_is_connecting) call(nbd_aio_is_negotiating)                   \
    call(nbd_aio_is_ready) call(nbd_aio_is_processing) call(nbd_aio_is_dead) call(nbd_aio_is_closed)     \
    call(nbd_aio_get_fd) call(nbd_aio_get_direction) call(nbd_aio_notify_read)                           \
    call(nbd_aio_notify_write) call(nbd_aio_disconnect) call(nbd_aio_pread) call(nbd_aio_pwrite)         \
    call(nbd_aio_trim) call(nbd_get_size) call(nbd_get_block_size) call(nbd_is_read_only)                \
    call(nbd_can_trim) call(nbd_can_multi_conn)

struct cnbd_library {
#define CNBD_POINTER(name) __typeof__(&name) name;
    CNBD_CALLS(CNBD_POINTER)
#undef CNBD_POINTER
};

/* NULL: there is none, or it lacks a function. Any thread. */
const struct cnbd_library *cnbd_library(void);

#endif
