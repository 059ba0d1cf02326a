#include <errno.h>
#include <signal.h>
#include <time.h>

#include "oci.h"

pthread_mutex_t engine_lock = PTHREAD_MUTEX_INITIALIZER;

int spawn_thread(void *(*run)(void *), void *argument) {
  pthread_attr_t attributes;
  sigset_t all, before;
  pthread_t thread;
  sigfillset(&all);
  /* Blocked before the thread exists: a signal meant for the process must never land on it. */
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_init(&attributes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_attr_setstacksize(&attributes, 256 * 1024);
  int error = pthread_create(&thread, &attributes, run, argument);
  pthread_attr_destroy(&attributes);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  return error;
}

int64_t now_ns(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
