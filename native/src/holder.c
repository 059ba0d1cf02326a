/*
 * The worker's side of the holder (holder/protocol.h): starts it, connects, asks. The connection stays open as long as
 * this process serves: by its end the holder knows that the next process may begin. It is in the native threads' table
 * of descriptors for that reason, and because /dev/fuse is.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "holder/message.h"
#include "holder/protocol.h"
#include "oci.h"

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

enum { ANSWER_SECONDS = 10, CONNECT_TRIES = 20 };

struct holder {
  pthread_mutex_t lock; /* one question at a time */
  int fd;               /* -1: closed, or the holder is gone */
  pid_t pid;
};

static struct holder **holders; /* engine_lock; index is id - 1 */
static uint32_t holder_count;

static struct holder *find(uint32_t id) {
  pthread_mutex_lock(&engine_lock);
  struct holder *holder = id == 0 || id > holder_count ? NULL : holders[id - 1];
  pthread_mutex_unlock(&engine_lock);
  return holder;
}

static int add(struct holder *holder) {
  pthread_mutex_lock(&engine_lock);
  struct holder **larger = realloc(holders, (holder_count + 1u) * sizeof *larger);
  int id = -ENOMEM;
  if (larger != NULL) {
    holders = larger;
    holders[holder_count++] = holder;
    id = (int)holder_count;
  }
  pthread_mutex_unlock(&engine_lock);
  return id;
}

/* ---- one question ---- */
union rights {
  struct cmsghdr header;
  char space[CMSG_SPACE(sizeof(int))];
};

static int receive_reply(int from, struct holder_reply *reply, int *fd) {
  union rights rights;
  struct iovec part = {reply, sizeof *reply};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = sizeof rights};
  ssize_t got;
  do got = recvmsg(from, &message, MSG_CMSG_CLOEXEC);
  while (got < 0 && errno == EINTR);
  if (got < 0) return errno == EAGAIN ? -ETIMEDOUT : -errno;
  int given = -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header != NULL && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
    memcpy(&given, CMSG_DATA(header), sizeof given);
  if (fd != NULL) *fd = given;
  else if (given >= 0) close(given);
  if (got == 0) return -ENOTCONN;
  size_t head = offsetof(struct holder_reply, body);
  bool whole = (size_t)got >= head && reply->magic == HOLDER_MAGIC && (size_t)got == head + reply->length;
  return whole ? 0 : -EBADMSG;
}

/* The holder's result, or why there is none. After the latter the connection is of no use. */
static int exchange(struct holder *holder, const struct holder_request *request, int fd, struct holder_reply *reply,
                    int *given) {
  if (given != NULL) *given = -1;
  if (holder == NULL) return -EBADF;
  pthread_mutex_lock(&holder->lock);
  int error = holder->fd < 0 ? -ENOTCONN : holder_send(holder->fd, request, sizeof *request, fd);
  if (error == 0) error = receive_reply(holder->fd, reply, given);
  if (error != 0 && holder->fd >= 0) {
    close(holder->fd);
    holder->fd = -1;
    if (error == -EPIPE || error == -ECONNRESET) error = -ENOTCONN;
  }
  pthread_mutex_unlock(&holder->lock);
  return error != 0 ? error : reply->result;
}

static struct holder_request request_of(enum holder_operation operation, uint32_t argument, const char *key) {
  struct holder_request request = {.magic = HOLDER_MAGIC, .version = HOLDER_VERSION, .operation = operation,
                                   .argument = argument};
  if (key != NULL) memcpy(request.key, key, HOLDER_KEY);
  return request;
}

int holder_put(uint32_t id, const char *key, const uint8_t *init, uint32_t length, int fd) {
  struct holder_request request = request_of(HOLDER_PUT, 0, key);
  struct holder_reply reply;
  if (length > sizeof request.init) return -EMSGSIZE;
  request.init_length = length;
  memcpy(request.init, init, length);
  return exchange(find(id), &request, fd, &reply, NULL);
}

