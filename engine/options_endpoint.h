/* From a URI or conninfo string to a struct endpoint: what the client gets and what may be
 * shown. No client library here: a URI is only cut apart as far as that takes. */
#ifndef ENGINE_OPTIONS_ENDPOINT_H
#define ENGINE_OPTIONS_ENDPOINT_H

#include "engine/base/arena.h"
#include "engine/options.h"

/* Fills scheme, conninfo and shown from `text`. `password`, if not NULL, is added; a second one
 * in the text is ERROR_CONFIG. Errors never repeat the text. */
must_check bool endpoint_make(struct arena *a, const char *text, const char *password,
                              struct endpoint *out, struct error *err);

/* Reads password_file or runs password_command, and makes the endpoint anew with what came. */
must_check bool endpoint_resolve(struct arena *a, struct endpoint *e, struct error *err);

#endif
