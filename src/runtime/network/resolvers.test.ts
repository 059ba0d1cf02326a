import { afterAll, beforeAll, expect, test } from "bun:test";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { resolvConf, resolvers } from "./resolvers.ts";

let directory: string;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "oci-node-resolvers-"));
});

afterAll(() => rm(directory, { recursive: true }));

async function file(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, text);
  return path;
}

test("takes the host's name servers, where a container can reach them", async () => {
  const own = await file(
    "own",
    "# made by hand\nsearch corp.test\nnameserver 127.0.0.1\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver nonsense\noptions ndots:2\n",
  );
  expect(resolvConf(await resolvers(undefined, [own]))).toBe(
    "search corp.test\noptions ndots:2\nnameserver 192.0.2.53\n",
  );
});

test("looks behind systemd-resolved's stub, and has none where there is none", async () => {
  const stub = await file("stub", "nameserver 127.0.0.53\nsearch lan\n");
  const behind = await file("behind", "nameserver 192.0.2.1\nsearch other\n");
  expect(await resolvers(undefined, [stub, behind])).toEqual({
    servers: ["192.0.2.1"],
    lines: ["search lan"],
  });
  expect((await resolvers(undefined, [stub, join(directory, "absent")])).servers).toEqual([]);
});

test("has the operator's name servers before the host's", async () => {
  const own = await file("own2", "nameserver 192.0.2.53\nsearch lan\n");
  expect(resolvConf(await resolvers(["198.51.100.1"], [own]))).toBe("search lan\nnameserver 198.51.100.1\n");
});
