import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import * as http from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { CodeStore, codePieceBytes } from "../container/code-store.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertWorkspace } from "../db/rows.test-kit.ts";
import { EndpointService } from "../gen/oci_node/v1/endpoint_service_pb.ts";
import { ErrorDetailSchema } from "../gen/oci_node/v1/error_pb.ts";
import { makeTar, SeededRandom } from "../index/tar.test-kit.ts";
import { authenticate, type Caller } from "../rpc/authentication.ts";
import { translateErrors } from "../rpc/error.ts";
import { refuseNul } from "../rpc/request-text.ts";
import { type Server, serve } from "../rpc/server.ts";
import { transportTo } from "../rpc/transport.ts";
import { codeMethods } from "./code-service.ts";

const mebi = 1024 ** 2;
const codeBytesMax = 4 * mebi;
let postgres: TestPostgres;
let codes: CodeStore;
let server: Server;
let uploadsDir: string;
/** Both are workspaces, and the tokens of their owners. */
let [mine, others]: [string, string] = ["", ""];

beforeAll(async () => {
  postgres = await startTestPostgres();
  codes = new CodeStore(postgres.database);
  uploadsDir = await mkdtemp(join(tmpdir(), "oci-node-uploads-"));
  const verify = async (token: string): Promise<Caller | undefined> =>
    token === "stranger" ? undefined : { tokenId: token, name: "test", workspaceId: token, role: "owner" };
  server = await serve({
    host: "127.0.0.1",
    port: 0,
    verify,
    interceptors: [refuseNul, translateErrors, authenticate(verify)],
    routes: (router) =>
      router.service(
        EndpointService,
        codeMethods({ codes, uploadsDir, codeBytesMax, unpackedBytesMax: 16 * mebi }),
      ),
  });
});
afterAll(async () => {
  await server.close();
  await postgres.end();
  expect(await readdir(uploadsDir)).toEqual([]);
  await rm(uploadsDir, { recursive: true });
});
beforeEach(async () => {
  [mine, others] = [await insertWorkspace(postgres.database), await insertWorkspace(postgres.database)];
});

const sha256Of = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
/** An archive that is as long as its content. */
function archiveOf(bytes: number, seed: number): Buffer {
  const data = new SeededRandom(seed).bytes(bytes);
  return gzipSync(makeTar([{ name: "app.py", data }]), { level: 0 });
}

const over2 = (workspace = mine) =>
  createClient(EndpointService, transportTo({ url: server.url, token: workspace }));
const over1 = (workspace = mine) =>
  createClient(
    EndpointService,
    createConnectTransport({
      httpVersion: "1.1",
      baseUrl: server.url,
      useBinaryFormat: false,
      interceptors: [
        (next) => (request) => {
          request.header.set("authorization", `Bearer ${workspace}`);
          return next(request);
        },
      ],
    }),
  );

async function* requests(archive: Uint8Array, sha256 = sha256Of(archive), pieceBytes = codePieceBytes) {
  for (let at = 0; at < archive.length; at += pieceBytes)
    yield { sha256: at === 0 ? sha256 : "", data: archive.subarray(at, at + pieceBytes) };
}

async function stored(workspace: string, sha256: string): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for (let position = 0; ; position += 1) {
    const piece = await codes.piece(workspace, sha256, position);
    if (piece === undefined) return Buffer.concat(parts);
    parts.push(piece.data);
    if (position + 1 === piece.pieces) return Buffer.concat(parts);
  }
}

async function failure(call: Promise<unknown>): Promise<[Code | undefined, string | undefined, string]> {
  try {
    await call;
    return [undefined, undefined, "it was taken"];
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    return [error.code, error.findDetails(ErrorDetailSchema)[0]?.code, error.rawMessage];
  }
}

