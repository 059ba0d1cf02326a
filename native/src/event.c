/*
 * The way from C threads to JavaScript: a queue of events and a doorbell, which is a thread-safe callback of Bun's.
 * It is rung when the queue becomes non-empty and then not again until JavaScript has drained it.
 */
#include <stdlib.h>
#include <string.h>

#include "oci.h"

static struct event *queue;
static size_t queue_start, queue_length, queue_capacity;
static void (*doorbell)(void);
static bool rung, quiet;
static pthread_cond_t ringer_wakes = PTHREAD_COND_INITIALIZER;
static bool ringer_runs, ringer_wanted;
/* Serializes ringing against oci_engine_quiet: after it has returned the callback is never entered again. */
static pthread_mutex_t ring_lock = PTHREAD_MUTEX_INITIALIZER;

static bool grow(void) {
  size_t capacity = queue_capacity == 0 ? 256 : queue_capacity * 2;
  struct event *larger = malloc(capacity * sizeof *larger);
  if (larger == NULL) return false;
  for (size_t i = 0; i < queue_length; i++) larger[i] = queue[(queue_start + i) % queue_capacity];
  free(queue);
  queue = larger;
  queue_start = 0;
  queue_capacity = capacity;
  return true;
}

static void ring_locked(void) {
  pthread_mutex_lock(&ring_lock);
  if (doorbell != NULL && !quiet) doorbell();
  pthread_mutex_unlock(&ring_lock);
}

static void *ring_for_others(void *unused) {
  pthread_mutex_lock(&engine_lock);
  for (;;) {
    while (!ringer_wanted) pthread_cond_wait(&ringer_wakes, &engine_lock);
    ringer_wanted = false;
    ring_locked();
  }
  return unused;
}

void post_event_locked(struct event event) {
  if (queue_length == queue_capacity && !grow()) abort(); /* a lost event would be a reader that waits for ever */
  queue[(queue_start + queue_length++) % queue_capacity] = event;
  if (rung) return;
  rung = true;
  if (thread_is_ordinary()) {
    ring_locked();
  } else {
    ringer_wanted = true;
    pthread_cond_signal(&ringer_wakes);
  }
}

void post_done(uint32_t job, int32_t result) {
  if (job == 0) return;
  pthread_mutex_lock(&engine_lock);
  post_event_locked((struct event){.type = EVENT_DONE, .id = job, .result = result});
  pthread_mutex_unlock(&engine_lock);
}

/* Copies up to `limit` events out. Fewer than that: the queue is empty, and the doorbell is armed again. */
uint32_t oci_engine_drain(struct event *out, uint32_t limit) {
  pthread_mutex_lock(&engine_lock);
  uint32_t count = 0;
  while (count < limit && queue_length > 0) {
    out[count++] = queue[queue_start];
    queue_start = (queue_start + 1) % queue_capacity;
    queue_length--;
  }
  if (count < limit) rung = false;
  pthread_mutex_unlock(&engine_lock);
  return count;
}

/* 0 or -errno. */
int oci_engine_start(void (*callback)(void)) {
  pthread_mutex_lock(&engine_lock);
  int error = ringer_runs ? 0 : spawn_ordinary(ring_for_others, NULL);
  if (error != 0) {
    pthread_mutex_unlock(&engine_lock);
    return -error;
  }
  ringer_runs = true;
  pthread_mutex_lock(&ring_lock);
  doorbell = callback;
  quiet = false;
  rung = queue_length > 0;
  if (rung) doorbell();
  pthread_mutex_unlock(&ring_lock);
  pthread_mutex_unlock(&engine_lock);
  return 0;
}

/* The process is ending: JavaScript must not be called any more. */
void oci_engine_quiet(void) {
  pthread_mutex_lock(&ring_lock);
  quiet = true;
  pthread_mutex_unlock(&ring_lock);
}
