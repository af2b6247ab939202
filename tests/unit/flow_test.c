/* A reader rests only where messages come thick and small, and long only where they are old.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "decoders/postgres/flow.h"

enum { VERY_LATE = 3000000 };

static struct flow flow_over(int family)
{
    struct flow f;
    int fd = socket(family, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    flow_begin(&f, fd, 0);
    (void)close(fd);
    return f;
}

/* Messages of `size` bytes, one each `step_us`, read 10 at a time; the last rest. */
static int64_t rest_in_flow(struct flow *f, int64_t step_us, size_t size, int64_t late_us)
{
    int64_t rest = 0;
    for (int64_t now = 0, n = 0; n < 1000; n++, now += step_us) {
        flow_note(f, size);
        if (n % 10 == 9)
            rest = flow_rest_us(f, now, late_us);
    }
    return rest;
}

static void a_lone_message_is_never_waited_for(void **state)
{
    (void)state;
    struct flow f = flow_over(AF_INET);
    assert_int_equal(flow_rest_us(&f, 10, VERY_LATE), 0);
    assert_int_equal(rest_in_flow(&f, 1000, 80, VERY_LATE), 0);
}

static void large_messages_are_no_flow(void **state)
{
    (void)state;
    struct flow f = flow_over(AF_INET);
    assert_int_equal(rest_in_flow(&f, 10, 8000, VERY_LATE), 0);
}

static void it_rests_longer_when_what_comes_is_old(void **state)
{
    (void)state;
    struct flow f = flow_over(AF_INET);
    int64_t fresh = rest_in_flow(&f, 10, 80, 0);
    int64_t old = rest_in_flow(&f, 10, 80, VERY_LATE);
    assert_true(fresh > 0 && fresh <= 1000);
    assert_true(old > fresh);
}

static void a_unix_socket_is_read_often(void **state)
{
    (void)state;
    struct flow f = flow_over(AF_UNIX);
    int64_t rest = rest_in_flow(&f, 10, 80, VERY_LATE);
    assert_true(rest > 0 && rest <= 500);
}

static void a_flow_that_ends_is_noticed(void **state)
{
    (void)state;
    struct flow f = flow_over(AF_INET);
    assert_true(rest_in_flow(&f, 10, 80, VERY_LATE) > 0);
    int64_t now = 10000000;
    for (int i = 0; i < 2; i++) {
        flow_note(&f, 80);
        now += 1000000;
        (void)flow_rest_us(&f, now, VERY_LATE);
    }
    assert_int_equal(flow_rest_us(&f, now + 1, VERY_LATE), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_lone_message_is_never_waited_for),
        cmocka_unit_test(large_messages_are_no_flow),
        cmocka_unit_test(it_rests_longer_when_what_comes_is_old),
        cmocka_unit_test(a_unix_socket_is_read_often),
        cmocka_unit_test(a_flow_that_ends_is_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
