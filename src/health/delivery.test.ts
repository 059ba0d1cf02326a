import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "bun:test";
import { sql } from "drizzle-orm";
import type { AuditEvent } from "../audit/audit.ts";
import { DeliveryScene } from "./delivery.test-kit.ts";
import { type Delivery, DeliveryStore } from "./delivery-store.ts";

let scene: DeliveryScene;
let workspaceId: string;
beforeAll(async () => {
  scene = await DeliveryScene.start();
}, 60_000);
beforeEach(async () => {
  workspaceId = await scene.workspace();
  scene.receiver.answer = () => new Response(null, { status: 204 });
});
afterEach(() => scene.endLoops());
afterAll(() => scene.end(), 60_000);

const newPath = () => `/hook/${crypto.randomUUID()}`;
const at = (path: string) => scene.receiver.received.filter((one) => one.path === path);
const ended = (rows: readonly { deliveredAt: Date | null; failedAt: Date | null }[]) =>
  rows.length > 0 && rows.every(({ deliveredAt, failedAt }) => (deliveredAt ?? failedAt) !== null);
const listed = async (id: string) => (await scene.webhooks.list(workspaceId)).find((one) => one.id === id);

test("an alert goes to each webhook of its workspace, signed, and to nobody else's", async () => {
  const [mine, second, theirs] = [newPath(), newPath(), newPath()];
  const ids = [await scene.webhook(workspaceId, mine), await scene.webhook(workspaceId, second)];
  await scene.webhook(await scene.workspace(), theirs);
  await scene.fail(workspaceId);
  await scene.loop();
  for (const id of ids) await scene.until(id, ended);
  expect([mine, second, theirs].map((path) => at(path).map(({ signed }) => signed))).toEqual([
    [true],
    [true],
    [],
  ]);
  const { headers, body } = at(mine)[0] ?? {};
  expect([headers?.get("content-type"), headers?.get("user-agent")]).toEqual([
    "application/json",
    "oci-node",
  ]);
  const [alert] = await scene.alerts.list(workspaceId, 1);
  expect(headers?.get("webhook-id")).toBe(alert?.id as string);
  expect(JSON.parse(body ?? "")).toMatchObject({
    type: "secret.failing",
    timestamp: alert?.createdAt.toISOString(),
    data: {
      secret: { id: alert?.secretId, name: alert?.secretName, version: 1 },
      registry: "ghcr.io",
      state: "failing",
      code: "unauthorized",
      expires_at: null,
      images: [],
      containers: [],
    },
  });
  expect(await listed(ids[0] ?? "")).toMatchObject({ pending: 0, givenUp: 0, lastError: null });
  expect((await listed(ids[0] ?? ""))?.lastDeliveredAt).toBeInstanceOf(Date);
});

test("what is answered 500 twice is delivered at the third attempt: the same alert, the same bytes", async () => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  scene.receiver.answer = (_, count) => new Response(null, { status: count <= 2 ? 500 : 200 });
  await scene.fail(workspaceId);
  await scene.loop();
  for (const count of [1, 2]) {
    await scene.until(id, ([row]) => row?.attempts === count && row.claimedBy === null);
    expect(await listed(id)).toMatchObject({ pending: 1, lastError: `${scene.receiver.host} answered 500` });
    await scene.hurry();
  }
  const [row] = await scene.until(id, ended);
  expect(row).toMatchObject({ attempts: 3, failedAt: null, lastError: null });
  expect(at(path).map(({ signed }) => signed)).toEqual([true, true, true]);
  expect(new Set(at(path).map(({ body }) => body)).size).toBe(1);
  expect(new Set(at(path).map(({ headers }) => headers.get("webhook-id"))).size).toBe(1);
});

test.each([301, 302, 307, 308])("a redirect (%p) is not followed, and is no success", async (status) => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  const elsewhere = newPath();
  scene.receiver.answer = () =>
    new Response(null, { status, headers: { location: `http://${scene.receiver.host}${elsewhere}` } });
  await scene.fail(workspaceId);
  await scene.loop();
  const [row] = await scene.until(id, ([one]) => one?.attempts === 1);
  expect(row?.lastError).toBe(`${scene.receiver.host} answered ${status}`);
  expect(at(elsewhere)).toEqual([]);
});