int holder_take(uint32_t id, const char *key, uint8_t *init, uint32_t *length, int *fd) {
  struct holder_request request = request_of(HOLDER_TAKE, 0, key);
  struct holder_reply reply;
  int result = exchange(find(id), &request, -1, &reply, fd);
  if (result == 0 && (*fd < 0 || reply.length == 0 || reply.length > HOLDER_INIT_MAX)) result = -EBADMSG;
  if (result != 0) {
    if (*fd >= 0) close(*fd);
    return result;
  }
  *length = reply.length;
  memcpy(init, reply.body, reply.length);
  return 0;
}

/* ---- connecting and starting ---- */
static int connect_in(const char *folder, int *out) {
  int dir = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) return -errno;
  int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  int result = fd < 0 ? -errno : 0;
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  /* By the descriptor: a socket's name has room for 107 bytes only. */
  snprintf(address.sun_path, sizeof address.sun_path, "/proc/thread-self/fd/%d/" HOLDER_SOCKET, dir);
  const struct timeval patience = {.tv_sec = ANSWER_SECONDS};
  if (result == 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) result = -errno;
  }
  close(dir);
  if (result != 0 && fd >= 0) close(fd);
  *out = fd;
  return result == -ECONNREFUSED ? -ENOENT : result; /* its socket, but not it */
}

/* 0, or -errno; the holder makes itself a daemon and its first process ends when it listens. */
static int start_in(const char *folder, const uint8_t *program, size_t length, uint32_t patience_ms) {
  int fd = memfd_create("oci-node-holder", MFD_CLOEXEC | MFD_EXEC);
  if (fd < 0 && errno == EINVAL) fd = memfd_create("oci-node-holder", MFD_CLOEXEC); /* before Linux 6.3 */
  if (fd < 0) return -errno;
  for (size_t written = 0; written < length;) {
    ssize_t got = write(fd, program + written, length - written);
    if (got < 0 && errno != EINTR) {
      int error = -errno;
      close(fd);
      return error;
    }
    if (got > 0) written += (size_t)got;
  }
  char path[32], patience[16], name[] = "oci-node-holder", *environment[] = {NULL};
  char *arguments[] = {name, (char *)folder, patience, NULL};
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  snprintf(patience, sizeof patience, "%u", patience_ms);
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSID);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &all);
  pid_t pid;
  int error = posix_spawn(&pid, path, NULL, &attributes, arguments, environment), status = 0;
  posix_spawnattr_destroy(&attributes);
  close(fd);
  if (error != 0) return -error;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return errno == ECHILD ? 0 : -errno;
  if (!WIFEXITED(status)) return -ECANCELED;
  int code = WEXITSTATUS(status);
  return code == EALREADY ? 0 : -code;
}

static int greet(struct holder *holder, uint32_t patience_ms) {
  struct holder_request request = request_of(HOLDER_HELLO, patience_ms, NULL);
  struct holder_reply reply;
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(holder->fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0) holder->pid = peer.pid;
  return exchange(holder, &request, -1, &reply, NULL);
}

struct opening {
  char *folder;
  uint8_t *program;
  size_t length;
  uint32_t patience_ms, job;
};

static int open_holder(const struct opening *wanted) {
  struct holder *holder = calloc(1, sizeof *holder);
  if (holder == NULL) return -ENOMEM;
  pthread_mutex_init(&holder->lock, NULL);
  int result = -ENOENT;
  /* One that just ends takes its socket along: then it is tried again. */
  for (int tries = 0; tries < CONNECT_TRIES; tries++) {
    result = connect_in(wanted->folder, &holder->fd);
    if (result == 0) result = greet(holder, wanted->patience_ms);
    if (result != -ENOENT && result != -ENOTCONN) break;
    if (wanted->program == NULL) {
      result = -ENOENT;
      break;
    }
    result = start_in(wanted->folder, wanted->program, wanted->length, wanted->patience_ms);
    if (result != 0) break;
    result = -ENOENT;
  }
  if (result == 0) result = add(holder);
  if (result < 0) {
    if (holder->fd >= 0) close(holder->fd);
    pthread_mutex_destroy(&holder->lock);
    free(holder);
  }
  return result;
}

