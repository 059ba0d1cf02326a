import { expect, test } from "bun:test";
import { CredentialError } from "./error.ts";
import { credentialsFromKubernetes } from "./kubernetes-secret.ts";
import { type PullSecretEntry, pullSecret } from "./pull-secret.ts";

const entry = (registry: string, more: Partial<PullSecretEntry> = {}): PullSecretEntry => ({
  registry,
  repository: "",
  username: "robot",
  secret: "p:w",
  validUntil: undefined,
  ...more,
});
const options = { name: "regcred", namespace: undefined };

async function read(manifest: object, registry: string, repository = "app") {
  const found = await credentialsFromKubernetes({ registry, repository }, JSON.stringify(manifest));
  return [found["USERNAME"]?.expose(), found["PASSWORD"]?.expose()];
}

test("a pull Secret is what kubectl makes of the same", () => {
  const auth = Buffer.from("robot:p:w").toString("base64");
  const content = { auths: { "https://index.docker.io/v1/": { username: "robot", password: "p:w", auth } } };
  expect(pullSecret([entry("docker.io")], { name: "regcred", namespace: "prod" })).toEqual({
    apiVersion: "v1",
    kind: "Secret",
    metadata: { name: "regcred", namespace: "prod" },
    type: "kubernetes.io/dockerconfigjson",
    data: { ".dockerconfigjson": Buffer.from(JSON.stringify(content)).toString("base64") },
  });
});

test("a pull Secret is read as it was written, and says when the first of its credentials ends", async () => {
  const [sooner, later] = [new Date("2026-01-01T01:00:00Z"), new Date("2026-01-01T12:00:00Z")];
  const entries = [
    entry("a.test:5000", { validUntil: later }),
    entry("b.test", { username: "other" }),
    entry("b.test", { username: "narrow", repository: "team/app" }),
    entry("acme.azurecr.io", { username: "<token>", validUntil: sooner }),
  ];
  const manifest = pullSecret(entries, options);
  expect(manifest).toMatchObject({
    metadata: { annotations: { "oci-node/valid-until": sooner.toISOString() } },
  });
  expect(await read(manifest, "a.test:5000")).toEqual(["robot", "p:w"]);
  expect(await read(manifest, "b.test")).toEqual(["other", "p:w"]);
  expect(await read(manifest, "b.test", "team/app")).toEqual(["narrow", "p:w"]);
  expect(await read(manifest, "acme.azurecr.io")).toEqual(["00000000-0000-0000-0000-000000000000", "p:w"]);
});

test("an identity token for another registry than Azure's is refused, as Kubernetes cannot use it", () => {
  expect(() => pullSecret([entry("r.test", { username: "<token>" })], options)).toThrow(CredentialError);
});
