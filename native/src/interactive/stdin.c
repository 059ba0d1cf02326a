/*
 * Leads to the standard input of a container, which its monitor (conmon) holds: the socket `attach` in this working
 * directory. conmon ends the container's input as soon as one of those who are connected leaves; so this process stays
 * connected, as long as the container lives, and whoever has something to say comes and goes at SOCKET. One who leaves when
 * there is a file END ends the input: what is said later is heard by nobody. `ready` on standard output says that it listens.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "interactive.h"

/* conmon takes 32 KiB at once, and loses what of a packet is more. */
enum { PACKET = 16384, SPEAKERS_MAX = 32, FAILED = 125 };

static int open_socket(int type, const char *path, struct sockaddr_un *address) {
  memset(address, 0, sizeof *address);
  address->sun_family = AF_UNIX;
  if (strlen(path) >= sizeof address->sun_path) return -1;
  strcpy(address->sun_path, path);
  return socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
}

static int connect_monitor(void) {
  struct sockaddr_un address;
  int fd = open_socket(SOCK_SEQPACKET, "attach", &address);
  if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return -1;
  /* What the container writes is in its log: the monitor must not wait for us to take it. */
  shutdown(fd, SHUT_RD);
  return fd;
}

static int listen_at(const char *path) {
  struct sockaddr_un address;
  int fd = open_socket(SOCK_STREAM, path, &address);
  unlink(path);
  umask(0077);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 8) != 0) return -1;
  return fd;
}

static void stay(void) {
  if (write(STDOUT_FILENO, "ready\n", 6) < 0) return;
  int null = open("/dev/null", O_RDWR | O_CLOEXEC);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  close(null);
  setsid();
}

/* False: the monitor is gone. */
static bool hand_on(int monitor, const char *bytes, size_t length) {
  while (length > 0) {
    size_t part = length < PACKET ? length : PACKET;
    ssize_t sent = send(monitor, bytes, part, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return false;
    bytes += sent;
    length -= (size_t)sent;
  }
  return true;
}

int keep_stdin(const char *socket_path, const char *end_path) {
  static char bytes[PACKET];
  int monitor = connect_monitor();
  int listener = monitor < 0 ? -1 : listen_at(socket_path);
  if (listener < 0) return FAILED;
  signal(SIGPIPE, SIG_IGN);
  stay();
  struct pollfd fds[2 + SPEAKERS_MAX] = {{.fd = monitor}, {.fd = listener, .events = POLLIN}};
  int count = 2;
  for (;;) {
    fds[1].fd = count < 2 + SPEAKERS_MAX ? listener : -1;
    if (poll(fds, (nfds_t)count, -1) < 0 && errno != EINTR) break;
    if ((fds[0].revents & (POLLHUP | POLLERR)) != 0) break;
    for (int i = count - 1; i >= 2; i--) {
      if (fds[i].revents == 0) continue;
      ssize_t got = read(fds[i].fd, bytes, sizeof bytes);
      if (got < 0 && errno == EINTR) continue;
      if (got > 0 && hand_on(monitor, bytes, (size_t)got)) continue;
      if (got > 0) goto gone;
      close(fds[i].fd);
      fds[i] = fds[--count];
      /* conmon takes a packet of nothing for the end; one who just leaves may be gone before it has looked. */
      if (access(end_path, F_OK) == 0 && send(monitor, bytes, 0, MSG_NOSIGNAL) < 0) goto gone;
    }
    if (fds[1].fd < 0 || (fds[1].revents & POLLIN) == 0) continue;
    int speaker = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (speaker >= 0) fds[count++] = (struct pollfd){.fd = speaker, .events = POLLIN};
  }
gone:
  unlink(socket_path);
  return 0;
}