test("a receiver that answers 410 is told nothing more, until a new webhook is made for it", async () => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  scene.receiver.answer = () => new Response(null, { status: 410 });
  await scene.fail(workspaceId, 3);
  const noted = Promise.withResolvers<AuditEvent>();
  await scene.loop({ note: async (event) => noted.resolve(event) });
  await scene.until(id, ended);
  expect(at(path)).toHaveLength(1);
  expect(await listed(id)).toMatchObject({ pending: 0, givenUp: 3 });
  const target = { kind: "webhook", id, name: scene.receiver.host };
  expect(await noted.promise).toMatchObject({ action: "webhook.disable", workspaceId, target });
  expect((await listed(id))?.disabledAt).toBeInstanceOf(Date);
  scene.receiver.answer = () => new Response(null, { status: 200 });
  const other = await scene.webhook(workspaceId, newPath());
  await scene.fail(workspaceId);
  expect(await scene.until(other, ended)).toHaveLength(1);
  expect(at(path)).toHaveLength(1);
});

test("a receiver that asks for time gets it", async () => {
  const id = await scene.webhook(workspaceId, newPath());
  scene.receiver.answer = () => new Response(null, { status: 503, headers: { "retry-after": "3600" } });
  await scene.fail(workspaceId);
  await scene.loop();
  const [row] = await scene.until(id, ([one]) => one?.attempts === 1 && one.claimedBy === null);
  const waitS = ((row?.nextAttemptAt.getTime() ?? 0) - Date.now()) / 1000;
  expect(waitS).toBeGreaterThan(3000);
  expect(waitS).toBeLessThan(3700);
});

test("what is not taken for a day is given up, and the webhook's last error says so", async () => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  scene.receiver.answer = () => new Response(null, { status: 500 });
  await scene.fail(workspaceId);
  await scene.server.database.query((db) =>
    db.execute(
      sql`update webhook_deliveries set attempts = 9, created_at = now() - interval '24 hours 1 minute' where webhook_id = ${id}`,
    ),
  );
  await scene.loop();
  const [row] = await scene.until(id, ended);
  expect([row?.deliveredAt, row?.attempts]).toEqual([null, 10]);
  expect(await listed(id)).toMatchObject({
    pending: 0,
    givenUp: 1,
    lastError: `given up after 10 attempts: ${scene.receiver.host} answered 500`,
  });
});

test("an answer without an end takes a place for no longer than its head", async () => {
  const id = await scene.webhook(workspaceId, newPath());
  const endless = new ReadableStream({ pull: (controller) => controller.enqueue(new Uint8Array(65_536)) });
  scene.receiver.answer = () => new Response(endless, { status: 200 });
  await scene.fail(workspaceId);
  await scene.loop();
  expect((await scene.until(id, ended))[0]?.deliveredAt).toBeInstanceOf(Date);
});

test("receivers that hang hold up neither other webhooks nor other workspaces", async () => {
  const hung: (() => void)[] = [];
  const slow = newPath();
  const slowId = await scene.webhook(workspaceId, slow);
  const quickId = await scene.webhook(workspaceId, newPath());
  const elsewhere = await scene.workspace();
  const elsewhereId = await scene.webhook(elsewhere, newPath());
  scene.receiver.answer = ({ path }) =>
    path === slow
      ? new Promise((resolve) => hung.push(() => resolve(new Response(null, { status: 200 }))))
      : new Response(null, { status: 200 });
  await scene.fail(workspaceId, 12);
  await scene.fail(elsewhere, 3);
  // Fewer at once than the hung one has waiting.
  await scene.loop({ runningMax: 3 });
  expect(await scene.until(quickId, ended)).toHaveLength(12);
  expect(await scene.until(elsewhereId, ended)).toHaveLength(3);
  expect(at(slow)).toHaveLength(1);
  scene.receiver.answer = () => new Response(null, { status: 200 });
  for (const go of hung) go();
  await scene.until(slowId, ended);
});

test("two schedulers deliver each alert once", async () => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  await scene.fail(workspaceId, 40);
  await Promise.all([1, 2, 3].map(() => scene.loop({ perWebhook: 8 })));
  await scene.until(id, ended);
  expect(at(path)).toHaveLength(40);
  expect(new Set(at(path).map(({ headers }) => headers.get("webhook-id"))).size).toBe(40);
});

