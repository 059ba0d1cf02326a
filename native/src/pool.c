/* The inflate threads: as many as cores, at least two, started when first needed, asleep when there is nothing. */
#include <errno.h>
#include <unistd.h>

#include "oci.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static STAILQ_HEAD(task_list, task) urgent = STAILQ_HEAD_INITIALIZER(urgent), later = STAILQ_HEAD_INITIALIZER(later);
static uint32_t threads, idle, threads_wanted;

static void *work_loop(void *unused) {
  struct worker *worker = worker_create();
  pthread_mutex_lock(&lock);
  for (;;) {
    struct task_list *list = !STAILQ_EMPTY(&urgent) ? &urgent : &later;
    struct task *task = STAILQ_FIRST(list);
    if (task == NULL) {
      idle++;
      pthread_cond_wait(&work, &lock);
      idle--;
      continue;
    }
    STAILQ_REMOVE_HEAD(list, link);
    pthread_mutex_unlock(&lock);
    task->run(task, worker);
    pthread_mutex_lock(&lock);
  }
  return unused;
}

static int add_thread_locked(void) {
  if (threads_wanted == 0) {
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    threads_wanted = cores < 2 ? 2 : cores > 64 ? 64 : (uint32_t)cores;
  }
  if (idle > 0 || threads >= threads_wanted) return 0;
  int error = spawn_thread(work_loop, NULL);
  if (error == 0) threads++;
  return threads > 0 ? 0 : error; /* fewer hands, same work */
}

static void queue_locked(struct task *task, bool is_urgent) {
  if (is_urgent) STAILQ_INSERT_TAIL(&urgent, task, link);
  else STAILQ_INSERT_TAIL(&later, task, link);
  pthread_cond_signal(&work);
}

int pool_submit(struct task *task, bool is_urgent) {
  pthread_mutex_lock(&lock);
  int error = add_thread_locked();
  if (error == 0) queue_locked(task, is_urgent);
  pthread_mutex_unlock(&lock);
  return error;
}

int pool_start(void) {
  pthread_mutex_lock(&lock);
  uint32_t before;
  int error;
  do {
    before = threads;
    error = add_thread_locked();
  } while (threads > before);
  pthread_mutex_unlock(&lock);
  return error;
}

void pool_queue(struct task *task, bool is_urgent) {
  pthread_mutex_lock(&lock);
  queue_locked(task, is_urgent);
  pthread_mutex_unlock(&lock);
}

uint32_t pool_threads(void) {
  pthread_mutex_lock(&lock);
  uint32_t count = threads;
  pthread_mutex_unlock(&lock);
  return count;
}

/* How many inflate threads there are at most; 0 keeps the default. Counts only before the first fill. */
void oci_pool_size(uint32_t count) {
  pthread_mutex_lock(&lock);
  if (count > 0) threads_wanted = count > 64 ? 64 : count;
  pthread_mutex_unlock(&lock);
}
