import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { endpointShape } from "../../src/cli/endpoint-shape.ts";
import { parseExposition } from "../kit/exposition.ts";
import { httpImage } from "../kit/http-image.ts";
import { RunningLoad } from "../kit/load.ts";
import { type Container, World } from "../kit/world.ts";

type Endpoint = ReturnType<typeof endpointShape>;

const bodyMax = 32 * 1024 * 1024;

let world: World;
let image: string;
let token: string;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "oci-node-endpoint-"));
  const config = join(folder, "node.toml");
  const [second = 0, third = 0] = crypto.getRandomValues(new Uint8Array(2));
  const subnet = `10.${64 + (second & 63)}.${third}.0/26`;
  await writeFile(config, `[worker.network]\nsubnet = "${subnet}"\n[endpoints]\nbody_max = "32MiB"\n`);
  world = await World.start({ node: { args: ["--config", config] } });
  image = (await world.build("endpoint/http:1", { image: await httpImage(), kept: true })).id;
  token = JSON.parse(await Bun.file(join(world.node.home, "config/oci-node/context.json")).text()).token;
}, 120_000);
afterAll(async () => {
  await world?.stop();
  await rm(folder, { recursive: true, force: true });
}, 60_000);

const deploy = (name: string, ...flags: readonly string[]) =>
  world.node.ok(["endpoint", "deploy", name, image, ...flags]);
const look = (name: string) => world.node.json<Endpoint>(["endpoint", "inspect", name]);
const url = (path: string) => `${world.node.url}/endpoint/${path}`;

function call(path: string, init: RequestInit & { readonly bare?: boolean } = {}): Promise<Response> {
  const { bare, ...rest } = init;
  return fetch(url(path), { ...rest, headers: bare ? {} : { authorization: `Bearer ${token}` } });
}

async function errorOf(response: Response) {
  const { error } = (await response.json()) as { error: { code: string; message: string; id: string } };
  return [response.status, error.code, error.message, error.id] as const;
}

/** Asks until the endpoint is as wanted. */
async function becomes(name: string, wanted: (endpoint: Endpoint) => boolean): Promise<Endpoint> {
  for (const deadline = Date.now() + 20_000; ; ) {
    const endpoint = await look(name);
    if (wanted(endpoint)) return endpoint;
    if (Date.now() > deadline) throw new Error(`endpoint ${name} is ${JSON.stringify(endpoint)}`);
  }
}

