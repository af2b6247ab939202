/* What teal keeps on a PostgreSQL target, read and removed without an applier. */
#ifndef APPLIERS_POSTGRES_CLEANUP_H
#define APPLIERS_POSTGRES_CLEANUP_H

#include "checkpoint/checkpoint.h"
#include "engine/options.h"

/* Removes all that this migration made on green, except rows and their schema: what the tables
 * of the schema teal hold for it, and the schema itself if they then hold nothing at all. */
must_check bool pg_clean_target(const struct options *o, struct error *err);

/* The checkpoint of the forward feed; *found false if there is none. ERROR_LOST if it belongs
 * to another stream than `identity` (NULL: any). */
must_check bool pg_read_checkpoint(const struct options *o, const char *identity,
                                   struct checkpoint *out, bool *found, struct error *err);

#endif
