import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import * as http from "node:http";
import type { AddressInfo } from "node:net";
import type { JSONWebKeySet } from "jose";
import { answerWellKnown } from "./well-known.ts";

describe("what clouds ask an issuer", () => {
  let server: http.Server;
  let at: string;
  let keySet: () => Promise<JSONWebKeySet>;

  beforeAll(async () => {
    const url = "https://id.example.com/node";
    const issuer = { url, discovery: () => ({ issuer: url }), keySet: () => keySet() };
    server = http.createServer((request, response) => {
      if (!answerWellKnown(issuer, request, response)) response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.close();
  });

  test.each(["/node", ""])("is answered below %p, to be kept for an hour", async (base) => {
    keySet = async () => ({ keys: [] });
    const discovery = await fetch(`${at}${base}/.well-known/openid-configuration`);
    expect(await discovery.json()).toEqual({ issuer: "https://id.example.com/node" });
    const keys = await fetch(`${at}${base}/.well-known/jwks.json?x=1`);
    expect(await keys.json()).toEqual({ keys: [] });
    expect(keys.headers.get("content-type")).toBe("application/json");
    expect(keys.headers.get("cache-control")).toBe("public, max-age=3600");
    const head = await fetch(`${at}${base}/.well-known/jwks.json`, { method: "HEAD" });
    expect([head.status, await head.text()]).toEqual([200, ""]);
  });

  test("is nothing else", async () => {
    keySet = async () => ({ keys: [] });
    for (const path of [
      "/",
      "/nodes/.well-known/jwks.json",
      "/node/node/.well-known/jwks.json",
      "/.well-known/",
    ])
      expect((await fetch(at + path)).status).toBe(404);
    expect((await fetch(`${at}/.well-known/jwks.json`, { method: "POST" })).status).toBe(404);
  });

  test("is put off without a reason while the keys cannot be read", async () => {
    keySet = () => Promise.reject(new Error("database at 10.0.0.1 is away"));
    const answer = await fetch(`${at}/.well-known/jwks.json`);
    expect([answer.status, await answer.text()]).toEqual([503, "try again\n"]);
  });
});
