/* The inflate threads: as many as cores, at least two, started when first needed, asleep when there is nothing. */
#include <errno.h>
#include <unistd.h>

#include "oci.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t work = PTHREAD_COND_INITIALIZER;
static TAILQ_HEAD(task_list, task) urgent = TAILQ_HEAD_INITIALIZER(urgent), later = TAILQ_HEAD_INITIALIZER(later);
static uint32_t threads, idle, queued, threads_wanted;

static void *work_loop(void *unused) {
  struct worker *worker = worker_create();
  pthread_mutex_lock(&lock);
  for (;;) {
    struct task_list *list = !TAILQ_EMPTY(&urgent) ? &urgent : &later;
    struct task *task = TAILQ_FIRST(list);
    if (task == NULL) {
      idle++;
      pthread_cond_wait(&work, &lock);
      idle--;
      continue;
    }
    TAILQ_REMOVE(list, task, link);
    queued--;
    task->is_later = false;
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
  /* Who was woken counts as idle until it has the lock. */
  if (idle > queued || threads >= threads_wanted) return 0;
  int error = spawn_thread(work_loop, NULL);
  if (error == 0) threads++;
  return threads > 0 ? 0 : error; /* fewer hands, same work */
}

static void queue_locked(struct task *task, bool is_urgent) {
  task->is_later = !is_urgent && !task->is_urgent;
  if (task->is_later) TAILQ_INSERT_TAIL(&later, task, link);
  else TAILQ_INSERT_TAIL(&urgent, task, link);
  queued++;
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

void pool_hurry(struct task *task) {
  pthread_mutex_lock(&lock);
  task->is_urgent = true; /* for one that is about to be queued */
  if (task->is_later) {
    TAILQ_REMOVE(&later, task, link);
    TAILQ_INSERT_TAIL(&urgent, task, link);
    task->is_later = false;
  }
  pthread_mutex_unlock(&lock);
}

/* How many inflate threads there are at most; 0 keeps the default. Counts only before the first fill. */
void oci_pool_size(uint32_t count) {
  pthread_mutex_lock(&lock);
  if (count > 0) threads_wanted = count > 64 ? 64 : count;
  pthread_mutex_unlock(&lock);
}
