import { createSocket } from "node:dgram";
import { createServer, isIPv4 } from "node:net";
import type { PublishedPort } from "../../container/options.ts";
import { isWithin, type PortRange } from "../../container/policy.ts";
import { errnoOf, messageOf } from "../../std/error.ts";
import { RuntimeError } from "../error.ts";

interface Held {
  readonly port: PublishedPort;
  readonly release: () => void;
}

const freeTriesMax = 64;

/**
 * The ports of this host that containers have. Port mapping only rewrites packets before any socket sees them, so nothing
 * would keep two containers, or a container and a program of the host, from having one port. Each is therefore bound here
 * as long as its container is: the kernel then refuses it to all others, to other workers of the host too.
 */
export class HostPorts {
  readonly #held = new Map<string, Held[]>();

  /**
   * Takes the ports for a container, all or none, and says which: `hostPort` 0 becomes a free one. A container that has some
   * already, because its program is started again, keeps them.
   * @param ranges what the container may have; absent: every port
   * @throws RuntimeError `port_taken`, `network`
   */
  async take(
    id: string,
    ports: readonly PublishedPort[],
    ranges?: readonly PortRange[],
  ): Promise<PublishedPort[]> {
    const kept = this.#held.get(id);
    if (kept !== undefined) return kept.map(({ port }) => port);
    const held: Held[] = [];
    // Known at once, so that what a failed start leaves is released with the rest.
    this.#held.set(id, held);
    for (const port of ports) held.push(await takeOne(port, ranges));
    return held.map(({ port }) => port);
  }

  /** Holds ports that a container of the process before this one has. Tells those that another has bound meanwhile. */
  async retake(id: string, ports: readonly PublishedPort[]): Promise<PublishedPort[]> {
    const held: Held[] = [];
    const lost: PublishedPort[] = [];
    this.#held.set(id, held);
    for (const port of ports) {
      const got = await bind(port).catch(() => undefined);
      if (got === undefined) lost.push(port);
      held.push(got ?? { port, release: () => undefined });
    }
    return lost;
  }

  release(id: string): void {
    for (const { release } of this.#held.get(id) ?? []) release();
    this.#held.delete(id);
  }

  close(): void {
    for (const id of [...this.#held.keys()]) this.release(id);
  }
}

async function takeOne(port: PublishedPort, ranges: readonly PortRange[] | undefined): Promise<Held> {
  if (!isIPv4(port.hostAddress))
    throw new RuntimeError(
      "network",
      `a port cannot be published at ${port.hostAddress}: it is no IPv4 address`,
    );
  const allowed = ranges?.filter((range) => isWithin(range, port));
  if (allowed?.length === 0) throw notAllowed(port, ranges ?? []);
  if (port.hostPort === 0) return await takeFree(port, allowed);
  try {
    return await bind(port);
  } catch (error) {
    throw bindError(port, error);
  }
}

async function takeFree(port: PublishedPort, allowed: readonly PortRange[] | undefined): Promise<Held> {
  if (allowed === undefined) {
    return await bind(port).catch((error: unknown) => {
      throw bindError(port, error);
    });
  }
  const count = allowed.reduce((sum, { first, last }) => sum + last - first + 1, 0);
  const start = Math.floor(Math.random() * count);
  for (let tries = 0; tries < Math.min(count, freeTriesMax); tries += 1) {
    const hostPort = nth(allowed, (start + tries) % count);
    try {
      return await bind({ ...port, hostPort });
    } catch (error) {
      if (errnoOf(error) !== "EADDRINUSE") throw bindError({ ...port, hostPort }, error);
    }
  }
  throw new RuntimeError("port_taken", `no free ${port.protocol} port was found at ${port.hostAddress}`, {
    next: "Name a port that is free, or have the operator allow more with publish.",
  });
}

function nth(ranges: readonly PortRange[], index: number): number {
  let rest = index;
  for (const { first, last } of ranges) {
    if (rest <= last - first) return first + rest;
    rest -= last - first + 1;
  }
  return 0;
}

function bind(port: PublishedPort): Promise<Held> {
  return port.protocol === "udp" ? bindUdp(port) : bindTcp(port);
}

function bindTcp(port: PublishedPort): Promise<Held> {
  // Whoever reaches it came in the moment before the mapping was there, or after.
  const server = createServer((connection) => connection.destroy());
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: port.hostAddress, port: port.hostPort, exclusive: true }, () => {
      server.unref();
      const { port: hostPort } = server.address() as { port: number };
      resolve({ port: { ...port, hostPort }, release: () => server.close() });
    });
  });
}

function bindUdp(port: PublishedPort): Promise<Held> {
  const socket = createSocket("udp4");
  return new Promise((resolve, reject) => {
    socket.once("error", (error) => {
      socket.close();
      reject(error);
    });
    socket.bind({ address: port.hostAddress, port: port.hostPort, exclusive: true }, () => {
      socket.unref();
      resolve({ port: { ...port, hostPort: socket.address().port }, release: () => socket.close() });
    });
  });
}

function bindError(port: PublishedPort, cause: unknown): RuntimeError {
  const name = `${port.hostAddress}:${port.hostPort}/${port.protocol}`;
  const errno = errnoOf(cause);
  if (errno === "EADDRINUSE") {
    return new RuntimeError(
      "port_taken",
      `${name} is taken on this worker, by a container or a program of the host`,
      {
        cause,
        next: "Publish another port, or 0 for any free one.",
      },
    );
  }
  if (errno === "EADDRNOTAVAIL") {
    return new RuntimeError("network", `${port.hostAddress} is not an address of this worker`, {
      cause,
      next: "Publish at 127.0.0.1, at 0.0.0.0, or at an address of the worker.",
    });
  }
  return new RuntimeError("network", `${name} could not be taken: ${messageOf(cause)}`, { cause });
}

function notAllowed(port: PublishedPort, ranges: readonly PortRange[]): RuntimeError {
  const allowed = ranges.map(({ address, first, last }) => `${address}:${first}-${last}`).join(", ");
  return new RuntimeError(
    "network",
    `this worker does not let the workspace publish at ${port.hostAddress}:${port.hostPort}`,
    { next: `Publish within ${allowed || "nothing: the operator allows none (publish)"}.` },
  );
}
