/* Gives meaning to the messages of PostgreSQL's plugin pgoutput, protocol versions 1 and 2.
 *
 * A frame's body is one message as the walsender's XLogData carried it, without that header.
 * Text format only. (PostgreSQL manual, 55.5 Logical Streaming Replication Protocol and 55.9
 * Logical Replication Message Formats.)
 *
 * Relations. A Relation message always replaces what was known of that table. Inside a streamed
 * transaction it is known to that transaction alone until it commits: several are open at once,
 * and each may have changed the table's shape. When it commits, what it was told holds for all,
 * except where a later message described the same table. Relations that were replaced stay in
 * memory as long as the decoder, because changes point at them; one that says nothing new is
 * not kept.
 *
 * Preface. FRAME_PREFACE holds the Relation messages in force at that point, in the order in
 * which they were sent: as they were, or, for those sent inside a transaction that is still
 * being streamed, after 'S' and that transaction's id. See boundary.h, which makes them. */
#ifndef DECODERS_POSTGRES_PGOUTPUT_H
#define DECODERS_POSTGRES_PGOUTPUT_H

#include "decoders/decoder.h"

/* In a preface: what follows is a Relation message of streamed transaction (u32). */
enum { PREFACE_STREAMED = 'S' };

struct decoder *pgoutput_new(void);

#endif
