import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { translateErrors } from "./error.ts";
import { refuseNul } from "./request-text.ts";
import { type Server, serve } from "./server.ts";
import { transportTo } from "./transport.ts";

let server: Server;
/** What got through to a handler. */
const seen: string[] = [];

beforeAll(async () => {
  server = await serve({
    host: "127.0.0.1",
    port: 0,
    interceptors: [translateErrors, refuseNul],
    routes(router) {
      router.service(SecretService, {
        createSecret(request) {
          seen.push(JSON.stringify(request.credentials));
          return {};
        },
      });
      router.service(ContainerService, {
        // biome-ignore lint/correctness/useYield: it only has to be reached.
        async *watchContainer({ id }) {
          seen.push(id);
        },
      });
    },
  });
});
afterAll(() => server.close());

async function post(body: string | Uint8Array): Promise<{ status: number; text: string }> {
  const response = await fetch(`${server.url}/oci_node.v1.SecretService/CreateSecret`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  return { status: response.status, text: await response.text() };
}

describe("what is wrong with a request's JSON is told without any of it", () => {
  const value = "hunter2";
  test.each([
    [`{"credentials":"${value}"}`, "field credentials of CreateSecretRequest"],
    [`{"credentials":{"PASSWORD":{"${value}":"${value}"}}}`, "field credentials of CreateSecretRequest"],
    [`{"credentials":{"PASSWORD":"${value}\\ud800"}}`, "field credentials of CreateSecretRequest"],
    [`{"name":${JSON.stringify([value])}}`, "field name of CreateSecretRequest"],
    [`{"expiresAt":"${value}"}`, "Timestamp in CreateSecretRequest"],
    [`"${value}"`, "CreateSecretRequest is not"],
    [`[{"${value}":1}]`, "CreateSecretRequest is not"],
    [`{"credentials":{"PASSWORD":${value}}}`, "is not JSON"],
    [`{"credentials":{"PASSWORD":"${value}}`, "is not JSON"],
    [`{"credentials":{"${value}":"a","${value}":"b"}}`, "a key is there twice"],
    [Buffer.from([0x22, 0xff, ...Buffer.from(value), 0x22]), "is not UTF-8"],
    ["", "is not JSON"],
    ["[".repeat(100_000), "is not JSON"],
  ])("case %#", async (body, told) => {
    const { status, text } = await post(body);
    expect(status).toBe(400);
    expect(text).toContain(told);
    expect(text).toContain('"next":"');
    expect(text).not.toContain(value);
    expect(seen).toEqual([]);
  });
});

test("keys that nobody knows are passed over, at any depth, and text beyond ASCII arrives as it was", async () => {
  const deep = `${"[".repeat(200)}${"]".repeat(200)}`;
  const { status } = await post(`{"news":${deep},"credentials":{"PASSWORD":"pä🦀\\u202e"}}`);
  expect([status, seen.pop()]).toEqual([200, JSON.stringify({ PASSWORD: "pä🦀\u202e" })]);
});

test("a NUL character is refused by its field, in names, keys and values, whatever the encoding and kind of call", async () => {
  const secrets = createClient(SecretService, transportTo({ url: server.url, token: "none" }));
  const containers = createClient(ContainerService, transportTo({ url: server.url, token: "none" }));
  const watch = async () => {
    for await (const _ of containers.watchContainer({ id: "c\0" })) break;
  };
  const refusals = await Promise.all(
    [
      secrets.createSecret({ name: "a\0" }),
      secrets.createSecret({ credentials: { "K\0": "v" } }),
      secrets.createSecret({ credentials: { KEY: "v\0" } }),
      watch(),
    ].map((call) => call.then(String, String)),
  );
  expect(refusals).toEqual([
    expect.stringContaining("field name of CreateSecretRequest has a NUL"),
    expect.stringContaining("field credentials of CreateSecretRequest has a NUL"),
    expect.stringContaining("field credentials of CreateSecretRequest has a NUL"),
    expect.stringContaining("field id of WatchContainerRequest has a NUL"),
  ]);
  expect((await post('{"name":"a\\u0000"}')).text).toContain("field name of CreateSecretRequest has a NUL");
  expect(seen).toEqual([]);
});

test("a request that is too large is refused before it is read", async () => {
  const { status, text } = await post(`{"name":"${"x".repeat(4 * 1024 * 1024)}"}`);
  expect(status).toBe(429);
  expect(text).toContain("larger than configured");
  expect(seen).toEqual([]);
});
