/* Applies groups to a PostgreSQL target over one pipelined connection. */
#ifndef APPLIERS_POSTGRES_APPLIER_H
#define APPLIERS_POSTGRES_APPLIER_H

#include "appliers/applier.h"
#include "engine/options.h"

/* All borrowed; must outlive the applier. */
struct pg_applier_options {
    const struct options *options; /* Names, mapping, policies. */
    const char *target;            /* conninfo. */
    const char *source;            /* conninfo: asked for what a row image leaves out. */
    const char *feed;              /* "forward", "reverse". */
    const char *identity;          /* The stream's. */
    struct position start;
};

struct applier *pg_applier_new(const struct pg_applier_options *options);

#endif
