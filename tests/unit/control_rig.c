#include "tests/unit/control_rig.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/clock.h"
#include "tools/client.h"

/* ---- an engine that does as the test says ---- */

static void fake_snapshot(void *engine, struct status *out)
{
    struct fake *f = engine;
    out->migration = status_string(out, BYTES("shop"));
    out->phase = (enum phase)atomic_load(&f->phase);
    out->lag.us = atomic_load(&f->lag_us);
    out->ready.cutover = atomic_load(&f->ready);
}

static bool fake_barrier(void *engine, int64_t timeout_us, struct position *pos,
                         struct error *err)
{
    struct fake *f = engine;
    atomic_store(&f->barrier_timeout_us, timeout_us);
    atomic_fetch_add(&f->barriers_running, 1);
    while (atomic_load(&f->barrier_waits))
        (void)poll(NULL, 0, 5);
    atomic_fetch_sub(&f->barriers_running, 1);
    if (timeout_us == 0)
        return error_set(err, ERROR_RETRY, "the barrier was not applied in time");
    *pos = position_of(BYTES("0/1529840"));
    return true;
}

static bool fake_hold(void *engine, struct error *err)
{
    struct fake *f = engine;
    if (atomic_fetch_add(&f->holds, 1) > 0) {
        (void)error_set(err, ERROR_CONFIG, "it is held already");
        return error_hint(err, "resume first");
    }
    return true;
}

static bool fake_resume(void *engine, struct error *err)
{
    struct fake *f = engine;
    (void)err;
    atomic_store(&f->holds, 0);
    return true;
}

static void fake_stop(void *engine)
{
    struct fake *f = engine;
    atomic_fetch_add(&f->stops, 1);
}

/* ---- one server a test ---- */

/* Free a moment ago, which is as good as it gets. */
static uint16_t free_port(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const void *)&address, len), 0);
    assert_int_equal(getsockname(fd, (void *)&address, &len), 0);
    (void)close(fd);
    return ntohs(address.sin_port);
}

struct control_host rig_host(struct fake *fake)
{
    return (struct control_host){fake_snapshot, fake_barrier, fake_hold,
                                 fake_resume,   fake_stop,    fake};
}

static void start(struct rig *r)
{
    struct error error = {0};
    struct control_host host = rig_host(&r->fake);
    if (!control_start(&r->options, &host, &r->control, &error))
        fail_msg("%s", error.text);
}

int rig_set_up(void **state)
{
    struct rig *r = calloc(1, sizeof *r);
    check(r != NULL);
    (void)snprintf(r->folder, sizeof r->folder, "/tmp/teal-control-XXXXXX");
    check(mkdtemp(r->folder) != NULL);
    (void)snprintf(r->socket, sizeof r->socket, "%s/made/shop.sock", r->folder);
    r->options.socket = r->socket;
    r->options.listen_host = "127.0.0.1";
    r->options.listen_port = free_port();
    r->options.cutover_max_lag_us = SECOND;
    atomic_store(&r->fake.phase, PHASE_FOLLOWING);
    start(r);
    *state = r;
    return 0;
}

int rig_tear_down(void **state)
{
    struct rig *r = *state;
    control_stop(r->control);
    char path[256];
    (void)snprintf(path, sizeof path, "%s.lock", r->socket);
    (void)unlink(path);
    (void)unlink(r->socket);
    (void)snprintf(path, sizeof path, "%s/made", r->folder);
    (void)rmdir(path);
    (void)rmdir(r->folder);
    free(r);
    return 0;
}

int rig_call(struct rig *r, const char *method, const char *path, struct writer *body)
{
    struct error error = {0};
    int code = 0;
    writer_clear(body);
    if (!client_call(r->socket, method, path, 5 * SECOND, &code, body, &error))
        fail_msg("%s %s: %s", method, path, error.text);
    (void)writer_cstr(body);
    return code;
}

int rig_connect(const struct rig *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%.*s", 100, r->socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const void *)&address, sizeof address), 0);
    return fd;
}

int rig_connect_tcp(const struct rig *r)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons(r->options.listen_port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (const void *)&address, sizeof address), 0);
    return fd;
}

void rig_send(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

bool rig_read_until(int fd, const char *wanted, struct writer *seen)
{
    int64_t deadline = clock_mono_us() + 5 * SECOND;
    while (strstr(writer_cstr(seen), wanted) == NULL) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (clock_mono_us() > deadline)
            return false;
        if (poll(&p, 1, 100) <= 0)
            continue;
        ssize_t got = recv(fd, writer_room(seen, 4096), 4096, 0);
        if (got <= 0)
            return false;
        seen->len += (size_t)got;
    }
    return true;
}

void rig_wait_for_barriers(struct rig *r, int count)
{
    for (int i = 0; i < 1000 && atomic_load(&r->fake.barriers_running) != count; i++)
        (void)poll(NULL, 0, 5);
    assert_int_equal(atomic_load(&r->fake.barriers_running), count);
}
