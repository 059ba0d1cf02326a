import { expect, test } from "bun:test";
import type { Socket } from "node:net";
import { PassThrough, Writable } from "node:stream";
import { type BodyCarrier, RequestBody } from "./request-body.ts";

test("a connection whose body ends with a piece that is too much for who takes it carries the next request", () => {
  const connection = { paused: false };
  const socket = {
    pause: () => (connection.paused = true),
    resume: () => (connection.paused = false),
  } as unknown as Socket;
  const headers = { "content-length": "3000000" };
  const carrier: BodyCarrier = Object.assign(new PassThrough(), { headers, httpVersionMajor: 1, socket });
  const body = new RequestBody(carrier);
  expect(connection.paused).toBe(true);
  // It takes nothing at all.
  const out = new Writable({ write: () => undefined });
  body.sendTo(out);
  expect(connection.paused).toBe(false);
  carrier.emit("data", Buffer.alloc(3_000_000));
  expect(connection.paused).toBe(true);
  // As Bun 1.4.5 has it: whoever paused a request is told of its end all the same.
  carrier.emit("end");
  expect([connection.paused, out.writableEnded]).toEqual([false, true]);
});
