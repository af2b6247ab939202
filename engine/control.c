#include "engine/control.h"

#include <errno.h>
#include <event2/bufferevent.h>
#include <event2/listener.h>
#include <event2/thread.h>
#include <signal.h>
#include <stdlib.h>

#include "engine/base/log.h"
#include "engine/control_loop.h"

enum {
    HEADERS_MAX_BYTES = 8 * 1024,
    BODY_MAX_BYTES = 16 * 1024,
    SILENCE_MAX_S = 10,       /* Of a client in the middle of a request or an answer. */
    FAREWELL_US = 100 * 1000, /* For last answers to leave. */
    COMMAND_WAIT_US = 500 * 1000,
};

void control_snapshot(struct control *c, struct status *s)
{
    status_init(s);
    c->host.snapshot(c->host.engine, s);
}

/* ---- the loop ---- */

static void send_lines(struct control *c)
{
    struct writer lines = {0};
    struct writer events = {0};
    board_take_lines(c->board, &lines);
    const uint8_t *end = lines.data + lines.len;
    for (const uint8_t *at = lines.data; at < end;) {
        const uint8_t *newline = memchr(at, '\n', (size_t)(end - at));
        writer_text(&events, "event: log\ndata: ");
        for (; at < newline; at++)
            writer_u8(&events, *at == '\r' ? ' ' : *at);
        writer_text(&events, "\n\n");
        at = newline + 1;
    }
    control_broadcast(c, writer_view(&events));
    writer_release(&lines);
    writer_release(&events);
}

static void close_door(struct door *door)
{
    if (door->bound != NULL)
        (void)evconnlistener_disable(evhttp_bound_socket_get_listener(door->bound));
}

static void begin_stop(struct control *c)
{
    const struct timeval farewell = {.tv_usec = FAREWELL_US};
    c->stopping = true;
    close_door(&c->local);
    close_door(&c->tcp);
    control_dismiss(c);
    check(event_base_loopexit(c->base, &farewell) == 0);
}

static void on_wake(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct control *c = context;
    board_acknowledge(c->board);
    for (struct job *job; (job = board_take_done(c->board)) != NULL;) {
        control_answer_job(c, job);
        free(job);
    }
    send_lines(c);
    if (!c->stopping && board_stopping(c->board))
        begin_stop(c);
}

static void open_door_again(struct door *door)
{
    if (door->bound != NULL)
        (void)evconnlistener_enable(evhttp_bound_socket_get_listener(door->bound));
}

static void on_tick(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct control *c = context;
    if (c->stopping)
        return;
    open_door_again(&c->local);
    open_door_again(&c->tcp);
    if (!control_has_clients(c))
        return;
    struct writer event = {0};
    control_status_event(c, &event);
    control_broadcast(c, writer_view(&event));
    writer_release(&event);
}

static void *run_loop(void *context)
{
    struct control *c = context;
    (void)event_base_dispatch(c->base);
    return NULL;
}

/* ---- setting up ---- */

/* Out of descriptors: a pause until the next tick, not a busy loop. */
static void on_accept_failed(struct evconnlistener *listener, void *context)
{
    (void)context;
    int code = EVUTIL_SOCKET_ERROR();
    (void)evconnlistener_disable(listener);
    log_event("control.accept_failed", LOG_WARN, "code=%d", code);
}

/* The library's own streams are closed before they leave the event base, when their number may
 * already be another thread's file; with this option it is the other way round. */
static struct bufferevent *make_stream(struct event_base *base, void *context)
{
    (void)context;
    return bufferevent_socket_new(base, -1, BEV_OPT_CLOSE_ON_FREE);
}

static void make_door(struct control *c, struct door *door, bool read_only)
{
    const ev_uint16_t methods = EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS |
                                EVHTTP_REQ_PATCH;
    door->control = c;
    door->read_only = read_only;
    door->http = evhttp_new(c->base);
    check(door->http != NULL);
    evhttp_set_allowed_methods(door->http, methods); /* The routes say 405 themselves. */
    evhttp_set_max_headers_size(door->http, HEADERS_MAX_BYTES);
    evhttp_set_max_body_size(door->http, BODY_MAX_BYTES);
    evhttp_set_timeout(door->http, SILENCE_MAX_S);
    evhttp_set_bevcb(door->http, make_stream, NULL);
    evhttp_set_gencb(door->http, control_route, door);
}

