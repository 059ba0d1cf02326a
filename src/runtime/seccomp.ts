/** A filter of system calls, as the OCI runtime specification (config-linux.md, "Seccomp") writes it. */
export interface SeccompProfile {
  readonly defaultAction: string;
  readonly defaultErrnoRet: number;
  readonly architectures: readonly string[];
  readonly syscalls: readonly SeccompRule[];
}

interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly {
    readonly index: number;
    readonly value: number;
    readonly valueTwo?: number;
    readonly op: string;
  }[];
}

const words = (text: string): string[] => text.trim().split(/\s+/);

/**
 * Calls that every program may make, by subject. What is not named fails with EPERM: modules, mounts, namespaces,
 * clocks, keyrings, bpf, io_uring, perf, kexec, swap, quotas, raw ports, userfaultfd, NUMA policy.
 */
const allowed = [
  // files
  `access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64
   fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync flock fstat
   fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents getdents64 ioctl lchown
   lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat open openat
   openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv rename
   renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 statfs statfs64 statx symlink symlinkat sync
   sync_file_range syncfs tee truncate truncate64 umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice
   write writev chroot`,
  // extended attributes
  `fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr removexattr
   setxattr`,
  // waiting for descriptors
  `epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
   fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect poll ppoll ppoll_time64 pselect6
   pselect6_time64 select signalfd signalfd4`,
  // asynchronous input and output
  `io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioprio_get ioprio_set`,
  // memory
  `brk cachestat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2
   mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease
   remap_file_pages`,
  // processes
  `arch_prctl capget capset execve execveat exit exit_group fork getcpu getpgid getpgrp getpid getppid getpriority
   getrlimit getrusage getsid gettid kill modify_ldt pause pidfd_open pidfd_send_signal prctl prlimit64
   process_vm_readv process_vm_writev ptrace rseq seccomp setpgid setpriority setrlimit setsid set_thread_area
   get_thread_area set_tid_address tgkill tkill ugetrlimit vfork wait4 waitid waitpid landlock_add_rule
   landlock_create_ruleset landlock_restrict_self`,
  // users and groups
  `getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 getresuid getresuid32
   getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32
   setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32`,
  // scheduling
  `sched_getaffinity sched_getattr sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler
   sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
   sched_yield`,
  // locks
  `futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake get_robust_list set_robust_list`,
  // signals
  `rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
   rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigprocmask sigreturn restart_syscall`,
  // sockets
  `accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 recvmsg
   send sendmmsg sendmsg sendto setsockopt shutdown socketcall socketpair`,
  // System V and POSIX messages, semaphores, shared memory
  `ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
   msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget`,
  // time
  `adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
   clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete
   timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime
   timerfd_gettime64 timerfd_settime timerfd_settime64 times`,
  // the system
  `getrandom sysinfo uname`,
  // 32-bit ARM
  `arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2`,
].flatMap(words);

/** CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET: a clone may carry none of them. */
const newNamespaceFlags = 0x7e02_0000;
/** Linux, 32 bit, both with 16-bit user ids' flag, and "tell me": what programs ask of personality(2). */
const personalities = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const addressFamilyVsock = 40;
const enosys = 38;
const eperm = 1;

const architectures: Readonly<Record<string, readonly string[]>> = {
  x64: ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
  arm64: ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
};

/**
 * The filter that every container gets: denies by default, allows what Docker's default profile allows a container
 * without added capabilities. `clone3` answers ENOSYS, because its flags are out of a filter's sight and programs then
 * fall back to `clone`; sockets to the hypervisor (vsock) are refused.
 */
export function defaultSeccomp(architecture: string = process.arch): SeccompProfile {
  return {
    defaultAction: "SCMP_ACT_ERRNO",
    defaultErrnoRet: eperm,
    architectures: architectures[architecture] ?? [],
    syscalls: [
      { names: allowed, action: "SCMP_ACT_ALLOW" },
      {
        names: ["clone"],
        action: "SCMP_ACT_ALLOW",
        args: [{ index: 0, value: newNamespaceFlags, valueTwo: 0, op: "SCMP_CMP_MASKED_EQ" }],
      },
      { names: ["clone3"], action: "SCMP_ACT_ERRNO", errnoRet: enosys },
      {
        names: ["socket"],
        action: "SCMP_ACT_ALLOW",
        args: [{ index: 0, value: addressFamilyVsock, op: "SCMP_CMP_NE" }],
      },
      ...personalities.map((value) => ({
        names: ["personality"],
        action: "SCMP_ACT_ALLOW",
        args: [{ index: 0, value, op: "SCMP_CMP_EQ" }],
      })),
    ],
  };
}
