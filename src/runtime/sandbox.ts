import type { BundleMount } from "./files/container-mounts.ts";
import type { ContainerPaths } from "./layout.ts";
import { networkSysctls } from "./network/step.ts";
import { defaultSeccomp } from "./seccomp.ts";
import type { ContainerSpec } from "./spec.ts";

const pidsLimitDefault = 4096;
const cpuPeriodMicros = 100_000;

/** What Docker gives a container by default. */
export const defaultCapabilities: readonly string[] = [
  "CAP_AUDIT_WRITE",
  "CAP_CHOWN",
  "CAP_DAC_OVERRIDE",
  "CAP_FOWNER",
  "CAP_FSETID",
  "CAP_KILL",
  "CAP_MKNOD",
  "CAP_NET_BIND_SERVICE",
  "CAP_NET_RAW",
  "CAP_SETFCAP",
  "CAP_SETGID",
  "CAP_SETPCAP",
  "CAP_SETUID",
  "CAP_SYS_CHROOT",
];

const maskedPaths = [
  "/proc/acpi",
  "/proc/asound",
  "/proc/interrupts",
  "/proc/kcore",
  "/proc/keys",
  "/proc/latency_stats",
  "/proc/sched_debug",
  "/proc/scsi",
  "/proc/timer_list",
  "/proc/timer_stats",
  "/sys/devices/virtual/powercap",
  "/sys/firmware",
];

const readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/** What this host can limit; asking a runtime for what it cannot fails the start. */
export interface LimitSupport {
  readonly swap: boolean;
  readonly pids: boolean;
}

/** The `mounts` of the bundle. */
export function mounts(paths: ContainerPaths): BundleMount[] {
  const file = (name: string): BundleMount => ({
    destination: `/etc/${name}`,
    type: "bind",
    source: `${paths.etc}/${name}`,
    options: ["rbind", "rprivate", "rw"],
  });
  return [
    { destination: "/proc", type: "proc", source: "proc", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev",
      type: "tmpfs",
      source: "tmpfs",
      options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
      destination: "/dev/pts",
      type: "devpts",
      source: "devpts",
      options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    {
      destination: "/sys/fs/cgroup",
      type: "cgroup",
      source: "cgroup",
      options: ["nosuid", "noexec", "nodev", "ro"],
    },
    { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
    {
      destination: "/dev/shm",
      type: "tmpfs",
      source: "shm",
      options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    file("resolv.conf"),
    file("hostname"),
    file("hosts"),
  ];
}

/** The `linux` part of a bundle (runtime specification, `config-linux.md`). */
export interface LinuxSection {
  readonly namespaces: readonly { readonly type: string; readonly path?: string }[];
  readonly [field: string]: unknown;
}

/** The `linux` part of the bundle: namespaces, limits, filter, hidden paths. */
export function linuxSection(spec: ContainerSpec, cgroupsPath: string, support: LimitSupport): LinuxSection {
  const namespaces = [
    "pid",
    "ipc",
    "uts",
    "mount",
    "cgroup",
    ...(spec.network === "host" ? [] : ["network"]),
  ];
  return {
    cgroupsPath,
    namespaces: namespaces.map((type) => ({ type })),
    resources: resources(spec, support),
    seccomp: defaultSeccomp(),
    maskedPaths,
    readonlyPaths,
    sysctl: networkSysctls(spec),
  };
}

function resources(spec: ContainerSpec, support: LimitSupport): object {
  const memoryBytes = spec.memoryBytes ?? 0;
  const cpuMillis = spec.cpuMillis ?? 0;
  return {
    devices: [{ allow: false, access: "rwm" }],
    ...(support.pids ? { pids: { limit: spec.options.pidsLimit || pidsLimitDefault } } : {}),
    ...(memoryBytes > 0
      ? { memory: { limit: memoryBytes, ...(support.swap ? { swap: memoryBytes } : {}) } }
      : {}),
    ...(cpuMillis > 0
      ? {
          cpu: {
            shares: Math.max(2, Math.round((cpuMillis * 1024) / 1000)),
            quota: Math.max(1000, Math.round((cpuMillis * cpuPeriodMicros) / 1000)),
            period: cpuPeriodMicros,
          },
        }
      : {}),
  };
}
