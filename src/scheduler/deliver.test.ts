import { expect, test } from "bun:test";
import { createProvider } from "../credential/create-provider.ts";
import { credentialMap } from "../credential/value.ts";
import { RegistryError } from "../registry/error.ts";
import type { MintedPull, MintOptions } from "../registry/mint.ts";
import { Redacted } from "../std/redacted.ts";
import { type Delivery, type DeliveryRule, deliver } from "./deliver.ts";

const minute = 60_000;
const life = 15 * minute;
const digest = `sha256:${"1".repeat(64)}`;
const reference = { registry: "r.example", repository: "acme/app", digest };
const credential = {
  registry: "r.example",
  type: "basic" as const,
  credentials: credentialMap({ USERNAME: "robot", PASSWORD: "pw" }),
};
const value = new Redacted("the secret's value");
const startMs = Date.UTC(2026, 0, 1);
const away = new RegistryError("unreachable", "no answer", reference);

/** What the registry room has, and gives when it is asked; at 12:00, with what was made at `atMinute`. */
function scene(kept: number | "over" | undefined, made: number | RegistryError = 0) {
  const asked: MintOptions[] = [];
  const minted = (atMinute: number): MintedPull => ({
    authorization: { kind: "bearer", token: new Redacted("t") },
    validUntil: new Date(startMs + 12 * 60 * minute),
    scope: "pull acme/app",
    proved: { manifest: digest, at: new Date(startMs) },
    provedAt: new Date(startMs + atMinute * minute),
  });
  const registry = {
    mintedPull: () => (typeof kept === "number" ? minted(kept) : kept),
    mintPull: async (_: unknown, __: unknown, ___: unknown, options: MintOptions = {}) => {
      asked.push(options);
      if (made instanceof RegistryError) throw made;
      return minted(made);
    },
  };
  const give = (rule: Partial<DeliveryRule>, sealable = true): Promise<Delivery> =>
    deliver(
      registry,
      { reference, credential, provider: createProvider(credential), ...(sealable ? { value } : {}) },
      { wanted: "minted", anew: false, grantLifeMs: life, ...rule },
      () => startMs,
    );
  return { asked, give };
}

test("a known image gets what is at hand, for as long as that proves, and its age is told", async () => {
  const { asked, give } = scene(-14);
  expect(await give({ known: true })).toMatchObject({
    delivery: "minted",
    accessProved: true,
    provedAgoMs: 14 * minute,
  });
  expect(asked).toEqual([]);
});

test("what is at hand proves nothing when it is too old, though it lives for hours", async () => {
  const { asked, give } = scene(-15);
  expect(await give({ known: true })).toMatchObject({ accessProved: true, provedAgoMs: 0 });
  expect(asked).toMatchObject([{ withinMs: life }]);
});

test("without a life each start asks, whatever is at hand, is over, or is known", async () => {
  for (const kept of [0, "over", undefined] as const) {
    const { asked, give } = scene(kept);
    expect((await give({ known: true, grantLifeMs: 0 })).text).toBeDefined();
    expect(asked).toMatchObject([{ withinMs: 0 }]);
  }
});

test("a worker that knows the image is asked whether its proof counts when what was at hand is over", async () => {
  const { asked, give } = scene("over");
  expect(await give({ known: true })).toEqual({ delivery: "minted" });
  expect(asked).toEqual([]);
});

test("what runs already is given what is good, whatever it proves", async () => {
  const { asked, give } = scene(undefined);
  await give({ grantLifeMs: undefined });
  expect(asked.map(({ withinMs }) => withinMs)).toEqual([undefined]);
});

test("a registry that is away gets the worker the credential itself, or leaves it to its last proof, or is told by name", async () => {
  const { give } = scene(undefined, away);
  expect(await give({ known: true })).toMatchObject({ delivery: "sealed" });
  expect(await give({ known: true }, false)).toEqual({ delivery: "minted" });
  const told = {
    code: "unreachable",
    message: expect.stringContaining(`acme/app@${digest} cannot be proved now`),
  };
  await expect(give({ known: false }, false)).rejects.toMatchObject(told);
  await expect(give({ known: true, grantLifeMs: 0 }, false)).rejects.toMatchObject(told);
});
