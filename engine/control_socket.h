/* The socket file of one engine.
 *
 * A lock on `path`.lock says whose it is: a socket left behind by a dead engine is replaced,
 * one of a living engine is never touched. The kernel drops the lock with the process. */
#ifndef ENGINE_CONTROL_SOCKET_H
#define ENGINE_CONTROL_SOCKET_H

#include "engine/base/error.h"

struct control_socket {
    const char *path; /* Borrowed. */
    int lock;
    int fd; /* Listening, non-blocking; -1 once somebody else has taken it over. */
};

/* Makes missing folders, the file with mode 0600. ERROR_CONFIG for a path that is too long, is
 * no socket or belongs to a living engine. */
must_check bool control_socket_open(const char *path, struct control_socket *out,
                                    struct error *err);

/* Removes the file, then gives up the lock. */
void control_socket_close(struct control_socket *s);

#endif
