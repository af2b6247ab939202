#include "tests/unit/control_rig.h"

#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "tools/client.h"

/* ---- commands that take long ---- */

static void a_waiting_barrier_holds_nobody_up(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    struct writer seen = {0};
    atomic_store(&r->fake.barrier_waits, true);
    int fd = rig_connect(r);
    /* What comes behind it waits its turn. */
    rig_send(fd, "POST /barrier HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    rig_wait_for_barriers(r, 1);
    rig_send(fd, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_int_equal(rig_call(r, "GET", "/livez", &body), 200);
    assert_int_equal(rig_call(r, "POST", "/resume", &body), 200);
    atomic_store(&r->fake.barrier_waits, false);
    assert_true(rig_read_until(fd, "0/1529840", &seen));
    assert_true(rig_read_until(fd, "\r\n\r\nok\n", &seen));
    (void)close(fd);
    writer_release(&body);
    writer_release(&seen);
}

static void more_commands_than_the_limit_are_told_to_come_back(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    int fds[8];
    atomic_store(&r->fake.barrier_waits, true);
    for (size_t i = 0; i < array_count(fds); i++) {
        fds[i] = rig_connect(r);
        rig_send(fds[i], "POST /barrier HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    }
    rig_wait_for_barriers(r, (int)array_count(fds));
    assert_int_equal(rig_call(r, "POST", "/hold", &body), 503);
    /* Nobody waits for these any more; their answers go nowhere. */
    for (size_t i = 0; i < array_count(fds); i++)
        (void)close(fds[i]);
    atomic_store(&r->fake.barrier_waits, false);
    rig_wait_for_barriers(r, 0);
    for (int i = 0; i < 100 && rig_call(r, "POST", "/resume", &body) != 200; i++)
        (void)poll(NULL, 0, 10);
    assert_int_equal(rig_call(r, "POST", "/hold", &body), 200);
    writer_release(&body);
}

static void an_engine_that_does_not_answer_in_time_is_not_no_engine(void **state)
{
    struct rig *r = *state;
    struct error error = {0};
    struct writer body = {0};
    int code;
    atomic_store(&r->fake.barrier_waits, true);
    assert_false(client_call(r->socket, "POST", "/barrier", SECOND / 5, &code, &body, &error));
    assert_int_equal(error.kind, ERROR_RETRY);
    atomic_store(&r->fake.barrier_waits, false);
    rig_wait_for_barriers(r, 0);
}

/* ---- events ---- */

static int open_events(struct rig *r, struct writer *seen)
{
    int fd = rig_connect(r);
    rig_send(fd, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_true(rig_read_until(fd, "event: status\ndata: {\"teal\"", seen));
    return fd;
}

static void events_bring_log_lines_and_the_status_every_second(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    int fd = open_events(r, &seen);
    assert_non_null(strstr(writer_cstr(&seen), "Content-Type: text/event-stream"));
    log_event("test.line", LOG_INFO, "table=%s", "public.orders");
    assert_true(rig_read_until(fd, "event: log\ndata: ", &seen));
    assert_true(rig_read_until(fd, "test.line table=public.orders\n\n", &seen));
    writer_clear(&seen);
    int64_t before = clock_mono_us();
    assert_true(rig_read_until(fd, "event: status", &seen));
    assert_true(clock_mono_us() - before < 2 * SECOND);
    (void)close(fd);
    writer_release(&seen);
}

static void a_client_of_events_that_hangs_up_leaves_room(void **state)
{
    struct rig *r = *state;
    for (int i = 0; i < 100; i++) {
        struct writer seen = {0};
        int fd = open_events(r, &seen);
        (void)close(fd);
        log_event("test.line", LOG_INFO, "visit=%d", i);
        writer_release(&seen);
    }
    struct writer body = {0};
    assert_int_equal(rig_call(r, "GET", "/livez", &body), 200);
    writer_release(&body);
}

/* ---- the end ---- */

static void stopping_is_quick_whatever_clients_do(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    struct writer answer = {0};
    int events = open_events(r, &seen);
    int silent = rig_connect(r);
    rig_send(silent, "GET /livez HT");
    int barrier = rig_connect(r);
    atomic_store(&r->fake.barrier_waits, true);
    rig_send(barrier, "POST /barrier HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    rig_wait_for_barriers(r, 1);

    int64_t before = clock_mono_us();
    control_stop(r->control);
    assert_true(clock_mono_us() - before < SECOND);
    r->control = NULL;
    assert_true(rig_read_until(events, "\r\n0\r\n\r\n", &seen)); /* The stream's proper end. */
    assert_true(rig_read_until(barrier, "the engine is stopping", &answer));
    assert_int_equal(access(r->socket, F_OK), -1);

    atomic_store(&r->fake.barrier_waits, false);
    rig_wait_for_barriers(r, 0);
    (void)poll(NULL, 0, 50);
    (void)close(events);
    (void)close(silent);
    (void)close(barrier);
    writer_release(&seen);
    writer_release(&answer);
}

/* Lines of the log that nobody sees on stderr. */
static void flood(int count)
{
    char line[4000];
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    int kept = dup(STDERR_FILENO);
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    (void)dup2(nowhere, STDERR_FILENO);
    for (int i = 0; i < count; i++)
        log_event("test.flood", LOG_INFO, "text=%s", line);
    (void)dup2(kept, STDERR_FILENO);
    (void)close(kept);
    (void)close(nowhere);
}

/* All that comes until nothing does for a while. */
static size_t drain(int fd)
{
    char block[64 * 1024];
    size_t total = 0;
    for (struct pollfd p = {.fd = fd, .events = POLLIN}; poll(&p, 1, 300) > 0;) {
        ssize_t got = recv(fd, block, sizeof block, 0);
        if (got <= 0)
            break;
        total += (size_t)got;
    }
    return total;
}

static void a_client_that_reads_nothing_is_not_hoarded_for(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    struct writer body = {0};
    int fd = open_events(r, &seen);
    for (int i = 0; i < 40; i++) {
        flood(50);
        assert_int_equal(rig_call(r, "GET", "/livez", &body), 200);
    }
    assert_in_range(drain(fd), 1, 2 * 1024 * 1024); /* Of 8 MB. */
    log_event("test.line", LOG_INFO, "after=%s", "all");
    assert_true(rig_read_until(fd, "after=all", &seen));
    (void)close(fd);
    writer_release(&seen);
    writer_release(&body);
}

static void a_client_that_reads_nothing_does_not_delay_the_end(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    int fd = open_events(r, &seen);
    for (int i = 0; i < 20; i++) {
        flood(50);
        (void)poll(NULL, 0, 2);
    }
    int64_t before = clock_mono_us();
    control_stop(r->control);
    r->control = NULL;
    assert_true(clock_mono_us() - before < SECOND);
    (void)close(fd);
    writer_release(&seen);
}

/* ---- the socket ---- */

static int open_descriptors(void)
{
    int count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* Including those of clients that were there at the end. */
static void a_server_that_ended_leaves_no_descriptor_open(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    control_stop(r->control);
    int before = open_descriptors();
    for (int i = 0; i < 3; i++) {
        struct error error = {0};
        struct control_host host = rig_host(&r->fake);
        assert_true(control_start(&r->options, &host, &r->control, &error));
        writer_clear(&seen);
        int events = open_events(r, &seen);
        int silent = rig_connect_tcp(r);
        rig_send(silent, "GET /livez HT");
        assert_int_equal(rig_call(r, "POST", "/resume", &seen), 200);
        control_stop(r->control);
        r->control = NULL;
        (void)close(events);
        (void)close(silent);
    }
    assert_int_equal(open_descriptors(), before);
    writer_release(&seen);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_waiting_barrier_holds_nobody_up),
        TEST(more_commands_than_the_limit_are_told_to_come_back),
        TEST(events_bring_log_lines_and_the_status_every_second),
        TEST(a_client_of_events_that_hangs_up_leaves_room),
        TEST(stopping_is_quick_whatever_clients_do),
        TEST(a_client_that_reads_nothing_is_not_hoarded_for),
        TEST(a_client_that_reads_nothing_does_not_delay_the_end),
        TEST(a_server_that_ended_leaves_no_descriptor_open),
        TEST(an_engine_that_does_not_answer_in_time_is_not_no_engine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
