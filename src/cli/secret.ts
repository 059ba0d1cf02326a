import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { createClient } from "@connectrpc/connect";
import { buildRouteMap } from "@stricli/core";
import type { CredentialTarget } from "../credential/docker-config.ts";
import { credentialsToWire } from "../credential/wire.ts";
import { HealthState } from "../gen/oci_node/v1/health_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { normalizeRegistry, parseReference } from "../reference/reference.ts";
import { command, words } from "./action.ts";
import { CliError, connectTransport } from "./context.ts";
import { type CredentialFlags, credentialFlags, identityFlag, readCredentials } from "./credentials.ts";
import { parseExpiry } from "./expiry.ts";
import { type OpaqueFlags, opaqueFlags, readOpaqueValue, showOpaque } from "./opaque-secret.ts";
import { ago, note, printJson, printLine, printTable } from "./output.ts";
import { health, inspectSecret, sayHealth } from "./secret-health.ts";
import { dateOf, secretShape, stateOfHealth } from "./shape.ts";

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
  "The credential is tried first: one that the registry (or the cloud that issues it) refuses is not kept. " +
  "One that cannot be tried now is kept, and checked later: see `oci-node secret health`.";

const keepFlags = {
  expires: {
    kind: "parsed",
    parse: String,
    optional: true,
    placeholder: "WHEN",
    brief: "When the credential ends, if you know: 30d, 2027-01-01",
  },
  unchecked: { kind: "boolean", default: false, brief: "Keep it without trying it" },
} as const;

interface KeepFlags extends ValueFlags {
  readonly expires?: string;
  readonly unchecked: boolean;
}

function endOf({ expires }: KeepFlags) {
  return expires === undefined ? {} : { expiresAt: timestampFromDate(parseExpiry(expires)) };
}

const create = command<KeepFlags & OpaqueFlags & { name?: string; opaque: boolean }, [string]>({
  brief: "Keep registry credentials for a registry, or (--opaque) a value for containers",
  fullDescription:
    `${valuesDescription} With --opaque, the value of NAME is read from --from-file or standard input, at most 64 KiB, and ` +
    "containers get it by `oci-node run --secret-env` or `--secret-file`.",
  flags: {
    ...credentialFlags,
    ...identityFlag,
    ...keepFlags,
    ...opaqueFlags,
    opaque: { kind: "boolean", default: false, brief: "A value for containers, kept as NAME" },
    name: {
      kind: "parsed",
      parse: String,
      optional: true,
      brief: "Name of the secret; by default made from the registry",
      placeholder: "NAME",
    },
  },
  positional: words({
    placeholder: "REGISTRY|NAME",
    brief: "Registry host, or HOST/REPOSITORY[:TAG]: where it is tried; with --opaque the secret's name",
  }),
  async run(flags, text) {
    if (flags.opaque) return await createOpaque(flags, text);
    if (flags.fromFile !== undefined) throw notOpaque();
    const target = text.includes("/") ? parseReference(text) : { registry: normalizeRegistry(text) };
    const { registry } = target;
    const repository = "repository" in target ? `${target.repository}:${target.tag ?? "latest"}` : "";
    const end = endOf(flags);
    const credentials = credentialsToWire(await readValues(flags, target));
    const client = createClient(SecretService, connectTransport());
    const { name = "", unchecked } = flags;
    const { secret } = await client.createSecret({
      name,
      registry,
      credentials,
      repository,
      unchecked,
      ...end,
    });
    if (secret === undefined) throw new CliError("failed", "the node made no secret");
    if (flags.json) printJson(secretShape(secret));
    else {
      printLine(secret.name);
      sayHealth(secret.health);
    }
    return 0;
  },
});

