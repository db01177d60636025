/* unicode: classes by a search over runs, and UTF-8. See unicode.h.
 *
 * SPDX-License-Identifier: MIT */
#include "unicode.h"


/* Binary search over the runs, of which the last holds to the end of
 * Unicode; the first begins at 0, so one is always found. */
enum engine_class engine_unicode_cased(uint32_t code) {
  size_t low = 0, high = engine_unicode_count;
  if (code > 0x10ffff)
    return ENGINE_CLASS_OTHER;
  while (high - low > 1) {
    size_t mid = low + (high - low) / 2;
    if (engine_unicode_runs[mid] >> 4 <= code)
      low = mid;
    else
      high = mid;
  }
  return (enum engine_class)(engine_unicode_runs[low] & 15);
}


enum engine_class engine_unicode_class(uint32_t code) {
  enum engine_class class = engine_unicode_cased(code);
  return class >= ENGINE_CLASS_UPPER ? ENGINE_CLASS_LETTER : class;
}


/* The bytes of the sequence that a lead byte begins; 0 when it begins none (a
 * continuation byte, or one that only overlong forms or codes past U+10FFFF
 * would have). */
static size_t sequence_size(unsigned char lead) {
  if (lead >= 0xc2 && lead <= 0xdf)
    return 2;
  if (lead >= 0xe0 && lead <= 0xef)
    return 3;
  if (lead >= 0xf0 && lead <= 0xf4)
    return 4;
  return lead < 0x80 ? 1 : 0;
}


/* Whether `next` may be the second byte after `lead`: no overlong forms, no
 * surrogates, nothing past U+10FFFF. */
static int second_fits(unsigned char lead, unsigned char next) {
  if (lead == 0xe0)
    return next >= 0xa0 && next <= 0xbf;
  if (lead == 0xed)
    return next >= 0x80 && next <= 0x9f;
  if (lead == 0xf0)
    return next >= 0x90 && next <= 0xbf;
  if (lead == 0xf4)
    return next >= 0x80 && next <= 0x8f;
  return next >= 0x80 && next <= 0xbf;
}


/* A sequence that goes wrong gives back the bytes before the wrong one as
 * one bad piece (Unicode's "maximal subpart", chapter 3.9), as browsers
 * replace them. */
int engine_unicode_check(const char *text, size_t size) {
  const unsigned char *s = (const unsigned char *)text;
  size_t want = size ? sequence_size(s[0]) : 0;
  if (!size)
    return 0;
  if (!want)
    return -1;
  for (size_t i = 1; i < want; i++) {
    if (i == size)
      return 0;
    if (i == 1 ? !second_fits(s[0], s[1]) : (s[i] & 0xc0) != 0x80)
      return -(int)i;
  }
  return (int)want;
}


/* n ones of the lead byte are masked off, six bits of each byte behind it
 * are added. */
size_t engine_unicode_decode(const char *text, size_t size, uint32_t *code) {
  const unsigned char *s = (const unsigned char *)text;
  int n = engine_unicode_check(text, size);
  if (n <= 0) {
    *code = ENGINE_UNICODE_BAD;
    return 1;
  }
  if (n == 1)
    *code = s[0];
  else
    *code = s[0] & (0x7f >> n);
  for (int i = 1; i < n; i++)
    *code = *code << 6 | (s[i] & 0x3f);
  return (size_t)n;
}
