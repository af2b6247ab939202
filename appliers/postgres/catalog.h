/* What only the source's catalogue knows of a table. An unanswered question is no error: the
 * answer is false. */
#ifndef APPLIERS_POSTGRES_CATALOG_H
#define APPLIERS_POSTGRES_CATALOG_H

#include "appliers/postgres/binding.h"

/* The topmost partitioned table above this one; false: it is no partition. */
bool catalog_root_of(PGconn *source, const struct relation *rel, struct writer *schema,
                     struct writer *name);

/* The type as it stands in SQL. */
bool catalog_type_name(PGconn *source, uint32_t type, int32_t typmod, struct writer *out);

/* See binding_source.column_type. */
bool catalog_column(PGconn *source, const struct relation *rel, struct bytes name,
                    struct writer *out, struct column_facts *facts);

#endif
