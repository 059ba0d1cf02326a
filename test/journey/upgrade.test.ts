import { expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer as createHttpServer, type RequestListener } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { createServer as createHttpsServer } from "node:https";
import { connect, createServer, type Server } from "node:net";
import { join } from "node:path";
import type { workerShape } from "../../src/cli/shape.ts";
import { busyboxImage } from "../kit/busybox-image.ts";
import { TestCluster } from "../kit/cluster.ts";
import { makeEarlier } from "../kit/earlier.ts";
import { tell } from "../kit/inside.ts";
import { leftovers } from "../kit/leftovers.ts";
import { runCli, TestNode } from "../kit/node.ts";
import { product } from "../kit/product.ts";
import { push } from "../kit/push.ts";
import { TestRegistry } from "../kit/registry.ts";
import { TestAuthority } from "../kit/tls-server.ts";
import { type Container, type Image, inScratch, type Secret, World, withCredentials } from "../kit/world.ts";

type Worker = ReturnType<typeof workerShape>;

const reader = [
  "--",
  "sh",
  "-c",
  "echo up; while [ ! -e /tmp/go ]; do sleep 0.05; done; md5sum /bin/busybox; exit 7",
];

test("a node of the version before goes on: containers that run, outputs, secrets, images, nothing to be done by hand", async () => {
  await inScratch(async (dir) => {
    const dataDir = join(dir, "data");
    const world = await World.start({ node: { dataDir } });
    let next: TestNode | undefined;
    try {
      const image = await world.build("team/app:1");
      const ended = await world.node.ok(["run", "-d", image.id, "--", "sh", "-c", "echo done; exit 3"]);
      await world.reaches(ended, "exited");
      const id = await world.node.ok(["run", "-d", image.id, ...reader]);
      await world.reaches(id, "running");
      process.kill(world.node.pid, "SIGUSR2");
      expect(await world.node.ended()).toBe(0);
      const earlier = { id: randomUUID(), address: "http://127.0.0.1:1" };
      await makeEarlier(dataDir, earlier);

      next = await TestNode.start({ dataDir, insecureRegistries: [...world.registry.insecureHosts] });
      const node = next;
      const inspect = () => node.json<Container>(["inspect", id]);
      const workers = await node.json<Worker[]>(["worker", "ls"]);
      expect(workers.map(({ state, containers }) => [state, containers])).toEqual([["ready", 1]]);
      const [worker] = workers.map((each) => each.id);
      expect(worker).not.toBe(earlier.id);
      expect(existsSync(join(dataDir, "worker/worker-id"))).toBe(false);
      // Past the heartbeat in which it would be told to end what is not its own.
      await node.waitForLog(/goes on with what ran under the former one/);
      const adopted = await until(inspect, ({ events }) => events.some(({ kind }) => kind === "adopted"));
      expect([adopted.state, adopted.worker]).toEqual(["running", worker as string]);
      await tell(id, "go");
      const read = await until(inspect, ({ state }) => state !== "running");
      expect([read.state, read.exitCode]).toEqual(["exited", 7]);
      expect(await node.ok(["logs", id])).toMatch(/^up\n[0-9a-f]{32} {2}\/bin\/busybox$/);
      expect(await node.ok(["logs", ended])).toBe("done");

      expect(await node.ok(["run", image.id])).toBe("hello from the image");
      const [secret] = await node.json<Secret[]>(["secret", "ls"]);
      expect([secret?.name, secret?.version]).toEqual([image.secretName as string, 1]);
      const again = ["image", "build", image.reference, ...withCredentials];
      expect((await node.json<Image>(again, { env: world.env })).id).toBe(image.id);
      expect(await node.ok(["run", image.reference])).toBe("hello from the image");

      const tokens = await node.json<{ name: string; revokedAt: string | null }[]>(["token", "ls"]);
      const counting = tokens.filter(({ revokedAt }) => revokedAt === null).map(({ name }) => name);
      expect(counting).not.toContain("issued at start");
      expect(await readFile(join(dataDir, "join-token"), "utf8")).toMatch(/^ocn_[\w-]{43}\.[\w-]{43}\n$/);
      expect(await node.stopProcess()).toBe(0);
      expect(await leftovers(dataDir, [id, ended])).toEqual([]);
    } finally {
      await next?.discard();
      await world.node.discard();
      await world.proxy.stop();
      await world.registry.stop();
    }
  });
}, 180_000);

