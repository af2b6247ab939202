/* What the stream does not carry, kept equal by asking: sequences. And what it should carry but
 * does not: tables that appeared after the start. Used by one thread. */
#ifndef APPLIERS_MIRROR_H
#define APPLIERS_MIRROR_H

#include "engine/base/arena.h"
#include "engine/base/error.h"

struct mirror;

/* Why a cutover would lose something; texts live in the arena. */
struct mirror_reasons {
    struct arena arena;
    size_t count;
    const char *list[32];
};

struct mirror_ops {
    bool (*sync)(struct mirror *m, struct mirror_reasons *reasons, struct error *err);
    void (*free)(struct mirror *m);
};

struct mirror {
    const struct mirror_ops *ops;
};

#endif
