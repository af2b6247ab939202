/* Sequences of a PostgreSQL source kept equal on a PostgreSQL target. */
#ifndef APPLIERS_POSTGRES_MIRROR_H
#define APPLIERS_POSTGRES_MIRROR_H

#include "appliers/mirror.h"
#include "engine/options.h"

/* Borrowed; must outlive the mirror. */
struct mirror *pg_mirror_new(const struct options *o);

#endif
