#include "engine/backoff.h"

#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"

enum { WAIT_FIRST_US = 100000, WAIT_MAX_US = 5000000, SAY_AGAIN_US = 30000000 };

void backoff_failed(struct backoff *b, const char *event, const struct error *err)
{
    int64_t now = clock_mono_us();
    b->wait_us = b->wait_us == 0 ? WAIT_FIRST_US : b->wait_us * 2;
    b->wait_us = b->wait_us > WAIT_MAX_US ? WAIT_MAX_US : b->wait_us;
    b->next_at = now + b->wait_us;
    if (strcmp(b->said, err->text) == 0 && now - b->said_at < SAY_AGAIN_US)
        return;
    memcpy(b->said, err->text, sizeof b->said);
    b->said_at = now;
    log_error(event, LOG_WARN, err);
}

bool backoff_is_due(const struct backoff *b) { return clock_mono_us() >= b->next_at; }

bool backoff_worked(struct backoff *b)
{
    bool had_failed = b->wait_us != 0;
    *b = (struct backoff){0};
    return had_failed;
}
