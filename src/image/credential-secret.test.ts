import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentialMap } from "../credential/value.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { KeyFile } from "../secret/kek.ts";
import { singleKey } from "../secret/keyring.ts";
import { SecretStore } from "../secret/store.ts";
import { Vault } from "../secret/vault.ts";
import { WorkspaceStore } from "../secret/workspace-store.ts";
import { createCredentialSecretIfNeeded } from "./credential-secret.ts";

const keyPath = join(tmpdir(), `oci-node-credential-secret-${process.pid}-${Date.now()}`);
let postgres: TestPostgres;
let vault: Vault;
let workspaceId: string;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const workspaces = new WorkspaceStore(
    postgres.database,
    singleKey(await KeyFile.open(keyPath, { create: true })),
  );
  vault = new Vault({ store: new SecretStore(postgres.database), workspaces });
  workspaceId = (await workspaces.ensure("w")).id;
}, 60_000);
afterAll(async () => {
  await postgres.end();
  await rm(keyPath);
}, 60_000);

const keep = async (password: string, proved: boolean): Promise<readonly [string, number]> => {
  const credentials = credentialMap({ USERNAME: "robot", PASSWORD: password });
  const credential = { registry: "gcr.io", type: "basic" as const, credentials };
  const { secret, outcome } = await createCredentialSecretIfNeeded(vault, workspaceId, credential, proved);
  return [outcome, (await vault.get(workspaceId, secret.name)).version];
};

test("credentials of a build become a secret, and rotate it only when the registry has taken them", async () => {
  expect(await keep("old", false)).toEqual(["created", 1]);
  expect(await keep("new", true)).toEqual(["rotated", 2]);
  expect(await keep("new", true)).toEqual(["unchanged", 2]);
  expect(await keep("other", false)).toEqual(["unproved", 2]);
  expect(await keep("old", true)).toEqual(["outdated", 2]);
});
