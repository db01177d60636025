/* emit: how replies leave the engine.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_EMIT_H
#define DROVER_ENGINE_EMIT_H

#include "../drover.h"

/* Takes one event of a request: TEXT pieces (whole UTF-8) or one VECTOR, a
 * CHOICE for each choice that ends before the last, then exactly one END or
 * FAIL. Called from the engine's thread (engine_close: from its caller's) with
 * no lock of the engine's held; the event's spans hold until it returns. It may
 * call engine_cancel, and nothing else of the engine; it must not wait for a
 * thread that is inside engine_cancel or engine_close. */
typedef void (*engine_emit_fn)(void *ctx, const drover_event *ev);

#endif
