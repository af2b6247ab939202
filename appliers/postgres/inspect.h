/* Everything about green that would break the migration, and can be known before its start. */
#ifndef APPLIERS_POSTGRES_INSPECT_H
#define APPLIERS_POSTGRES_INSPECT_H

#include "engine/findings.h"
#include "engine/options.h"

/* Adds findings. Compares green with blue if blue is a PostgreSQL too. Changes nothing on
 * either. Fails only if a side cannot be reached or a connection is lost. */
must_check bool pg_inspect_target(const struct options *o, struct findings *f,
                                  struct error *err);

#endif
