/* local: a model on this machine behind the completion port. It ties a call
 * of port.h to a request of the engine and knows no HTTP and no Lua.
 *
 * A request ends once: by the engine's END or FAIL, or by the consumer's
 * close. `ended` says who came first, and that one gives the producer's
 * reference back. The engine's handle is counted too, since a call may
 * outlive drover_engine_close().
 *
 * SPDX-License-Identifier: MIT */
#include "base/err.h"
#include "base/mem.h"
#include "engine/engine.h"
#include "texts.h"
#include "port.h"

#include <stdatomic.h>

struct drover_engine {
  struct engine *engine;            /* NULL once closed */
  struct drover_model model;        /* its texts */
  atomic_int refs;                  /* the handle's, and one a call */
};

struct local {
  struct drover_engine *owner;
  drover_call *call;
  uint64_t id;                      /* the engine's number of the request */
  atomic_int ended;
};


static void engine_unref(struct drover_engine *d) {
  if (atomic_fetch_sub(&d->refs, 1) == 1)
    mem_free(d);
}


/* The file is read and the weights are copied here, in the caller's thread:
 * seconds for a large model, and the one slow call of this door. */
int drover_engine_open(drover_engine **out, const drover_engine_config *c,
                       drover_err *err) {
  if (!out || !c || !c->path)
    return drover_fail(err, DROVER_EINVAL, "engine: no path");
  *out = NULL;
  struct drover_engine *d = mem_calloc(1, sizeof *d);
  if (!d)
    return drover_fail(err, DROVER_ENOMEM, "no memory for an engine");
  int rc = engine_open(&d->engine, c, err);
  if (rc) {
    mem_free(d);
    return rc;
  }
  atomic_init(&d->refs, 1);
  d->model.vocab = engine_vocab_of(d->engine);
  *out = d;
  return DROVER_OK;
}


/* Every running call gets its FAIL inside engine_close(). What is left are
 * references of calls that their consumers have not closed; the last of them
 * frees the handle. */
void drover_engine_close(drover_engine *d) {
  if (!d)
    return;
  engine_close(d->engine);
  d->engine = NULL;
  engine_unref(d);
}


void drover_engine_describe(drover_engine *d, drover_engine_info *out) {
  engine_describe(d->engine, out);
}


void drover_engine_busy(drover_engine *d, drover_engine_load *out) {
  engine_busy(d->engine, out);
}


drover_model *drover_engine_model(drover_engine *d) {
  return &d->model;
}


long drover_engine_prefix(drover_engine *d, const drover_generate *g,
                          uint32_t *tokens, drover_err *err) {
  return engine_prefix(d->engine, g, tokens, err);
}


long drover_engine_tokens(drover_engine *d, const char *text, size_t size) {
  return engine_tokens(d->engine, text, size);
}


/* The exchange is the one place where "exactly one completion" is decided:
 * whoever turns `ended` owns the producer's reference and gives it back. */
static void emit_end(struct local *l, const drover_event *ev) {
  if (atomic_exchange(&l->ended, 1))
    return;
  port_push(l->call, ev, 1);
  port_call_unref(l->call);
}


/* The engine's thread (engine_close: its caller's). A piece of the reply that
 * finds no memory ends the request, since a gap must not go unseen. */
static void emit(void *ctx, const drover_event *ev) {
  struct local *l = ctx;
  if (ev->type == DROVER_EVENT_END || ev->type == DROVER_EVENT_FAIL) {
    emit_end(l, ev);
    return;
  }
  if (port_push(l->call, ev, 1) != DROVER_ENOMEM)
    return;
  engine_cancel(l->owner->engine, l->id);
  static const char text[] = "no memory for a piece of the reply";
  drover_event fail = {
    .type = DROVER_EVENT_FAIL, .code = DROVER_ENOMEM,
    .phase = DROVER_PHASE_STREAM, .maybe_billed = 1,
    .data = text, .data_size = sizeof text - 1,
  };
  emit_end(l, &fail);
}


/* By the consumer's thread. engine_cancel() waits for an emission that is
 * under way, so behind it no event of this call can come; the second look at
 * `ended` is for the one that came while it waited. */
static void cancel(void *impl) {
  struct local *l = impl;
  if (atomic_load(&l->ended))
    return;
  if (l->owner->engine)
    engine_cancel(l->owner->engine, l->id);
  if (!atomic_exchange(&l->ended, 1))
    port_call_unref(l->call);
}


/* When both references of the call are gone; the engine may be closed by
 * then, its handle is kept alive by this call's count. */
static void local_free(void *impl) {
  struct local *l = impl;
  engine_unref(l->owner);
  mem_free(l);
}


static const struct call_ops local_ops = {
  .cancel = cancel, .free = local_free,
};


/* The count on the engine is taken before the submit, because the request
 * may end, and free the call, before engine_submit() has returned. */
int drover_call_engine(drover_call **out, drover_port *p, drover_engine *d,
                       const drover_generate *g, drover_err *err) {
  if (!out || !p || !d || !d->engine || !g)
    return drover_fail(err, DROVER_EINVAL, "call: no port, engine or request");
  *out = NULL;
  struct local *l = mem_calloc(1, sizeof *l);
  if (!l)
    return drover_fail(err, DROVER_ENOMEM, "no memory for a call");
  l->owner = d;
  int rc = port_call_new(&l->call, p, g->call, &local_ops, l, err);
  if (rc) {
    mem_free(l);
    return rc;
  }
  atomic_fetch_add(&d->refs, 1);
  drover_call *call = l->call;
  rc = engine_submit(d->engine, g, emit, l, &l->id, err);
  if (rc) {
    port_call_abandon(call);
    return rc;
  }
  *out = call;
  return DROVER_OK;
}
