/*
 * The life of one FUSE mount: mounted by mount(2) over a /dev/fuse descriptor of ours, served by a few threads, ended
 * by the last of them when the kernel says that the connection is over.
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "oci.h"

extern const struct fuse_lowlevel_ops blob_operations;

enum { THREADS_MAX = 64, READAHEAD_KB = 128 };

static struct session **sessions; /* engine_lock; index is id - 1 */
static uint32_t session_count, session_capacity;

static void session_free(struct session *session) {
  free(session->init);
  for (uint32_t i = 0; i < session->view_count; i++) view_put(session->views[i]);
  free(session->views);
  free(session->mountpoint);
  free(session);
}

struct session *session_get(uint32_t id) {
  pthread_mutex_lock(&engine_lock);
  struct session *session = id == 0 || id > session_count ? NULL : sessions[id - 1];
  if (session != NULL) session->refs++;
  pthread_mutex_unlock(&engine_lock);
  return session;
}

void session_put(struct session *session) {
  pthread_mutex_lock(&engine_lock);
  bool last = --session->refs == 0;
  pthread_mutex_unlock(&engine_lock);
  if (last) session_free(session);
}

static void finish_unmount_locked(struct session *session) {
  if (!session->unmounted || session->threads_alive > 0 || session->unmount_job == 0) return;
  post_event_locked((struct event){.type = EVENT_DONE, .id = session->unmount_job});
  session->unmount_job = 0;
}

void session_thread_ends(struct session *session) {
  pthread_mutex_lock(&engine_lock);
  bool last = session->threads_alive == 1;
  if (!last) session->threads_alive--;
  pthread_mutex_unlock(&engine_lock);
  if (!last) return;
  atomic_store(&session->draining, true);
  miss_fail_session(session);
  const struct timespec pause = {0, 200000};
  while (atomic_load(&session->parked) > 0) nanosleep(&pause, NULL); /* others are writing their last replies */
  fuse_session_destroy(session->fuse);
  struct view **views = session->views;
  uint32_t count = session->view_count;
  pthread_mutex_lock(&engine_lock);
  session->fuse = NULL;
  session->views = NULL;
  session->view_count = 0;
  session->threads_alive = 0;
  pthread_mutex_unlock(&engine_lock);
  for (uint32_t i = 0; i < count; i++) view_put(views[i]);
  free(views);
  pthread_mutex_lock(&engine_lock);
  finish_unmount_locked(session);
  pthread_mutex_unlock(&engine_lock);
  session_put(session);
}

int session_add(struct session *session) {
  pthread_mutex_lock(&engine_lock);
  if (session_count == session_capacity) {
    uint32_t capacity = session_capacity == 0 ? 64 : session_capacity * 2;
    struct session **larger = realloc(sessions, capacity * sizeof *sessions);
    if (larger == NULL) {
      pthread_mutex_unlock(&engine_lock);
      return -ENOMEM;
    }
    sessions = larger;
    session_capacity = capacity;
  }
  sessions[session_count++] = session;
  int id = (int)session_count;
  pthread_mutex_unlock(&engine_lock);
  return id;
}

int session_create(const char *mountpoint, const uint32_t *view_ids, uint32_t count, struct session **out) {
  struct session *session = calloc(1, sizeof *session);
  if (session == NULL) return -ENOMEM;
  session->refs = 1;
  session->mountpoint = strdup(mountpoint);
  session->views = calloc(count + 1u, sizeof *session->views);
  int result = session->mountpoint == NULL || session->views == NULL ? -ENOMEM : 0;
  for (uint32_t i = 0; i < count && result == 0; i++) {
    session->views[i] = view_get(view_ids[i]);
    if (session->views[i] == NULL) result = -EBADF;
    else session->view_count++;
  }
  if (result != 0) session_free(session);
  else *out = session;
  return result;
}

int session_prepare(struct session *session) {
  char name[] = "oci-node";
  char *argv[] = {name, NULL};
  struct fuse_args arguments = FUSE_ARGS_INIT(1, argv);
  session->fuse = fuse_session_new(&arguments, &blob_operations, sizeof blob_operations, session);
  fuse_opt_free_args(&arguments);
  return session->fuse == NULL ? -ENOMEM : 0;
}

