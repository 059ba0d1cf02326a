import { afterAll, describe, expect, test } from "bun:test";
import { busyboxImage } from "./busybox-image.ts";
import { BlobHost } from "./quirk-blobs.ts";
import { QuirkNet } from "./quirk-net.ts";
import { harborRow, hubRow } from "./quirk-rows.ts";
import { S3Store } from "./s3-store.ts";

const net = new QuirkNet();
afterAll(() => net.stop());

/** A request to a host of the net, as a node sends it. */
async function ask(url: string, init: RequestInit = {}): Promise<Response> {
  const { host, pathname, search } = new URL(url);
  const headers = { ...(init.headers as Record<string, string>), Host: host };
  const answer = await fetch(`http://${net.address}${pathname}${search}`, { ...init, headers });
  await answer.clone().arrayBuffer();
  return answer;
}

const basic = (pair: string): Record<string, string> => ({
  Authorization: `Basic ${Buffer.from(pair).toString("base64")}`,
});

describe("a net of hosts", () => {
  test("finds a secret at a wrong host, in the clear, in a login, in a URL and in a form", async () => {
    net.route("right.example", "/", () => new Response("ok"));
    net.route("wrong.example", "/", () => new Response("ok"));
    const secret = "s3cret with/signs+&=";
    net.plant("the secret", secret, ["right.example"]);
    const from = net.seen.length;
    await ask("https://right.example/a", { headers: basic(`user:${secret}`) });
    expect(net.leaks(from)).toEqual([]);
    expect(net.uses(secret)).toBe(1);
    await ask("https://wrong.example/1", { headers: basic(`user:${secret}`) });
    await ask("https://wrong.example/2", { headers: { "X-Note": secret } });
    await ask(`https://wrong.example/3?p=${encodeURIComponent(secret)}`);
    await ask("https://wrong.example/4", {
      method: "POST",
      body: new URLSearchParams({ p: secret }).toString(),
    });
    await ask("https://wrong.example/5", { headers: { "X-Note": Buffer.from(secret).toString("base64") } });
    expect(net.leaks(from)).toEqual(
      ["GET", "GET", "GET", "POST", "GET"].map(
        (method, index) => `${method} wrong.example …/${index + 1} held the secret`,
      ),
    );
  });

  test("names a host that nobody serves", async () => {
    await ask("https://nobody.example/x");
    expect(net.strays()).toEqual(["GET nobody.example …/x"]);
  });
});

describe("a store of layers", () => {
  test("gives what was signed, and refuses HEAD, a second authorization, strange headers and what is over", async () => {
    const image = await busyboxImage();
    const store = new BlobHost(net, { host: "store.example", signing: "aws", lifeSeconds: 300 });
    store.add(image);
    const url = store.sign(image.layers[0]?.digest ?? "");
    const range = await ask(url, { headers: { Range: "bytes=5-9" } });
    expect([range.status, range.headers.get("content-range")]).toEqual([
      206,
      `bytes 5-9/${image.layers[0]?.size}`,
    ]);
    expect((await ask(url, { method: "HEAD" })).status).toBe(403);
    expect((await ask(url, { headers: basic("a:b") })).status).toBe(400);
    expect((await ask(url, { headers: { "X-Custom": "1" } })).status).toBe(400);
    expect((await ask(url.replace(/Signature=./, "Signature=_"))).status).toBe(403);
    net.pass(300);
    expect((await ask(url)).status).toBe(403);
    expect(store.refusals.length).toBe(5);
  });

  test("that is moto's S3 refuses the same of what is signed in the URL", async () => {
    const store = await S3Store.start();
    try {
      const object = `http://${store.host}/${S3Store.bucket}/a`;
      const own = { Authorization: "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/s3/aws4_request" };
      await fetch(object, { method: "PUT", body: "bytes", headers: own });
      const date = new Date().toISOString().replace(/[-:]|\.\d+/g, "");
      const signed = (at: string): string =>
        `${object}?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Date=${at}&X-Amz-Expires=60&X-Amz-Signature=0`;
      const status = async (url: string, init?: RequestInit) => (await fetch(url, init)).status;
      expect(await status(signed(date))).toBe(200);
      expect(await status(signed(date), { method: "HEAD" })).toBe(403);
      expect(await status(signed(date), { headers: own })).toBe(400);
      expect(await status(signed("20200101T000000Z"))).toBe(403);
      store.endSigned();
      expect(await status(signed(date))).toBe(403);
      await fetch(object, { headers: own });
      expect(await status(signed(date))).toBe(200);
    } finally {
      await store.stop();
    }
  });
});

describe("a registry of the net", () => {
  test("locks a user's name after five wrong passwords, the right one included, for ten minutes", async () => {
    const row = hubRow(net);
    const login = async (password: string) =>
      (
        await ask("https://auth.docker.io/token?service=registry.docker.io", {
          headers: basic(`acmebot:${password}`),
        })
      ).status;
    const right = row.env["DOCKERHUB_PASSWORD"] ?? "";
    expect(await login(right)).toBe(200);
    for (let round = 0; round < 5; round += 1) expect(await login("wrong")).toBe(401);
    expect(await login(right)).toBe(429);
    net.pass(600);
    expect(await login(right)).toBe(200);
  });

  test("gives a robot that is over a token, which opens nothing", async () => {
    const row = harborRow(net);
    row.registry.add("acme/app", "1", await busyboxImage());
    const pull = async (): Promise<number[]> => {
      const scope = "scope=repository:acme/app:pull&service=harbor-registry";
      const headers = basic(`${row.env["USERNAME"]}:${row.env["PASSWORD"]}`);
      const answer = await ask(`https://harbor.acme.example/service/token?${scope}`, { headers });
      const { token } = (await answer.json()) as { token: string };
      const manifest = await ask("https://harbor.acme.example/v2/acme/app/manifests/1", {
        headers: { Authorization: `Bearer ${token}`, Accept: "application/vnd.oci.image.index.v1+json" },
      });
      return [answer.status, manifest.status];
    };
    expect(await pull()).toEqual([200, 200]);
    row.endRobot();
    expect(await pull()).toEqual([200, 401]);
  });
});
