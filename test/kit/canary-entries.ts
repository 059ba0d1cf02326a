import { generateKeyPairSync } from "node:crypto";
import { createClient } from "@connectrpc/connect";
import { SecretService } from "../../src/gen/oci_node/v1/secret_service_pb.ts";
import { transportTo } from "../../src/rpc/transport.ts";
import type { CanaryWorld } from "./canary-world.ts";

/** An entry: how it is called, and what plants a credential of its own by it. Each of them has to be taken. */
export type Entry = readonly [
  name: string,
  plant: (world: CanaryWorld, reference: string, token: string) => Promise<void>,
];

const base64 = (text: string) => Buffer.from(text).toString("base64");

/** Admits an account whose password is a canary. */
async function account(world: CanaryWorld, username: string, entry: string) {
  const password = world.canaries.password(entry);
  await world.admit({ username, password });
  return { username, password, lines: `USERNAME=${username}\nPASSWORD=${password}\n` };
}

const build = (reference: string, ...flags: string[]) =>
  ["image", "build", reference, "--index-only", ...flags] as const;

/** Of clouds, for which nothing answers as it should. */
async function keep(world: CanaryWorld, registry: string, values: Record<string, string>, name: string) {
  const stdin = Object.entries(values).map(([key, value]) => `${key}=${value}\n`);
  await world.ok(["secret", "create", registry, "--name", name, "--unchecked"], {
    stdin: stdin.join(""),
  });
}

