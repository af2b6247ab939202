/* A replication slot, asked whether it still reaches back far enough. */
#ifndef DECODERS_POSTGRES_SLOT_H
#define DECODERS_POSTGRES_SLOT_H

#include "engine/postgres/pg.h"

/* On any idle connection, also a walsender's. ERROR_LOST if the slot is gone, was confirmed
 * beyond `from` (what lies between would be skipped silently), or the server's log ends before
 * it (the server lost what was already received from it). */
must_check bool slot_reaches_back(PGconn *pg, const char *slot, uint64_t from,
                                  struct error *err);

/* ERROR_FENCED if somebody receives from it now. It may be a session of our own that died: then
 * the server notices within its wal_sender_timeout. */
must_check bool slot_is_free(PGconn *pg, const char *slot, struct error *err);

/* Gives an ERROR_LOST its way out. Returns false. */
bool slot_lost_hint(const char *slot, struct error *err);

#endif
