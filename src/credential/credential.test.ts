import { describe, expect, test } from "bun:test";
import { inspect } from "node:util";
import { Redacted } from "../std/redacted.ts";
import { detectCredentialType, principalOf } from "./detect.ts";
import { parseCredentialsFile, parseCredentialsFromEnv, readCallerCredentials } from "./environment.ts";
import { CredentialError, type CredentialErrorCode } from "./error.ts";
import { knownKeys } from "./key.ts";
import { marshalCredentials, unmarshalCredentials } from "./marshal.ts";
import type { CredentialMap, CredentialType } from "./provider.ts";
import { createSecretName } from "./secret-name.ts";
import { credentialMap } from "./value.ts";

const ecr = "123456789012.dkr.ecr.us-east-1.amazonaws.com";
const awsPair = { AWS_ACCESS_KEY_ID: "AKIA", AWS_SECRET_ACCESS_KEY: "secret" };

function errorOf(call: () => unknown): CredentialError {
  try {
    call();
  } catch (error) {
    if (error instanceof CredentialError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

const codeOf = (call: () => unknown): CredentialErrorCode => errorOf(call).code;
const exposed = (map: CredentialMap): Record<string, string> =>
  Object.fromEntries(Object.entries(map).map(([key, value]) => [key, value.expose()]));

describe("keys of an environment", () => {
  test("takes the known keys and passes over everything else", () => {
    const map = parseCredentialsFromEnv({ ...awsPair, PATH: "/bin", HOME: "/root", GITHUB_TOKEN: "" });
    expect(exposed(map)).toEqual(awsPair);
  });

  test("takes only the keys that were named", () => {
    expect(exposed(parseCredentialsFromEnv({ ...awsPair, USERNAME: "root" }, Object.keys(awsPair)))).toEqual(
      awsPair,
    );
    expect(exposed(parseCredentialsFromEnv({ ...awsPair }, []))).toEqual({});
  });

  test("names a key that is asked for and absent, or empty", () => {
    for (const env of [{ USERNAME: "u" }, { USERNAME: "u", PASSWORD: "" }]) {
      const error = errorOf(() => parseCredentialsFromEnv(env, ["USERNAME", "PASSWORD"]));
      expect(error.code).toBe("missing_key");
      expect(error.message).toContain("PASSWORD");
    }
  });

  test("lists the known keys when one is not known, and never shows a value given in its place", () => {
    const error = errorOf(() => parseCredentialsFromEnv({}, ["PASSWORT=hunter2"]));
    expect(error.code).toBe("unknown_key");
    expect(error.message).toContain("PASSWORT");
    for (const key of knownKeys) expect(error.next).toContain(key);
    expect(error.message + error.next).not.toContain("hunter2");
    for (const value of ["hunter2", "Hunter2-with-a-sign", "hunter2=x"]) {
      const alone = errorOf(() => parseCredentialsFromEnv({}, [value]));
      expect(alone.message).toBe("one of the names given is not a credential key");
      expect(alone.next).toStartWith("Give names, not values: ");
    }
    expect(codeOf(() => parseCredentialsFromEnv({}, ["toString"]))).toBe("unknown_key");
    expect(codeOf(() => parseCredentialsFromEnv({}, ["__proto__"]))).toBe("unknown_key");
  });

  test.each([["a\nb"], ["a\u0000b"], ["a\r"], ["\u007f"]])("refuses the value %p", (value) => {
    expect(codeOf(() => parseCredentialsFromEnv({ PASSWORD: value }))).toBe("bad_value");
  });

  test("refuses a value that is longer than any credential", () => {
    expect(codeOf(() => credentialMap({ PASSWORD: "x".repeat(16_385) }))).toBe("bad_value");
  });

  test("puts a service account's JSON on one line, and refuses what is none without quoting it", () => {
    const map = parseCredentialsFromEnv({ GOOGLE_APPLICATION_CREDENTIALS: '{\n "type": "x"\n}' });
    expect(exposed(map)).toEqual({ GOOGLE_APPLICATION_CREDENTIALS: '{"type":"x"}' });
    const error = errorOf(() =>
      credentialMap({ GOOGLE_APPLICATION_CREDENTIALS: '{"private_key": "hunter2' }),
    );
    expect(error.code).toBe("bad_value");
    expect(inspect(error)).not.toContain("hunter2");
  });

  test("takes a service account's key as a password over several lines, as files of it are", () => {
    const json = '{\n "client_email": "ci@acme.iam.gserviceaccount.com"\n}\n';
    for (const [user, password] of [
      ["USERNAME", "PASSWORD"],
      ["REGISTRY_USERNAME", "REGISTRY_PASSWORD"],
      ["DOCKER_USERNAME", "DOCKER_PASSWORD"],
    ] as const) {
      const plain = exposed(credentialMap({ [user]: "_json_key", [password]: json }));
      expect(plain[password]).toBe(JSON.stringify(JSON.parse(json)));
      const wrapped = Buffer.from(json).toString("base64").replace(/.{20}/g, "$&\n");
      const coded = exposed(credentialMap({ [password]: wrapped, [user]: "_json_key_base64" }));
      expect(coded[password]).toBe(Buffer.from(json).toString("base64"));
    }
    const error = errorOf(() =>
      credentialMap({ USERNAME: "_json_key", PASSWORD: '{"private_key": "hunter2' }),
    );
    expect(error.code).toBe("bad_value");
    expect(inspect(error)).not.toContain("hunter2");
    expect(codeOf(() => credentialMap({ USERNAME: "json_key", PASSWORD: json }))).toBe("bad_value");
  });

  test("reads the file that GOOGLE_APPLICATION_CREDENTIALS names on the caller's side only", async () => {
    const key = "GOOGLE_APPLICATION_CREDENTIALS";
    const path = new URL("../../package.json", import.meta.url).pathname;
    expect(codeOf(() => parseCredentialsFromEnv({ [key]: path }))).toBe("bad_value");
    expect(exposed(await readCallerCredentials({ [key]: path }, [key]))[key]).toStartWith("{");
    const missing = readCallerCredentials({ [key]: "/none/such.json" }, [key]);
    await expect(missing).rejects.toMatchObject({ code: "bad_value" });
  });
});

describe("a credentials file", () => {
  test("is lines of KEY=value", () => {
    const text = "\uFEFF# mine\n\nexport USERNAME=alice\r\nPASSWORD='a=b #c'\n";
    expect(exposed(parseCredentialsFile(text))).toEqual({ USERNAME: "alice", PASSWORD: "a=b #c" });
  });

  test.each([
    ["", "no_credentials"],
    ["# nothing\n", "no_credentials"],
    ["hunter2\n", "bad_value"],
    ["USERNAME=a\nUSERNAME=b\n", "bad_value"],
    ["PASSWORT=hunter2\n", "unknown_key"],
    ["PASSWORD=\n", "missing_key"],
  ] as [string, CredentialErrorCode][])("refuses %p", (text, code) => {
    const error = errorOf(() => parseCredentialsFile(text));
    expect(error.code).toBe(code);
    expect(`${error.message}${error.next}`).not.toContain("hunter2");
  });
});

describe("the type of a credential", () => {
  test.each([
    ["docker.io", {}, "public"],
    [ecr, awsPair, "aws"],
    [ecr, { USERNAME: "AWS", PASSWORD: "p" }, "basic"],
    ["gcr.io", { GCP_ACCESS_TOKEN: "t" }, "gcp"],
    ["eu.gcr.io", { GCP_ACCESS_TOKEN: "t", GCP_PROJECT_ID: "p" }, "gcp"],
    ["us-docker.pkg.dev", { GOOGLE_APPLICATION_CREDENTIALS: "{}" }, "gcp"],
    ["gcr.io", { USERNAME: "_json_key", PASSWORD: "{}" }, "basic"],
    ["docker.io", { DOCKERHUB_USERNAME: "u", DOCKERHUB_PASSWORD: "p" }, "basic"],
    ["docker.io", { DOCKERHUB_USERNAME: "u", DOCKERHUB_TOKEN: "p" }, "basic"],
    ["docker.io", { DOCKER_USERNAME: "u", DOCKER_PASSWORD: "p" }, "basic"],
    ["ghcr.io", { GITHUB_USERNAME: "u", GITHUB_TOKEN: "p" }, "basic"],
    ["nvcr.io", { NGC_API_KEY: "k" }, "basic"],
    ["acme.azurecr.io", { AZURE_CLIENT_ID: "i", AZURE_CLIENT_SECRET: "s", AZURE_TENANT_ID: "t" }, "azure"],
    ["registry.acme.test:5000", { REGISTRY_USERNAME: "u", REGISTRY_PASSWORD: "p" }, "basic"],
    ["registry.acme.test", { USERNAME: "u", PASSWORD: "p" }, "basic"],
    ["registry.acme.test", { REGISTRY_TOKEN: "t" }, "token"],
    ["ghcr.io", { ...awsPair, GITHUB_USERNAME: "u", GITHUB_TOKEN: "p" }, "basic"],
  ] as [string, Record<string, string>, CredentialType][])(
    "for %s with %p is %s",
    (registry, values, type) => {
      expect(detectCredentialType(registry, credentialMap(values))).toBe(type);
    },
  );

  test.each([
    ["amazonaws.com.evil.com", awsPair],
    [`${ecr}.evil.com`, awsPair],
    [`${ecr}:8443`, awsPair],
    ["public.ecr.aws.evil.com", awsPair],
    ["evilgcr.io", { GCP_ACCESS_TOKEN: "t" }],
    ["gcr.io.evil.com", { GCP_ACCESS_TOKEN: "t" }],
    ["ghcr.io.evil.com", { GITHUB_USERNAME: "u", GITHUB_TOKEN: "p" }],
    ["notnvcr.io", { NGC_API_KEY: "k" }],
    ["ghcr.io", { DOCKERHUB_USERNAME: "u", DOCKERHUB_PASSWORD: "p" }],
    ["azurecr.io.evil.com", { AZURE_CLIENT_ID: "i", AZURE_CLIENT_SECRET: "s" }],
  ] as [string, Record<string, string>][])("%s does not get %p", (registry, values) => {
    expect(codeOf(() => detectCredentialType(registry, credentialMap(values)))).toBe("registry_mismatch");
  });

  test.each([
    [ecr, { AWS_ACCESS_KEY_ID: "a" }, "AWS_SECRET_ACCESS_KEY"],
    [ecr, { AWS_SECRET_ACCESS_KEY: "a" }, "AWS_ACCESS_KEY_ID"],
    ["docker.io", { DOCKERHUB_USERNAME: "u" }, "DOCKERHUB_PASSWORD or DOCKERHUB_TOKEN"],
    ["docker.io", { DOCKERHUB_PASSWORD: "p" }, "DOCKERHUB_USERNAME"],
    ["ghcr.io", { GITHUB_TOKEN: "p" }, "GITHUB_USERNAME"],
    ["ghcr.io", { GITHUB_USERNAME: "p" }, "GITHUB_TOKEN"],
    ["acme.azurecr.io", { AZURE_CLIENT_ID: "i" }, "AZURE_CLIENT_SECRET"],
    ["r.test", { USERNAME: "u" }, "PASSWORD"],
    ["r.test", { PASSWORD: "p" }, "USERNAME"],
    ["r.test", { REGISTRY_PASSWORD: "p" }, "REGISTRY_USERNAME"],
    ["docker.io", { DOCKER_USERNAME: "u" }, "DOCKER_PASSWORD"],
  ] as [string, Record<string, string>, string][])(
    "one half for %s (%p) names the other",
    (registry, values, missing) => {
      const error = errorOf(() => detectCredentialType(registry, credentialMap(values)));
      expect(error.code).toBe("incomplete_pair");
      expect(error.message).toStartWith(`${missing} is missing`);
    },
  );

  test("a region or a project alone is no credential", () => {
    expect(codeOf(() => detectCredentialType(ecr, credentialMap({ AWS_REGION: "us-east-1" })))).toBe(
      "missing_key",
    );
    expect(codeOf(() => detectCredentialType("gcr.io", credentialMap({ GCP_PROJECT_ID: "p" })))).toBe(
      "missing_key",
    );
  });
});

describe("marshalling", () => {
  test("writes registry, type and the keys that are needed, and reads them back", () => {
    const given = credentialMap({ ...awsPair, AWS_REGION: "us-east-1", GITHUB_TOKEN: "not needed" });
    const text = marshalCredentials(ecr, "aws", given);
    expect(JSON.parse(text.expose())).toEqual({
      registry: ecr,
      type: "aws",
      credentials: { ...awsPair, AWS_REGION: "us-east-1" },
    });
    const back = unmarshalCredentials(text);
    expect(back).toMatchObject({ registry: ecr, type: "aws" });
    expect(exposed(back.credentials)).toEqual({ ...awsPair, AWS_REGION: "us-east-1" });
  });

  test("equal credentials are equal texts, whatever the order of their keys", () => {
    const one = marshalCredentials("r.test", "basic", credentialMap({ USERNAME: "u", PASSWORD: "p" }));
    const other = marshalCredentials("r.test", "basic", credentialMap({ PASSWORD: "p", USERNAME: "u" }));
    expect(one.expose()).toBe(other.expose());
  });

  test("keeps any password as it is", () => {
    const password = 'a"b\\c {é} 😀 $x';
    const text = marshalCredentials("r.test", "basic", credentialMap({ USERNAME: "u", PASSWORD: password }));
    expect(exposed(unmarshalCredentials(text).credentials)["PASSWORD"]).toBe(password);
  });

  test.each([
    "",
    "hunter2",
    "[]",
    "null",
    '{"registry":"r.test","type":"basic"}',
    '{"registry":"r.test","type":"magic","credentials":{}}',
    '{"registry":"r.test/x","type":"basic","credentials":{"USERNAME":"u","PASSWORD":"hunter2"}}',
    '{"registry":"r.test","type":"aws","credentials":{"USERNAME":"u","PASSWORD":"hunter2"}}',
    '{"registry":"r.test","type":"basic","credentials":{"USERNAME":"u","PASSWORD":7}}',
    '{"registry":"r.test","type":"public","credentials":{},"more":"hunter2"}',
  ])("refuses %p without quoting it", (text) => {
    const error = errorOf(() => unmarshalCredentials(new Redacted(text)));
    expect(error.code).toBe("bad_value");
    expect(inspect(error)).not.toContain("hunter2");
  });

  test("a marshalled credential does not print", () => {
    const text = marshalCredentials("r.test", "basic", credentialMap({ USERNAME: "u", PASSWORD: "hunter2" }));
    expect(`${text} ${JSON.stringify({ text })} ${inspect({ text })}`).not.toContain("hunter2");
  });
});

describe("principals", () => {
  const account = { type: "service_account", client_email: "ci@acme.iam.gserviceaccount.com" };
  test.each([
    [ecr, "aws", awsPair, "123456789012"],
    ["ghcr.io", "basic", { GITHUB_USERNAME: "octo", GITHUB_TOKEN: "t" }, "octo"],
    ["r.test", "basic", { USERNAME: "alice", PASSWORD: "p" }, "alice"],
    ["acme.azurecr.io", "azure", { AZURE_CLIENT_ID: "id", AZURE_CLIENT_SECRET: "s" }, "id"],
    ["gcr.io", "gcp", { GOOGLE_APPLICATION_CREDENTIALS: JSON.stringify(account) }, account.client_email],
    ["gcr.io", "gcp", { GCP_ACCESS_TOKEN: "t" }, "default"],
    ["gcr.io", "gcp", { GCP_WORKLOAD_IDENTITY_PROVIDER: "projects/1/x" }, "projects/1/x"],
    [
      "gcr.io",
      "gcp",
      { GOOGLE_APPLICATION_CREDENTIALS: JSON.stringify(account), GCP_SERVICE_ACCOUNT: "pull@x" },
      "pull@x",
    ],
    ["gcr.io", "basic", { USERNAME: "_json_key", PASSWORD: JSON.stringify(account) }, account.client_email],
    [
      "gcr.io",
      "basic",
      { USERNAME: "_json_key_base64", PASSWORD: btoa(JSON.stringify(account)) },
      account.client_email,
    ],
    ["gcr.io", "basic", { USERNAME: "_json_key", PASSWORD: "{}" }, "_json_key"],
    ["r.test", "basic", { USERNAME: "constructor", PASSWORD: "p" }, "constructor"],
    ["acme.azurecr.io", "azure", { AZURE_CLIENT_ID: "id", AZURE_TENANT_ID: "t" }, "id"],
    ["nvcr.io", "basic", { NGC_API_KEY: "k" }, "default"],
    ["r.test", "token", { REGISTRY_TOKEN: "t" }, "default"],
    ["r.test", "public", {}, "anonymous"],
  ] as [string, CredentialType, Record<string, string>, string][])(
    "of %s, %s, %p is %s",
    (registry, type, values, principal) => {
      expect(principalOf(registry, type, credentialMap(values))).toBe(principal);
    },
  );
});

describe("secret names", () => {
  test.each([
    ["ghcr.io", "oci-registry-ghcr-io"],
    ["LOCALHOST:5000", "oci-registry-localhost-5000"],
    ["a.b/c", "oci-registry-a-b-c"],
    ["[::1]:5000", "oci-registry----1--5000"],
  ])("of %s is %s", (registry, name) => {
    expect(createSecretName(registry)).toBe(name);
  });

  test("a taken name gets a suffix, always the same for the same principal", () => {
    const plain = createSecretName("a.b", "alice");
    const taken = (name: string): boolean => name === plain;
    const alice = createSecretName("a.b", "alice", taken);
    expect(alice).toMatch(/^oci-registry-a-b-[0-9a-f]{8}$/);
    expect(createSecretName("a.b", "alice", taken)).toBe(alice);
    expect(createSecretName("a.b", "bob", taken)).not.toBe(alice);
    expect(createSecretName("a-b", "alice", taken)).not.toBe(alice);
    expect(createSecretName("a.b", "alice", (name) => name === plain || name === alice)).toMatch(
      /-[0-9a-f]{16}$/,
    );
  });

  test("stays within 255 characters, and apart, for the longest hosts", () => {
    const host = (end: string): string =>
      `${"a".repeat(63)}.${"b".repeat(63)}.${"c".repeat(63)}.${"d".repeat(57)}.${end}`;
    const names = ["aa", "bb"].map((end) => createSecretName(`${host(end)}:65535`));
    expect(new Set(names).size).toBe(2);
    for (const name of names) expect(name.length).toBeLessThanOrEqual(255);
  });
});
