/* The walsender's end of a PostgreSQL source: frames in, feedback out.
 *
 * One replication connection. It is read as fast as the server sends, and tells the server what
 * may be forgotten: only what its reader says is durable, never less than before. Keepalives
 * become FRAME_PROGRESS, so that traffic that is not ours, or none at all, does not make the
 * server keep its log. (PostgreSQL manual, 55.4 Streaming Replication Protocol.) */
#ifndef DECODERS_POSTGRES_STREAM_H
#define DECODERS_POSTGRES_STREAM_H

#include "decoders/decoder.h"

struct pg_stream_options {
    const char *conninfo; /* Borrowed, as the name; the others are copied. */
    const char *name;     /* The migration; also application_name. */
    const char *slot;
    const char *publication;
    const char *system_id; /* The server must have it; "" before it is known. */
    bool streaming;        /* Ask for large transactions while they run, where it can. */
};

struct source *pg_stream_new(const struct pg_stream_options *options);

#endif
