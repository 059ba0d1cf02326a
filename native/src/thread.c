/*
 * Threads, and which table of file descriptors each of them has.
 *
 * When a process is killed while one of its threads waits, unkillable, in the kernel for an answer of its own FUSE
 * server, that answer must still fail: which happens when /dev/fuse is closed, that is, when the last thread is gone that
 * shares the table it is in. A thread of JavaScript's pool that reads a file of a lazy mount is such a waiting thread. So
 * /dev/fuse must not be in the process's table. There are three kinds of threads:
 *
 *   ordinary   JavaScript's, and the one that rings; they have the process's table
 *   native     all that serve and fill; they share a table of their own, with /dev/fuse, cache and span files in it.
 *              They must never wait for FUSE themselves
 *   apart      those that may hang in a mount or unmount; each has an empty table
 *
 * JavaScript's event loop is woken through a descriptor, so only an ordinary thread can ring the doorbell.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "oci.h"

pthread_mutex_t engine_lock = PTHREAD_MUTEX_INITIALIZER;

static pthread_key_t kind_key; /* not __thread: that would make the library need the dynamic loader by name */
static const char kind_native, kind_apart;

__attribute__((constructor)) static void make_key(void) { pthread_key_create(&kind_key, NULL); }

bool thread_is_ordinary(void) { return pthread_getspecific(kind_key) == NULL; }

struct start {
  void *(*run)(void *);
  void *argument;
  const char *kind;
  bool leave;
};

static void *begin(void *argument) {
  struct start start = *(struct start *)argument;
  free(argument);
  if (start.leave && unshare(CLONE_FILES) == 0) syscall(SYS_close_range, 3u, ~0u, 0u);
  if (start.kind != NULL) pthread_setspecific(kind_key, start.kind);
  return start.run(start.argument);
}

static int create(void *(*run)(void *), void *argument, const char *kind, bool leave) {
  struct start *start = malloc(sizeof *start);
  if (start == NULL) return ENOMEM;
  *start = (struct start){run, argument, kind, leave};
  pthread_attr_t attributes;
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  /* Blocked before the thread exists: a signal meant for the process must never land on it. */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  int error = pthread_create(&thread, &attributes, begin, start);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error != 0) free(start);
  return error;
}

/* ---- the keeper: the first native thread, which does for others what needs the native table ---- */
struct errand {
  STAILQ_ENTRY(errand) link;
  int (*run)(void *);
  void *argument;
  int result;
  bool done;
};

static pthread_mutex_t errand_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t errand_comes = PTHREAD_COND_INITIALIZER, errand_done = PTHREAD_COND_INITIALIZER;
static STAILQ_HEAD(, errand) errands = STAILQ_HEAD_INITIALIZER(errands);
static bool keeper_runs;

static void *keep(void *unused) {
  pthread_mutex_lock(&errand_lock);
  for (;;) {
    struct errand *errand = STAILQ_FIRST(&errands);
    if (errand == NULL) {
      pthread_cond_wait(&errand_comes, &errand_lock);
      continue;
    }
    STAILQ_REMOVE_HEAD(&errands, link);
    pthread_mutex_unlock(&errand_lock);
    int result = errand->run(errand->argument);
    pthread_mutex_lock(&errand_lock);
    errand->result = result;
    errand->done = true;
    pthread_cond_broadcast(&errand_done);
  }
  return unused;
}

int native_call(int (*run)(void *), void *argument) {
  if (pthread_getspecific(kind_key) == &kind_native) return run(argument);
  struct errand errand = {.run = run, .argument = argument};
  pthread_mutex_lock(&errand_lock);
  int error = keeper_runs ? 0 : create(keep, NULL, &kind_native, true);
  if (error == 0) {
    keeper_runs = true;
    STAILQ_INSERT_TAIL(&errands, &errand, link);
    pthread_cond_signal(&errand_comes);
    while (!errand.done) pthread_cond_wait(&errand_done, &errand_lock);
  }
  pthread_mutex_unlock(&errand_lock);
  return error == 0 ? errand.result : -error;
}

static int spawn_here(void *argument) {
  struct start *start = argument;
  return -create(start->run, start->argument, &kind_native, false);
}

int spawn_thread(void *(*run)(void *), void *argument) {
  struct start start = {.run = run, .argument = argument};
  return -native_call(spawn_here, &start);
}

int spawn_apart(void *(*run)(void *), void *argument) { return create(run, argument, &kind_apart, true); }

int spawn_ordinary(void *(*run)(void *), void *argument) { return create(run, argument, NULL, false); }

int64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
