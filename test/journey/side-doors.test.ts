import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { Code, ConnectError, createClient, type Interceptor, type Transport } from "@connectrpc/connect";
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from "@connectrpc/connect-node";
import { ImageService } from "../../src/gen/oci_node/v1/image_service_pb.ts";
import { SecretService } from "../../src/gen/oci_node/v1/secret_service_pb.ts";
import { TestNode } from "../kit/node.ts";
import { tokenOf } from "../kit/tenant-scene.ts";

const list = "/oci_node.v1.SecretService/ListSecrets";
const secretName = "a-secret-that-nobody-sees";
const json = { "content-type": "application/json" };

let node: TestNode;
let owner: string;
let viewer: string;

beforeAll(async () => {
  node = await TestNode.start();
  owner = JSON.parse(await readFile(join(node.home, "config/oci-node/context.json"), "utf8")).token;
  viewer = await node.ok(tokenOf("viewer", "default"));
  await node.ok(
    ["secret", "create", "registry.invalid", "--name", secretName, "--creds", "USERNAME,PASSWORD"],
    {
      env: { USERNAME: "u", PASSWORD: "p" },
    },
  );
}, 60_000);
afterAll(() => node.stop(), 60_000);

interface Asked {
  readonly method?: string;
  readonly body?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

/** With the path as it is written: `fetch` would tidy it up first. */
const ask = async (path: string, { method = "GET", body, headers = {} }: Asked = {}) => {
  const { hostname, port } = new URL(node.url);
  const sent = request({ hostname, port, path, method, headers }).end(body);
  const [response] = (await once(sent, "response")) as [IncomingMessage];
  return { status: response.statusCode ?? 0, text: await text(response) };
};

const protocols: Readonly<Record<string, (interceptors: Interceptor[]) => Transport>> = {
  "Connect, HTTP/1.1": (interceptors) =>
    createConnectTransport({ baseUrl: node.url, httpVersion: "1.1", interceptors }),
  "Connect, HTTP/2": (interceptors) =>
    createConnectTransport({ baseUrl: node.url, httpVersion: "2", interceptors }),
  "Connect, binary": (interceptors) =>
    createConnectTransport({ baseUrl: node.url, httpVersion: "2", interceptors, useBinaryFormat: true }),
  "Connect with GET": (interceptors) =>
    createConnectTransport({ baseUrl: node.url, httpVersion: "1.1", interceptors, useHttpGet: true }),
  gRPC: (interceptors) => createGrpcTransport({ baseUrl: node.url, interceptors }),
  "gRPC-Web, HTTP/1.1": (interceptors) =>
    createGrpcWebTransport({ baseUrl: node.url, httpVersion: "1.1", interceptors }),
  "gRPC-Web, HTTP/2": (interceptors) =>
    createGrpcWebTransport({ baseUrl: node.url, httpVersion: "2", interceptors }),
};

describe("the same is told over every protocol:", () => {
  for (const [name, transportFor] of Object.entries(protocols)) {
    test(name, async () => {
      const as = (token: string | undefined) =>
        transportFor([
          (next) => (call) => {
            if (token !== undefined) call.header.set("authorization", `Bearer ${token}`);
            return next(call);
          },
        ]);
      const codeOf = async (token: string | undefined) => {
        const deleting = createClient(ImageService, as(token)).deleteImage({ image: "img-x" });
        return await deleting.then(
          () => undefined,
          (error: unknown) => ConnectError.from(error).code,
        );
      };
      expect(await codeOf(undefined)).toBe(Code.Unauthenticated);
      expect(await codeOf("nonsense")).toBe(Code.Unauthenticated);
      expect(await codeOf(viewer)).toBe(Code.PermissionDenied);
      const { secrets } = await createClient(SecretService, as(viewer)).listSecrets({});
      expect(secrets.map((secret) => secret.name)).toEqual([secretName]);
      const streaming = (async () => {
        for await (const _ of createClient(ImageService, as(viewer)).buildImage({ reference: "x" }));
      })();
      const denied = await streaming.catch((error: unknown) => ConnectError.from(error).code);
      expect(denied).toBe(Code.PermissionDenied);
    });
  }
});

test("only what is everybody's is answered without a token, and it names nobody's things", async () => {
  expect(await ask("/healthz")).toEqual({ status: 200, text: "ok\n" });
  expect((await ask("/metrics")).status).toBe(401);
  for (const path of ["/", "/.well-known/openid-configuration", "/.well-known/jwks.json", "/debug", "/admin"])
    expect((await ask(path)).status).toBe(404);
});

test("metrics are of the caller's workspace, and of all to administrators alone", async () => {
  await node.ok(["workspace", "create", "neighbour"]);
  const tokens = {
    owner,
    neighbour: await node.ok(tokenOf("owner", "neighbour")),
    admin: await node.ok(["token", "create", "--role", "admin"]),
    worker: (await node.ok(["token", "create", "--role", "worker"])).split(".")[0] ?? "",
  };
  const read = async (token: string) =>
    await ask("/metrics", { headers: { authorization: `Bearer ${token}` } });
  expect((await read(tokens.owner)).text).toContain(secretName);
  expect((await read(tokens.admin)).text).toContain(secretName);
  const others = await read(tokens.neighbour);
  expect(others.status).toBe(200);
  expect(others.text).not.toContain(secretName);
  expect(others.text).not.toContain('"default"');
  expect((await read(tokens.worker)).status).toBe(403);
  expect((await read("nonsense")).status).toBe(401);
});

test("a method of the API is called by POST alone, whatever token comes with it", async () => {
  const headers = { authorization: `Bearer ${owner}` };
  const query = "?connect=v1&encoding=json&message=%7B%7D";
  for (const method of ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"]) {
    for (const path of [list, `${list}${query}`]) {
      const { status, text: said } = await ask(path, { method, headers });
      expect([method, status]).toEqual([method, 405]);
      expect(said).not.toContain(secretName);
    }
  }
});

test("no other spelling of a method's path, and no other content type, is let by", async () => {
  const init = { method: "POST", body: "{}", headers: { ...json, authorization: `Bearer ${owner}` } };
  const spellings = [
    `/${list}`,
    `${list}/`,
    `/x/..;${list}`,
    `/.${list}`,
    `/x/..${list}`,
    `${list}#`,
    list.toLowerCase(),
    list.replace("List", "%4cist"),
    list.replace(".v1.", ".v1/"),
  ];
  for (const path of spellings) {
    const { status, text: said } = await ask(path, init);
    expect(said).not.toContain(secretName);
    expect([path, status]).toEqual([path, 404]);
  }
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/grpc+xml", ""]) {
    const { status, text: said } = await ask(list, {
      ...init,
      headers: { ...init.headers, "content-type": type },
    });
    expect([type, status]).toEqual([type, 415]);
    expect(said).not.toContain(secretName);
  }
});

test("a token counts in its header alone, and in one form", async () => {
  const tries: Record<string, string>[] = [
    { authorization: owner },
    { authorization: `Basic ${Buffer.from(`token:${owner}`).toString("base64")}` },
    { authorization: `Bearer ${owner}, Bearer ${owner}` },
    { authorization: `Bearer` },
    { cookie: `authorization=Bearer ${owner}; token=${owner}` },
    { "x-authorization": `Bearer ${owner}` },
    { "x-forwarded-user": "admin" },
    { "proxy-authorization": `Bearer ${owner}` },
  ];
  for (const headers of tries) {
    const { status, text: said } = await ask(`${list}?access_token=${owner}&token=${owner}`, {
      method: "POST",
      body: "{}",
      headers: { ...json, ...headers },
    });
    expect([Object.keys(headers)[0], status]).toEqual([Object.keys(headers)[0], 401]);
    expect(said).not.toContain(owner);
  }
});
