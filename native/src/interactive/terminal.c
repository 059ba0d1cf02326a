/*
 * Runs a program at a new terminal, in raw mode: what is inside of the container has one of its own, to which the OCI
 * runtime leads. Standard input goes to it, what it writes to standard output; lines `ROWS COLUMNS` on descriptor 3 set its
 * size. Each way holds at most one buffer, so that a slow reader slows the program. Its last byte is written before this
 * program ends, with its exit code, or 128 and the signal. A reader that has gone hangs the program up.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "interactive.h"

enum { CONTROL = 3, BUFFER = 16384, FAILED = 125 };

struct way {
  char bytes[BUFFER];
  size_t at, length;
};

static int open_terminal(int rows, int columns, int *slave) {
  int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) return -1;
  *slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
  struct termios raw;
  if (*slave < 0 || tcgetattr(*slave, &raw) != 0) return -1;
  cfmakeraw(&raw);
  struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
  if (tcsetattr(*slave, TCSANOW, &raw) != 0 || ioctl(master, TIOCSWINSZ, &size) != 0) return -1;
  return fcntl(master, F_SETFL, O_NONBLOCK) == 0 ? master : -1;
}

static pid_t start(int slave, char **argv) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  setsid();
  ioctl(slave, TIOCSCTTY, 0);
  for (int fd = 0; fd < 3; fd++) dup2(slave, fd);
  syscall(SYS_close_range, 3, ~0U, 0);
  signal(SIGPIPE, SIG_DFL);
  execv(argv[0], argv);
  _exit(FAILED);
}

/* Whole lines only; the last one counts. */
static bool resize(int master, char *line, size_t *length) {
  ssize_t got = read(CONTROL, line + *length, 63 - *length);
  if (got <= 0) return false;
  *length += (size_t)got;
  line[*length] = '\0';
  for (char *end; (end = strchr(line, '\n')) != NULL;) {
    int rows, columns;
    if (sscanf(line, "%d %d", &rows, &columns) == 2) {
      struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)columns};
      ioctl(master, TIOCSWINSZ, &size);
    }
    *length -= (size_t)(end + 1 - line);
    memmove(line, end + 1, *length + 1);
  }
  if (*length >= 63) *length = 0;
  return true;
}

/* False: nothing more comes from there. */
static bool fill(struct way *way, int from) {
  ssize_t got = read(from, way->bytes, BUFFER);
  if (got < 0 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got <= 0) return false;
  way->at = 0;
  way->length = (size_t)got;
  return true;
}

/* False: nothing can go there any more. */
static bool drain(struct way *way, int to) {
  ssize_t put = write(to, way->bytes + way->at, way->length - way->at);
  if (put < 0) return errno == EAGAIN || errno == EINTR;
  way->at += (size_t)put;
  if (way->at == way->length) way->at = way->length = 0;
  return true;
}

/* Until all that the program wrote was read, or nobody reads. */
static void pass_on(int master) {
  static struct way in, out;
  char line[64];
  size_t line_length = 0;
  bool reads = true, writes = true;
  int control = CONTROL;
  for (;;) {
    bool to_program = in.length > 0, to_reader = out.length > 0;
    struct pollfd fds[4] = {
        {.fd = reads && !to_program ? STDIN_FILENO : -1, .events = POLLIN},
        {.fd = STDOUT_FILENO, .events = to_reader ? POLLOUT : 0},
        {.fd = writes || to_program ? master : -1,
         .events = (short)((to_program ? POLLOUT : 0) | (to_reader || !writes ? 0 : POLLIN))},
        {.fd = control, .events = POLLIN},
    };
    /* A terminal that was hung up is always ready: it is looked at when there is room for what it holds. */
    if (to_reader && !to_program) fds[2].fd = -1;
    if (poll(fds, 4, -1) < 0 && errno != EINTR) return;
    if (fds[3].revents != 0 && !resize(master, line, &line_length)) control = -1;
    if (fds[0].revents != 0 && !fill(&in, STDIN_FILENO)) reads = false;
    if ((fds[1].revents & (POLLERR | POLLNVAL)) != 0) return;
    if (to_reader && (fds[1].revents & POLLOUT) != 0 && !drain(&out, STDOUT_FILENO)) return;
    if (to_program && fds[2].revents != 0 && !drain(&in, master)) in.length = 0;
    if (!to_reader && writes && (fds[2].revents & (POLLIN | POLLHUP | POLLERR)) != 0 && !fill(&out, master))
      writes = false;
    if (!writes && out.length == 0) return;
  }
}

int terminal(int rows, int columns, char **argv) {
  int slave = -1, master = open_terminal(rows, columns, &slave);
  if (master < 0) return FAILED;
  signal(SIGPIPE, SIG_IGN);
  pid_t pid = start(slave, argv);
  if (pid < 0) return FAILED;
  close(slave);
  pass_on(master);
  /* Hangs up what still runs. */
  close(master);
  int status;
  while (waitpid(pid, &status, 0) < 0)
    if (errno != EINTR) return FAILED;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
