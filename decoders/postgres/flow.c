/* The walsender sends each message by itself. To a reader that waits for it, each costs blue a
 * system call, a segment and a wake-up: more than to decode it, and blue's processor is what a
 * backlog waits for. So in a flow of small messages the reader lets some gather. A lone message
 * is never waited for: it is no flow.
 *
 * Over TCP the segments remain for as long as the reader has room. Once it has none, the kernel
 * puts message to message and sends them as one when there is room again, which makes them
 * about half as dear. So as long as what comes was committed long before it is sent, reading
 * rests until its buffers have run full; the walsender goes on into its own, which hold more
 * than it decodes meanwhile. To bring this about with a small receive buffer does not do: a
 * window below the size of a segment makes TCP wait for its timers. A Unix socket holds little;
 * there a rest must be short. */
#include "decoders/postgres/flow.h"

#include <sys/socket.h>

enum {
    FLOW_MESSAGES = 64,        /* As many, */
    FLOW_WITHIN_US = 6400,     /* in so short a time, */
    FLOW_BYTES_MAX = 64 << 10, /* of at most so many bytes, are a flow of small messages. */
    PAUSE_LOCAL_US = 200,
    PAUSE_US = 500,
    REST_US = 20000,
    LATE_US = 100000, /* A backlog, to which a rest adds nothing that is felt. */
};

void flow_begin(struct flow *f, int socket, int64_t now_us)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof address;
    bool known = getsockname(socket, (struct sockaddr *)&address, &len) == 0;
    *f = (struct flow){.since_us = now_us};
    f->is_tcp = known && address.ss_family != AF_UNIX;
}

void flow_note(struct flow *f, size_t bytes)
{
    f->messages++;
    f->bytes += bytes;
}

static void look(struct flow *f, int64_t now_us)
{
    int64_t took = now_us - f->since_us;
    if (f->messages < FLOW_MESSAGES && took < FLOW_WITHIN_US)
        return;
    f->is_on = took * FLOW_MESSAGES < (int64_t)f->messages * FLOW_WITHIN_US &&
               f->bytes * FLOW_MESSAGES < (size_t)f->messages * FLOW_BYTES_MAX;
    f->since_us = now_us;
    f->messages = 0;
    f->bytes = 0;
}

int64_t flow_rest_us(struct flow *f, int64_t now_us, int64_t late_us)
{
    look(f, now_us);
    if (!f->is_on)
        return 0;
    if (!f->is_tcp)
        return PAUSE_LOCAL_US;
    return late_us < LATE_US ? PAUSE_US : REST_US;
}
