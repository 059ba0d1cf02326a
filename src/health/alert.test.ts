import { describe, expect, test } from "bun:test";
import { type AlertBody, alertMessage, expiryThreshold } from "./alert.ts";
import { webhookPayload } from "./webhook-payload.ts";

const dayMs = 86_400_000;
const now = Date.parse("2026-05-01T00:00:00Z");
const body: AlertBody = {
  workspace: "team",
  secret: { id: "s1", name: "ghcr", version: 3 },
  registry: "ghcr.io",
  state: "failing",
  reason: "ghcr.io refuses the credential.",
  code: "unauthorized",
  next: "Check the token.",
  since: "2026-04-30T22:10:05.000Z",
  expiresAt: null,
  images: [{ id: "img-1", reference: "ghcr.io/o/a:1" }],
  imagesTotal: 1,
  containers: ["c1"],
  containersTotal: 1,
};

describe("a message", () => {
  test("of a failure says what, why, since when, what stops, and what to do", () => {
    expect(alertMessage("failing", body, now)).toBe(
      "The secret ghcr (version 3) of the workspace team for ghcr.io has been failing since 2026-04-30 22:10 UTC: " +
        "ghcr.io refuses the credential. It is used by 1 image (ghcr.io/o/a:1) and 1 container that has not ended (c1). " +
        "New runs of these images fail, and reads of what is not cached yet. Check the token.",
    );
  });

  test("of a failure whose check said nothing to do names the command", () => {
    const bare = {
      ...body,
      reason: null,
      next: null,
      images: [],
      imagesTotal: 0,
      containers: [],
      containersTotal: 0,
    };
    expect(alertMessage("failing", bare, now)).toMatch(
      /since 2026-04-30 22:10 UTC\. No image uses it\. .*oci-node secret update ghcr$/,
    );
  });

  test("of an end that comes says in how long and when", () => {
    const ends = (ms: number) =>
      alertMessage("expiring", { ...body, expiresAt: new Date(now + ms).toISOString() }, now);
    expect(ends(13.5 * dayMs)).toContain("ends in 14 days, at 2026-05-14 12:00 UTC.");
    expect(ends(dayMs)).toContain("ends in 24 hours, at 2026-05-02 00:00 UTC.");
    expect(ends(1_000)).toContain("ends in 1 hour,");
    expect(ends(dayMs)).toMatch(/Renew it before: oci-node secret update ghcr$/);
    expect(ends(dayMs)).not.toContain("fail");
  });

  test("of a recovery asks for nothing", () => {
    expect(alertMessage("recovered", body, now)).toMatch(/ works again\. .* There is nothing to do\.$/);
  });
});

test.each([
  [14, 14],
  [3, 3],
  [1, 1],
  [14.001, undefined],
  [0, undefined],
])("what ends in %p days has crossed the threshold of %p", (days, threshold) => {
  expect(expiryThreshold(new Date(now + days * dayMs), now)).toBe(threshold as never);
});

test("a payload is the same bytes, in whatever order the database gives the body's fields", () => {
  const told = { id: "a", kind: "failing", at: new Date(now), message: "m" } as const;
  const shuffled = Object.fromEntries(Object.entries(body).reverse()) as unknown as AlertBody;
  expect(webhookPayload({ ...told, body: shuffled })).toBe(webhookPayload({ ...told, body }));
  expect(JSON.parse(webhookPayload({ ...told, body }))).toEqual({
    type: "secret.failing",
    timestamp: "2026-05-01T00:00:00.000Z",
    data: {
      message: "m",
      workspace: "team",
      secret: { id: "s1", name: "ghcr", version: 3 },
      registry: "ghcr.io",
      state: "failing",
      reason: "ghcr.io refuses the credential.",
      code: "unauthorized",
      next: "Check the token.",
      since: "2026-04-30T22:10:05.000Z",
      expires_at: null,
      images: [{ id: "img-1", reference: "ghcr.io/o/a:1" }],
      images_total: 1,
      containers: ["c1"],
      containers_total: 1,
    },
  });
});
