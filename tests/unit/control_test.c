#include "tests/unit/control_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/client.h"

static const char *text_of(struct writer *w) { return writer_cstr(w); }

static int tcp_code(const struct rig *r, const char *method, const char *path,
                    struct writer *seen)
{
    char request[256];
    int fd = rig_connect_tcp(r);
    (void)snprintf(
        request, sizeof request,
        "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", method,
        path);
    rig_send(fd, request);
    writer_clear(seen);
    (void)rig_read_until(fd, "no such text", seen);
    (void)close(fd);
    return (int)strtol(writer_cstr(seen) + strlen("HTTP/1.1 "), NULL, 10);
}

/* ---- reading ---- */

static void the_routes_answer_over_the_socket(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    assert_int_equal(rig_call(r, "GET", "/livez", &body), 200);
    assert_string_equal(text_of(&body), "ok\n");
    assert_int_equal(rig_call(r, "GET", "/status", &body), 200);
    assert_non_null(strstr(text_of(&body), "\"migration\":\"shop\""));
    assert_int_equal(rig_call(r, "GET", "/metrics", &body), 200);
    assert_non_null(strstr(text_of(&body), "teal_phase{phase=\"following\"} 1\n"));
    assert_int_equal(rig_call(r, "GET", "/", &body), 200);
    assert_non_null(strstr(text_of(&body), "</html>"));
    assert_int_equal(rig_call(r, "GET", "/nowhere", &body), 404);
    assert_int_equal(rig_call(r, "GET", "/status/", &body), 404);
    assert_int_equal(rig_call(r, "POST", "/status", &body), 405);
    assert_int_equal(rig_call(r, "DELETE", "/status", &body), 405);
    assert_int_equal(rig_call(r, "GET", "/barrier", &body), 405);
    writer_release(&body);
}

static void the_page_needs_nothing_from_elsewhere(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    assert_int_equal(rig_call(r, "GET", "/", &body), 200);
    assert_null(strstr(text_of(&body), "http://"));
    assert_null(strstr(text_of(&body), "https://"));
    assert_null(strstr(text_of(&body), "src="));
    assert_null(strstr(text_of(&body), "innerHTML"));
    writer_release(&body);
}

static void ready_means_following_with_a_known_and_small_lag(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    atomic_store(&r->fake.lag_us, 300000);
    assert_int_equal(rig_call(r, "GET", "/readyz", &body), 200);
    assert_int_equal(rig_call(r, "GET", "/readyz?lag=300ms", &body), 200);
    assert_int_equal(rig_call(r, "GET", "/readyz?lag=250ms", &body), 503);
    assert_string_equal(text_of(&body), "the lag is 0.300 s, above 0.250 s\n");
    assert_int_equal(rig_call(r, "GET", "/readyz?lag=soon", &body), 400);
    atomic_store(&r->fake.lag_us, 2 * SECOND);
    assert_int_equal(rig_call(r, "GET", "/readyz", &body), 503);
    atomic_store(&r->fake.lag_us, STATUS_UNKNOWN);
    assert_int_equal(rig_call(r, "GET", "/readyz", &body), 503);
    assert_string_equal(text_of(&body), "the lag is unknown\n");
    atomic_store(&r->fake.lag_us, 0);
    atomic_store(&r->fake.phase, PHASE_HALTED);
    assert_int_equal(rig_call(r, "GET", "/readyz", &body), 503);
    assert_string_equal(text_of(&body), "the phase is halted\n");
    assert_int_equal(rig_call(r, "GET", "/livez", &body), 200);
    atomic_store(&r->fake.phase, PHASE_REVERSED);
    assert_int_equal(rig_call(r, "GET", "/readyz", &body), 200);
    writer_release(&body);
}

static void switch_readiness_comes_with_reasons(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    assert_int_equal(rig_call(r, "GET", "/cutover-ready", &body), 503);
    assert_string_equal(text_of(&body),
                        "{\"ready\":false,\"reasons\":[\"the phase is following\"]}\n");
    atomic_store(&r->fake.ready, true);
    assert_int_equal(rig_call(r, "GET", "/cutover-ready", &body), 200);
    assert_string_equal(text_of(&body), "{\"ready\":true,\"reasons\":[]}\n");
    assert_int_equal(rig_call(r, "GET", "/rollback-ready", &body), 503);
    writer_release(&body);
}

/* ---- commands ---- */

static void commands_reach_the_engine(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    assert_int_equal(rig_call(r, "POST", "/barrier?timeout=3s", &body), 200);
    assert_string_equal(text_of(&body), "{\"ok\":true,\"position\":\"0/1529840\"}\n");
    assert_int_equal(atomic_load(&r->fake.barrier_timeout_us), 3 * SECOND);
    assert_int_equal(rig_call(r, "POST", "/barrier?timeout=0ms", &body), 503);
    assert_non_null(strstr(text_of(&body), "{\"error\":{\"kind\":\"retry\""));
    assert_int_equal(rig_call(r, "POST", "/hold", &body), 200);
    assert_int_equal(rig_call(r, "POST", "/hold", &body), 409);
    assert_string_equal(text_of(&body), "{\"error\":{\"kind\":\"config\",\"text\":\"it is held "
                                        "already\",\"hint\":\"resume first\"}}\n");
    assert_int_equal(rig_call(r, "POST", "/resume", &body), 200);
    assert_int_equal(atomic_load(&r->fake.holds), 0);
    assert_int_equal(rig_call(r, "POST", "/arm-reverse", &body), 501);
    assert_int_equal(rig_call(r, "POST", "/reverse", &body), 501);
    assert_int_equal(rig_call(r, "POST", "/stop", &body), 200);
    assert_int_equal(atomic_load(&r->fake.stops), 1);
    writer_release(&body);
}

