import { afterEach, beforeEach, describe, expect, test } from "bun:test";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { RegistryClient } from "./client.ts";
import { startDockerRegistry } from "./docker-registry.test-kit.ts";
import { pushImage } from "./image.test-kit.ts";
import { basicProvider } from "./quirks.test-kit.ts";
import { type ScriptedRegistry, scriptedImage, startScriptedRegistry } from "./scripted-registry.test-kit.ts";
import type { TrialPlace } from "./trial.ts";

const { signal } = new AbortController();
const { digest } = scriptedImage.manifest;
let registry: ScriptedRegistry;
beforeEach(async () => {
  registry = await startScriptedRegistry();
});
afterEach(() => registry.stop());

function trial(
  at: Partial<TrialPlace> = { repository: "acme/app", digest },
  { password = "right", probePush = false } = {},
) {
  const { client, registry: host } = registry;
  const place = { registry: host, repository: undefined, ...at };
  return client.tryCredential(place, basicProvider(host, password), { probePush, signal });
}

describe("a trial of a credential", () => {
  test("asks for a manifest by HEAD and for nothing else of the image", async () => {
    expect(await trial()).toEqual({ proved: true, rights: "pull" });
    const asked = registry.lines().filter((line) => !line.endsWith("/token"));
    expect(new Set(asked)).toEqual(new Set([`HEAD /v2/acme/app/manifests/${digest}`]));
  });

  test("at the registry alone logs in without a scope", async () => {
    expect(await trial({})).toEqual({ proved: true, rights: "unknown" });
    expect(registry.logins).toEqual([{ wrong: false, scopes: [] }]);
  });

  test("logs in anew each time, whatever was agreed before", async () => {
    await trial();
    registry.password = "another";
    await expect(trial()).rejects.toMatchObject({ code: "unauthorized" });
    await expect(trial({})).rejects.toMatchObject({ code: "unauthorized" });
  });

  test("with a wrong password logs in once", async () => {
    for (const auth of ["jwt", "basic"] as const) {
      registry.auth = auth;
      registry.logins.length = 0;
      await expect(trial({ repository: "acme/app", digest }, { password: auth })).rejects.toMatchObject({
        code: "unauthorized",
      });
      expect(registry.logins.filter(({ wrong }) => wrong)).toHaveLength(1);
    }
  });

  test("without a known manifest takes a tag, or any tag, for a proof", async () => {
    expect(await trial({ repository: "acme/app", tag: "1" })).toMatchObject({ proved: true });
    expect(registry.lines()).not.toContain("GET /v2/acme/app/tags/list");
    expect(await trial({ repository: "acme/app" })).toMatchObject({ proved: true });
    await expect(trial({ repository: "acme/none" })).rejects.toMatchObject({ code: "not_found" });
  });

  test("proves nothing where nobody is asked who he is", async () => {
    registry.auth = "open";
    expect(await trial()).toEqual({ proved: false, rights: "unknown" });
  });

  test("goes to the credential's own registry alone", async () => {
    const { client, registry: host } = registry;
    const place = { registry: "ghcr.io", repository: "acme/app" };
    const tried = client.tryCredential(place, basicProvider(host, "right"), { probePush: false, signal });
    await expect(tried).rejects.toMatchObject({ code: "egress_refused" });
  });
});

describe("rights", () => {
  test("wider than pulling are read from a token that is asked for apart and not used", async () => {
    registry.actions = ["pull", "push"];
    expect(await trial()).toEqual({ proved: true, rights: "push" });
    expect(registry.logins.map(({ scopes }) => scopes)).toEqual([
      ["repository:acme/app:pull"],
      ["repository:acme/app:pull,push"],
    ]);
    expect(registry.lines().at(-1)).toBe("GET /token");
  });

  test("are unknown where tokens do not say them, or there are none", async () => {
    for (const auth of ["opaque", "basic"] as const) {
      registry.auth = auth;
      expect(await trial()).toEqual({ proved: true, rights: "unknown" });
    }
    expect(registry.lines().some((line) => line.startsWith("POST"))).toBe(false);
  });

  test("are tried by an upload that is begun and cancelled, if the operator wants it", async () => {
    for (const auth of ["opaque", "basic"] as const) {
      registry.auth = auth;
      registry.actions = ["pull", "push"];
      const at = { repository: "acme/app", digest };
      expect(await trial(at, { probePush: true })).toEqual({ proved: true, rights: "push" });
      expect(registry.lines().at(-1)).toStartWith("DELETE /v2/acme/app/blobs/uploads/");
      expect([...registry.uploads]).toEqual([]);
      registry.actions = ["pull"];
      expect(await trial(at, { probePush: true })).toEqual({ proved: true, rights: "pull" });
    }
  });

  test("that are tried leave no upload open in a registry's store", async () => {
    const auth = { kind: "htpasswd", username: "alice", password: "pw" } as const;
    const real = await startDockerRegistry(auth);
    try {
      await pushImage(real.host, "acme/app", "1", scriptedImage, {
        authorization: `Basic ${btoa("alice:pw")}`,
      });
      const policy = { insecureHosts: new Set([real.host]), privateHosts: new Set<string>() };
      const client = new RegistryClient({ policy });
      const place = { registry: real.host, repository: "acme/app", digest };
      const options = { probePush: true, signal };
      const found = await client.tryCredential(place, basicProvider(real.host, "pw"), options);
      expect(found).toEqual({ proved: true, rights: "push" });
      const uploads = join(real.root, "store/docker/registry/v2/repositories/acme/app/_uploads");
      const left = (await readdir(uploads, { recursive: true })).map((path) => basename(path));
      // The registry keeps an empty folder; of an upload that is open, when it began and what has come.
      expect(left.filter((name) => ["startedat", "data"].includes(name))).toEqual([]);
    } finally {
      await real.stop();
    }
  });
});
