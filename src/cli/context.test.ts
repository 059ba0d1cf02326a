import { afterEach, beforeEach, expect, test } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { writeFileAtomic } from "../std/atomic-file.ts";
import { type CliError, contextPath, readContext } from "./context.ts";

let home: string;
beforeEach(async () => {
  home = await mkdtemp(join(tmpdir(), "oci-node-context-"));
});
afterEach(() => rm(home, { recursive: true, force: true }));

const write = (said: object) =>
  writeFileAtomic(contextPath({ XDG_CONFIG_HOME: home }), JSON.stringify(said), 0o600);
const read = (env: Record<string, string> = {}) => readContext({ XDG_CONFIG_HOME: home, ...env });
const refusal = (env: Record<string, string>): CliError => {
  try {
    read(env);
  } catch (error) {
    return error as CliError;
  }
  throw new Error("it was not refused");
};

test("the file says where the node is, and variables say otherwise", async () => {
  await write({ url: "http://127.0.0.1:7070", token: "of-file", admin_token: "admin", ca_file: "/ca.pem" });
  expect(read()).toEqual({
    url: "http://127.0.0.1:7070",
    token: "of-file",
    adminToken: "admin",
    caFile: "/ca.pem",
  });
  expect(read({ OCI_NODE_URL: "https://localhost:7070", OCI_NODE_CA_FILE: "/other.pem" })).toMatchObject({
    url: "https://localhost:7070",
    token: "of-file",
    caFile: "/other.pem",
  });
});

test("a token that is set is used for everything, in place of the administrator's, too", async () => {
  await write({ url: "http://127.0.0.1:7070", token: "of-file", admin_token: "admin" });
  expect(read({ OCI_NODE_TOKEN: "set" })).toMatchObject({ token: "set", adminToken: "set" });
});

test("the tokens of the file are sent to the node of the file alone", async () => {
  await write({ url: "http://127.0.0.1:7070", token: "of-file", admin_token: "admin" });
  for (const OCI_NODE_URL of ["https://node.example:7070", "http://127.0.0.1:7071", "https://localhost"]) {
    const { code, message } = refusal({ OCI_NODE_URL });
    expect([OCI_NODE_URL, code]).toEqual([OCI_NODE_URL, "no_context"]);
    expect(message).toContain("another node");
    expect(read({ OCI_NODE_URL, OCI_NODE_TOKEN: "set" }).token).toBe("set");
  }
  await write({ url: "https://0.0.0.0:7070", token: "of-file" });
  expect(read({ OCI_NODE_URL: "https://node.example:7070" }).token).toBe("of-file");
});

test("no token crosses a network in the clear", () => {
  const OCI_NODE_TOKEN = "t";
  const elsewhere = [
    "http://10.0.0.1:7070",
    "http://0.0.0.0:7070",
    "http://node.example",
    "http://localhost.example",
    "http://127.0.0.1.example",
    "http://[::2]:1",
    "http://127.0.0.1@node.example/",
  ];
  for (const OCI_NODE_URL of elsewhere) {
    const { code, message } = refusal({ OCI_NODE_URL, OCI_NODE_TOKEN });
    expect([OCI_NODE_URL, code]).toEqual([OCI_NODE_URL, "usage"]);
    expect(message).toContain("in the clear");
  }
  for (const OCI_NODE_URL of [
    "http://127.0.0.1:1",
    "http://127.9.9.9",
    "http://localhost:1",
    "http://[::1]:1",
  ])
    expect(read({ OCI_NODE_URL, OCI_NODE_TOKEN }).url).toBe(OCI_NODE_URL);
});

test("what is no address of a node is refused without being repeated", () => {
  for (const OCI_NODE_URL of ["node.example:7070", "ftp://node.example", "nonsense", "file:///etc/passwd"]) {
    expect(refusal({ OCI_NODE_URL, OCI_NODE_TOKEN: "t" }).message).toBe("the address of the node is no URL");
  }
});
