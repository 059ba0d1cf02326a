import { expect, test } from "bun:test";
import { Redacted } from "../std/redacted.ts";
import { CredentialError } from "./error.ts";
import { marshalMinted, mintedProvider } from "./minted.ts";

const ecr = "111111111111.dkr.ecr.us-east-1.amazonaws.com";
const end = new Date("2026-01-01T12:00:00Z");

test("an issuer's user name and password come back as they are, to be sent with the first request", async () => {
  const text = marshalMinted(ecr, { kind: "basic", username: "AWS", password: new Redacted("pässwörd") });
  expect(text.expose()).toBe(
    `{"registry":"${ecr}","type":"basic","credentials":{"PASSWORD":"pässwörd","USERNAME":"AWS"}}`,
  );
  const provider = mintedProvider(text, end);
  expect(provider).toMatchObject({ registry: ecr, type: "basic", renewable: false });
  const authorization = await provider.authorization();
  expect(authorization).toMatchObject({ kind: "basic", username: "AWS", expiresAt: end, preemptive: true });
  expect(authorization.kind === "basic" && authorization.password.expose()).toBe("pässwörd");
});

test("a token comes back as one, for any registry", async () => {
  for (const registry of ["docker.io", "127.0.0.1:5000", ecr, "europe-docker.pkg.dev"]) {
    const text = marshalMinted(registry, { kind: "bearer", token: new Redacted("a.b.c") });
    const authorization = await mintedProvider(text, undefined).authorization();
    expect(authorization.kind === "bearer" && authorization.token.expose()).toBe("a.b.c");
    expect("expiresAt" in authorization).toBe(false);
  }
});

test("nothing, and what would buy more than a pull, are not handed on", () => {
  for (const kind of ["anonymous", "refresh"] as const) {
    const token = new Redacted("a refresh token");
    expect(() => marshalMinted("r.example", { kind, token })).toThrow(CredentialError);
  }
});
