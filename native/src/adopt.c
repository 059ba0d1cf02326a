/*
 * A FUSE connection that outlives its server. While a mount is served, its descriptor and the kernel's first request,
 * INIT, can be left with the holder. A later process makes a libfuse session of its own on that descriptor: libfuse hears
 * INIT once more (its reply finds nobody waiting, which does no harm), and then FUSE_NOTIFY_RESEND makes the kernel ask
 * again whatever the process before had read and not answered. Readers notice nothing but the time it takes.
 *
 * It works because nothing here depends on what was opened by whom: files are found by inode number, and INIT was
 * answered with values that do not change. Kernel 6.9 and later; INIT says so (Documentation/filesystems/fuse/ and
 * include/uapi/linux/fuse.h in Linux).
 */
#define FUSE_USE_VERSION 312
#include <errno.h>
#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "holder/protocol.h"
#include "oci.h"

/* Newer than the kernel headers of the distributions that this is built on. */
enum { NOTIFY_RESEND = 7 };
static const uint32_t init_ext = 1u << 30, has_resend_high = 1u << 7; /* FUSE_INIT_EXT; FUSE_HAS_RESEND, bit 39 */

/* What the kernel sends first, up to the second word of flags (protocol 7.36). */
struct init_request {
  struct fuse_in_header header;
  uint32_t major, minor, max_readahead, flags, flags_high;
};

void session_note_init(struct session *session, const void *request, size_t length) {
  struct fuse_in_header header;
  if (length < sizeof header || length > HOLDER_INIT_MAX) return;
  memcpy(&header, request, sizeof header);
  if (header.opcode != FUSE_INIT) return;
  uint8_t *copy = malloc(length);
  if (copy == NULL) return; /* then it cannot be handed over, and says so */
  memcpy(copy, request, length);
  session->init_length = (uint32_t)length;
  session->init = copy;
}

static bool can_resend(const uint8_t *init, uint32_t length) {
  struct init_request request;
  if (init == NULL || length < sizeof request) return false;
  memcpy(&request, init, sizeof request);
  return (request.flags & init_ext) != 0 && (request.flags_high & has_resend_high) != 0;
}

/* Whether the session's kernel asks a later server again what this one leaves unanswered. */
int oci_fuse_resends(uint32_t id) {
  struct session *session = session_get(id);
  if (session == NULL) return -EBADF;
  int resends = can_resend(session->init, session->init_length);
  session_put(session);
  return resends;
}

/* ---- leaving it with the holder ---- */
struct holding {
  uint32_t session, holder, job;
  char key[HOLDER_KEY + 1];
};

static int hold(const struct holding *wanted) {
  struct session *session = session_get(wanted->session);
  if (session == NULL) return -EBADF;
  int result = -EOPNOTSUPP;
  if (session->fuse == NULL) result = -ENOTCONN;
  else if (can_resend(session->init, session->init_length))
    result = holder_put(wanted->holder, wanted->key, session->init, session->init_length,
                        fuse_session_fd(session->fuse));
  session_put(session);
  return result;
}

static void *run_hold(void *argument) {
  struct holding *wanted = argument;
  post_done(wanted->job, hold(wanted));
  free(wanted);
  return NULL;
}

/* `key`: HOLDER_KEY bytes of text. The job ends with 0 or -errno; -EOPNOTSUPP: the kernel cannot resend. */
int oci_fuse_hold(uint32_t id, uint32_t holder, const char *key, uint32_t job) {
  if (strlen(key) != HOLDER_KEY) return -EINVAL;
  struct holding *wanted = calloc(1, sizeof *wanted);
  if (wanted == NULL) return -ENOMEM;
  *wanted = (struct holding){.session = id, .holder = holder, .job = job};
  memcpy(wanted->key, key, HOLDER_KEY);
  int error = spawn_thread(run_hold, wanted);
  if (error != 0) free(wanted);
  return -error;
}

/* ---- taking it over ---- */
struct adoption {
  char *mountpoint;
  uint32_t *view_ids;
  uint32_t count, threads, deadline_ms, minor, holder, job;
  char key[HOLDER_KEY + 1];
};

