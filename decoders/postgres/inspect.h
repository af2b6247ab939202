/* Everything about blue that would break the migration, and can be known before its start. */
#ifndef DECODERS_POSTGRES_INSPECT_H
#define DECODERS_POSTGRES_INSPECT_H

#include "engine/findings.h"
#include "engine/options.h"

/* Adds findings, and what it knows to `s`. Changes nothing on blue. Fails only if blue cannot
 * be reached or the connection is lost: what blue refuses to tell is a finding. Samples the log
 * for about a second. */
must_check bool pg_inspect_source(const struct options *o, struct findings *f, struct sizes *s,
                                  struct error *err);

#endif
