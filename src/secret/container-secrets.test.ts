import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { randomUUID } from "node:crypto";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inspect } from "node:util";
import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertImage } from "../db/rows.test-kit.ts";
import { containers } from "../db/schema.ts";
import { deployments, endpoints } from "../db/schema-endpoint.ts";
import { CreateSecretRequestSchema } from "../gen/oci_node/v1/secret_service_pb.ts";
import { Redacted } from "../std/redacted.ts";
import { type GivenSecret, openContainerSecrets, readContainerSecrets } from "./container-secrets.ts";
import { SecretError } from "./error.ts";
import { KeyFile } from "./kek.ts";
import { singleKey } from "./keyring.ts";
import { createOpaque, updateOpaque } from "./opaque-service.ts";
import { generateBootKey, type SealContext, sealTo } from "./seal.ts";
import { SecretStore } from "./store.ts";
import { Vault } from "./vault.ts";
import { WorkspaceStore } from "./workspace-store.ts";

const keyPath = join(tmpdir(), `oci-node-opaque-${randomUUID()}`);
let postgres: TestPostgres;
let workspaces: WorkspaceStore;
let vault: Vault;
let workspaceId: string;

beforeAll(async () => {
  postgres = await startTestPostgres();
  const key = await KeyFile.open(keyPath, { create: true });
  workspaces = new WorkspaceStore(postgres.database, singleKey(key));
  vault = new Vault({ store: new SecretStore(postgres.database), workspaces });
});
afterAll(async () => {
  await postgres.end();
  await rm(keyPath, { force: true });
});
beforeEach(async () => {
  workspaceId = (await workspaces.ensure(`w-${randomUUID()}`)).id;
});

const wire = (request: MessageInitShape<typeof CreateSecretRequestSchema>) =>
  create(CreateSecretRequestSchema, request);
const keep = (name: string, value: Uint8Array | string) =>
  createOpaque(vault, workspaceId, wire({ name, value: Buffer.from(value) }));
const keepCredential = (name: string) =>
  vault.create({ workspaceId, name, value: new Redacted("{}"), registry: "ghcr.io", type: "basic" });
const rotate = async (name: string, value: Uint8Array | string) =>
  updateOpaque(vault, await vault.get(workspaceId, name), {
    credentials: {},
    expiresAt: undefined,
    value: Buffer.from(value),
  });

async function refusal(work: Promise<unknown>): Promise<string> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  if (!(error instanceof SecretError)) throw new Error("it was taken", { cause: error });
  return `${error.code}: ${error.message}`;
}

const context = (): SealContext => ({
  requestId: randomUUID(),
  containerId: "c1",
  workerId: "w1",
  bootNonce: "b",
  expiresAt: new Date(Date.now() + 60_000),
});

/** What a container gets in the end. */
async function delivered(given: readonly GivenSecret[]) {
  const bootKey = await generateBootKey();
  const bound = context();
  const { values } = await readContainerSecrets(vault, workspaceId, given);
  const sealed = await sealTo(bootKey.publicKey, values, bound, "container secrets");
  return await openContainerSecrets(bootKey, sealed, bound, given);
}

