#include "engine/base/state.h"

#include "engine/base/log.h"

void state_move(struct state *s, unsigned next)
{
    check(next < s->count);
    check(s->rules[s->now].next & STATE_BIT(next));
    log_event("state.moved", LOG_INFO, "machine=%s from=%s to=%s", s->machine, state_name(s),
              s->rules[next].name);
    s->now = next;
}