static void adoption_free(struct adoption *wanted) {
  free(wanted->mountpoint);
  free(wanted->view_ids);
  free(wanted);
}

static int ask_again(int fd) {
  struct fuse_out_header notification = {.len = sizeof notification, .error = NOTIFY_RESEND};
  return write(fd, &notification, sizeof notification) == (ssize_t)sizeof notification ? 0 : -errno;
}

/* Tells libfuse what the kernel told the process before. */
static int hear_init(struct session *session, uint8_t *init, uint32_t length) {
  session->init = malloc(length);
  if (session->init == NULL) return -ENOMEM;
  memcpy(session->init, init, length);
  session->init_length = length;
  struct fuse_buf request = {.mem = init, .size = length};
  fuse_session_process_buf(session->fuse, &request);
  return fuse_session_exited(session->fuse) ? -EPROTO : 0;
}

/* Makes the descriptor the session's. The caller closes it when this fails before libfuse has it. */
static int connect_session(struct session *session, int fd, bool *taken) {
  char path[32];
  struct pollfd state = {.fd = fd};
  if (poll(&state, 1, 0) > 0 && (state.revents & (POLLERR | POLLNVAL)) != 0) return -ENOTCONN; /* it was cut */
  int result = session_prepare(session);
  if (result != 0) return result;
  snprintf(path, sizeof path, "/dev/fd/%d", fd);
  if (fuse_session_mount(session->fuse, path) != 0) return -EIO;
  *taken = true;
  return 0;
}

static int adopt(const struct adoption *wanted) {
  uint8_t init[HOLDER_INIT_MAX];
  uint32_t length;
  int fd;
  struct session *session;
  bool taken = false;
  int result = session_create(wanted->mountpoint, wanted->view_ids, wanted->count, &session);
  if (result != 0) return result;
  session_set_deadline(session, wanted->deadline_ms);
  session->minor = wanted->minor;
  result = holder_take(wanted->holder, wanted->key, init, &length, &fd);
  if (result != 0) {
    session_put(session);
    return result;
  }
  result = connect_session(session, fd, &taken);
  if (result == 0) result = hear_init(session, init, length);
  if (result == 0) result = ask_again(fd);
  if (result == 0) result = session_start_threads(session, wanted->threads);
  if (result != 0) {
    if (session->fuse != NULL) fuse_session_destroy(session->fuse);
    session->fuse = NULL;
    if (!taken) close(fd);
  }
  int id = result == 0 ? session_add(session) : result;
  if (id < 0) session_put(session);
  return id;
}

static void *run_adopt(void *argument) {
  struct adoption *wanted = argument;
  int result = adopt(wanted);
  uint32_t job = wanted->job;
  adoption_free(wanted);
  post_done(job, result);
  return NULL;
}

/*
 * Serves a mount that an earlier process left with the holder, with the views of the same layers in the same order.
 * `minor`: of the mount's device. The job ends with the session's number, or -errno; -ENOENT: nothing is held under the
 * key, -ENOTCONN: the connection is over.
 */
int oci_fuse_adopt(uint32_t holder, const char *key, const char *mountpoint, const uint32_t *view_ids, uint32_t count,
                   uint32_t threads, uint32_t deadline_ms, uint32_t minor, uint32_t job) {
  if (strlen(key) != HOLDER_KEY) return -EINVAL;
  struct adoption *wanted = calloc(1, sizeof *wanted);
  if (wanted == NULL) return -ENOMEM;
  *wanted = (struct adoption){.count = count, .threads = threads, .deadline_ms = deadline_ms, .minor = minor,
                              .holder = holder, .job = job};
  memcpy(wanted->key, key, HOLDER_KEY);
  wanted->mountpoint = strdup(mountpoint);
  wanted->view_ids = malloc((count + 1u) * sizeof *view_ids);
  int error = wanted->mountpoint == NULL || wanted->view_ids == NULL ? ENOMEM : 0;
  if (error == 0) {
    memcpy(wanted->view_ids, view_ids, count * sizeof *view_ids);
    error = spawn_thread(run_adopt, wanted);
  }
  if (error != 0) adoption_free(wanted);
  return -error;
}
