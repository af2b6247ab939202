/* The PostgreSQL source's database: our schema, publication and slot on it, how far it is, and
 * barriers. What we make there is written down in teal.migration before it is made, so that a
 * slot or publication that merely has our name is told apart from one that is ours. */
#ifndef DECODERS_POSTGRES_ORIGIN_H
#define DECODERS_POSTGRES_ORIGIN_H

#include "decoders/origin.h"
#include "engine/options.h"

/* Names of what a migration makes: teal_NAME. */
enum { PG_OBJECT_NAME_MAX = 64 };
void pg_object_name(const char *migration, char *out);

/* Borrowed; must outlive the origin. */
struct origin *pg_origin_new(const struct options *options, const char *conninfo);

/* A snapshot as create() gives it: a name for SET TRANSACTION SNAPSHOT, '|', and what it sees
 * as pg_current_snapshot() prints it. */

/* The system identifier in an identity of this source, "" if it cannot be found. */
void pg_identity_system(const char *identity, char *out, size_t size);

#endif