describe("an upload", () => {
  test("over HTTP/2 and, in JSON, over HTTP/1.1 keeps the archive for its workspace alone", async () => {
    for (const [client, pieceBytes, seed] of [
      [over2(), codePieceBytes, 1],
      [over1(), codePieceBytes, 2],
      [over1(), 100_000, 3],
    ] as const) {
      const archive = archiveOf(2.5 * mebi, seed);
      const sha256 = sha256Of(archive);
      expect((await client.getCode({ sha256 })).present).toBe(false);
      const answer = await client.uploadCode(requests(archive, sha256, pieceBytes));
      expect([answer.sha256, Number(answer.sizeBytes)]).toEqual([sha256, archive.length]);
      expect(await client.getCode({ sha256 })).toMatchObject({
        present: true,
        sizeBytesMax: BigInt(codeBytesMax),
      });
      expect((await over2(others).getCode({ sha256 })).present).toBe(false);
      expect(Buffer.compare(await stored(mine, sha256), archive)).toBe(0);
      expect(await codes.piece(others, sha256, 0)).toBeUndefined();
      expect(await codes.piece(mine, sha256, -1)).toBeUndefined();
    }
  });

  test("of the same archive several times at once is kept once, and each is told so", async () => {
    const archive = archiveOf(1.5 * mebi, 4);
    const clients = [over2(), over1(), over2(), over1()];
    const answers = await Promise.all(clients.map((client) => client.uploadCode(requests(archive))));
    expect(answers.map(({ sizeBytes }) => Number(sizeBytes))).toEqual(clients.map(() => archive.length));
    expect(Buffer.compare(await stored(mine, sha256Of(archive)), archive)).toBe(0);
  });

  test("by hand, as a client in another language makes it, is taken and refused in JSON", async () => {
    const archive = archiveOf(1000, 5);
    const sha256 = sha256Of(archive);
    expect(await byHand([{ sha256, data: archive.toString("base64") }])).toEqual([
      200,
      { sha256, sizeBytes: String(archive.length) },
      {},
    ]);
    const [status, , end] = await byHand([{ sha256, data: "AA==" }]);
    expect(status).toBe(200);
    expect(end).toMatchObject({ error: { code: "invalid_argument" } });
  });

  test("of a stranger is refused, and nothing of it is kept", async () => {
    const archive = archiveOf(2 * mebi, 8);
    for (const client of [over2("stranger"), over1("stranger")])
      expect((await failure(client.uploadCode(requests(archive))))[0]).toBe(Code.Unauthenticated);
    expect((await over2().getCode({ sha256: sha256Of(archive) })).present).toBe(false);
  });

  test("that is too large is refused before it has all come", async () => {
    for (const client of [over2(), over1()]) {
      let sent = 0;
      async function* endless() {
        const sha256 = "a".repeat(64);
        for (; sent < 500; sent += 1) yield { sha256, data: Buffer.alloc(codePieceBytes) };
      }
      const [code, why, message] = await failure(client.uploadCode(endless()));
      expect([code, why]).toEqual([Code.InvalidArgument, "code_too_large"]);
      expect(message).toContain("larger than 4.0 MiB");
      expect(sent).toBeLessThan(100);
    }
  });

  test("that is damaged, hostile, in parts too long, or nothing, leaves nothing and says why", async () => {
    const archive = archiveOf(2 * mebi, 6);
    const sha256 = sha256Of(archive);
    const client = over2();
    expect(await failure(client.uploadCode(requests(archive, "0".repeat(64))))).toEqual([
      Code.InvalidArgument,
      "code_refused",
      expect.stringContaining(`has the SHA-256 ${sha256}`),
    ]);
    expect(await failure(client.uploadCode(requests(archive, "ABC")))).toEqual([
      Code.InvalidArgument,
      "bad_spec",
      "the digest of an archive of code is not one",
    ]);
    expect((await failure(client.uploadCode(requests(archive, sha256, 1.5 * mebi))))[2]).toContain("1 MiB");
    expect((await failure(client.uploadCode(requests(new Uint8Array()))))[2]).toContain("is empty");
    const hostile = gzipSync(makeTar([{ name: "../../etc/cron.d/x", data: Buffer.from("x") }]));
    const refused = await failure(client.uploadCode(requests(hostile)));
    expect(refused.slice(0, 2)).toEqual([Code.InvalidArgument, "code_refused"]);
    expect(refused[2]).toContain("`..` in its path");
    for (const digest of [sha256, "0".repeat(64), sha256Of(hostile)])
      expect((await client.getCode({ sha256: digest })).present).toBe(false);
  });

  test("that is broken off leaves nothing, and its place is free again", async () => {
    const archive = archiveOf(2 * mebi, 7);
    const sha256 = sha256Of(archive);
    for (let round = 0; round < 6; round += 1) {
      const leaving = new AbortController();
      async function* halfway() {
        yield { sha256, data: archive.subarray(0, codePieceBytes) };
        leaving.abort();
        await new Promise(() => undefined);
      }
      expect((await failure(over2().uploadCode(halfway(), { signal: leaving.signal })))[0]).toBe(
        Code.Canceled,
      );
    }
    const answer = await over2().uploadCode(requests(archive));
    expect(answer.sha256).toBe(sha256);
  });
});

/** POST of Connect's envelopes (connectrpc.com/docs/protocol) in JSON over HTTP/1.1: status, message, end. */
async function byHand(messages: readonly object[]): Promise<[number, unknown, unknown]> {
  const envelope = (value: object) => {
    const text = Buffer.from(JSON.stringify(value));
    const head = Buffer.alloc(5);
    head.writeUInt32BE(text.length, 1);
    return Buffer.concat([head, text]);
  };
  const answer = await new Promise<[number, Buffer]>((resolve, reject) => {
    const request = http.request(
      `${server.url}/oci_node.v1.EndpointService/UploadCode`,
      {
        method: "POST",
        headers: { "content-type": "application/connect+json", authorization: `Bearer ${mine}` },
      },
      (response) => {
        const parts: Buffer[] = [];
        response.on("data", (part: Buffer) => parts.push(part));
        response.on("end", () => resolve([response.statusCode ?? 0, Buffer.concat(parts)]));
      },
    );
    request.on("error", reject);
    request.end(Buffer.concat(messages.map(envelope)));
  });
  const [status, body] = answer;
  let message: unknown;
  for (let at = 0; at < body.length; ) {
    const length = body.readUInt32BE(at + 1);
    const value = JSON.parse(body.toString("utf8", at + 5, at + 5 + length));
    if (((body[at] ?? 0) & 2) !== 0) return [status, message, value];
    message = value;
    at += 5 + length;
  }
  throw new Error("the answer has no end");
}
