import { isIPv4 } from "node:net";
import { printable } from "../std/printable.ts";
import { ContainerError } from "./error.ts";
import type { ContainerNetwork, ContainerOptions, PublishedPort, SecretUse, Tmpfs } from "./options.ts";

/** Of each kind: mounts, ports, secrets. */
const listMax = 100;
/** PATH_MAX of Linux, the NUL at its end included. */
const pathBytesMax = 4095;
const pageBytes = 4096;
/** PID_MAX_LIMIT of a 64-bit Linux. */
const pidsMax = 4_194_304;
const storageBytesMin = 16 * 1024 * 1024;
const stopTimeoutMsMax = 3_600_000;
const namePattern = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
const idPattern = /^c-[0-9a-f]{16}$/;
/** What the runtime itself mounts there is not to be hidden; /dev/shm is memory of the container's own. */
const kernelPaths = /^\/(?:proc|sys|dev(?!\/shm$))(?:\/|$)/;

/**
 * Refuses a container's name that is none, or that could be taken for an id.
 *
 * @throws ContainerError `bad_spec`
 */
export function checkName(name: string): void {
  if (!namePattern.test(name)) {
    throw badSpec(
      `${shown(name)} cannot name a container`,
      "A name is of letters, digits, `_`, `.` and `-`, begins with a letter or a digit, and has at most 63 characters.",
    );
  }
  if (idPattern.test(name))
    throw badSpec(`${shown(name)} looks like a container's id`, "Choose another name.");
}

/** Whether a volume's source is a volume's name, and not a path of the host. */
export function isVolumeName(source: string): boolean {
  return !source.startsWith("/");
}

/** The named volumes of a container, each once. */
export function volumeNames({ volumes }: Pick<ContainerOptions, "volumes">): string[] {
  return [...new Set(volumes.map(({ source }) => source).filter(isVolumeName))];
}

/**
 * Refuses what no worker could start. What the operator allows is another matter: see `checkAllowed`.
 *
 * @param env what the container gets as variables besides
 * @throws ContainerError `bad_spec`, without the value of a variable
 */
export function checkOptions(
  options: ContainerOptions,
  network: ContainerNetwork,
  env: Readonly<Record<string, string>> = {},
): void {
  const { workingDirectory, user, pidsLimit, storageBytes, stopTimeoutMs } = options;
  if (workingDirectory !== "") checkPath("the working directory", workingDirectory);
  checkUser(user);
  checkMounts(options);
  checkPorts(options.ports, network);
  checkSecrets(options.secrets, env);
  if (!isWhole(pidsLimit, pidsMax))
    throw badSpec(
      `the limit of ${pidsLimit} processes is none`,
      `Give at most ${pidsMax}; 0 is the default.`,
    );
  if (!isWhole(storageBytes) || (storageBytes > 0 && storageBytes < storageBytesMin))
    throw badSpec(
      "the limit of the writable layer is none",
      "Give at least 16 MiB; 0 is the operator's limit.",
    );
  if (!isWhole(stopTimeoutMs, stopTimeoutMsMax))
    throw badSpec("the stop timeout is none", "Give at most one hour; 0 is 10 seconds.");
  checkRestart(options);
}

function checkUser(user: string): void {
  if (user === "" || /^[^\0\n:]{1,256}(?::[^\0\n:]{1,256})?$/.test(user)) return;
  throw badSpec(`${shown(user)} is no user`, "Write `name`, `uid`, `name:group` or `uid:gid`.");
}

function checkRestart({ restart }: ContainerOptions): void {
  const { kind, retriesMax } = restart;
  if (!isWhole(retriesMax, 2 ** 31 - 1))
    throw badSpec("the number of restarts is none", "Give a whole number; 0 is without end.");
  if (retriesMax > 0 && kind !== "on-failure")
    throw badSpec(
      `a number of restarts is for on-failure, not for ${kind}`,
      "Leave it out, or restart on-failure.",
    );
}

/** What is mounted where; no two at one place. */
function checkMounts({ tmpfs, volumes, secrets }: ContainerOptions): void {
  checkCount("file systems in memory", tmpfs);
  checkCount("volumes", volumes);
  const targets = new Map<string, string>();
  const place = (what: string, path: string) => {
    checkPath(what, path);
    const target = path.replace(/\/+/g, "/").replace(/(.)\/$/, "$1");
    if (target === "/")
      throw badSpec(`${what} is the root of the container`, "Mount at a directory below it.");
    if (kernelPaths.test(target))
      throw badSpec(
        `${what}, ${shown(path)}, is the kernel's`,
        "Mount elsewhere than in /proc, /sys or /dev.",
      );
    const other = targets.get(target);
    if (other !== undefined)
      throw badSpec(`${what} and ${other} are both ${shown(target)}`, "Choose another.");
    targets.set(target, what);
  };
  for (const one of tmpfs) {
    place("the path of a tmpfs", one.path);
    checkTmpfs(one);
  }
  for (const { source, target } of volumes) {
    if (!isVolumeName(source)) checkPath("the source of a volume", source);
    else if (!namePattern.test(source)) {
      throw badSpec(
        `${shown(source)} is neither a volume's name nor an absolute path`,
        "A name is of letters, digits, `_`, `.` and `-`, begins with a letter or a digit, and has at most 63 characters.",
      );
    }
    place("the target of a volume", target);
  }
  for (const { path } of secrets) {
    if (path === undefined) continue;
    if (path.endsWith("/"))
      throw badSpec(`the path of a secret, ${shown(path)}, names no file`, "Add its name.");
    place("the path of a secret", path);
  }
}