/* Mounts and hands the descriptor to libfuse, which takes "/dev/fd/N" for a file system that is mounted already. */
static int mount_session(struct session *session) {
  char options[128], fd_path[32];
  if (session_prepare(session) != 0) return -ENOMEM;
  int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  int result = fd < 0 ? -errno : 0;
  if (result == 0) {
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0,max_read=%d", fd, 1 << 20);
    if (mount("oci-node", session->mountpoint, "fuse.oci-node", MS_RDONLY | MS_NODEV | MS_NOSUID | MS_NOEXEC, options) != 0)
      result = -errno;
  }
  if (result == 0) {
    snprintf(fd_path, sizeof fd_path, "/dev/fd/%d", fd);
    if (fuse_session_mount(session->fuse, fd_path) != 0) {
      umount2(session->mountpoint, MNT_DETACH);
      result = -EIO;
    }
  }
  if (result != 0) {
    if (fd >= 0) close(fd);
    fuse_session_destroy(session->fuse);
    session->fuse = NULL;
  }
  return result;
}

int session_start_threads(struct session *session, uint32_t wanted) {
  uint32_t threads = wanted == 0 ? 2 : wanted > THREADS_MAX ? THREADS_MAX : wanted;
  session->threads_alive = threads;
  session->refs++; /* of the threads together */
  for (uint32_t i = 0; i < threads; i++) {
    int error = spawn_thread(session_serve, session);
    if (error == 0) continue;
    if (i == 0) {
      session->refs--;
      return -error;
    }
    session_thread_ends(session);
  }
  return 0;
}

/* stat(2) waits for INIT to be answered, and so for us: on a native thread a killed process would hang for ever. */
struct look {
  const char *path;
  struct stat st;
  int error;
  bool done;
  pthread_mutex_t lock;
  pthread_cond_t ready;
};

static void *run_look(void *argument) {
  struct look *look = argument;
  int error = stat(look->path, &look->st) == 0 ? 0 : errno;
  pthread_mutex_lock(&look->lock);
  look->error = error;
  look->done = true;
  pthread_cond_signal(&look->ready);
  pthread_mutex_unlock(&look->lock);
  return NULL;
}

static int stat_apart(const char *path, struct stat *st) {
  struct look look = {.path = path, .lock = PTHREAD_MUTEX_INITIALIZER, .ready = PTHREAD_COND_INITIALIZER};
  int error = spawn_apart(run_look, &look);
  if (error != 0) return error;
  pthread_mutex_lock(&look.lock);
  while (!look.done) pthread_cond_wait(&look.ready, &look.lock);
  pthread_mutex_unlock(&look.lock);
  *st = look.st;
  return look.error;
}

/*
 * Read-ahead counts only when set after INIT was answered and before EROFS looks at it. More than this brings spans that no
 * program asked for; what a sequential reader will want is fetched by spans, above.
 */
static int set_readahead(struct session *session) {
  struct stat st;
  char path[64], text[16];
  int error = stat_apart(session->mountpoint, &st);
  if (error != 0) return -error;
  session->minor = minor(st.st_dev);
  snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev), minor(st.st_dev));
  snprintf(text, sizeof text, "%d", READAHEAD_KB);
  write_text(path, text); /* a read-only /sys costs speed, not correctness */
  return 0;
}

void session_set_deadline(struct session *session, uint32_t milliseconds) {
  session->deadline_ns = (int64_t)(milliseconds == 0 ? 31000 : milliseconds) * 1000000;
}

struct mounting {
  const char *mountpoint;
  const uint32_t *view_ids;
  uint32_t count, threads, deadline_ms, minor;
};

