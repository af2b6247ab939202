/* The initial copy from a PostgreSQL source to a PostgreSQL target. */
#ifndef ENGINE_POSTGRES_COPIER_H
#define ENGINE_POSTGRES_COPIER_H

#include "decoders/origin.h"
#include "engine/copier.h"
#include "engine/options.h"

struct copier *pg_copier_new(const struct options *options,
                             const struct stream_identity *identity);

#endif