test("a worker of its own becomes another: what it ran is ended by name, and nobody at its former address is given anything", async () => {
  await using registry = await TestRegistry.start({ auth: "htpasswd" });
  const reference = await push(await busyboxImage(), registry, "team/app:1");
  await inScratch(async (dir) => {
    const cluster = await TestCluster.start(dir, registry);
    const squatter = await listen();
    let left: string[];
    try {
      const worker = await cluster.worker("a", await cluster.joinToken());
      await cluster.ok("image", "build", reference, "--index-only", ...withCredentials);
      const id = await cluster.ok("run", "-d", reference, ...reader);
      const inspect = (of = id) => cluster.json<Container>("inspect", of);
      await until(inspect, ({ state }) => state === "running");
      worker.program.child.kill("SIGUSR2");
      await worker.program.child.exited;
      await cluster.control.stop();
      const earlier = { id: randomUUID(), address: squatter.url };
      await makeEarlier(join(dir, "control"), earlier, join(worker.dir, "data"));
      await cluster.restartControl();

      // The only worker that there is: it would get this one.
      const queued = await cluster.ok("run", "-d", "--env", "MINE=private", reference, ...reader);
      const logs = await cluster.cli("logs", id);
      expect(logs.stderr).toMatch(
        new RegExp(`^oci-node: the output of ${id}: worker ${earlier.id} does not answer\n {2}See how it is`),
      );
      const stop = await cluster.cli("stop", id);
      expect(stop.stderr).toContain(`stopping ${id}: worker ${earlier.id} does not answer`);
      const old = await cluster.begin("a", "ocn_".padEnd(47, "x"));
      expect(await old.program.child.exited).toBe(1);
      expect(old.program.output).toContain("holds a token without its cluster's authority: nothing was sent");

      const { program } = await cluster.worker("a", await cluster.joinToken());
      await program.waitFor(
        new RegExp(`what ran under the former one, which nothing proves, is ended.*${id}`),
      );
      await until(
        () => inspect(queued),
        ({ state }) => state === "running",
      );
      const lost = await until(inspect, ({ state }) => state !== "running");
      expect([lost.state, lost.reason]).toEqual([
        "failed",
        `its worker a (${earlier.id}) was lost: it was of an earlier version, which no other worker can go on for. Start the container anew; its host joins as a new worker once it is upgraded`,
      ]);
      const states = (await cluster.json<Worker[]>("worker", "ls")).map(
        (each) => `${each.name} ${each.state}`,
      );
      expect(states.sort()).toEqual(["a lost", "a ready"]);
      await cluster.ok("worker", "revoke", earlier.id);
      expect((await cluster.json<Worker[]>("worker", "ls")).map(({ state }) => state)).toEqual(["ready"]);
      expect((await cluster.cli("logs", id)).stderr).toContain(`was on worker ${earlier.id}, which is gone`);
      expect(squatter.connections).toBe(0);
      await cluster.ok("stop", "--timeout", "1", queued);
      // The report of an end comes before the last of it is gone.
      const ids = [id, queued];
      const ofThem = async () =>
        (await leftovers(dir, ids)).filter((line) => ids.some((each) => line.includes(each)));
      await until(ofThem, (lines) => lines.length === 0);
    } finally {
      squatter.server.close();
      left = await cluster.stop();
    }
    expect(left).toEqual([]);
  });
}, 180_000);

test("a worker and a scheduler of different versions say so, and the worker joins once the scheduler is upgraded", async () => {
  await using registry = await TestRegistry.start({ auth: "none" });
  await inScratch(async (dir) => {
    const cluster = await TestCluster.start(dir, registry);
    const authority = await TestAuthority.make();
    let left: string[];
    try {
      const { hostname, port } = new URL(cluster.schedulerUrl);
      // What an earlier worker on loopback begins with: HTTP/2 without TLS.
      const earlier = connect(Number(port), hostname, () =>
        earlier.write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
      );
      earlier.on("error", () => undefined);
      await cluster.control.waitFor(
        /somebody does not speak TLS.*"from":"127.0.0.1".*Upgrade the worker of that host/,
      );
      const token = await cluster.joinToken();
      await cluster.control.stop();

      // Earlier schedulers: without TLS on loopback, else with TLS of the operator's, and no word of authorities.
      const answer: RequestListener = (_, response) => response.writeHead(404).end();
      const plain = createHttpServer(answer).listen(Number(port), hostname);
      const worker = await cluster.begin("a", token);
      await worker.program.waitFor(
        /does not speak TLS: a scheduler of an earlier version, or none.*upgrade gateways/,
      );
      plain.closeAllConnections();
      await new Promise((resolve) => plain.close(resolve));
      const encrypted = createHttpsServer(await authority.certificateFor("localhost"), answer);
      encrypted.listen(Number(port), hostname);
      await worker.program.waitFor(
        /names no authorities \(HTTP 404\): a scheduler of an earlier version, or none/,
      );
      encrypted.closeAllConnections();
      await new Promise((resolve) => encrypted.close(resolve));
      await cluster.restartControl();
      await worker.program.waitFor(/^ready worker$/m, 60_000);
    } finally {
      await authority.discard();
      left = await cluster.stop();
    }
    expect(left).toEqual([]);
  });
}, 180_000);

test("a command that the node does not know says so", async () => {
  // What a gateway answers to a service of a later version.
  const earlier = createHttp2Server((_, response) => response.writeHead(404).end());
  await new Promise<void>((resolve) => earlier.listen(0, "127.0.0.1", resolve));
  const { port } = earlier.address() as { port: number };
  const env = { OCI_NODE_URL: `http://127.0.0.1:${port}`, OCI_NODE_TOKEN: "ocn_x" };
  const told = await runCli(await product(), ["token", "ls"], { env });
  earlier.close();
  expect([told.code, told.stderr]).toEqual([
    1,
    "oci-node: the node knows nothing of this: it is of an earlier version, or no oci-node\n" +
      "  Upgrade the node, or check OCI_NODE_URL.\n",
  ]);
});

/** Whoever may have the port that a worker had. */
async function listen(): Promise<{ server: Server; url: string; connections: number }> {
  const seen = { server: createServer(), url: "", connections: 0 };
  seen.server.on("connection", (socket) => {
    seen.connections += 1;
    socket.destroy();
  });
  await new Promise<void>((resolve) => seen.server.listen(0, "127.0.0.1", resolve));
  seen.url = `http://127.0.0.1:${(seen.server.address() as { port: number }).port}`;
  return seen;
}

/** Asks until the answer is as it should be. */
async function until<T>(ask: () => Promise<T>, holds: (answer: T) => boolean): Promise<T> {
  const deadline = Date.now() + 60_000;
  for (;;) {
    const answer = await ask();
    if (holds(answer)) return answer;
    if (Date.now() > deadline) throw new Error(`still ${JSON.stringify(answer).slice(0, 500)}`);
  }
}
