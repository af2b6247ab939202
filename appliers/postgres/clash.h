/* Making way for a row that must be on green: the rows that hold what an index lets only one
 * have are deleted. */
#ifndef APPLIERS_POSTGRES_CLASH_H
#define APPLIERS_POSTGRES_CLASH_H

#include "appliers/postgres/binding.h"

/* `index` is the unique or exclusion constraint, or unique index, that refused `after`. `key`
 * finds the row that is being updated, which stays; NULL: none. */
must_check bool clash_make_way(PGconn *pg, const struct binding *b, const char *index,
                               const struct tuple *key, const struct tuple *after,
                               struct error *err);

#endif