async function createOpaque(
  flags: KeepFlags & OpaqueFlags & { name?: string },
  name: string,
): Promise<number> {
  refuseCredentialFlags(flags);
  if (flags.name !== undefined && flags.name !== name)
    throw new CliError("usage", "--opaque NAME names the secret already: leave --name away");
  const value = await readOpaqueValue(flags);
  const { secret } = await createClient(SecretService, connectTransport()).createSecret({ name, value });
  if (secret === undefined) throw new CliError("failed", "the node made no secret");
  showOpaque(secret, flags.json);
  return 0;
}

function refuseCredentialFlags(flags: KeepFlags): void {
  const given = [flags.creds, flags.credsFile, flags.credsFrom, flags.identity, flags.expires];
  if (given.every((flag) => flag === undefined)) return;
  throw new CliError("usage", "a value for containers has no credentials and no end", {
    next: "Give it by --from-file FILE or standard input.",
  });
}

function notOpaque(): CliError {
  return new CliError("usage", "--from-file holds the value of an opaque secret", {
    next: "Credentials come by --creds-file FILE; a value for containers is kept with --opaque.",
  });
}

const update = command<KeepFlags & OpaqueFlags, [string]>({
  brief: "Rotate a secret: the very next run uses the new value",
  fullDescription: `The very next run uses the new value, and containers that run go on with it from their next renewal. ${valuesDescription}`,
  flags: { ...credentialFlags, ...keepFlags, ...opaqueFlags },
  positional: words({ placeholder: "NAME", brief: "Name of the secret" }),
  async run(flags, name) {
    const end = endOf(flags);
    const client = createClient(SecretService, connectTransport());
    const current = await client.getSecret({ name });
    if (current.secret?.type === "opaque") refuseCredentialFlags(flags);
    else if (flags.fromFile !== undefined) throw notOpaque();
    const given =
      current.secret?.type === "opaque"
        ? { value: await readOpaqueValue(flags) }
        : {
            credentials: credentialsToWire(
              await readValues(flags, { registry: current.secret?.registry ?? "" }),
            ),
          };
    const { secret, changed } = await client.updateSecret({
      name,
      ...given,
      unchecked: flags.unchecked,
      ...end,
    });
    if (flags.json) printJson({ ...(secret === undefined ? {} : secretShape(secret)), changed });
    else {
      printLine(
        changed ? `${name}: version ${secret?.version}` : `${name}: unchanged, the value is the same`,
      );
      sayHealth(secret?.health);
    }
    return 0;
  },
});

const list = command<{ json: boolean }>({
  brief: "List secrets; never their values",
  async run(flags) {
    const { secrets } = await createClient(SecretService, connectTransport()).listSecrets({});
    if (flags.json) {
      printJson(secrets.map(secretShape));
      return 0;
    }
    printTable(
      ["NAME", "REGISTRY", "TYPE", "PRINCIPAL", "VERSION", "HEALTH", "IMAGES", "UPDATED"],
      secrets.map((secret) => [
        secret.name,
        secret.registry || "-",
        secret.type,
        secret.principal || "-",
        String(secret.version),
        secret.type === "opaque" ? "-" : stateOfHealth(secret.health?.state ?? HealthState.UNKNOWN),
        String(secret.imageIds.length),
        `${ago(dateOf(secret.updatedAt))} ago`,
      ]),
    );
    return 0;
  },
});

const remove = command<{ json: boolean; force: boolean }, [string]>({
  brief: "Remove a secret; refused while images, endpoints or living containers use it",
  flags: { force: { kind: "boolean", default: false, brief: "Remove it although it is used" } },
  positional: words({ placeholder: "NAME", brief: "Name of the secret" }),
  async run(flags, name) {
    await createClient(SecretService, connectTransport()).deleteSecret({ name, force: flags.force });
    if (flags.json) printJson({ removed: name });
    else printLine(name);
    return 0;
  },
});

export const secretRoutes = buildRouteMap({
  routes: { ls: list, create, update, inspect: inspectSecret, health, rm: remove },
  docs: { brief: "Look after registry credentials and values for containers" },
});