test("what a scheduler had under way when it died is delivered by another once its lease is over", async () => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  await scene.fail(workspaceId);
  // It claimed and sent, and nobody heard of it again.
  await scene.server.database.query((db) =>
    db.execute(
      sql`update webhook_deliveries set claimed_by = 'the dead', lease_until = now() + interval '1 hour' where webhook_id = ${id}`,
    ),
  );
  const marker = await scene.webhook(await scene.workspace(), newPath());
  await scene.loop();
  await scene.server.database.query((db) =>
    db.execute(
      sql`insert into webhook_deliveries (webhook_id, alert_id) select ${marker}::uuid, alert_id from webhook_deliveries where webhook_id = ${id}`,
    ),
  );
  await scene.until(marker, ended);
  expect(at(path)).toHaveLength(0);
  await scene.server.database.query((db) =>
    db.execute(
      sql`update webhook_deliveries set lease_until = now() - interval '1 second' where webhook_id = ${id}`,
    ),
  );
  await scene.until(id, ended);
  expect(at(path)).toHaveLength(1);
});

test("a scheduler that ends gives back what it had under way, and another delivers it at once", async () => {
  const path = newPath();
  const id = await scene.webhook(workspaceId, path);
  scene.receiver.answer = () => new Promise(() => undefined);
  await scene.fail(workspaceId);
  const before = scene.receiver.received.length;
  await scene.loop();
  await scene.receiver.waitFor(before + 1);
  await scene.endLoops();
  expect(await scene.deliveries(id)).toMatchObject([{ attempts: 0, claimedBy: null, leaseUntil: null }]);
  scene.receiver.answer = () => new Response(null, { status: 200 });
  await scene.loop();
  await scene.until(id, ended);
  expect(at(path)).toHaveLength(2);
});

test("who comes too late with his outcome is not heard: the delivery is another's by then", async () => {
  const id = await scene.webhook(workspaceId, newPath());
  await scene.fail(workspaceId);
  const [late, other] = ["late", "other"].map((name) => new DeliveryStore(scene.server.database, name));
  const claim = async (store: DeliveryStore | undefined, leaseMs: number) =>
    (await store?.claim(10_000, leaseMs, 1))?.find(({ webhookId }) => webhookId === id) as Delivery;
  const lost = await claim(late, 0);
  const taken = await claim(other, 60_000);
  for (const speak of [
    () => late?.failed(lost, "late", 1),
    () => late?.delivered(lost),
    () => late?.release(lost),
  ]) {
    await speak();
    expect(await scene.deliveries(id)).toMatchObject([
      { claimedBy: "other", attempts: 0, deliveredAt: null },
    ]);
  }
  expect(await listed(id)).toMatchObject({ lastError: null, lastDeliveredAt: null });
  await other?.delivered(taken);
  expect(await scene.deliveries(id)).toMatchObject([{ claimedBy: null, attempts: 1 }]);
});

test("a webhook that is removed takes with it what was on its way", async () => {
  const id = await scene.webhook(workspaceId, newPath());
  await scene.fail(workspaceId);
  await expect(scene.webhooks.remove(await scene.workspace(), id)).rejects.toMatchObject({
    code: "webhook_not_found",
  });
  await expect(scene.webhooks.sealed(await scene.workspace(), id)).rejects.toMatchObject({
    code: "webhook_not_found",
  });
  await scene.webhooks.remove(workspaceId, id);
  expect(await scene.deliveries(id)).toEqual([]);
  for (const unknown of [id, "no-uuid"])
    await expect(scene.webhooks.remove(workspaceId, unknown)).rejects.toMatchObject({
      code: "webhook_not_found",
    });
});

test("a workspace has ten webhooks at most, also when they are made at once", async () => {
  const made = await Promise.allSettled(
    Array.from({ length: 14 }, () => scene.webhook(workspaceId, newPath())),
  );
  expect(made.filter(({ status }) => status === "fulfilled")).toHaveLength(10);
  await expect(scene.webhook(workspaceId, newPath())).rejects.toMatchObject({ code: "too_many_webhooks" });
});

test("a webhook whose row was moved to another workspace's is not sent to", async () => {
  const path = newPath();
  const theirs = await scene.webhook(await scene.workspace(), path);
  await scene.server.database.query((db) =>
    db.execute(sql`update webhooks set workspace_id = ${workspaceId}::uuid where id = ${theirs}`),
  );
  await scene.fail(workspaceId);
  await scene.loop();
  const [row] = await scene.until(theirs, ([one]) => one?.attempts === 1);
  expect(row?.lastError).toBe("a sealed value cannot be opened with this key at this place");
  expect(at(path)).toEqual([]);
});
