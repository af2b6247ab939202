/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/client.h"

enum { SECOND = 1000000 };

/* A server that says what it was told to, byte by byte, whatever it is asked. */
struct parrot {
    int listener;
    const char *answer;
    char asked[1024];
};

static void *answer_once(void *context)
{
    struct parrot *p = context;
    int fd = accept(p->listener, NULL, NULL);
    check(fd >= 0);
    size_t len = 0;
    while (strstr(p->asked, "\r\n\r\n") == NULL) {
        ssize_t got = recv(fd, p->asked + len, sizeof p->asked - 1 - len, 0);
        check(got > 0);
        len += (size_t)got;
    }
    for (const char *at = p->answer; *at != '\0'; at++)
        if (send(fd, at, 1, MSG_NOSIGNAL) != 1)
            break;
    (void)close(fd);
    return NULL;
}

struct outcome {
    bool ok;
    int code;
    struct error error;
    char body[256];
    char asked[1024];
};

static struct outcome hear(const char *answer)
{
    struct outcome o = {0};
    char folder[] = "/tmp/teal-client-XXXXXX";
    check(mkdtemp(folder) != NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/s", folder);
    struct parrot p = {.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                       .answer = answer};
    check(bind(p.listener, (const void *)&address, sizeof address) == 0);
    check(listen(p.listener, 1) == 0);
    pthread_t thread;
    check(pthread_create(&thread, NULL, answer_once, &p) == 0);
    struct writer body = {0};
    writer_text(&body, "before ");
    o.ok = client_call(address.sun_path, "GET", "/status?x=1", 5 * SECOND, &o.code, &body,
                       &o.error);
    check(pthread_join(thread, NULL) == 0);
    (void)snprintf(o.body, sizeof o.body, "%s", writer_cstr(&body));
    memcpy(o.asked, p.asked, sizeof o.asked);
    writer_release(&body);
    (void)close(p.listener);
    (void)unlink(address.sun_path);
    (void)rmdir(folder);
    return o;
}

static void assert_hears(const char *answer, int code, const char *body)
{
    struct outcome o = hear(answer);
    if (!o.ok)
        fail_msg("%s", o.error.text);
    assert_int_equal(o.code, code);
    assert_string_equal(o.body, body);
}

static void assert_refuses(const char *answer, enum error_kind kind)
{
    struct outcome o = hear(answer);
    assert_false(o.ok);
    if (o.error.kind != kind)
        fail_msg("%s: %s", error_kind_name(o.error.kind), o.error.text);
}

static void it_asks_once_and_says_so(void **state)
{
    (void)state;
    struct outcome o = hear("HTTP/1.1 204 No Content\r\n\r\n");
    assert_true(o.ok);
    assert_non_null(strstr(o.asked, "GET /status?x=1 HTTP/1.1\r\n"));
    assert_non_null(strstr(o.asked, "\r\nConnection: close\r\n"));
}

static void a_body_ends_with_its_length_its_last_chunk_or_the_stream(void **state)
{
    (void)state;
    assert_hears("HTTP/1.1 200 OK\r\ncontent-length: 5 \r\n\r\nhellono", 200, "before hello");
    assert_hears("HTTP/1.1 503 No\r\nContent-Length:0\r\n\r\n", 503, "before ");
    assert_hears("HTTP/1.0 200 OK\r\nServer: x\r\n\r\nall of it", 200, "before all of it");
    assert_hears("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                 "5\r\nhello\r\nA;x=y\r\n, chunked!\r\n0\r\n\r\n",
                 200, "before hello, chunked!");
}

static void an_answer_cut_short_may_be_asked_for_again(void **state)
{
    (void)state;
    assert_refuses("", ERROR_RETRY);
    assert_refuses("HTTP/1.1 200 OK\r\nContent-Le", ERROR_RETRY);
    assert_refuses("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello", ERROR_RETRY);
    assert_refuses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
                   ERROR_RETRY);
    assert_refuses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
                   ERROR_RETRY);
}

static void what_is_not_our_http_is_refused(void **state)
{
    (void)state;
    assert_refuses("SSH-2.0-OpenSSH_9.2\r\n", ERROR_DATA);
    assert_refuses("HTTP/1.1 2x0 OK\r\n\r\n", ERROR_DATA);
    assert_refuses("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", ERROR_DATA);
    assert_refuses("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", ERROR_DATA);
    assert_refuses("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
                   ERROR_DATA);
    assert_refuses("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", ERROR_DATA);
    assert_refuses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ERROR_DATA);
    assert_refuses("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n",
                   ERROR_DATA);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_asks_once_and_says_so),
        cmocka_unit_test(a_body_ends_with_its_length_its_last_chunk_or_the_stream),
        cmocka_unit_test(an_answer_cut_short_may_be_asked_for_again),
        cmocka_unit_test(what_is_not_our_http_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