function checkTmpfs({ path, sizeBytes, mode }: Tmpfs): void {
  if (!isWhole(sizeBytes) || sizeBytes < pageBytes)
    throw badSpec(`the size of the tmpfs ${shown(path)} is none`, `Give at least ${pageBytes} bytes.`);
  if (!isWhole(mode, 0o7777))
    throw badSpec(`the mode of the tmpfs ${shown(path)} is none`, "Give permission bits, such as 1777.");
}

function checkPorts(ports: readonly PublishedPort[], network: ContainerNetwork): void {
  checkCount("published ports", ports);
  if (ports.length > 0 && network !== "private") {
    throw badSpec(
      network === "host"
        ? "a container on the host's network has the host's ports already: none can be published"
        : "a container without a network has no ports that could be published",
      "Publish with the network `private`.",
    );
  }
  for (const [at, port] of ports.entries()) {
    const { hostAddress, hostPort, containerPort, protocol } = port;
    if (!isIPv4(hostAddress))
      throw badSpec(
        `${shown(hostAddress)} is no IPv4 address of a host`,
        "Publish at one such as 127.0.0.1.",
      );
    if (!isWhole(hostPort, 65_535))
      throw badSpec(`${hostPort} is no port of a host`, "Give one up to 65535; 0 is any free one.");
    if (!isWhole(containerPort, 65_535) || containerPort === 0)
      throw badSpec(`${containerPort} is no port of a container`, "Give one between 1 and 65535.");
    const same = ports.slice(0, at).some((other) => collides(other, port));
    if (same)
      throw badSpec(
        `the host's port ${hostAddress}:${hostPort}/${protocol} is published twice`,
        "Publish each once, or leave the host's port out: then a free one is taken.",
      );
  }
}

function collides(one: PublishedPort, other: PublishedPort): boolean {
  const everywhere = one.hostAddress === "0.0.0.0" || other.hostAddress === "0.0.0.0";
  return (
    one.hostPort !== 0 &&
    one.hostPort === other.hostPort &&
    one.protocol === other.protocol &&
    (everywhere || one.hostAddress === other.hostAddress)
  );
}

function checkSecrets(secrets: readonly SecretUse[], env: Readonly<Record<string, string>>): void {
  checkCount("secrets", secrets);
  const variables = new Set(Object.keys(env));
  for (const { secretName, variable, path } of secrets) {
    if (secretName === "" || secretName.length > 255 || secretName.includes("\0"))
      throw badSpec(`${shown(secretName)} cannot name a secret`, "List them with `oci-node secret ls`.");
    if ((variable === undefined) === (path === undefined)) {
      throw badSpec(
        `secret ${shown(secretName)} is ${variable === undefined ? "neither a variable nor" : "both a variable and"} a file`,
        "Say for each use either the variable or the path.",
      );
    }
    if (variable === undefined) continue;
    if (!/^[^=\0]{1,255}$/.test(variable))
      throw badSpec(`${shown(variable)} cannot name a variable`, "Choose a name without `=`.");
    if (variables.has(variable))
      throw badSpec(`variable ${shown(variable)} is given twice`, "Give it either a value or a secret.");
    variables.add(variable);
  }
}

function checkPath(what: string, path: string): void {
  if (!path.startsWith("/"))
    throw badSpec(`${what}, ${shown(path)}, is not absolute`, "Write it from the root on: /…");
  if (path.includes("\0")) throw badSpec(`${what} holds a NUL character`, "Leave the character out.");
  if (path.split("/").some((part) => part === "." || part === ".."))
    throw badSpec(`${what}, ${shown(path)}, holds \`.\` or \`..\``, "Write the path without them.");
  if (Buffer.byteLength(path) > pathBytesMax || path.split("/").some((part) => Buffer.byteLength(part) > 255))
    throw badSpec(`${what} is longer than Linux takes`, "Choose a shorter path.");
}

function checkCount(what: string, list: readonly unknown[]): void {
  if (list.length > listMax)
    throw badSpec(`there are ${list.length} ${what}; ${listMax} are allowed`, "Leave some out.");
}

function isWhole(value: number, max = Number.MAX_SAFE_INTEGER): boolean {
  return Number.isSafeInteger(value) && value >= 0 && value <= max;
}

function shown(text: string): string {
  return JSON.stringify(printable(text, 100));
}

function badSpec(message: string, next: string): ContainerError {
  return new ContainerError("bad_spec", message, { next });
}
