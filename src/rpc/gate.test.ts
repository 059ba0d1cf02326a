import { afterAll, beforeAll, expect, test } from "bun:test";
import * as http2 from "node:http2";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { authenticate, type Caller } from "./authentication.ts";
import { type Server, serve } from "./server.ts";

let server: Server;
let url: string;

const owner: Caller = { tokenId: "t", name: "n", workspaceId: "w", role: "owner" };

beforeAll(async () => {
  const verify = async (token: string) => {
    return token === "good" ? owner : undefined;
  };
  server = await serve({
    host: "127.0.0.1",
    port: 0,
    verify,
    interceptors: [authenticate(verify)],
    routes: (router) => router.service(SecretService, { createSecret: () => ({}) }),
  });
  url = `${server.url}/oci_node.v1.SecretService/CreateSecret`;
});
afterAll(() => server.close());

test("strangers' large calls do not spoil their connection for others", async () => {
  const session = http2.connect(server.url);
  const call = (body: Buffer, more: Record<string, string> = {}) =>
    new Promise<number | string>((resolve) => {
      const path = new URL(url).pathname;
      const headers = { ":method": "POST", ":path": path, "content-type": "application/json", ...more };
      const stream = session.request(headers);
      let status = 0;
      stream.on("response", (answer) => {
        status = Number(answer[":status"]);
      });
      stream.on("error", ({ message }: Error) => resolve(message));
      stream.on("end", () => resolve(status)).resume();
      stream.end(body);
    });
  try {
    const strangers = Array.from({ length: 3 }, () => call(Buffer.alloc(4_000_000)));
    expect(await Promise.all(strangers)).toEqual([401, 401, 401]);
    expect(await call(Buffer.from("{}"), { authorization: "Bearer good" })).toBe(200);
  } finally {
    session.destroy();
  }
}, 30_000);