describe("an endpoint", () => {
  test("comes up from nothing for a request, has more containers while there is more to do, and goes to nothing again", async () => {
    await deploy("web", "--concurrency", "2", "--max", "3", "--keep-warm", "1");
    await becomes("web", ({ containersReady, containers }) => containersReady + containers.length === 0);
    const first = await call("web/a?b");
    expect([first.status, await first.text()]).toEqual([200, expect.stringMatching(/^v1 c-/)]);
    expect((await look("web")).containersReady).toBe(1);
    const many = await Promise.all(
      Array.from({ length: 12 }, () => call("web/sleep/1000").then((r) => r.text())),
    );
    expect(new Set(many).size).toBe(3);
    expect(many.every((text) => text.startsWith("v1 c-"))).toBe(true);
    await becomes("web", ({ containers }) => containers.length === 0);
    const metrics = await fetch(`${world.node.url}/metrics`, {
      headers: { authorization: `Bearer ${token}` },
    });
    const families = parseExposition(await metrics.text());
    const sample = (name: string) => families.get(`oci_node_endpoint_${name}`)?.samples[0];
    expect(sample("requests_total")).toEqual({
      labels: { workspace: "default", endpoint: "web", status: "2xx" },
      value: 13,
    });
    expect(sample("cold_starts_total")?.value).toBeGreaterThan(0);
    expect(sample("requests_in_flight")?.value).toBe(0);
  }, 60_000);

  test("streams both ways, and each event at once", async () => {
    await deploy("web", "--concurrency", "8", "--keep-warm", "60");
    const sent = new Uint8Array(24 * 1024 * 1024);
    expect(await (await call("web/count", { method: "POST", body: sent })).text()).toBe(`${sent.length}\n`);
    const chunks = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let piece = 0; piece < 3; piece++) controller.enqueue(new Uint8Array(1000));
        controller.close();
      },
    });
    expect(await (await call("web/count", { method: "PUT", body: chunks })).text()).toBe("3000\n");
    const got = await (await call("web/bytes/50000000")).arrayBuffer();
    expect(got.byteLength).toBe(50_000_000);
    const events = await call("web/events/150");
    const times: number[] = [];
    let text = "";
    for await (const piece of events.body as ReadableStream<Uint8Array>) {
      times.push(performance.now());
      text += Buffer.from(piece).toString();
    }
    expect(text).toBe("data: 0\n\ndata: 1\n\ndata: 2\n\n");
    expect((times.at(-1) ?? 0) - (times[0] ?? 0)).toBeGreaterThan(200);
    const large = await new Promise<string>((resolve) => {
      const socket = connect(Number(new URL(world.node.url).port), "127.0.0.1");
      socket.write(
        `POST /endpoint/web/count HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\nContent-Length: ${bodyMax + 1}\r\n\r\n`,
      );
      socket.once("data", (piece) => {
        socket.destroy();
        resolve(piece.toString());
      });
    });
    expect(large).toStartWith("HTTP/1.1 413");
  }, 60_000);

  test("is not deployed where its program does not listen, and goes on as it was", async () => {
    const { active } = await look("web");
    const fails = async (...flags: readonly string[]) => {
      const { code, stderr } = await world.node.cli(["endpoint", "deploy", "web", image, ...flags]);
      expect(code).toBe(1);
      return stderr;
    };
    expect(await fails("--port", "9", "--startup-timeout", "1")).toContain(
      "its port 9 did not answer within 1 s",
    );
    const ended = await fails("--env", "EXIT=4");
    expect(ended).toContain("it ended before its port 8000 answered");
    expect(ended).toContain("there is nothing to serve");
    expect((await look("web")).active).toEqual(active);
    expect((await call("web")).status).toBe(200);
  }, 60_000);

  test("is deployed anew under load without a request that fails, and what was begun ends where it began", async () => {
    const begun = call("web/sleep/2000").then((response) => response.text());
    const headers = [`Authorization: Bearer ${token}`];
    const load = await RunningLoad.start(url("web"), { connections: 8, headers });
    await deploy("web", "--concurrency", "8", "--keep-warm", "60", "--env", "VERSION=v2");
    expect(await (await call("web")).text()).toStartWith("v2 ");
    expect(await begun).toStartWith("v1 ");
    const { good, other, broken } = await load.end();
    expect([other, broken]).toEqual([0, 0]);
    expect(good).toBeGreaterThan(1_000);
    // Those of the version before are drained and gone.
    const after = await becomes(
      "web",
      ({ containers, containersReady }) => containers.length === containersReady,
    );
    expect(after.active?.version).toBe(5);
  }, 60_000);

  test("goes on when a container is killed, and says which one took a request with it", async () => {
    const gone = await errorOf(await call("web/exit/3", { method: "POST" }));
    expect(gone.slice(0, 2)).toEqual([502, "broken"]);
    expect(gone[2]).toMatch(/^container c-\w+ did not answer/);
    const [ended] = await world.node
      .json<Container[]>(["ps", "--all"])
      .then((all) => all.filter(({ id }) => gone[2].includes(id)));
    expect(ended?.exitCode ?? 3).toBe(3);
    expect(await (await call("web")).text()).toStartWith("v2 ");
    expect(world.node.records).toContainEqual(
      expect.objectContaining({ message: "a request to an endpoint failed", id: gone[3], status: 502 }),
    );
  }, 60_000);

  test("bounds what waits and how long, and is there for those who may know of it", async () => {
    await deploy("narrow", "--concurrency", "1", "--max", "1", "--queue", "1", "--timeout", "2");
    const three = await Promise.all(["300", "100", "100"].map((ms) => call(`narrow/sleep/${ms}`)));
    expect(three.map(({ status }) => status).toSorted()).toEqual([200, 200, 503]);
    expect((await errorOf(await call("narrow/sleep/3000"))).slice(0, 2)).toEqual([504, "timeout"]);
    expect((await call("narrow", { bare: true })).status).toBe(401);
    expect((await call("absent", { bare: true })).status).toBe(401);
    expect((await call("absent")).status).toBe(404);
    await deploy("narrow", "--public");
    expect((await call("narrow", { bare: true })).status).toBe(200);
    expect((await call("narrow.default", { bare: true })).status).toBe(200);
    for (const name of ["narrow", "web"]) await world.node.ok(["endpoint", "rm", name]);
    expect((await call("web")).status).toBe(404);
  }, 60_000);
});
