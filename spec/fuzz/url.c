/* Fuzzes the URL checks. Wanted: whatever is taken has a host and a path of
 * harmless bytes, is taken again when it is put together from its parts, and
 * means for libcurl the host and port that we say.
 *
 * SPDX-License-Identifier: MIT */
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drover.h"
#include "net/url.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);


static void must(int right) {
  if (!right)
    abort();
}


static void check_text(const char *text) {
  for (; *text; text++)
    must(*text > 0x20 && *text < 0x7F && !strchr("\\#", *text));
}


static void check_libcurl(const char *text, const drover_url *u) {
  CURLU *h = curl_url();
  char *host = NULL, *port = NULL;
  must(h && curl_url_set(h, CURLUPART_URL, text, 0) == CURLUE_OK);
  must(curl_url_get(h, CURLUPART_HOST, &host, 0) == CURLUE_OK);
  must(curl_url_get(h, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK);
  must(strcasecmp(host, u->host) == 0 || host[0] == '[');
  must(atoi(port) == u->port);
  curl_free(host);
  curl_free(port);
  curl_url_cleanup(h);
}


static void check_again(const drover_url *u) {
  char text[1024];
  drover_url again;
  if (u->is_unix)
    snprintf(text, sizeof text, "unix:%s:%s/", u->unix_path, u->path);
  else
    snprintf(text, sizeof text, "%s://%s:%d%s", u->https ? "https" : "http",
             u->host, u->port, u->path);
  must(net_url_node(text, strlen(text), &again, NULL) == 0);
  must(memcmp(u, &again, sizeof again) == 0);
}


/* The first byte chooses how the URL begins: chance alone finds no scheme. */
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) {
  static const char *const fronts[] = { "", "http://", "https://", "unix:/",
                                        "http://[", "http://h/", "http://1." };
  drover_url u;
  drover_err err;
  if (size == 0)
    return 0;
  const char *front = fronts[data[0] % (sizeof fronts / sizeof *fronts)];
  size_t front_size = strlen(front), whole = front_size + size - 1;
  char *text = malloc(whole + 1), *exact = malloc(whole ? whole : 1);
  must(exact && text);
  memcpy(text, front, front_size);
  memcpy(text + front_size, data + 1, size - 1);
  text[whole] = '\0';
  memcpy(exact, text, whole);
  size = whole;
  if (net_url_node(exact, size, &u, &err) == 0) {
    check_text(u.host);
    check_text(u.path);
    check_text(u.unix_path);
    must(u.host[0] && (u.path[0] == '\0' || u.path[0] == '/'));
    check_again(&u);
    if (!u.is_unix)
      check_libcurl(text, &u);
  } else {
    must(err.code == DROVER_EINVAL && err.text[0]);
  }
  if (net_url_call(exact, size, &u, &err) == 0)
    check_libcurl(text, &u);
  free(exact);
  free(text);
  return 0;
}
