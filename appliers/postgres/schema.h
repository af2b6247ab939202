/* Blue's schema, made again on green in three stages.
 *
 *   before the rows  types, functions, tables, views, sequences, defaults, rights
 *   keys             after the rows: primary keys, unique and exclusion constraints, indexes,
 *                    statistics objects, check constraints that are not part of their table
 *   finish           foreign keys, triggers, rules, policies, event triggers, comments
 *
 * pg_dump writes it, in one snapshot; what green already has is left as it is, so that every
 * stage can be run again after a crash, and on a green that was prepared by hand. Of a table
 * that is not copied, or is mapped to another one, nothing is made; what refers to it is left
 * out with a warning. The connections given here keep the dump's settings (search_path = '').
 */
#ifndef APPLIERS_POSTGRES_SCHEMA_H
#define APPLIERS_POSTGRES_SCHEMA_H

#include <stdatomic.h>

#include "engine/options.h"
#include "engine/postgres/pg.h"

struct schema;

/* Runs pg_dump on blue. `o` outlives the schema. Every function here that takes `stop` (may be
 * NULL) ends soon with ERROR_RETRY when *stop becomes true: what runs is cancelled. */
must_check bool schema_open(const struct options *o, const _Atomic bool *stop,
                            struct schema **out, struct error *err);
void schema_free(struct schema *s);

/* Looks first for what green lacks and only its operator can add, roles and extensions:
 * ERROR_CONFIG with the statements. */
must_check bool schema_apply_pre(struct schema *s, PGconn *green, const _Atomic bool *stop,
                                 struct error *err);

/* Side by side on `jobs` connections. Afterwards the replica identities are blue's. */
must_check bool schema_apply_keys(struct schema *s, PGconn *const *green, size_t jobs,
                                  const _Atomic bool *stop, struct error *err);
must_check bool schema_apply_finish(struct schema *s, PGconn *green, const _Atomic bool *stop,
                                    struct error *err);

/* Fills the materialised views that are filled on blue and not on green. */
must_check bool schema_refresh_views(PGconn *blue, PGconn *green, const _Atomic bool *stop,
                                     struct error *err);

#endif
