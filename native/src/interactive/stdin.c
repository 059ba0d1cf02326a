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
  return fd;
}

/*
 * What the container writes is in its log; the monitor, which waits until it is taken here too, must not wait. (One that will
 * not take it is forgotten by conmon 2.1 in a way that its end of input is not seen.) False: the monitor is gone.
 */
static bool discard(int monitor) {
  static char output[2 * PACKET + 1];
  for (;;) {
    ssize_t got = recv(monitor, output, sizeof output, MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN;
  }
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

/* One packet, however long the monitor takes; of nothing: the end. False: the monitor is gone. */
static bool send_packet(int monitor, const char *bytes, size_t length) {
  for (;;) {
    if (send(monitor, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) return true;
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return false;
    /* It may itself wait until we take what it has for us. */
    struct pollfd ready = {.fd = monitor, .events = POLLIN | POLLOUT};
    poll(&ready, 1, -1);
    if ((ready.revents & POLLIN) != 0 && !discard(monitor)) return false;
  }
}

int keep_stdin(const char *socket_path, const char *end_path) {
  static char bytes[PACKET];
  int monitor = connect_monitor();
  int listener = monitor < 0 ? -1 : listen_at(socket_path);
  if (listener < 0) return FAILED;
  signal(SIGPIPE, SIG_IGN);
  stay();
  struct pollfd fds[2 + SPEAKERS_MAX] = {{.fd = monitor, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
  int count = 2;
  bool ended = false;
  for (;;) {
    fds[1].fd = count < 2 + SPEAKERS_MAX ? listener : -1;
    if (poll(fds, (nfds_t)count, -1) < 0 && errno != EINTR) break;
    if (fds[0].revents != 0 && !discard(monitor)) break;
    for (int i = count - 1; i >= 2; i--) {
      if (fds[i].revents == 0) continue;
      ssize_t got = read(fds[i].fd, bytes, sizeof bytes);
      if (got < 0 && errno == EINTR) continue;
      if (got > 0 && (ended || send_packet(monitor, bytes, (size_t)got))) continue;
      if (got > 0) goto gone;
      close(fds[i].fd);
      fds[i] = fds[--count];
      /* conmon takes a packet of nothing for the end: who leaves instead may be gone before it has looked. */
      if (access(end_path, F_OK) == 0 && !ended) ended = send_packet(monitor, bytes, 0);
    }
    if (fds[1].fd < 0 || (fds[1].revents & POLLIN) == 0) continue;
    int speaker = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (speaker >= 0) fds[count++] = (struct pollfd){.fd = speaker, .events = POLLIN};
  }
gone:
  unlink(socket_path);
  return 0;
}
