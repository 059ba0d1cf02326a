import { createClient } from "@connectrpc/connect";
import { dockerServerOf, placeOf } from "../credential/docker-config.ts";
import { tokenUserName } from "../credential/docker-helper.ts";
import { CredentialError } from "../credential/error.ts";
import { describeShortLived } from "../credential/short-lived.ts";
import { credentialMap } from "../credential/value.ts";
import { credentialsToWire } from "../credential/wire.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { CliError, connectTransport } from "./context.ts";
import { failureLine, getReleased, imageOf } from "./released.ts";

/**
 * The protocol of Docker's credential helpers (docker-credential-helpers, credentials/credentials.go): the question on
 * standard input, the answer or the reason on standard output, exit code 0 or 1.
 */
export const dockerActions = ["get", "list", "store", "erase"] as const;
export type DockerAction = (typeof dockerActions)[number];

const inputLengthMax = 64 * 1024;
const missingServer = "no credentials server URL";
const missingUser = "no credentials username";

/** Does what Docker asks for; gives the exit code. Whatever goes wrong is one line on standard output, for Docker to show. */
export async function answerDocker(action: DockerAction): Promise<number> {
  try {
    const answer = await answerTo(action);
    if (answer !== undefined) process.stdout.write(`${JSON.stringify(answer)}\n`);
    return 0;
  } catch (thrown) {
    process.stdout.write(`${thrown instanceof ProtocolError ? thrown.message : failureLine(thrown)}\n`);
    return 1;
  }
}

/** One of the sentences that Docker knows. */
class ProtocolError extends Error {}

async function answerTo(action: DockerAction): Promise<object | undefined> {
  if (action === "list") return await list();
  const input = await Bun.stdin.text();
  if (input.length > inputLengthMax) throw new CliError("failed", "the question is too long");
  if (action === "store") return void (await store(input));
  const server = input.trim();
  if (server === "") throw new ProtocolError(missingServer);
  return action === "get" ? await get(server) : void (await erase(server));
}

async function get(server: string): Promise<object> {
  const { username, secret } = await getReleased(imageOf(server), undefined);
  return { ServerURL: server, Username: username, Secret: secret };
}

/** Addresses and user names of what the workspace has, without asking whether it may be given out. */
async function list(): Promise<object> {
  const { secrets } = await createClient(SecretService, connectTransport()).listSecrets({});
  return Object.fromEntries(
    secrets
      .filter(({ registry }) => registry !== "")
      .map(({ registry, principal }) => [dockerServerOf(registry), principal]),
  );
}

/**
 * What `docker login` gives becomes the workspace's secret for the account: a new one, or the next version. A second
 * account is refused, as Docker could not tell the two apart, and so is a token that ends by itself.
 */
async function store(input: string): Promise<void> {
  const { server, username, secret } = parseStored(input);
  const registry = registryOf(server);
  const token = username === tokenUserName;
  const credentials = credentialMap(
    token ? { REGISTRY_IDENTITY_TOKEN: secret } : { USERNAME: username, PASSWORD: secret },
  );
  const ends = describeShortLived(registry, credentials);
  if (ends !== undefined) {
    throw new CredentialError("bad_value", `this is ${ends}; it was not stored`, {
      next: `Store the keys that it is made with: oci-node secret create ${registry} --creds KEY,KEY`,
    });
  }
  const [type, principal] = token ? ["token", "default"] : ["basic", username];
  const client = createClient(SecretService, connectTransport());
  const fitting = (await client.listSecrets({})).secrets.filter((other) => other.registry === registry);
  const own = fitting.find((secret) => secret.type === type && secret.principal === principal);
  const [other] = fitting;
  if (own !== undefined) {
    await client.updateSecret({ name: own.name, credentials: credentialsToWire(credentials) });
  } else if (other === undefined) {
    await client.createSecret({ name: "", registry, credentials: credentialsToWire(credentials) });
  } else {
    throw new CredentialError(
      "bad_value",
      `the workspace has a secret of another account for ${registry}: ${other.name} (${other.principal}); nothing was stored`,
      { next: "Remove that, or keep both with `oci-node secret create`." },
    );
  }
}

function parseStored(input: string): { server: string; username: string; secret: string } {
  let parsed: { ServerURL?: unknown; Username?: unknown; Secret?: unknown } | null = null;
  try {
    parsed = JSON.parse(input);
  } catch {
    // The parser's message could quote the password.
  }
  const text = (value: unknown): string => (typeof value === "string" ? value : "");
  const [server, username, secret] = [text(parsed?.ServerURL), text(parsed?.Username), text(parsed?.Secret)];
  if (server === "") throw new ProtocolError(missingServer);
  if (username === "") throw new ProtocolError(missingUser);
  return { server, username, secret };
}

/** What `docker logout` names goes, unless images use it or it is not clear which is meant. */
async function erase(server: string): Promise<void> {
  const registry = registryOf(server);
  const client = createClient(SecretService, connectTransport());
  const fitting = (await client.listSecrets({})).secrets.filter((secret) => secret.registry === registry);
  const [only, ...others] = fitting;
  if (only === undefined) throw new CredentialError("no_credentials", "there is none");
  if (others.length > 0) {
    const names = fitting.map(({ name }) => name).join(", ");
    throw new CliError("failed", `the workspace has several secrets for ${registry}: ${names}`, {
      next: "Remove the right one with `oci-node secret rm NAME`.",
    });
  }
  await client.deleteSecret({ name: only.name, force: false });
}

function registryOf(server: string): string {
  const place = placeOf(server);
  if (place !== undefined && place.path === "") return place.registry;
  throw new CliError("failed", "credentials are kept for a registry as a whole", {
    next: "Name the registry alone, without a path.",
  });
}
