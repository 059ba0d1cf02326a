import { describe, expect, test } from "bun:test";
import { CredentialError } from "./error.ts";
import { credentialsFromKubernetes } from "./kubernetes-secret.ts";

const secret = "hunter2";
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const auths = (host: string, user = "robot") => ({ [host]: { auth: base64(`${user}:${secret}`) } });
const configJson = (host: string, user?: string) => JSON.stringify({ auths: auths(host, user) });

/** As `kubectl get secret regcred -o yaml` prints it. */
const manifest = `apiVersion: v1
data:
  .dockerconfigjson: ${base64(configJson("r.test"))}
kind: Secret
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: |
      {"apiVersion":"v1","data":{".dockerconfigjson":"…"},"kind":"Secret"}
  creationTimestamp: "2026-01-01T00:00:00Z"
  name: regcred
  namespace: default
type: kubernetes.io/dockerconfigjson
`;
const object = (fields: object, name = "regcred") => ({ kind: "Secret", metadata: { name }, ...fields });

async function read(given: unknown, registry = "r.test", repository?: string) {
  const text = typeof given === "string" ? given : JSON.stringify(given);
  const target = { registry, ...(repository === undefined ? {} : { repository }) };
  const found = await credentialsFromKubernetes(target, text);
  return Object.fromEntries(Object.entries(found).map(([key, value]) => [key, value.expose()]));
}

async function refusal(asked: Promise<unknown>): Promise<CredentialError> {
  const error = await asked.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(CredentialError);
  const { message, next, cause } = error as CredentialError;
  expect(`${message} ${next} ${Bun.inspect(cause)}`).not.toMatch(/hunter2|aHVudGVyMg|cm9ib3Q/);
  return error as CredentialError;
}

const robot = { USERNAME: "robot", PASSWORD: secret };

describe("a pull Secret of Kubernetes", () => {
  test.each<[string, unknown]>([
    ["YAML as kubectl prints it", manifest],
    ["one of several documents", `kind: ConfigMap\ndata: {a: b}\n---\n${manifest}`],
    [
      "JSON",
      object({
        type: "kubernetes.io/dockerconfigjson",
        data: { ".dockerconfigjson": base64(configJson("r.test")) },
      }),
    ],
    ["stringData", object({ stringData: { ".dockerconfigjson": configJson("r.test") } })],
    [
      "stringData over data",
      object({
        data: { ".dockerconfigjson": base64("{}") },
        stringData: { ".dockerconfigjson": configJson("r.test") },
      }),
    ],
    [
      "the older type",
      object({
        type: "kubernetes.io/dockercfg",
        data: { ".dockercfg": base64(JSON.stringify(auths("https://r.test/v1/"))) },
      }),
    ],
    [
      "a List beside other Secrets",
      {
        kind: "List",
        items: [
          object({ data: { token: "eA==" } }, "other"),
          { kind: "Pod" },
          object({ stringData: { ".dockerconfigjson": configJson("r.test") } }),
        ],
      },
    ],
    [
      "two Secrets that hold the same",
      {
        kind: "SecretList",
        items: [1, 2].map((n) =>
          object({ stringData: { ".dockerconfigjson": configJson("r.test") } }, `s${n}`),
        ),
      },
    ],
    ["a bare config.json", configJson("r.test")],
    ["the bare value of its data", base64(configJson("r.test"))],
    ["a bare config in YAML", `auths:\n  r.test:\n    username: robot\n    password: ${secret}\n`],
  ])("is read from %s", async (_, given) => {
    expect(await read(given)).toEqual(robot);
  });

  test("may name a part of a registry, and the longest key wins", async () => {
    const both = { auths: { ...auths("r.test", "all"), ...auths("r.test/acme", "acme") } };
    const given = object({ stringData: { ".dockerconfigjson": JSON.stringify(both) } });
    expect((await read(given, "r.test", "acme/app"))["USERNAME"]).toBe("acme");
    expect((await read(given, "r.test", "other/app"))["USERNAME"]).toBe("all");
  });

  test("never makes a credential helper run", async () => {
    const config = { credsStore: "evil", credHelpers: { "r.test": "evil" }, auths: {} };
    const error = await refusal(
      read(object({ stringData: { ".dockerconfigjson": JSON.stringify(config) } })),
    );
    expect(error.code).toBe("no_credentials");
  });

  test("without the registry is named, with what to do", async () => {
    const error = await refusal(read(manifest, "other.test"));
    expect(error.code).toBe("no_credentials");
    expect(error.message).toBe("the Secret default/regcred: no credential for other.test");
    expect((await refusal(read("kind: ConfigMap\ndata: {}\n"))).code).toBe("no_credentials");
  });

  test("that another contradicts is refused, both by name", async () => {
    const items = ["one", "two"].map((user) =>
      object({ stringData: { ".dockerconfigjson": configJson("r.test", user) } }, user),
    );
    const error = await refusal(read({ kind: "List", items }));
    expect(error.message).toBe("the Secret one and the Secret two hold different credentials for r.test");
  });
});

describe("what is no pull Secret", () => {
  const bomb = Array.from({ length: 20 }, (_, n) => `a${n}: &a${n} [${`*a${n - 1},`.repeat(9)}x]`).join("\n");
  test.each<[string, string]>([
    ["an alias bomb", bomb.replaceAll("*a-1,", "")],
    ["a merge bomb", `base: &b\n${"  k: 1\n".repeat(1000)}${"x: {<<: *b}\n".repeat(1000)}`],
    ["depth without end", "[".repeat(500_000)],
    ["depth in one line", "- ".repeat(300_000)],
    ["depth by indentation", Array.from({ length: 2000 }, (_, n) => `${" ".repeat(n)}a:`).join("\n")],
    ["too much of it", `a: ${"x".repeat(5_000_000)}`],
    ["broken YAML", `data: {${secret}\n: [`],
    ["nothing", ""],
    ["a number", "1"],
    [
      "a Secret whose content is no JSON",
      JSON.stringify(object({ stringData: { ".dockerconfigjson": secret } })),
    ],
    [
      "a Secret whose data are no text",
      JSON.stringify(object({ data: { ".dockerconfigjson": { x: secret } } })),
    ],
    ["a Secret in itself", "&a {kind: List, items: [*a]}"],
    ["a config in itself", "auths: &a {r.test: *a}"],
  ])("%s is refused soon and without being quoted", async (_, text) => {
    const started = performance.now();
    expect(["bad_value", "no_credentials"]).toContain((await refusal(read(text))).code);
    expect(performance.now() - started).toBeLessThan(5000);
  });
});
