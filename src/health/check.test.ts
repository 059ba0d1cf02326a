import { afterAll, beforeAll, beforeEach, describe, expect, test } from "bun:test";
import { CredentialError } from "../credential/error.ts";
import { IssuedAuthorizations } from "../credential/issued.ts";
import type { ProviderDependencies } from "../credential/issuer.ts";
import type { RegistryCredential } from "../credential/provider.ts";
import { credentialMap } from "../credential/value.ts";
import {
  type ScriptedRegistry,
  scriptedImage,
  startScriptedRegistry,
} from "../registry/scripted-registry.test-kit.ts";
import { type CheckPlace, checkCredential } from "./check.ts";

const { digest } = scriptedImage.manifest;
const app: CheckPlace = { repository: "acme/app", digest };
let registry: ScriptedRegistry;

beforeAll(async () => {
  registry = await startScriptedRegistry();
});
beforeEach(() => {
  Object.assign(registry, { auth: "jwt", password: "right", trouble: undefined, actions: ["pull"] });
  Object.assign(registry, { repositories: ["acme/app"] });
  registry.clock.pass(3_600_000);
});
afterAll(() => registry.stop());

function alice(password = "right"): RegistryCredential {
  const credentials = credentialMap({ USERNAME: "alice", PASSWORD: password });
  return { registry: registry.registry, type: "basic", credentials };
}

function check(
  places: readonly CheckPlace[],
  credential = alice(),
  providers: ProviderDependencies = {},
  signal = new AbortController().signal,
  timeoutMs?: number,
) {
  const dependencies = { registry: registry.client, providersOf: async () => providers, probePush: false };
  return checkCredential(dependencies, "w", credential, places, signal, timeoutMs);
}

const jwt = (claims: object): string =>
  `e30.${Buffer.from(JSON.stringify(claims)).toString("base64url")}.c2ln`;

describe("a check", () => {
  test("of what works says so, with the rights that it has", async () => {
    expect(await check([app])).toEqual({ verdict: "ok", rights: "pull", expiresAt: undefined });
    registry.actions = ["pull", "push"];
    expect(await check([app])).toMatchObject({ verdict: "ok", rights: "push" });
    expect(await check([])).toMatchObject({ verdict: "ok", rights: "unknown" });
  });

  test("of a wrong password is a refusal in the registry's words, by tokens and without", async () => {
    for (const auth of ["jwt", "basic"] as const) {
      registry.auth = auth;
      const outcome = await check([app], alice(`wrong by ${auth}`));
      expect(outcome).toMatchObject({ verdict: "refused", code: "unauthorized" });
      expect(outcome.reason).toContain(`${registry.registry} refuses the credential`);
      expect(outcome.next).toContain("revoked");
      expect(JSON.stringify(outcome)).not.toContain("wrong by");
    }
  });

  test("of an account that may not pull is a refusal", async () => {
    registry.actions = [];
    expect(await check([app])).toMatchObject({ verdict: "refused", code: "denied" });
  });

  test("is refused when one repository of several refuses", async () => {
    registry.auth = "basic";
    registry.repositories = ["acme/app", "acme/other"];
    expect(await check([app, { repository: "acme/other", digest }])).toMatchObject({ verdict: "ok" });
    registry.password = "changed";
    expect(await check([app, { repository: "acme/other", digest }])).toMatchObject({ verdict: "refused" });
  });

  test("says what is missing, and does not blame the credential for it", async () => {
    const gone = await check([{ repository: "acme/gone", digest }]);
    expect(gone).toMatchObject({ verdict: "ok", code: "not_found" });
    expect(gone.reason).toContain("the credential is taken, but");
    expect(gone.reason).toContain("acme/gone");
    const other = await check([app, { repository: "acme/gone", digest }]);
    expect(other).toMatchObject({ verdict: "ok", code: "not_found" });
    const wrong = await check([{ repository: "acme/gone", digest }], alice("wrong"));
    expect(wrong).toMatchObject({ verdict: "refused", code: "unauthorized" });
  });

  test("is unknown when the registry fails, limits, or does not ask who it is", async () => {
    for (const [status, code] of [
      [500, "unreachable"],
      [429, "rate_limited"],
    ] as const) {
      registry.trouble = status;
      expect(await check([app])).toMatchObject({ verdict: "unknown", code });
    }
    registry.trouble = undefined;
    registry.auth = "open";
    expect(await check([app])).toMatchObject({ verdict: "unknown", code: "unasked" });
  });

  test("ends with its time, and with whoever asked for it", async () => {
    const hangs = {
      registry: {
        tryCredential: (_: unknown, __: unknown, { signal }: { signal: AbortSignal }) => never(signal),
      },
      providersOf: async () => ({}),
      probePush: false,
    };
    const asked = new AbortController();
    const late = await checkCredential(hangs, "w", alice(), [app], asked.signal, 20);
    expect(late).toMatchObject({ verdict: "unknown", code: "timeout" });
    const given = checkCredential(hangs, "w", alice(), [app], asked.signal);
    asked.abort(new Error("left"));
    await expect(given).rejects.toThrow("left");
  });
});

