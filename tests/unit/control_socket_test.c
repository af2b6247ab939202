/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/control_socket.h"

struct place {
    char folder[64];
    char path[100];
    char lock[128];
};

static int set_up(void **state)
{
    struct place *p = calloc(1, sizeof *p);
    check(p != NULL);
    (void)snprintf(p->folder, sizeof p->folder, "/tmp/teal-socket-XXXXXX");
    check(mkdtemp(p->folder) != NULL);
    (void)snprintf(p->path, sizeof p->path, "%s/shop.sock", p->folder);
    (void)snprintf(p->lock, sizeof p->lock, "%s.lock", p->path);
    *state = p;
    return 0;
}

static int tear_down(void **state)
{
    struct place *p = *state;
    (void)unlink(p->path);
    (void)unlink(p->lock);
    (void)rmdir(p->folder);
    free(p);
    return 0;
}

static struct control_socket open_at(const char *path)
{
    struct control_socket s = {0};
    struct error error = {0};
    if (!control_socket_open(path, &s, &error))
        fail_msg("%s", error.text);
    return s;
}

static void assert_refused(const char *path, const char *text)
{
    struct control_socket s = {0};
    struct error error = {0};
    assert_false(control_socket_open(path, &s, &error));
    if (error.kind != ERROR_CONFIG || strstr(error.text, text) == NULL)
        fail_msg("%s: %s", error_kind_name(error.kind), error.text);
}

static bool answers(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, path, strlen(path) + 1);
    cleanup_with(file_close) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (const void *)&address, sizeof address) == 0;
}

static void the_file_is_its_owners_alone_and_its_folder_is_made(void **state)
{
    struct place *p = *state;
    struct stat info;
    char folder[80];
    char path[100];
    (void)snprintf(folder, sizeof folder, "%s/made", p->folder);
    (void)snprintf(path, sizeof path, "%s/s", folder);
    mode_t before = umask(0);
    struct control_socket s = open_at(path);
    (void)umask(before);
    assert_int_equal(stat(path, &info), 0);
    assert_true(S_ISSOCK(info.st_mode));
    assert_int_equal(info.st_mode & 0777, 0600);
    assert_int_equal(stat(folder, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0700);
    control_socket_close(&s);
    assert_int_equal(access(path, F_OK), -1);
    (void)snprintf(path, sizeof path, "%s/s.lock", folder);
    (void)unlink(path);
    (void)rmdir(folder);
}

static void a_living_engine_keeps_its_socket(void **state)
{
    struct place *p = *state;
    struct control_socket s = open_at(p->path);
    assert_refused(p->path, "another engine is running");
    assert_true(answers(p->path));
    /* Even when it has not bound its file yet, or has lost it. */
    assert_int_equal(unlink(p->path), 0);
    assert_refused(p->path, "another engine is running");
    control_socket_close(&s);
}

static void a_socket_without_a_lock_that_answers_is_left_alone(void **state)
{
    struct place *p = *state;
    struct control_socket s = open_at(p->path);
    assert_int_equal(unlink(p->lock), 0);
    assert_refused(p->path, "another engine is running");
    assert_true(answers(p->path));
    control_socket_close(&s);
}

/* It dies as engines do: without a word. */
static void the_socket_of_a_dead_engine_is_replaced(void **state)
{
    struct place *p = *state;
    pid_t engine = fork();
    if (engine == 0) {
        struct control_socket s = {0};
        struct error error = {0};
        _exit(control_socket_open(p->path, &s, &error) ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(engine, &status, 0), engine);
    assert_int_equal(status, 0);
    assert_int_equal(access(p->path, F_OK), 0);
    assert_false(answers(p->path));
    struct control_socket s = open_at(p->path);
    assert_true(answers(p->path));
    control_socket_close(&s);
}

static void what_is_no_socket_is_never_removed(void **state)
{
    struct place *p = *state;
    struct error error = {0};
    struct writer content = {0};
    assert_true(file_replace(p->path, BYTES("precious"), &error));
    assert_refused(p->path, "is not a socket");
    assert_true(file_read(p->path, 100, &content, &error));
    assert_string_equal(writer_cstr(&content), "precious");
    writer_release(&content);
}

static void a_path_that_is_too_long_is_refused(void **state)
{
    (void)state;
    char path[200];
    memset(path, 'x', sizeof path - 1);
    path[0] = '/';
    path[sizeof path - 1] = '\0';
    assert_refused(path, "too long");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_file_is_its_owners_alone_and_its_folder_is_made),
        TEST(a_living_engine_keeps_its_socket),
        TEST(a_socket_without_a_lock_that_answers_is_left_alone),
        TEST(the_socket_of_a_dead_engine_is_replaced),
        TEST(what_is_no_socket_is_never_removed),
        TEST(a_path_that_is_too_long_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
