import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import type { CredentialTarget } from "../credential/docker-config.ts";
import { credentialsToWire } from "../credential/wire.ts";
import { ImageService } from "../gen/oci_node/v1/image_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { normalizeRegistry, parseReference } from "../reference/reference.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { type CredentialFlags, credentialFlags, identityFlag, readCredentials } from "./credentials.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { dateOf, secretShape } from "./shape.ts";

interface ValueFlags extends CredentialFlags {
  readonly json: boolean;
}

/** Values come by `--creds…`, else as KEY=value lines on standard input. */
async function readValues(flags: CredentialFlags, target: CredentialTarget) {
  const fromFlags = await readCredentials(flags, target, { kept: true });
  if (fromFlags !== undefined) return fromFlags;
  if (process.stdin.isTTY === true) note("KEY=value lines, then Ctrl-D:");
  return (await readCredentials({ credsFile: "-" }, target, { kept: true })) ?? {};
}

const valuesDescription =
  "Without flags for the credential, KEY=value lines are read from standard input. " +
  "The value is not tried at the registry: `image build` does that.";

const create = command<ValueFlags & { name?: string }, [string]>({
  brief: "Keep registry credentials for a registry",
  fullDescription: valuesDescription,
  flags: {
    ...credentialFlags,
    ...identityFlag,
    name: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Name of the secret; by default made from the registry",
      placeholder: "NAME",
    },
  },
  positional: words({ placeholder: "REGISTRY", brief: "Registry host, or an image reference in it" }),
  async run(flags, text) {
    const target = text.includes("/") ? parseReference(text) : { registry: normalizeRegistry(text) };
    const { registry } = target;
    const credentials = credentialsToWire(await readValues(flags, target));
    const client = createClient(SecretService, connectTransport());
    const { secret } = await client.createSecret({ name: flags.name ?? "", registry, credentials });
    if (secret === undefined) throw new CliError("failed", "the node made no secret");
    if (flags.json) printJson(secretShape(secret));
    else printLine(secret.name);
    return 0;
  },
});

const update = command<ValueFlags, [string]>({
  brief: "Rotate a secret: the very next run uses the new value",
  fullDescription: `The very next run uses the new value, and containers that run go on with it from their next renewal. ${valuesDescription}`,
  flags: credentialFlags,
  positional: words({ placeholder: "NAME", brief: "Name of the secret" }),
  async run(flags, name) {
    const client = createClient(SecretService, connectTransport());
    const current = await client.getSecret({ name });
    const credentials = credentialsToWire(
      await readValues(flags, { registry: current.secret?.registry ?? "" }),
    );
    const { secret, changed } = await client.updateSecret({ name, credentials });
    if (flags.json) printJson({ ...(secret === undefined ? {} : secretShape(secret)), changed });
    else if (changed) {
      printLine(`${name}: version ${secret?.version}`);
      await adviseTrial(name, secret?.imageIds ?? []);
    } else printLine(`${name}: unchanged, the value is the same`);
    return 0;
  },
});

/** A wrong value would be found out by the next run only: a build of an image that uses the secret tries it now. */
async function adviseTrial(name: string, imageIds: readonly string[]): Promise<void> {
  if (imageIds.length === 0) return;
  const { images } = await createClient(ImageService, connectTransport()).listImages({});
  const image = images.find(({ id }) => imageIds.includes(id));
  if (image === undefined) return;
  note(
    `note: not tried at ${image.registry}; to try it: oci-node image build ${image.reference} --secret ${name}`,
  );
}

const list = command<{ json: boolean }>({
  brief: "List secrets; never their values",
  async run(flags) {
    const { secrets } = await createClient(SecretService, connectTransport()).listSecrets({});
    if (flags.json) {
      printJson(secrets.map(secretShape));
      return 0;
    }
    printTable(
      ["NAME", "REGISTRY", "TYPE", "PRINCIPAL", "VERSION", "IMAGES", "UPDATED"],
      secrets.map((secret) => [
        secret.name,
        secret.registry,
        secret.type,
        secret.principal,
        String(secret.version),
        String(secret.imageIds.length),
        `${ago(dateOf(secret.updatedAt))} ago`,
      ]),
    );
    return 0;
  },
});

const remove = command<{ json: boolean; force: boolean }, [string]>({
  brief: "Remove a secret; refused while images use it",
  flags: { force: { kind: "boolean", default: false, brief: "Remove it although images use it" } },
  positional: words({ placeholder: "NAME", brief: "Name of the secret" }),
  async run(flags, name) {
    await createClient(SecretService, connectTransport()).deleteSecret({ name, force: flags.force });
    if (flags.json) printJson({ removed: name });
    else printLine(name);
    return 0;
  },
});

export const secretRoutes = buildRouteMap({
  routes: { ls: list, create, update, rm: remove },
  docs: { brief: "Look after registry credentials" },
});