describe("an issuer", () => {
  const registryOfAws = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";
  const keys = {
    registry: registryOfAws,
    type: "aws" as const,
    credentials: credentialMap({ AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE", AWS_SECRET_ACCESS_KEY: "s/e+c" }),
  };

  test("that says no is a refusal", async () => {
    const refuses = async (): Promise<Response> =>
      Response.json({ __type: "UnrecognizedClientException" }, { status: 400 });
    const outcome = await check([], keys, { fetch: refuses, issued: new IssuedAuthorizations() });
    expect(outcome).toMatchObject({ verdict: "refused", code: "provider_failed" });
  });

  test("that cannot be reached leaves it unknown", async () => {
    const away = async (): Promise<Response> => {
      throw new CredentialError("provider_unreachable", "no way");
    };
    const own = { fetch: away, issued: new IssuedAuthorizations() };
    expect(await check([], keys, own)).toMatchObject({ verdict: "unknown", code: "provider_unreachable" });
  });

  test("that the workspace may not use any more is a refusal", async () => {
    const identity = {
      registry: registry.registry,
      type: "identity" as const,
      credentials: credentialMap({ OCI_NODE_IDENTITY: "prod" }),
    };
    const workspace = {
      name: "w",
      externalId: "x",
      identity: () => {
        throw new CredentialError("identity_refused", "the workspace w may not use the identity prod");
      },
    };
    const outcome = await check([app], identity, { workspace });
    expect(outcome).toMatchObject({ verdict: "refused", code: "identity_refused" });
  });
});

describe("its end", () => {
  test("is read from a token, and from a password that is one", async () => {
    const exp = Math.floor(registry.clock.now() / 1000) + 86_400;
    const expiresAt = new Date(exp * 1000);
    registry.auth = "basic";
    registry.password = jwt({ exp });
    expect(await check([app], alice(registry.password))).toMatchObject({ verdict: "ok", expiresAt });
    const token = credentialMap({ REGISTRY_TOKEN: jwt({ exp, grant: ["repository:acme/app:pull"] }) });
    const bearer = { registry: registry.registry, type: "token" as const, credentials: token };
    registry.auth = "jwt";
    expect(await check([app], bearer)).toMatchObject({ verdict: "ok", expiresAt });
  });

  test("that is past is a refusal before anybody is asked", async () => {
    const ended = jwt({ exp: Math.floor(registry.clock.now() / 1000) - 3600 });
    const asked = registry.lines().length;
    const outcome = await check([app], alice(ended));
    expect(outcome).toMatchObject({ verdict: "refused", code: "expired" });
    expect(outcome.expiresAt).toBeDate();
    expect(
      registry
        .lines()
        .slice(asked)
        .filter((line) => line.endsWith("/token")),
    ).toEqual([]);
  });
});

function never(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    const leave = (): void => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener("abort", leave);
  });
}
