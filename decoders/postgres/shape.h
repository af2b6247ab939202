/* A table's shape as the stream would describe it, read from the source's catalogue. */
#ifndef DECODERS_POSTGRES_SHAPE_H
#define DECODERS_POSTGRES_SHAPE_H

#include "engine/base/arena.h"
#include "engine/change.h"
#include "engine/postgres/pg.h"

/* Only columns that hold what was put into them: generated ones are left out, as in the stream.
 * In the arena. ERROR_SCHEMA if the table is gone. */
must_check bool shape_read(PGconn *pg, uint32_t oid, struct arena *a, struct relation *out,
                           struct error *err);

#endif
