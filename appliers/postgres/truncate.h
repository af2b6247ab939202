/* Makes statements of a TRUNCATE: one for all tables that green has, others for the rows of
 * partitions that it has not. */
#ifndef APPLIERS_POSTGRES_TRUNCATE_H
#define APPLIERS_POSTGRES_TRUNCATE_H

#include "appliers/postgres/session.h"

struct truncate_sink {
    bool (*put)(void *context, const char *sql, struct error *err);
    void *context;
};

must_check bool session_truncate(struct session *s, const struct change *change,
                                 const struct truncate_sink *sink, struct error *err);

#endif
