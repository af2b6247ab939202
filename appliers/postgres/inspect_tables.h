/* Whether blue's tables fit those that green already has. */
#ifndef APPLIERS_POSTGRES_INSPECT_TABLES_H
#define APPLIERS_POSTGRES_INSPECT_TABLES_H

#include "engine/postgres/survey.h"

/* `resumes`: the migration has begun before, so that rows on green are ours. */
must_check bool inspect_shapes(struct survey *blue, struct survey *green, bool resumes,
                               struct error *err);

#endif
