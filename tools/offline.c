#include "tools/offline.h"

#include <string.h>

static void keep_error(struct status *out, const struct error *err)
{
    if (out->error.kind == ERROR_NONE)
        out->error = *err;
}

static void ask_blue(const struct options *o, const struct driver *driver,
                     const struct checkpoint *c, struct status *out)
{
    struct error err = {0};
    struct origin *origin = driver->origin(o);
    struct origin_probe probe;
    const struct position *since = c == NULL ? NULL : &c->pos;
    if (origin->ops->open(origin, &err) && origin->ops->probe(origin, since, &probe, &err)) {
        out->position.source = probe.pos;
        if (c != NULL)
            out->lag.bytes = (int64_t)probe.bytes_behind;
    } else {
        keep_error(out, &err);
    }
    origin->ops->free(origin);
}

void offline_status(const struct options *o, const struct driver *driver, struct status *out)
{
    static const char *const reasons[] = {"no engine is running"};
    struct checkpoint c;
    struct error err = {0};
    bool found = false;
    out->migration = o->name;
    out->phase = PHASE_STOPPED;
    out->ready.reasons = reasons;
    out->ready.reason_count = 1;
    out->spool.disk_max_bytes = (int64_t)o->disk_max;
    if (!driver->checkpoint(o, NULL, &c, &found, &err))
        keep_error(out, &err);
    if (found)
        out->position.applied = c.pos;
    ask_blue(o, driver, found ? &c : NULL, out);
}

bool offline_is_gone(const struct options *o, const struct driver *driver, bool *gone,
                     struct error *err)
{
    struct checkpoint c;
    bool on_green;
    bool on_blue = true;
    TRY(driver->checkpoint(o, NULL, &c, &on_green, err));
    struct origin *origin = driver->origin(o);
    bool ok = origin->ops->open(origin, err) && origin->ops->exists(origin, &on_blue, err);
    origin->ops->free(origin);
    *gone = ok && !on_green && !on_blue;
    return ok;
}