static void opening_free(struct opening *wanted) {
  free(wanted->folder);
  free(wanted->program);
  free(wanted);
}

static void *run_open(void *argument) {
  struct opening *wanted = argument;
  int result = open_holder(wanted);
  uint32_t job = wanted->job;
  opening_free(wanted);
  post_done(job, result);
  return NULL;
}

/*
 * Connects to the folder's holder; where there is none, starts the program (an executable's bytes; none: only connects).
 * Waits while another process is connected. The job ends with the connection's number, or -errno; -ENOENT: none is there.
 */
int oci_holder_open(const char *folder, const uint8_t *program, uint64_t length, uint32_t patience_ms, uint32_t job) {
  struct opening *wanted = calloc(1, sizeof *wanted);
  if (wanted == NULL) return -ENOMEM;
  *wanted = (struct opening){.length = length, .patience_ms = patience_ms, .job = job};
  wanted->folder = strdup(folder);
  if (length > 0) wanted->program = malloc(length);
  int error = wanted->folder == NULL || (length > 0 && wanted->program == NULL) ? ENOMEM : 0;
  if (error == 0) {
    if (length > 0) memcpy(wanted->program, program, length);
    error = spawn_thread(run_open, wanted);
  }
  if (error != 0) opening_free(wanted);
  return -error;
}

int oci_holder_pid(uint32_t id) {
  const struct holder *holder = find(id);
  return holder == NULL ? -EBADF : (int)holder->pid;
}

/* ---- the rest of what JavaScript asks ---- */
struct asking {
  uint32_t holder, operation, argument, job;
  char key[HOLDER_KEY + 1];
  uint8_t *out;
};

static void *run_ask(void *argument) {
  struct asking *wanted = argument;
  struct holder *holder = find(wanted->holder);
  struct holder_request request =
      request_of(wanted->operation, wanted->argument, wanted->key[0] == '\0' ? NULL : wanted->key);
  struct holder_reply reply;
  int result = exchange(holder, &request, -1, &reply, NULL);
  if (result >= 0 && wanted->out != NULL) memcpy(wanted->out, reply.body, reply.length);
  if (wanted->operation == HOLDER_BYE && holder != NULL) {
    pthread_mutex_lock(&holder->lock);
    if (holder->fd >= 0) close(holder->fd);
    holder->fd = -1;
    pthread_mutex_unlock(&holder->lock);
    if (result == -ENOTCONN) result = 0; /* it ended, as it should */
  }
  post_done(wanted->job, result);
  free(wanted);
  return NULL;
}

static int ask(uint32_t id, enum holder_operation operation, uint32_t argument, const char *key, uint8_t *out,
               uint32_t job) {
  if (key != NULL && strlen(key) != HOLDER_KEY) return -EINVAL;
  struct asking *wanted = calloc(1, sizeof *wanted);
  if (wanted == NULL) return -ENOMEM;
  *wanted = (struct asking){.holder = id, .operation = operation, .argument = argument, .job = job, .out = out};
  if (key != NULL) memcpy(wanted->key, key, HOLDER_KEY);
  int error = spawn_thread(run_ask, wanted);
  if (error != 0) free(wanted);
  return -error;
}

int oci_holder_drop(uint32_t id, const char *key, uint32_t job) { return ask(id, HOLDER_DROP, 0, key, NULL, job); }

/* Up to HOLDER_LIST_MAX keys from the `from`th on into `out`; the job ends with how many there are in all. */
int oci_holder_list(uint32_t id, uint32_t from, uint8_t *out, uint32_t job) {
  return ask(id, HOLDER_LIST, from, NULL, out, job);
}

/* Closes the connection. A holder of nothing has ended when the job has; -EBUSY: it holds something, and stays. */
int oci_holder_bye(uint32_t id, uint32_t job) { return ask(id, HOLDER_BYE, 0, NULL, NULL, job); }
