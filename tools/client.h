/* One question to a running engine over its control socket. */
#ifndef TOOLS_CLIENT_H
#define TOOLS_CLIENT_H

#include "engine/base/error.h"
#include "engine/base/writer.h"

/* Sends `method path` (path with its query) and appends the answer's body to `body`; its status
 * goes to *code, whatever it is. All of it within `timeout_us`.
 *
 * ERROR_CONNECT: no engine is running: there is no socket, or nobody behind it.
 * ERROR_CONFIG: the socket may not be opened, or its path is too long.
 * ERROR_RETRY: the engine did not answer in time, or went away in the middle.
 * ERROR_DATA: what answered does not speak HTTP as we do. */
must_check bool client_call(const char *socket_path, const char *method, const char *path,
                            int64_t timeout_us, int *code, struct writer *body,
                            struct error *err);

#endif
