import { afterEach, expect, test } from "bun:test";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ContainerService } from "../gen/oci_node/v1/container_service_pb.ts";
import { authenticate, type Caller } from "./authentication.ts";
import { translateErrors } from "./error.ts";
import { type Server, serve } from "./server.ts";
import { transportTo } from "./transport.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

test("a stream says nothing more once its token counts no more", async () => {
  let known: Caller | undefined = { tokenId: "t", name: "t", workspaceId: "w", role: "viewer" };
  const go = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  let left = false;
  const server = await serve({
    host: "127.0.0.1",
    port: 0,
    interceptors: [translateErrors, authenticate(async () => known, 0)],
    routes: (router) =>
      router.service(ContainerService, {
        async *streamLogs() {
          try {
            for (const { promise } of go) {
              await promise;
              yield { data: new TextEncoder().encode("said") };
            }
          } finally {
            left = true;
          }
        },
      }),
  });
  servers.push(server);
  const client = createClient(ContainerService, transportTo({ url: server.url, token: "x" }));
  let said = 0;
  const reading = (async () => {
    for await (const _ of client.streamLogs({ id: "c" })) {
      said += 1;
      known = undefined;
      go[1]?.resolve();
    }
  })();
  go[0]?.resolve();
  const thrown = await reading.catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(ConnectError);
  expect((thrown as ConnectError).code).toBe(Code.Unauthenticated);
  expect(said).toBe(1);
  expect(left).toBe(true);
});
