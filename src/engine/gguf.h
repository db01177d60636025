/* gguf: a model file's keys and tensor table, read with distrust.
 *
 * The file is read with pread, never mapped, so a file that is cut short
 * while it is in use is an error and no SIGBUS. The head (keys and table) is
 * held in memory; tensors are read piece by piece. Every count is checked
 * against the bytes that are left before anything is allocated for it, every
 * product before it is formed. A parsed file has: unique keys and tensor
 * names, values of known types, tensors of known types laid out in the
 * table's order without gaps or overlap and inside the file. What the keys
 * mean is the model's business.
 *
 * SPDX-License-Identifier: MIT */
#ifndef DROVER_ENGINE_GGUF_H
#define DROVER_ENGINE_GGUF_H

#include <stddef.h>
#include <stdint.h>

#include "../drover.h"

/* The format has no bounds of its own; real files stay far below these (a
 * template of 64 KiB, 262144 tokens, some thousand tensors). */
enum {
  ENGINE_GGUF_KEYS_MAX = 4096,
  ENGINE_GGUF_TENSORS_MAX = 65536,
  ENGINE_GGUF_NAME_MAX = 63,        /* bytes of a tensor's name */
  ENGINE_GGUF_KEY_MAX = 65535,      /* bytes of a key */
  ENGINE_GGUF_TEXT_MAX = 16 << 20,  /* bytes of a string */
  ENGINE_GGUF_ARRAY_MAX = 1 << 24
};

enum engine_gguf_type {
  ENGINE_GGUF_U8, ENGINE_GGUF_I8, ENGINE_GGUF_U16, ENGINE_GGUF_I16,
  ENGINE_GGUF_U32, ENGINE_GGUF_I32, ENGINE_GGUF_F32, ENGINE_GGUF_BOOL,
  ENGINE_GGUF_STRING, ENGINE_GGUF_ARRAY, ENGINE_GGUF_U64, ENGINE_GGUF_I64,
  ENGINE_GGUF_F64, ENGINE_GGUF_TYPES
};

struct engine_gguf_key {            /* spans hold until the file is closed */
  const char *name;
  size_t   name_size;
  uint32_t type;                    /* enum engine_gguf_type */
  uint32_t item;                    /* of an array: the type of its elements */
  uint64_t count;                   /* of an array: elements; else 1 */
  const unsigned char *at;          /* the value's bytes */
  size_t   size;
};

struct engine_gguf_tensor {
  const char *name;
  size_t   name_size;
  uint32_t type;                    /* of quant.h */
  uint32_t dims;                    /* 1..4 */
  uint64_t ne[4];                   /* ne[0] is contiguous; 1 past dims */
  uint64_t at;                      /* of its first byte in the file */
  uint64_t bytes;                   /* whole blocks, no padding */
};

struct engine_gguf {
  struct engine_gguf_key *key;      /* sorted by name */
  struct engine_gguf_tensor *tensor;          /* sorted by name */
  uint32_t keys, tensors;
  uint32_t version;                 /* 2 or 3 */
  uint32_t alignment;               /* of tensors, bytes; a power of two */
  uint64_t file_bytes;
  int      fd;                      /* -1: all of it is in memory */
  unsigned char *head;              /* owned, when there is a file */
  const unsigned char *bytes;       /* what is in memory */
  size_t   have;                    /* of the file's bytes */
};


/* Open and parse. Regular files only. DROVER_ENOTFOUND, DROVER_EFORMAT. */
int engine_gguf_open(struct engine_gguf **out, const char *path,
                     drover_err *err);


/* The same over bytes, which are borrowed until the close. */
int engine_gguf_parse(struct engine_gguf **out, const void *bytes, size_t size,
                      drover_err *err);


void engine_gguf_close(struct engine_gguf *g);      /* takes NULL */


/* By name; NULL when there is none. */
const struct engine_gguf_key *engine_gguf_key(const struct engine_gguf *g,
                                              const char *name);
const struct engine_gguf_tensor *engine_gguf_tensor(
  const struct engine_gguf *g, const char *name);


/* One value of one type. DROVER_ENOTFOUND (nothing is written, `err`
 * neither) or DROVER_EFORMAT when it is of another type. */
int engine_gguf_u32(const struct engine_gguf *g, const char *name,
                    uint32_t *out, drover_err *err);
int engine_gguf_f32(const struct engine_gguf *g, const char *name, float *out,
                    drover_err *err);
int engine_gguf_bool(const struct engine_gguf *g, const char *name, int *out,
                     drover_err *err);
int engine_gguf_text(const struct engine_gguf *g, const char *name,
                     drover_text *out, drover_err *err);


/* An array of `item`s; the same returns. */
int engine_gguf_array(const struct engine_gguf *g, const char *name,
                      uint32_t item, const struct engine_gguf_key **out,
                      drover_err *err);


/* The next string of an array of strings; `at` begins as key->at. Call at
 * most key->count times. */
drover_text engine_gguf_next(const unsigned char **at);


/* Copy `size` bytes from byte `at` of the file. DROVER_EFORMAT when it has
 * become shorter. */
int engine_gguf_bytes(const struct engine_gguf *g, uint64_t at, void *to,
                      size_t size, drover_err *err);


/* Copy `size` bytes from byte `from` of a tensor; as above. */
int engine_gguf_read(const struct engine_gguf *g,
                     const struct engine_gguf_tensor *t, uint64_t from,
                     void *to, size_t size, drover_err *err);


/* gguf.c, for gguf_file.c: parse what is in memory of the head. *more is 1 when
 * the file goes on and the head with it: then nothing is wrong yet, and it is
 * parsed anew with more bytes. */
int engine_gguf_head(struct engine_gguf *g, int *more, drover_err *err);


/* A name out of a file as printable text, for errors: cut, '?' for the rest. */
struct engine_gguf_shown { char text[80]; };
struct engine_gguf_shown engine_gguf_show(const char *name, size_t size);

#endif
