import { afterEach, describe, expect, test } from "bun:test";
import { connect as connectHttp2, type Settings } from "node:http2";
import { connect } from "node:net";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { authenticate, type Caller, type Role } from "./authentication.ts";
import { translateErrors } from "./error.ts";
import { ListenError, type Server, serve } from "./server.ts";
import { transportTo } from "./transport.ts";

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.close();
});

const roles: readonly Role[] = ["owner", "developer", "viewer", "worker", "admin"];

/** A server whose tokens are the names of roles. */
async function start(port = 0): Promise<Server> {
  const verify = async (token: string): Promise<Caller | undefined> => {
    const role = roles.find((name) => name === token);
    return role === undefined ? undefined : { tokenId: "t", name: "test", workspaceId: "w", role };
  };
  const server = await serve({
    host: "127.0.0.1",
    port,
    verify,
    interceptors: [translateErrors, authenticate(verify)],
    routes: (router) => router.service(ImageService, { listImages: () => ({ images: [{ id: "img-1" }] }) }),
  });
  servers.push(server);
  return server;
}

const images = (url: string, token: string) => createClient(ImageService, transportTo({ url, token }));
const codeOf = async (call: Promise<unknown>) => {
  try {
    await call;
    return undefined;
  } catch (error) {
    return ConnectError.from(error).code;
  }
};

describe("one port", () => {
  test("answers Connect over HTTP/2 and JSON over HTTP/1.1", async () => {
    const { url } = await start();
    expect((await images(url, "viewer").listImages({})).images[0]?.id).toBe("img-1");
    const response = await fetch(`${url}/oci_node.v1.ImageService/ListImages`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: "Bearer viewer" },
      body: "{}",
    });
    expect(await response.json()).toEqual({ images: [{ id: "img-1" }] });
  });

  test("carries thousands of calls over one connection, and none fails", async () => {
    const { url } = await start();
    const client = images(url, "viewer");
    for (let call = 0; call < 2500; call += 1) await client.listImages({});
  }, 60_000);

  test("that is in use is refused by name", async () => {
    const { port } = await start();
    const error = await start(port).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ListenError);
    expect((error as ListenError).message).toContain(`127.0.0.1:${port}: the port is in use`);
  });
});

test("a connection asks for so much at once, and what is beyond that waits", async () => {
  const { url } = await start();
  const session = connectHttp2(url);
  const { maxConcurrentStreams } = await new Promise<Settings>((resolve) =>
    session.once("remoteSettings", resolve),
  );
  session.destroy();
  expect(maxConcurrentStreams).toBe(1000);
  const client = images(url, "viewer");
  // The client has heard of it then.
  await client.listImages({});
  const lists = await Promise.all(Array.from({ length: 1_100 }, () => client.listImages({})));
  expect(lists).toHaveLength(1_100);
});

describe("a large request", () => {
  const large = "x".repeat(1024 * 1024);
  const post = (url: string, token: string) =>
    fetch(`${url}/oci_node.v1.ImageService/ListImages`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
      body: JSON.stringify({ unknown: large }),
    });

  test("of a known sender is read", async () => {
    const { url } = await start();
    expect((await post(url, "viewer")).status).toBe(200);
    expect((await post(url, "viewer")).status).toBe(200);
    const reference = { image: large };
    expect(await codeOf(images(url, "viewer").getImage(reference))).toBe(Code.Unimplemented);
  });

  test("of a stranger is refused by its length alone, before it is read", async () => {
    const { port } = await start();
    for (const authorization of ["", "Authorization: Bearer nobody\r\n"]) {
      const head = `POST /oci_node.v1.ImageService/ListImages HTTP/1.1\r\nHost: x\r\n${authorization}Content-Type: application/json\r\n`;
      // Not a byte of it is sent.
      expect(await answerTo(port, `${head}Content-Length: 4000000\r\n\r\n`)).toContain(
        "larger than configured",
      );
    }
  });

  test("of a stranger who does not say its length is refused once it is more than a little", async () => {
    const { url, port } = await start();
    const head =
      "POST /oci_node.v1.ImageService/ListImages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
    const chunk = `${(80 * 1024).toString(16)}\r\n${" ".repeat(80 * 1024)}\r\n`;
    const answer = await answerTo(port, `${head}Transfer-Encoding: chunked\r\n\r\n${chunk}`);
    expect(answer).toContain("larger than configured");
    expect(await codeOf(images(url, "nobody").getImage({ image: large }))).toBe(Code.Unauthenticated);
  });

  /** What a server answers to bytes of which it waits for more. */
  async function answerTo(port: number, request: string): Promise<string> {
    const socket = connect(port, "127.0.0.1");
    try {
      socket.write(request);
      let answer = "";
      for await (const part of socket.setEncoding("utf8")) {
        answer += part;
        if (answer.includes("}")) break;
      }
      return answer;
    } finally {
      socket.destroy();
    }
  }
});

describe("a call", () => {
  test("without a token, or with an unknown one, is not let in", async () => {
    const { url } = await start();
    expect(await codeOf(images(url, "nobody").listImages({}))).toBe(Code.Unauthenticated);
    const bare = await fetch(`${url}/oci_node.v1.ImageService/ListImages`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: "{}",
    });
    expect(bare.status).toBe(401);
  });

  test("is refused to a role that may not make it", async () => {
    const { url } = await start();
    expect(await codeOf(images(url, "worker").listImages({}))).toBe(Code.PermissionDenied);
    expect(await codeOf(images(url, "viewer").deleteImage({ image: "img-1" }))).toBe(Code.PermissionDenied);
  });
});
