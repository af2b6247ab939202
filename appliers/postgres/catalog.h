/* What only the source's catalogue knows of a table. An unanswered question is no error: the
 * answer is false. */
#ifndef APPLIERS_POSTGRES_CATALOG_H
#define APPLIERS_POSTGRES_CATALOG_H

#include "appliers/postgres/binding.h"

/* The topmost partitioned table above this one; false: it is no partition. */
bool catalog_root_of(PGconn *source, const struct relation *rel, struct writer *schema,
                     struct writer *name);

/* Whether the partitions with these oids ("{1,2}") are all that the table's root has. */
bool catalog_are_all_leaves(PGconn *source, const struct relation *rel, const char *oids);

/* Writes the condition that the rows of a partition meet; false: also if it is one that only
 * the source can evaluate. */
bool catalog_partition_rows(PGconn *source, const struct relation *rel, struct writer *out);

/* The type as it stands in SQL. */
bool catalog_type_name(PGconn *source, uint32_t type, int32_t typmod, struct writer *out);

/* See binding_source.column_type. */
bool catalog_column(PGconn *source, const struct relation *rel, struct bytes name,
                    struct writer *out, struct column_facts *facts);

#endif