describe("a value for containers", () => {
  test("comes out byte for byte, as variables and as files, in the version that is current then", async () => {
    const bytes = Buffer.from([0, 255, 10, 13, 27]);
    const largest = Buffer.alloc(64 * 1024, 7);
    await keep("db", "p\"ä\n$x'");
    await keep("raw", bytes);
    await keep("large", largest);
    const given = [
      { secretName: "db", variable: "DB" },
      { secretName: "db", variable: "AGAIN", path: "/run/db" },
      { secretName: "raw", path: "/run/raw" },
      { secretName: "large", path: "/run/large" },
    ];
    const secrets = await delivered(given);
    expect(secrets.variables()).toEqual({ DB: "p\"ä\n$x'", AGAIN: "p\"ä\n$x'" });
    const files = [...secrets.files()].map(([name, value]) => [name, Buffer.from(value)] as const);
    expect(files.map(([name]) => name)).toEqual(["db", "raw", "large"]);
    expect(files[1]?.[1].equals(bytes)).toBe(true);
    expect(files[2]?.[1].equals(largest)).toBe(true);
    expect(`${inspect(secrets)} ${JSON.stringify(secrets)}`).toBe('[redacted] "[redacted]"');

    expect((await rotate("db", "p\"ä\n$x'")).changed).toBe(false);
    expect((await rotate("db", "two")).changed).toBe(true);
    expect((await delivered(given)).variables()["DB"]).toBe("two");
    expect(await readContainerSecrets(vault, workspaceId, given)).toMatchObject({
      secrets: [
        { name: "db", version: 2, type: "opaque", registry: "", principal: "" },
        { name: "raw", version: 1 },
        { name: "large", version: 1 },
      ],
    });
  });

  test("is not kept when it is empty, too large, beside a credential or under no name", async () => {
    expect(await refusal(keep("a", ""))).toBe("bad_value: the value of the secret is empty");
    expect(await refusal(keep("a", Buffer.alloc(65_537)))).toContain("too_large: ");
    for (const name of ["", "a b", "../a", "-a", "a=b", randomUUID(), "n".repeat(256)])
      expect(await refusal(keep(name, "x"))).toContain("bad_name: ");
    expect((await keep("API_KEY", "x")).name).toBe("API_KEY");
    const value = Buffer.from("x");
    for (const beside of [
      { registry: "ghcr.io" },
      { repository: "o/r" },
      { credentials: { USERNAME: "u" } },
      { expiresAt: { seconds: 4_000_000_000n, nanos: 0 } },
    ])
      expect(
        await refusal(createOpaque(vault, workspaceId, wire({ name: "a", value, ...beside }))),
      ).toContain("has no registry, no credentials and no end");
    await keep("a", "x");
    expect(await refusal(keep("a", "x"))).toContain("exists: ");
    expect(await refusal(rotate("a", ""))).toContain("bad_value: ");
  });

  test("and a credential never stand for one another", async () => {
    await keepCredential("ghcr");
    await keep("plain", "x");
    const given = (secretName: string) => [{ secretName, variable: "A" }];
    expect(await refusal(readContainerSecrets(vault, workspaceId, given("ghcr")))).toBe(
      "bad_value: the secret ghcr is a credential of ghcr.io, which no container is given",
    );
    expect(await refusal(rotate("ghcr", "x"))).toContain("is a credential of ghcr.io");
    expect(await refusal(vault.update(workspaceId, "plain", new Redacted("{}")))).toContain(
      "is a value for containers, and no credential",
    );
  });

  test("that is missing, another workspace's, or nothing that a variable can hold, is no silent absence", async () => {
    const given = [{ secretName: "gone", variable: "A" }];
    expect(await refusal(readContainerSecrets(vault, workspaceId, given))).toBe(
      "not_found: the workspace has no secret gone, which the container is to be given",
    );
    const mine = workspaceId;
    workspaceId = (await workspaces.ensure(`w-${randomUUID()}`)).id;
    await keep("gone", "theirs");
    expect(await refusal(readContainerSecrets(vault, mine, given))).toContain("not_found");
    for (const value of [Buffer.from([0xff, 0xfe]), Buffer.from("a\0b")]) {
      await rotate("gone", value);
      expect(await refusal(readContainerSecrets(vault, workspaceId, given))).toContain(
        "that no variable can hold",
      );
      const asFile = [{ secretName: "gone", path: "/run/x" }];
      expect(Buffer.from((await delivered(asFile)).files().get("gone")!).equals(value)).toBe(true);
    }
  });

  test("has company up to 1 MiB", async () => {
    const names = Array.from({ length: 17 }, (_, at) => `s${at}`);
    for (const name of names) await keep(name, Buffer.alloc(64 * 1024, 1));
    const given = names.map((secretName) => ({ secretName, path: `/run/${secretName}` }));
    expect((await delivered(given.slice(0, 16))).files().size).toBe(16);
    expect(await refusal(delivered(given))).toContain("larger than 1 MiB together");
  });

  test("is not removed while a living container or an endpoint is given it, unless forced", async () => {
    await keep("used", "x");
    await keep("other", "x");
    const { database } = postgres;
    const imageId = await insertImage(database, workspaceId);
    const spec = { options: { secrets: [{ secretName: "used", variable: "A" }] } };
    const row = { workspaceId, imageId, reference: "r", cpuMillis: 0, memoryBytes: 0, phases: {}, spec };
    await database.query((db) => db.insert(containers).values({ ...row, id: "c-ended", state: "exited" }));
    await vault.remove(workspaceId, "other");
    await database.query((db) => db.insert(containers).values({ ...row, id: "c-living", state: "running" }));
    await database.query((db) => db.insert(endpoints).values({ id: "e-1", workspaceId, name: "site" }));
    const deployed = { workspaceId, imageId, reference: "r", endpointId: "e-1", spec };
    for (const [version, state] of ["retired", "active", "draining"].entries())
      await database.query((db) =>
        db.insert(deployments).values({ ...deployed, id: `d-${version}`, version, state }),
      );
    expect(await refusal(vault.remove(workspaceId, "used"))).toBe(
      "in_use: secret used is used by endpoints site, and by containers that have not ended: c-living",
    );
    await vault.remove(workspaceId, "used", { force: true });
    expect(await refusal(vault.get(workspaceId, "used"))).toContain("not_found");
  });
});

test("what is sealed for a container opens once, for that hand-over, and never as the image's credentials", async () => {
  await keep("db", "x");
  const given = [{ secretName: "db", variable: "DB" }];
  const bootKey = await generateBootKey();
  const bound = context();
  const { values } = await readContainerSecrets(vault, workspaceId, given);
  const secrets = await sealTo(bootKey.publicKey, values, bound, "container secrets");
  const credentials = await sealTo(bootKey.publicKey, values, bound);
  expect(await refusal(bootKey.open(secrets, bound))).toContain(
    "undecryptable: the credentials of container c1",
  );
  expect(await refusal(openContainerSecrets(bootKey, credentials, bound, given))).toContain(
    "undecryptable: the secrets of container c1",
  );
  for (const change of [{ containerId: "c2" }, { requestId: "r2" }, { bootNonce: "b2" }, { workerId: "w2" }])
    expect(await refusal(openContainerSecrets(bootKey, secrets, { ...bound, ...change }, given))).toContain(
      "undecryptable",
    );
  const late = { ...bound, expiresAt: new Date(Date.now() - 1) };
  expect(await refusal(openContainerSecrets(bootKey, secrets, late, given))).toContain("expired");
  // Both of one hand-over open, each once.
  await bootKey.open(credentials, bound);
  expect((await openContainerSecrets(bootKey, secrets, bound, given)).variables()).toEqual({ DB: "x" });
  expect(await refusal(openContainerSecrets(bootKey, secrets, bound, given))).toContain("replayed");
  expect(await refusal(openContainerSecrets(bootKey, "", context(), given))).toContain(
    "was not given to this worker",
  );
  expect((await openContainerSecrets(bootKey, "", bound, [])).variables()).toEqual({});
});
