import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import { parseExposition } from "../../test/kit/exposition.ts";
import { startTestPostgres, type TestPostgres } from "../db/postgres.test-kit.ts";
import { insertWorkspace } from "../db/rows.test-kit.ts";
import { daysAhead, insertSecret } from "./alert.test-kit.ts";
import { renderMetrics } from "./metrics.ts";
import { MetricsStore } from "./metrics-store.ts";

let server: TestPostgres;
let store: MetricsStore;
let workspaceId: string;
beforeAll(async () => {
  server = await startTestPostgres();
  store = new MetricsStore(server.database);
}, 60_000);
afterAll(() => server.end(), 60_000);
beforeEach(async () => {
  workspaceId = await insertWorkspace(server.database);
});

async function scrape(scope: string | undefined = workspaceId) {
  const { contentType, text } = await renderMetrics(await store.read(scope));
  expect(contentType).toBe("text/plain; version=0.0.4; charset=utf-8");
  return { families: parseExposition(text), text };
}
const named = (id = workspaceId) => `w-${id}`;

describe("the metrics of a workspace", () => {
  test("tell how each secret fares, when it ends and was tried, and whether it may push", async () => {
    const good = await insertSecret(server.database, workspaceId);
    const [checkedAt, expiresAt] = [new Date("2026-01-02T03:04:05.678Z"), daysAhead(20)];
    await good.fares({ state: "ok", rights: "push", checkedAt, expiresAt });
    const bad = await insertSecret(server.database, workspaceId);
    await bad.fares({ state: "failing", rights: "pull" });
    const unseen = await insertSecret(server.database, workspaceId);
    const { families } = await scrape();
    const of = (secret: { name: string }) => ({
      workspace: named(),
      secret: secret.name,
      registry: "ghcr.io",
    });
    const samples = (name: string) => families.get(name)?.samples;
    expect(
      samples("oci_node_secret_health")?.map(({ labels, value }) => [
        labels["secret"],
        labels["state"],
        value,
      ]),
    ).toEqual([
      [good.name, "ok", 1],
      [bad.name, "failing", 1],
      [unseen.name, "unknown", 1],
    ]);
    expect(samples("oci_node_secret_expiry_timestamp_seconds")).toEqual([
      { labels: of(good), value: expiresAt.getTime() / 1000 },
    ]);
    expect(samples("oci_node_secret_last_check_timestamp_seconds")).toEqual([
      { labels: of(good), value: 1767323045.678 },
    ]);
    expect(samples("oci_node_secret_push_rights")).toEqual([
      { labels: of(good), value: 1 },
      { labels: of(bad), value: 0 },
    ]);
    const counts = samples("oci_node_secrets")?.map(({ labels, value }) => [labels["state"], value]);
    expect(counts).toEqual([
      ["ok", 1],
      ["expiring", 0],
      ["failing", 1],
      ["unknown", 1],
    ]);
  });

  test("count the containers that have not ended", async () => {
    const secret = await insertSecret(server.database, workspaceId);
    await secret.image("ghcr.io/o/r:1", ["running", "running", "pending", "exited", "failed"]);
    const { families } = await scrape();
    const counts = families
      .get("oci_node_containers")
      ?.samples.map(({ labels, value }) => [labels["state"], value]);
    expect(counts).toEqual([
      ["pending", 1],
      ["scheduled", 0],
      ["preparing", 0],
      ["running", 2],
      ["stopping", 0],
    ]);
  });

  test("do not take what is known of an older version for the secret", async () => {
    const secret = await insertSecret(server.database, workspaceId);
    await secret.fares({ state: "ok", expiresAt: daysAhead(1) });
    await secret.update();
    const { families } = await scrape();
    expect(families.get("oci_node_secret_health")?.samples[0]?.labels["state"]).toBe("unknown");
    expect(families.has("oci_node_secret_expiry_timestamp_seconds")).toBe(false);
  });

  test("hold nothing of another workspace, nor of the node", async () => {
    await insertSecret(server.database, workspaceId);
    const other = await insertWorkspace(server.database);
    await insertSecret(server.database, other);
    await server.database.query((db) =>
      db.execute(sql`insert into workers (id, name, address, boot_public_key, boot_nonce, cpu_millis, memory_bytes, state, platform, version)
        values ('w1', 'w1', 'a', '', 'n', 1, 1, 'ready', 'p', 'v') on conflict do nothing`),
    );
    const own = await scrape();
    expect(own.text).not.toContain(other);
    expect([...own.families.keys()].filter((name) => /worker|process/.test(name))).toEqual([]);
    const { families, text } = parse(await renderMetrics(await store.read(undefined)));
    expect(text).toContain(other);
    expect(text).toContain(workspaceId);
    expect(families.get("oci_node_workers")?.samples).toEqual([
      { labels: { state: "ready" }, value: 1 },
      { labels: { state: "lost" }, value: 0 },
    ]);
    expect(families.get("process_cpu_seconds_total")?.samples[0]?.value).toBeGreaterThan(0);
    expect(families.get("process_open_fds")?.samples[0]?.value).toBeGreaterThan(3);
  });

  const parse = ({ text }: { text: string }) => ({ text, families: parseExposition(text) });

  test("are sound where there is nothing at all", async () => {
    const { families } = await scrape();
    expect(families.get("oci_node_build_info")?.samples).toHaveLength(1);
    expect(families.has("oci_node_secret_health")).toBe(false);
    expect(families.get("oci_node_secrets")?.samples.map(({ value }) => value)).toEqual([0, 0, 0, 0]);
  });
});

test("whatever a name holds, it stays inside of its label", async () => {
  const names = ['a"} 1\nevil{x="', "back\\slash", "new\nline", "{}=,#", "ünïcødé \u2028"];
  const at = { registry: "r", rights: "unknown", expiresAt: null, checkedAt: null, state: "ok" } as const;
  const { text } = await renderMetrics({
    workspaces: [],
    secrets: names.map((secret) => ({ workspace: "w", secret, ...at })),
    containers: [],
    deliveries: [],
    workers: undefined,
  });
  const families = parseExposition(text);
  expect([...families.keys()]).toEqual(["oci_node_build_info", "oci_node_secret_health"]);
  expect(families.get("oci_node_secret_health")?.samples.map(({ labels }) => labels["secret"])).toEqual(
    names,
  );
});

test("ten thousand secrets are told, each of them once", async () => {
  await server.database.query((db) =>
    db.execute(sql`with made as (
        insert into secrets (id, workspace_id, name, registry, credential_type, principal, current_version)
        select gen_random_uuid(), ${workspaceId}::uuid, 'many-' || n, 'ghcr.io', 'basic', 'p', 1 from generate_series(1, 10000) n
        returning id, workspace_id)
      insert into secret_health (secret_id, workspace_id, version, state, rights, expires_at, checked_at)
      select id, workspace_id, 1, 'expiring', 'push', now() + interval '1 day', now() from made`),
  );
  const { families } = await scrape();
  for (const name of ["health", "expiry_timestamp_seconds", "last_check_timestamp_seconds", "push_rights"])
    expect(families.get(`oci_node_secret_${name}`)?.samples).toHaveLength(10_000);
});