export const entries: readonly Entry[] = [
  [
    "the command line's --creds, from variables",
    async (world, reference) => {
      const { username, password } = await account(world, "by-variables", "--creds");
      await world.ok(build(reference, "--creds", "USERNAME,PASSWORD"), {
        env: { USERNAME: username, PASSWORD: password },
      });
    },
  ],
  [
    "a file, by --creds-file",
    async (world, reference) => {
      const { lines } = await account(world, "by-file", "--creds-file");
      await world.ok(build(reference, "--creds-file", await world.put("creds", lines)));
    },
  ],
  [
    "standard input of secret create and update",
    async (world) => {
      const { lines } = await account(world, "by-input", "secret create");
      const host = world.registry.host;
      await world.ok(["secret", "create", host, "--name", "by-input"], { stdin: lines });
      const rotated = await account(world, "by-input", "secret update");
      await world.ok(["secret", "update", "by-input"], { stdin: rotated.lines });
    },
  ],
  [
    "Docker's configuration",
    async (world, reference) => {
      const { username, password } = await account(world, "by-docker", "docker's auths");
      const auths = { [world.registry.host]: { auth: base64(`${username}:${password}`) } };
      const file = await world.put("docker.json", JSON.stringify({ auths }));
      await world.ok(build(reference, "--creds-from", `docker:${file}`));
    },
  ],
  [
    "a credential helper of Docker's",
    async (world, reference) => {
      const { username, password } = await account(world, "by-helper", "docker's helper");
      const answer = JSON.stringify({ ServerURL: world.registry.host, Username: username, Secret: password });
      await world.put("docker-credential-canary", `#!/bin/sh\ncat >/dev/null\necho '${answer}'\n`, 0o755);
      const file = await world.put("helped.json", JSON.stringify({ credsStore: "canary" }));
      const env = { PATH: `${world.own}:/usr/local/bin:/usr/bin:/bin` };
      await world.ok(build(reference, "--creds-from", `docker:${file}`), { env });
    },
  ],
  [
    "Podman's auth.json",
    async (world, reference) => {
      const { username, password } = await account(world, "by-podman", "podman's auth.json");
      const auths = { [world.registry.host]: { auth: base64(`${username}:${password}`) } };
      const file = await world.put("auth.json", JSON.stringify({ auths }));
      await world.ok(build(reference, "--creds-from", `podman:${file}`));
    },
  ],
  [
    "a Secret of Kubernetes",
    async (world, reference) => {
      const { username, password } = await account(world, "by-kubernetes", "a Secret of Kubernetes");
      const config = { auths: { [world.registry.host]: { username, password } } };
      const secret = {
        apiVersion: "v1",
        kind: "Secret",
        type: "kubernetes.io/dockerconfigjson",
        metadata: { name: "pull" },
        data: { ".dockerconfigjson": base64(JSON.stringify(config)) },
      };
      const stdin = JSON.stringify(secret);
      await world.ok(build(reference, "--creds-from", "kubernetes:-"), { stdin });
    },
  ],
  [
    "docker login, by our own helper's store",
    async (world) => {
      const password = world.canaries.password("credential store");
      const stdin = JSON.stringify({ ServerURL: "login.invalid", Username: "by-login", Secret: password });
      await world.ok(["credential", "store"], { stdin });
    },
  ],
  [
    "a program with the generated client",
    async (world, _, token) => {
      const { username, password } = await account(world, "by-client", "the generated client");
      const client = createClient(SecretService, transportTo({ url: world.url, token }));
      const credentials = { USERNAME: username, PASSWORD: password };
      const made = await client.createSecret({ registry: world.registry.host, credentials });
      world.said.push({ who: "client", text: JSON.stringify(made.secret?.name) });
    },
  ],
  [
    "JSON over HTTP",
    async (world, _, token) => {
      const { username, password } = await account(world, "by-json", "JSON");
      const body = { registry: world.registry.host, credentials: { USERNAME: username, PASSWORD: password } };
      const { status, text } = await world.raw("SecretService/CreateSecret", body, token);
      if (status !== 200) throw new Error(text);
    },
  ],
  [
    "a value for containers, as a variable and as a file",
    async (world, reference) => {
      const flags = ["--secret-env", "opaque=MINE", "--secret-file", "opaque"];
      const script = '[ "$MINE" = "$(cat /run/secrets/opaque)" ] && printf %s "$MINE" | wc -c';
      for (const verb of ["create", "update"]) {
        const stdin = world.canaries.password(`an opaque secret (${verb})`);
        await world.ok(["secret", verb, ...(verb === "create" ? ["--opaque"] : []), "opaque"], { stdin });
        const said = await world.ok(["run", ...flags, reference, "--", "sh", "-c", script]);
        if (said.trim() !== "42") throw new Error(`the container says ${said}`);
      }
    },
  ],
  [
    "bearer and identity tokens",
    async (world) => {
      const { canaries } = world;
      await keep(world, "tokens.invalid", { REGISTRY_TOKEN: canaries.password("a bearer token") }, "bearer");
      const token = canaries.password("an identity token");
      await keep(world, "tokens.invalid", { REGISTRY_IDENTITY_TOKEN: token }, "identity-token");
    },
  ],
  [
    "keys of Amazon's, Google's and Azure's",
    async (world) => {
      const { canaries } = world;
      await keep(
        world,
        "111111111111.dkr.ecr.eu-west-1.amazonaws.com",
        {
          AWS_ACCESS_KEY_ID: "AKIAIOSFODNN7EXAMPLE",
          AWS_SECRET_ACCESS_KEY: canaries.password("Amazon's secret key"),
          AWS_SESSION_TOKEN: canaries.password("Amazon's session token"),
        },
        "amazon",
      );
      const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
      const pem = privateKey.export({ type: "pkcs8", format: "pem" }) as string;
      const key = {
        type: "service_account",
        project_id: "p",
        client_email: "puller@p.iam.gserviceaccount.com",
        private_key_id: "1",
        private_key: canaries.privateKey("a service account's key", pem),
        token_uri: "https://oauth2.googleapis.com/token",
      };
      await keep(
        world,
        "us-docker.pkg.dev",
        { GOOGLE_APPLICATION_CREDENTIALS: JSON.stringify(key) },
        "google",
      );
      await keep(
        world,
        "acme.azurecr.io",
        {
          AZURE_CLIENT_ID: "11111111-1111-1111-1111-111111111111",
          AZURE_CLIENT_SECRET: canaries.password("Azure's client secret"),
          AZURE_TENANT_ID: "22222222-2222-2222-2222-222222222222",
        },
        "azure",
      );
    },
  ],
];
