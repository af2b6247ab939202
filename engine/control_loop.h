/* The inside of the control server, shared by its loop (control.c) and its routes
 * (control_routes.c). All of it belongs to the event thread. */
#ifndef ENGINE_CONTROL_LOOP_H
#define ENGINE_CONTROL_LOOP_H

#include <event2/event.h>
#include <event2/http.h>
#include <pthread.h>

#include "engine/control_board.h"
#include "engine/control_socket.h"

enum {
    COMMANDS_MAX = 8, /* At a time; one more is told to come back. */
    CLIENTS_MAX = 32, /* Of /events. */
};

/* One place to come in. */
struct door {
    struct control *control;
    struct evhttp *http;
    struct evhttp_bound_socket *bound; /* NULL: this door does not exist. */
    bool read_only;
};

/* One client of /events. */
struct client {
    struct control *control;
    struct evhttp_request *request; /* NULL: free. */
};

struct control {
    const struct options *options;
    struct control_host host;
    struct control_socket socket;
    struct board *board;
    struct event_base *base;
    struct event *wake;
    struct event *tick;
    struct door local;
    struct door tcp;
    struct evhttp_request *waiting[COMMANDS_MAX]; /* For the answer of a command. */
    bool taken[COMMANDS_MAX];                     /* By a command, even if nobody waits. */
    struct client clients[CLIENTS_MAX];
    bool stopping;
    pthread_t thread;
};

/* The engine's word, now. Ends with status_free(). */
void control_snapshot(struct control *c, struct status *s);

/* evhttp's callback for every request; the context is the door it came through. */
void control_route(struct evhttp_request *request, void *context);

/* Answers whoever waits for the job. */
void control_answer_job(struct control *c, const struct job *job);

/* Sends `text` to all clients of /events that keep up. */
void control_broadcast(struct control *c, struct bytes text);
bool control_has_clients(const struct control *c);

/* Answers everybody who still waits, and ends all event streams. */
void control_dismiss(struct control *c);

/* "event: status" with the status, as /events sends it. */
void control_status_event(struct control *c, struct writer *out);

#endif
