/* When to read a stream whose messages come thick and small. */
#ifndef DECODERS_POSTGRES_FLOW_H
#define DECODERS_POSTGRES_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct flow {
    bool is_tcp;
    bool is_on;       /* Messages come thick and small. */
    int64_t since_us; /* What came since: */
    unsigned messages;
    size_t bytes;
};

/* On the socket of a connection that is open. */
void flow_begin(struct flow *f, int socket, int64_t now_us);

/* A message of so many bytes was taken. */
void flow_note(struct flow *f, size_t bytes);

/* Asked when all that had come was taken, before more is waited for: how long to rest first.
 * `late_us`: how long before it was sent the last transaction was committed. */
int64_t flow_rest_us(struct flow *f, int64_t now_us, int64_t late_us);

#endif
