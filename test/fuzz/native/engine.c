/* The way that JavaScript takes: a blob is opened by number, filled span by span or as a stream, and given back. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../../native/src/oci.h"
#include "fuzz.h"

int oci_engine_start(void (*callback)(void));
uint32_t oci_engine_drain(struct event *out, uint32_t limit);
int oci_blob_open(const char *span_path, const char *cache_path, const char *map_path, bool verify, char *error);
int oci_blob_prove(uint32_t id, uint32_t job);
int oci_blob_release(uint32_t id, uint32_t job);
int oci_fill(uint32_t view_id, uint32_t first, uint32_t last, const uint8_t *bytes, uint64_t length, uint8_t *results,
             uint32_t job);
int oci_stream_open(uint32_t view_id);
int oci_stream_push(uint32_t id, const uint8_t *bytes, uint64_t length, uint32_t job);
int64_t oci_stream_close(uint32_t id);

enum { SPANS_MAX = 8 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t bell = PTHREAD_COND_INITIALIZER;
static unsigned rings;
static uint32_t jobs;
static char span_path[4096], cache_path[4096], map_path[4096];

static void ring(void) {
  pthread_mutex_lock(&lock);
  rings++;
  pthread_cond_signal(&bell);
  pthread_mutex_unlock(&lock);
}

static void start(const char *folder) {
  snprintf(span_path, sizeof span_path, "%s/spans", folder);
  snprintf(cache_path, sizeof cache_path, "%s/cache", folder);
  snprintf(map_path, sizeof map_path, "%s/map", folder);
  if (oci_engine_start(ring) != 0) abort();
}

static int32_t wait_for(uint32_t job) {
  for (;;) {
    struct event event;
    while (oci_engine_drain(&event, 1) == 1)
      if (event.type == EVENT_DONE && event.id == job) return event.result;
    pthread_mutex_lock(&lock);
    while (rings == 0) pthread_cond_wait(&bell, &lock);
    rings = 0;
    pthread_mutex_unlock(&lock);
  }
}

static void fill(uint32_t id, const struct fuzz_layer *input, uint32_t count, const struct span *spans) {
  for (uint32_t i = 0; i < count && i < SPANS_MAX; i++) {
    uint32_t last = i + fuzz_random(3);
    uint64_t offset = spans[i].comp_offset;
    if (offset > input->layer_length) return;
    size_t length = input->layer_length - offset;
    uint8_t *bytes = fuzz_copy(input->layer + offset, length), results[4] = {0};
    if (oci_fill(id, i, last, bytes, length, results, ++jobs) == 0) {
      wait_for(jobs);
      for (uint32_t span = i; span <= last; span++)
        fuzz_promise(results[span - i] >= FILL_PRESENT && results[span - i] <= FILL_NO_SPACE, "a span without a word");
    }
    free(bytes);
  }
}

static void push(uint32_t id, const struct fuzz_layer *input) {
  int stream = oci_stream_open(id);
  if (stream < 0) return;
  for (size_t at = 0; at < input->layer_length;) {
    size_t length = 1 + fuzz_random(200000);
    if (length > input->layer_length - at) length = input->layer_length - at;
    uint8_t *bytes = fuzz_copy(input->layer + at, length);
    int result = oci_stream_push((uint32_t)stream, bytes, length, ++jobs);
    if (result == 0) result = wait_for(jobs);
    free(bytes);
    if (result != 0) break;
    at += length;
  }
  oci_stream_close((uint32_t)stream);
}

/* Whatever was stored must be found to be right. */
static void prove_all(void) {
  char error[OCI_ERROR_TEXT];
  int id = oci_blob_open(span_path, cache_path, map_path, true, error);
  fuzz_promise(id > 0, "a blob cannot be opened again");
  fuzz_promise(oci_blob_prove((uint32_t)id, ++jobs) == 0, "a blob cannot be read through");
  fuzz_promise(wait_for(jobs) == 0, "what was stored is found damaged");
  fuzz_promise(oci_blob_release((uint32_t)id, ++jobs) == 0, "a blob cannot be given back");
  wait_for(jobs);
}

static void run(const uint8_t *bytes, size_t length) {
  struct fuzz_layer input;
  if (!fuzz_layer_of(bytes, length, &input)) return;
  char error[OCI_ERROR_TEXT];
  fuzz_write_file(span_path, input.spans, input.spans_length);
  unlink(cache_path);
  unlink(map_path);
  int id = oci_blob_open(span_path, cache_path, map_path, false, error);
  if (id < 0) return;
  struct view *view = view_get((uint32_t)id);
  const struct span_header *header = view->blob->spans.header;
  if (header->kind == SPAN_ZSTD_STREAM) push((uint32_t)id, &input);
  else fill((uint32_t)id, &input, header->span_count, view->blob->spans.spans);
  view_put(view);
  fuzz_promise(oci_blob_release((uint32_t)id, ++jobs) == 0, "a blob cannot be given back");
  wait_for(jobs);
  prove_all();
}

const struct fuzz_target engine_target = {"engine", start, run};
