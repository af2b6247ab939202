/* What the inspections of blue and of green share: a connection whose failing questions are
 * findings themselves, and the checks that are the same on either side. */
#ifndef ENGINE_POSTGRES_SURVEY_H
#define ENGINE_POSTGRES_SURVEY_H

#include "engine/findings.h"
#include "engine/options.h"
#include "engine/postgres/pg.h"

struct survey {
    PGconn *pg;
    const struct options *options;
    struct findings *findings;
    const char *side; /* "blue", "green". */
    int version;      /* 150004. */
    bool superuser;
    const char *role; /* As they stand in SQL. */
    const char *database;
};

/* Fails if it cannot connect, as pg_connect() does. survey_close() in any case. */
must_check bool survey_open(struct survey *s, const struct endpoint *endpoint,
                            struct error *err);
void survey_close(struct survey *s);

/* Asks; `values` ends with NULL, or is NULL. A question that the server refuses becomes the
 * error check.incomplete, and *out NULL, which PQntuples() takes for no rows. False only if
 * the connection is lost. */
must_check bool survey_ask(struct survey *s, const char *sql, const char *const *values,
                           PGresult **out, struct error *err);

/* Encryption, recovery, free connections for `wanted`, settings of the role. */
must_check bool survey_common(struct survey *s, uint64_t wanted, struct error *err);

/* Whether the role may switch triggers off: what applying to this side takes. */
must_check bool survey_replica_role(struct survey *s, enum severity severity, const char *why,
                                    struct error *err);

/* Major version as people say it: 15. */
static inline int survey_major(const struct survey *s) { return s->version / 10000; }

#endif
