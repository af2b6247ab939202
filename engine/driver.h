/* What one kind of database brings: makes the parts the engine is put together from. All borrow
 * the options and the identity, which must outlive them. */
#ifndef ENGINE_DRIVER_H
#define ENGINE_DRIVER_H

#include "appliers/applier.h"
#include "appliers/mirror.h"
#include "decoders/decoder.h"
#include "decoders/origin.h"
#include "engine/copier.h"
#include "engine/findings.h"
#include "engine/options.h"

struct driver {
    const char *scheme; /* Of the URIs. */
    struct origin *(*origin)(const struct options *o);
    struct source *(*source)(const struct options *o, const struct stream_identity *identity);
    struct decoder *(*decoder)(void);
    struct applier *(*applier)(const struct options *o, const struct stream_identity *identity);
    struct copier *(*copier)(const struct options *o, const struct stream_identity *identity);
    struct mirror *(*mirror)(const struct options *o);
    /* Reads the target's checkpoint without claiming it; *found false if there is none. */
    bool (*checkpoint)(const struct options *o, const struct stream_identity *identity,
                       struct checkpoint *out, bool *found, struct error *err);
    /* What would break the migration and can be known before its start, on either side: added
     * to the findings. Changes nothing. Fails only if a side cannot be reached. */
    bool (*inspect_source)(const struct options *o, struct findings *f, struct sizes *s,
                           struct error *err);
    bool (*inspect_target)(const struct options *o, struct findings *f, struct error *err);
    /* Removes all that was made on the target, except rows and their schema. */
    bool (*clean_target)(const struct options *o, struct error *err);
};

#endif
