/* The watcher asks the source how far it is, and compares.
 *
 * A probe is the end of the source's log at a moment: all that was committed by then lies
 * before it. When the target has passed it, everything committed before that moment is on the
 * target; that, and nothing less, is what a lag of zero means. The watcher also mirrors what
 * the stream does not carry. */
#include <string.h>

#include "engine/base/clock.h"
#include "engine/base/log.h"
#include "engine/engine_inner.h"

enum { PROBE_EVERY_US = 200000, MIRROR_EVERY_US = 3000000, NEAR_US = 1000000 };

void watch_settle(struct engine *e)
{
    struct shared *s = &e->shared;
    size_t reached = 0;
    while (reached < s->probe_count &&
           e->origin->ops->reaches(&s->applied, &s->probes[reached].pos))
        reached++;
    if (reached == 0)
        return;
    s->reached = s->probes[reached - 1];
    s->probe_count -= reached;
    memmove(s->probes, s->probes + reached, s->probe_count * sizeof *s->probes);
    if (s->probe_count == 0)
        s->bytes_behind = 0;
}

/* When they are too many the second youngest goes: the oldest says how old the lag is. */
static void add_probe(struct shared *s, const struct probe *p)
{
    if (s->probe_count == PROBES_MAX)
        s->probe_count--;
    s->probes[s->probe_count++] = *p;
    s->latest = *p;
}

static bool probe_source(struct engine *e, struct error *err)
{
    pthread_mutex_lock(&e->lock);
    struct position applied = e->shared.applied;
    pthread_mutex_unlock(&e->lock);
    struct origin_probe p;
    TRY(e->origin->ops->probe(e->origin, &applied, &p, err));
    struct probe probe = {
        .pos = p.pos, .server_us = p.server_time_us, .mono_us = clock_mono_us()};
    pthread_mutex_lock(&e->lock);
    add_probe(&e->shared, &probe);
    e->shared.bytes_behind = p.bytes_behind;
    watch_settle(e);
    bool reached = e->shared.probe_count == 0;
    /* Under load the newest probe is never reached yet. */
    bool near = reached || (e->shared.reached.mono_us != 0 &&
                            probe.mono_us - e->shared.reached.mono_us < NEAR_US);
    if (near && e->shared.phase == PHASE_CATCHING_UP && e->shared.is_copied) {
        e->shared.phase = PHASE_FOLLOWING;
        log_event("engine.phase", LOG_INFO, "phase=%s position=%s", phase_name(PHASE_FOLLOWING),
                  e->shared.applied.text);
    }
    pthread_mutex_unlock(&e->lock);
    struct receiver_state state;
    receiver_state(e->receiver, &state);
    if (!reached && !e->origin->ops->reaches(&state.received, &p.pos))
        receiver_probe(e->receiver);
    return true;
}

static bool is_following(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    bool following = e->shared.phase == PHASE_FOLLOWING;
    pthread_mutex_unlock(&e->lock);
    return following;
}

static bool mirror(struct engine *e, struct error *err)
{
    struct mirror_reasons reasons = {0};
    bool ok = e->mirror->ops->sync(e->mirror, &reasons, err);
    if (!ok) {
        arena_clear(&reasons.arena);
        return false;
    }
    pthread_mutex_lock(&e->lock);
    struct mirror_reasons old = e->shared.reasons;
    e->shared.reasons = reasons;
    e->shared.mirrored = true;
    pthread_mutex_unlock(&e->lock);
    arena_clear(&old.arena);
    return true;
}

/* What is lost will not come again: there is nothing left to wait for. */
static void look_for_loss(struct engine *e)
{
    struct receiver_state state;
    receiver_state(e->receiver, &state);
    if (state.error.kind == ERROR_LOST)
        engine_end(e, &state.error);
}

void watch_look(struct engine *e)
{
    pthread_mutex_lock(&e->lock);
    e->shared.look = true;
    pthread_cond_signal(&e->look);
    pthread_mutex_unlock(&e->lock);
}

static void pause_between_probes(struct engine *e)
{
    int64_t until = clock_mono_us() + PROBE_EVERY_US;
    struct timespec at = {.tv_sec = until / 1000000, .tv_nsec = until % 1000000 * 1000};
    pthread_mutex_lock(&e->lock);
    while (!e->shared.look && pthread_cond_timedwait(&e->look, &e->lock, &at) == 0)
        continue;
    e->shared.look = false;
    pthread_mutex_unlock(&e->lock);
}

void *watch_main(void *context)
{
    struct engine *e = context;
    struct backoff probing = {0};
    struct backoff mirroring = {0};
    int64_t mirror_at = 0;
    while (!atomic_load(&e->stop)) {
        struct error err = {0};
        look_for_loss(e);
        if (backoff_is_due(&probing)) {
            if (probe_source(e, &err))
                (void)backoff_worked(&probing);
            else
                backoff_failed(&probing, "source.probe_failed", &err);
        }
        error_clear(&err);
        if (is_following(e) && clock_mono_us() >= mirror_at && backoff_is_due(&mirroring)) {
            mirror_at = clock_mono_us() + MIRROR_EVERY_US;
            if (mirror(e, &err))
                (void)backoff_worked(&mirroring);
            else
                backoff_failed(&mirroring, "mirror.failed", &err);
        }
        pause_between_probes(e);
    }
    return NULL;
}
