/* engine: a local model that answers many requests at once.
 *
 * An engine is a model, a backend, a KV pool and one stepping thread, which
 * the first submit in a process starts (all signals blocked) and which sleeps
 * on a condition when there is nothing to do. Prompts become tokens in the
 * caller's thread; all that runs afterwards runs in the engine's. It knows no
 * port, no Lua and no network: replies leave through a function.
 *
 *   submit -> [queue] -> admitted when its prompt's KV blocks are free
 *                 ^         -> prefill in chunks -> one token a step -> END
 *                 +-- preempted, when the blocks are gone
 *
 * An engine may be opened before a fork: a child that inherits one without a
 * thread starts its own. A child of a process whose engine already runs
 * cannot use it (DROVER_ECLOSED).
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_ENGINE_H
#define DROVER_ENGINE_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"
#include "vocab.h"
#include "emit.h"

struct engine;


/* Read and check the file, copy its weights, make the KV pool. No thread is
 * started. DROVER_EFORMAT names the byte or field; DROVER_ERESOURCE says the
 * bytes needed and allowed; DROVER_EINVAL an unknown device. */
int engine_open(struct engine **out, const drover_engine_config *c,
                drover_err *err);


/* Join the thread; what still runs ends as FAIL with DROVER_ECLOSED. Takes
 * NULL. Not from inside an emit function. */
void engine_close(struct engine *e);


/* What the model is. Any thread. */
void engine_describe(struct engine *e, drover_engine_info *out);


/* How busy it is now. Any thread. */
void engine_busy(struct engine *e, drover_engine_load *out);


/* Check, copy and queue one request; `id` is written before any event can
 * come. At once: DROVER_EINVAL (names the field), DROVER_ECONTEXT (prompt and
 * max_tokens pass the context), DROVER_EOVERLOADED (queue full),
 * DROVER_EBADREQUEST (the model has no template for messages). On an error no
 * event comes. Any thread. */
int engine_submit(struct engine *e, const drover_generate *g,
                  engine_emit_fn emit, void *ctx, uint64_t *id,
                  drover_err *err);


/* End a request without an event: when this returns, none comes for `id` any
 * more (waits for one that is being emitted, but in the engine's own
 * thread). An id that has ended does nothing. Any thread. */
void engine_cancel(struct engine *e, uint64_t id);


/* How many tokens of a request's prompt are in the cache now; `tokens` (may be
 * NULL) has them all. Checks as engine_submit does. Any thread. */
long engine_prefix(struct engine *e, const drover_generate *g,
                   uint32_t *tokens, drover_err *err);


/* How many tokens the model makes of a text, in which special tokens are
 * plain text and before which none is put; or a DROVER_E*. Any thread. */
long engine_tokens(struct engine *e, const char *text, size_t size);


/* ---- without a thread: specs, step by step ---- */

/* Its vocabulary; read-only, the engine's. */
const struct engine_vocab *engine_vocab_of(struct engine *e);


/* engine_submit without starting the thread. */
int engine_queue(struct engine *e, const drover_generate *g,
                 engine_emit_fn emit, void *ctx, uint64_t *id,
                 drover_err *err);


/* One turn of the stepping loop at `now_ns`: drop what is cancelled or late,
 * plan, step, sample, emit. Returns the number of rows that ran. Only while
 * no thread was started. */
int engine_turn(struct engine *e, int64_t now_ns);


/* Token ids of a text: `special` parses special tokens, `bos` puts one in
 * front where the model wants it. Writes at most `cap`, returns how many
 * there are. */
long engine_encode(struct engine *e, const drover_text *text, int special,
                   int bos, int32_t *ids, size_t cap);


/* Run ids as one sequence: float logits[count][vocab] after each of them. Only
 * while no thread was started and nothing is queued. */
int engine_logits(struct engine *e, const int32_t *ids, size_t count,
                  float *logits, drover_err *err);

#endif
