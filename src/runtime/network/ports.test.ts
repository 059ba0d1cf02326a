import { afterEach, expect, test } from "bun:test";
import { createServer } from "node:net";
import type { PublishedPort } from "../../container/options.ts";
import { HostPorts } from "./ports.ts";

const opened: HostPorts[] = [];

afterEach(() => {
  for (const ports of opened.splice(0)) ports.close();
});

function hostPorts(): HostPorts {
  const ports = new HostPorts();
  opened.push(ports);
  return ports;
}

const any: PublishedPort = { hostAddress: "127.0.0.1", hostPort: 0, containerPort: 80, protocol: "tcp" };

test("gives a port to one container, whatever the address, until that lets go of it", async () => {
  const ports = hostPorts();
  const [got = any] = await ports.take("a", [any]);
  const [udp] = await ports.take("b", [{ ...got, protocol: "udp" }]);
  expect(udp?.hostPort).toBe(got.hostPort);
  // As another worker of the host would.
  for (const hostAddress of ["127.0.0.1", "0.0.0.0"]) {
    const refused = hostPorts().take("c", [{ ...got, hostAddress }]);
    await expect(refused).rejects.toMatchObject({ code: "port_taken" });
  }
  expect((await ports.take("d", [{ ...got, hostAddress: "127.0.0.2" }]))[0]?.hostPort).toBe(got.hostPort);
  ports.release("d");
  ports.release("a");
  expect(await ports.take("c", [{ ...got, hostAddress: "0.0.0.0" }])).toHaveLength(1);
});

test("gives no port that a program of the host listens at, and tries others where any will do", async () => {
  const server = createServer();
  const port = await new Promise<number>((resolve) =>
    server.listen(0, "127.0.0.1", () => resolve((server.address() as { port: number }).port)),
  );
  const ranges = [{ address: "127.0.0.1", first: port, last: port + 1 }];
  const ports = hostPorts();
  await expect(ports.take("a", [{ ...any, hostPort: port }])).rejects.toMatchObject({
    code: "port_taken",
    message: `127.0.0.1:${port}/tcp is taken on this worker, by a container or a program of the host`,
  });
  ports.release("a");
  const one = await ports.take("a", [any], ranges).catch((error: unknown) => error);
  // The second of the two may be somebody's too.
  expect(one).toSatisfy(
    (got) =>
      (got as { code?: string }).code === "port_taken" || (got as PublishedPort[])[0]?.hostPort === port + 1,
  );
  server.close();
});

test("keeps a container's ports when it is attached again, and after another process took them over", async () => {
  const ports = hostPorts();
  const first = await ports.take("a", [any, { ...any, protocol: "udp" }]);
  expect(await ports.take("a", [any, { ...any, protocol: "udp" }])).toEqual(first);
  const next = hostPorts();
  expect(await next.retake("a", first)).toEqual(first);
  expect(await next.take("a", [any])).toEqual(first);
  ports.close();
  next.release("a");
  expect(await next.retake("a", first)).toEqual([]);
  await expect(hostPorts().take("b", [first[0]!])).rejects.toMatchObject({ code: "port_taken" });
});
