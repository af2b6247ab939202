/* The thread between source and spool: takes frames in, tells the source what is safe.
 *
 * It waits for nothing that apply does. It reconnects for as long as it takes; only a lost
 * position makes it give up. While the spool is at its bound it goes on confirming and takes in
 * nothing. */
#ifndef ENGINE_RECEIVER_H
#define ENGINE_RECEIVER_H

#include "engine/spool.h"

struct receiver;

struct receiver_options {
    struct source *source; /* Borrowed; this thread's alone. */
    struct spool *spool;
    bool ack_target; /* Confirm what the target holds, not what the spool holds. */
    void *context;
    /* How far the target is: applied, and durably so. */
    void (*target)(void *context, struct position *applied, struct position *durable);
};

struct receiver_state {
    bool connected;
    bool full;                 /* The spool takes no more. */
    struct position received;  /* The last boundary taken in. */
    struct position confirmed; /* What the source was last told it may forget. */
    struct error error;        /* Why it is not receiving. ERROR_LOST: for good. */
};

struct receiver *receiver_start(const struct receiver_options *options);
/* Ends the thread within a second or so and frees. */
void receiver_stop(struct receiver *r);

void receiver_state(struct receiver *r, struct receiver_state *state);
/* Has the source say soon how far it has got. */
void receiver_probe(struct receiver *r);

#endif