static void tcp_reads_and_never_commands(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    static const char *const reads[] = {"/livez", "/status", "/metrics", "/", "/readyz"};
    static const char *const writes[] = {"/barrier", "/hold",        "/resume",
                                         "/stop",    "/arm-reverse", "/reverse"};
    for (size_t i = 0; i < array_count(reads); i++)
        assert_int_equal(tcp_code(r, "GET", reads[i], &seen), 200);
    for (size_t i = 0; i < array_count(writes); i++)
        assert_int_equal(tcp_code(r, "POST", writes[i], &seen), 403);
    assert_int_equal(tcp_code(r, "GET", "/nowhere", &seen), 404);
    assert_int_equal(atomic_load(&r->fake.stops), 0);
    assert_int_equal(atomic_load(&r->fake.holds), 0);
    writer_release(&seen);
}

static void head_has_no_body(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    assert_int_equal(tcp_code(r, "HEAD", "/livez", &seen), 200);
    assert_non_null(strstr(writer_cstr(&seen), "Content-Length: 3\r\n"));
    assert_null(strstr(writer_cstr(&seen), "\r\n\r\nok"));
    assert_int_equal(tcp_code(r, "HEAD", "/events", &seen), 405);
    assert_int_equal(tcp_code(r, "HEAD", "/stop", &seen), 405);
    writer_release(&seen);
}

static bool start_fails(struct rig *r, const char *text)
{
    struct error error = {0};
    struct control_host host = rig_host(&r->fake);
    struct control *second = NULL;
    if (control_start(&r->options, &host, &second, &error)) {
        control_stop(second);
        return false;
    }
    if (error.kind != ERROR_CONFIG || strstr(error.text, text) == NULL)
        fail_msg("%s: %s", error_kind_name(error.kind), error.text);
    return true;
}

static void the_socket_of_a_living_engine_is_kept(void **state)
{
    struct rig *r = *state;
    struct writer body = {0};
    assert_true(start_fails(r, "another engine is running"));
    assert_int_equal(rig_call(r, "GET", "/livez", &body), 200);
    writer_release(&body);
}

static void an_address_in_use_is_a_configuration_error(void **state)
{
    struct rig *r = *state;
    char other[160];
    (void)snprintf(other, sizeof other, "%s/made/b.sock", r->folder);
    r->options.socket = other;
    assert_true(start_fails(r, "cannot listen on 127.0.0.1"));
    assert_int_equal(access(other, F_OK), -1);
    r->options.socket = r->socket;
    (void)snprintf(other, sizeof other, "%s/made/b.sock.lock", r->folder);
    assert_int_equal(unlink(other), 0);
}

/* ---- the client ---- */

static void no_engine_is_an_error_of_its_own(void **state)
{
    struct rig *r = *state;
    struct error error = {0};
    struct writer body = {0};
    int code;
    control_stop(r->control);
    r->control = NULL;
    assert_false(client_call(r->socket, "GET", "/livez", SECOND, &code, &body, &error));
    assert_int_equal(error.kind, ERROR_CONNECT);
}

static void too_long_requests_are_refused(void **state)
{
    struct rig *r = *state;
    struct writer seen = {0};
    int fd = rig_connect(r);
    rig_send(fd, "POST /hold HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    assert_true(rig_read_until(fd, "HTTP/1.1 413", &seen));
    (void)close(fd);
    writer_clear(&seen);
    fd = rig_connect(r);
    char header[9000];
    memset(header, 'x', sizeof header - 1);
    header[sizeof header - 1] = '\0';
    rig_send(fd, "GET /livez HTTP/1.1\r\nLong: ");
    rig_send(fd, header);
    assert_true(rig_read_until(fd, "HTTP/1.1 400", &seen));
    (void)close(fd);
    assert_int_equal(atomic_load(&r->fake.holds), 0);
    writer_release(&seen);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, rig_set_up, rig_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_routes_answer_over_the_socket),
        TEST(the_page_needs_nothing_from_elsewhere),
        TEST(ready_means_following_with_a_known_and_small_lag),
        TEST(switch_readiness_comes_with_reasons),
        TEST(commands_reach_the_engine),
        TEST(tcp_reads_and_never_commands),
        TEST(head_has_no_body),
        TEST(the_socket_of_a_living_engine_is_kept),
        TEST(an_address_in_use_is_a_configuration_error),
        TEST(no_engine_is_an_error_of_its_own),
        TEST(too_long_requests_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
