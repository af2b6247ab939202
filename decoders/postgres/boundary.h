/* Where transactions end in a stream of pgoutput messages, and what a reader that starts
 * between two of them must know.
 *
 * The source looks at each message's first bytes only; rows pass untouched. What it keeps are
 * the Relation messages in force, which a walsender sends once a session: a spool segment
 * begins with them (its preface), so that reading may start at any segment. */
#ifndef DECODERS_POSTGRES_BOUNDARY_H
#define DECODERS_POSTGRES_BOUNDARY_H

#include "decoders/decoder.h"

struct boundary;

struct boundary *boundary_new(void);
void boundary_free(struct boundary *b);

/* The session begins anew: forgets all. */
void boundary_reset(struct boundary *b);

/* Looks at one message. *end_lsn is where the stream resumes behind it if it is a commit, else
 * 0. ERROR_DATA if its head makes no sense. */
must_check bool boundary_see(struct boundary *b, struct bytes message, uint64_t *end_lsn,
                             struct error *err);

/* When the transaction seen last was committed, by the source's clock: microseconds since 2000.
 * Of one that is sent whole its beginning says so. */
int64_t boundary_committed_us(const struct boundary *b);

/* Inside Begin..Commit or StreamStart..StreamStop. */
bool boundary_is_inside(const struct boundary *b);

/* Whether a transaction that is streamed in pieces is open. */
bool boundary_has_streams(const struct boundary *b);

/* Gives the preface, frame by frame; not while inside. */
must_check bool boundary_preface(const struct boundary *b,
                                 bool (*put)(void *context, const struct frame *frame,
                                             struct error *err),
                                 void *context, struct error *err);

#endif