static void open_local(struct control *c)
{
    make_door(c, &c->local, false);
    struct evconnlistener *listener = evconnlistener_new(
        c->base, NULL, NULL, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, c->socket.fd);
    check(listener != NULL);
    c->socket.fd = -1;
    c->local.bound = evhttp_bind_listener(c->local.http, listener);
    check(c->local.bound != NULL);
    evconnlistener_set_error_cb(listener, on_accept_failed);
}

static bool open_tcp(struct control *c, struct error *err)
{
    const struct options *o = c->options;
    if (o->listen_host == NULL)
        return true;
    make_door(c, &c->tcp, true);
    errno = 0;
    c->tcp.bound = evhttp_bind_socket_with_handle(c->tcp.http, o->listen_host, o->listen_port);
    if (c->tcp.bound == NULL) {
        (void)error_set(err, ERROR_CONFIG, "cannot listen on %s:%u: %s", o->listen_host,
                        o->listen_port, errno == 0 ? "no such address" : strerror(errno));
        return error_hint(err,
                          "[control] listen names an address of this host and a free port");
    }
    evconnlistener_set_error_cb(evhttp_bound_socket_get_listener(c->tcp.bound),
                                on_accept_failed);
    return true;
}

static void on_library_log(int severity, const char *text)
{
    char quoted[512];
    if (severity >= EVENT_LOG_WARN)
        log_event("control.libevent", LOG_WARN, "text=%s",
                  log_quote(quoted, sizeof quoted, text));
}

static void make_loop(struct control *c)
{
    const struct timeval second = {.tv_sec = 1};
    check(evthread_use_pthreads() == 0);
    event_set_log_callback(on_library_log);
    c->base = event_base_new();
    check(c->base != NULL);
    c->wake = event_new(c->base, board_descriptor(c->board), EV_READ | EV_PERSIST, on_wake, c);
    c->tick = event_new(c->base, -1, EV_PERSIST, on_tick, c);
    check(c->wake != NULL && c->tick != NULL);
    check(event_add(c->wake, NULL) == 0 && event_add(c->tick, &second) == 0);
}

/* Signals are the main thread's. A client that hangs up must not end the process, so SIGPIPE is
 * blocked as well; what a fault raises stays. The threads of commands inherit this. */
static bool start_thread(struct control *c, struct error *err)
{
    sigset_t blocked;
    sigset_t before;
    (void)sigfillset(&blocked);
    const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP};
    for (size_t i = 0; i < array_count(faults); i++)
        (void)sigdelset(&blocked, faults[i]);
    (void)pthread_sigmask(SIG_SETMASK, &blocked, &before);
    int failed = pthread_create(&c->thread, NULL, run_loop, c);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed != 0)
        return error_set(err, ERROR_SYSTEM, "start a thread: %s", strerror(failed));
    return true;
}

/* Everything but the thread, which is over or never was. */
static void control_free(struct control *c)
{
    if (c->local.http != NULL)
        evhttp_free(c->local.http);
    if (c->tcp.http != NULL)
        evhttp_free(c->tcp.http);
    if (c->wake != NULL)
        event_free(c->wake);
    if (c->tick != NULL)
        event_free(c->tick);
    if (c->base != NULL)
        event_base_free(c->base);
    if (c->board != NULL)
        board_leave(c->board);
    control_socket_close(&c->socket);
    free(c);
}

static bool set_up(struct control *c, struct error *err)
{
    TRY(control_socket_open(c->options->socket, &c->socket, err));
    TRY(board_new(&c->host, &c->board, err));
    make_loop(c);
    open_local(c);
    TRY(open_tcp(c, err));
    return start_thread(c, err);
}

bool control_start(const struct options *o, const struct control_host *host,
                   struct control **out, struct error *err)
{
    struct control *c = calloc(1, sizeof *c);
    check(c != NULL);
    c->options = o;
    c->host = *host;
    c->socket = (struct control_socket){.lock = -1, .fd = -1};
    for (size_t i = 0; i < CLIENTS_MAX; i++)
        c->clients[i].control = c;
    if (!set_up(c, err)) {
        control_free(c);
        return false;
    }
    log_set_tap(board_line, c->board);
    *out = c;
    return true;
}

void control_stop(struct control *c)
{
    if (c == NULL)
        return;
    board_stop(c->board);
    check(pthread_join(c->thread, NULL) == 0);
    log_set_tap(NULL, NULL);
    if (!board_wait_idle(c->board, COMMAND_WAIT_US))
        log_event("control.command_left", LOG_WARN, "reason=%s", "still-running");
    control_free(c);
}
