import { afterEach, describe, expect, test } from "bun:test";
import { FrontScene, insiderToken, textOf } from "./front.test-kit.ts";

const scenes: FrontScene[] = [];
afterEach(async () => {
  for (const scene of scenes.splice(0)) await scene.close();
});

async function open(): Promise<FrontScene> {
  const scene = await FrontScene.open();
  scenes.push(scene);
  return scene;
}

describe("what is not passed on", () => {
  test("is refused in words", async () => {
    const scene = await open();
    scene.route([await scene.container("c-1", (_, response) => response.end("hello"))], { bodyBytesMax: 10 });
    const say = async (fields: string, body = "") => {
      const socket = await scene.raw(
        `POST /endpoint/hello HTTP/1.1\r\nAuthorization: Bearer ${insiderToken}\r\n${fields}\r\n\r\n${body}`,
      );
      return (await textOf(socket, /\}\n|hello/)).split("\r\n")[0];
    };
    expect(await say("Host: a\r\nContent-Length: 2", "ab")).toBe("HTTP/1.1 200 OK");
    expect(await say("Host: a\r\nContent-Length: 11")).toBe("HTTP/1.1 413 Payload Too Large");
    expect(await say("Host: a\r\nExpect: 100-continue\r\nContent-Length: 11")).toBe(
      "HTTP/1.1 413 Payload Too Large",
    );
    expect(await say("Host: a\r\nTransfer-Encoding: chunked", "b\r\nhello world\r\n0\r\n\r\n")).toBe(
      "HTTP/1.1 413 Payload Too Large",
    );
    // Larger than what is counted with, or written at length: there is a body nevertheless.
    for (const length of ["9999999999999999", "0000000000000000011"])
      expect(await say(`Host: a\r\nContent-Length: ${length}`, "hello world")).toBe(
        "HTTP/1.1 413 Payload Too Large",
      );
    expect(await say("Host: a\r\nHost: b\r\nContent-Length: 0")).toBe("HTTP/1.1 400 Bad Request");
    expect(await say("Host: a\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\n")).toBe(
      "HTTP/1.1 400 Bad Request",
    );
    expect(await say("Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", "0\r\n\r\n")).toBe(
      "HTTP/1.1 400 Bad Request",
    );
    expect(await say("Host: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0")).toBe(
      "HTTP/1.1 501 Not Implemented",
    );
  });

  test("a sender who trickles his body has no container meanwhile, and his time ends", async () => {
    const scene = await open();
    scene.route([await scene.container("c-1", (_, response) => response.end("hello"))], {
      requestTimeoutMs: 100,
    });
    const socket = await scene.raw(
      `POST /endpoint/hello HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${insiderToken}\r\nContent-Length: 9\r\n\r\nhell`,
    );
    expect(await textOf(socket, /\}\n/)).toStartWith("HTTP/1.1 504");
    expect(scene.routing.demands).toEqual([]);
  });
});
