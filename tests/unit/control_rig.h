/* For tests of the control server: one on a socket and a TCP port of its own, in front of an
 * engine that does as the test says. */
#ifndef TESTS_UNIT_CONTROL_RIG_H
#define TESTS_UNIT_CONTROL_RIG_H

/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdatomic.h>

#include "engine/control.h"

enum { SECOND = 1000000 };

struct fake {
    _Atomic int phase;
    _Atomic int64_t lag_us;
    _Atomic bool ready;
    _Atomic bool barrier_waits;
    _Atomic int barriers_running;
    _Atomic int64_t barrier_timeout_us;
    _Atomic int holds;
    _Atomic int stops;
};

struct rig {
    char folder[64];
    char socket[128];
    struct options options;
    struct fake fake;
    struct control *control;
};

/* cmocka's: a running server before the test, gone after it. */
int rig_set_up(void **state);
int rig_tear_down(void **state);

struct control_host rig_host(struct fake *fake);

/* Asks over the socket and returns the status; `body` is replaced, and ends with a NUL. */
int rig_call(struct rig *r, const char *method, const char *path, struct writer *body);

int rig_connect(const struct rig *r);
int rig_connect_tcp(const struct rig *r);
void rig_send(int fd, const char *text);

/* Reads on until `wanted` has come; false at the end of the stream or after five seconds. */
bool rig_read_until(int fd, const char *wanted, struct writer *seen);

/* Waits until so many barriers run. */
void rig_wait_for_barriers(struct rig *r, int count);

#endif
