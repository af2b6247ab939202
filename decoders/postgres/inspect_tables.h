/* The tables' part of the inspection of blue. */
#ifndef DECODERS_POSTGRES_INSPECT_TABLES_H
#define DECODERS_POSTGRES_INSPECT_TABLES_H

#include "engine/postgres/survey.h"

must_check bool inspect_tables(struct survey *s, struct sizes *sizes, struct error *err);

#endif