static int mount_and_serve(void *argument) {
  struct mounting *wanted = argument;
  struct session *session;
  int result = session_create(wanted->mountpoint, wanted->view_ids, wanted->count, &session);
  if (result != 0) return result;
  session_set_deadline(session, wanted->deadline_ms);
  result = mount_session(session);
  if (result == 0) {
    result = session_start_threads(session, wanted->threads);
    if (result != 0) {
      umount2(session->mountpoint, MNT_DETACH);
      fuse_session_destroy(session->fuse);
    } else {
      result = set_readahead(session);
      if (result != 0) umount2(session->mountpoint, MNT_DETACH);
    }
  }
  wanted->minor = session->minor;
  int id = result == 0 ? session_add(session) : result;
  if (id < 0) session_put(session);
  return id;
}

/* Returns the session's number, or -errno. */
int oci_fuse_mount(const char *mountpoint, const uint32_t *view_ids, uint32_t count, uint32_t threads,
                   uint32_t deadline_ms, uint32_t *minor_out) {
  struct mounting wanted = {mountpoint, view_ids, count, threads, deadline_ms, 0};
  int id = native_call(mount_and_serve, &wanted);
  *minor_out = wanted.minor;
  return id;
}

int oci_fuse_stats(uint32_t id, uint64_t out[5]) {
  struct session *session = session_get(id);
  if (session == NULL) return -EBADF;
  uint64_t numbers[5] = {session->reads, session->hits, session->misses, session->bytes_served, session->parked};
  memcpy(out, numbers, sizeof numbers);
  session_put(session);
  return 0;
}

static int fail_all(void *session) {
  miss_fail_session(session);
  return 0;
}

/* On: everything that waits gets EIO, and so does every miss from now on; what is present is still served. */
int oci_fuse_drain(uint32_t id, bool on) {
  struct session *session = session_get(id);
  if (session == NULL) return -EBADF;
  atomic_store(&session->draining, on);
  if (on) native_call(fail_all, session);
  session_put(session);
  return 0;
}

static void *unmount(void *argument) {
  struct session *session = argument;
  int error = umount2(session->mountpoint, UMOUNT_NOFOLLOW) == 0 ? 0 : errno;
  if (error == EINVAL || error == ENOENT) error = 0; /* somebody else did it */
  pthread_mutex_lock(&engine_lock);
  session->unmounted = error == 0;
  if (error != 0) {
    atomic_store(&session->draining, false);
    post_event_locked((struct event){.type = EVENT_DONE, .id = session->unmount_job, .result = -error});
    session->unmount_job = 0;
  }
  finish_unmount_locked(session);
  bool lives = session->unmounted && session->threads_alive > 0;
  pthread_mutex_unlock(&engine_lock);
  /* A copy in another mount namespace would keep it alive for ever. While threads serve it, its number is its own. */
  const struct timespec pause = {0, 10000000};
  for (int i = 0; i < 200 && lives; i++) {
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&engine_lock);
    lives = session->threads_alive > 0;
    pthread_mutex_unlock(&engine_lock);
  }
  if (lives) {
    char path[64];
    snprintf(path, sizeof path, "/sys/fs/fuse/connections/%u/abort", session->minor);
    write_text(path, "1");
  }
  session_put(session);
  return NULL;
}

/* The job ends when the mount is gone and its threads too; EBUSY: something (an EROFS mount) still uses it. */
int oci_fuse_unmount(uint32_t id, uint32_t job) {
  struct session *session = session_get(id);
  if (session == NULL) return -EBADF;
  pthread_mutex_lock(&engine_lock);
  bool busy = session->unmount_job != 0;
  if (!busy) session->unmount_job = job;
  pthread_mutex_unlock(&engine_lock);
  if (busy) {
    session_put(session);
    return -EALREADY;
  }
  atomic_store(&session->draining, true);
  native_call(fail_all, session);
  int error = spawn_apart(unmount, session);
  if (error == 0) return 0;
  pthread_mutex_lock(&engine_lock);
  session->unmount_job = 0;
  pthread_mutex_unlock(&engine_lock);
  session_put(session);
  return -error;
}

/* JavaScript is done with the number (after the unmount). */
void oci_fuse_forget(uint32_t id) {
  pthread_mutex_lock(&engine_lock);
  struct session *session = id == 0 || id > session_count ? NULL : sessions[id - 1];
  if (session != NULL) sessions[id - 1] = NULL;
  pthread_mutex_unlock(&engine_lock);
  if (session != NULL) session_put(session);
}
