/* Waiting between attempts, and not saying the same thing again and again. */
#ifndef ENGINE_BACKOFF_H
#define ENGINE_BACKOFF_H

#include "engine/base/error.h"

struct backoff {
    int64_t wait_us; /* Before the next attempt; grows. */
    int64_t next_at; /* Monotonic. */
    int64_t said_at;
    char said[ERROR_TEXT_MAX];
};

/* An attempt failed: sets the time of the next. Logs the error if it is new or was last said
 * half a minute ago. */
void backoff_failed(struct backoff *b, const char *event, const struct error *err);
bool backoff_is_due(const struct backoff *b);
/* It worked: forgets. True if there had been failures. */
bool backoff_worked(struct backoff *b);

#endif
