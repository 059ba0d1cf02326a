import { createClient } from "@connectrpc/connect";
import {
  CredentialRights,
  HealthService,
  HealthState,
  type SecretHealth,
} from "../gen/oci_node/v1/health_service_pb.ts";
import { SecretService } from "../gen/oci_node/v1/secret_service_pb.ts";
import { FewAtOnce } from "../std/few-at-once.ts";
import { command, words } from "./action.ts";
import { connectTransport } from "./context.ts";
import { ago, note, printJson, printTable } from "./output.ts";
import { dateOf, healthShape, secretShape, stateOfHealth } from "./shape.ts";

const checksAtOnce = 4;

interface HealthFlags {
  readonly json: boolean;
  readonly check: boolean;
  readonly fail: boolean;
}

export const health = command<HealthFlags, [string | undefined]>({
  brief: "Show how secrets fare at their registries",
  fullDescription:
    "Shows how secrets fare at their registries: ok, expiring (it works, and ends within 14 days), failing (the registry or " +
    "the issuer refuses it), unknown (not checked yet, or nobody could be asked). Schedulers check each secret by themselves; " +
    "--check does it now. The exit code is 0 whatever is shown, unless --fail is given.",
  flags: {
    check: { kind: "boolean", default: false, brief: "Ask the registries now" },
    fail: { kind: "boolean", default: false, brief: "Exit with 1 if a secret is failing" },
  },
  positional: {
    kind: "tuple",
    parameters: [
      { parse: String, placeholder: "NAME", brief: "Name of a secret; by default all", optional: true },
    ],
  },
  async run(flags, name = "") {
    const client = createClient(HealthService, connectTransport());
    let { secrets } = await client.listSecretHealth({ secretName: name });
    if (flags.check) {
      const few = new FewAtOnce(checksAtOnce, Number.POSITIVE_INFINITY);
      const checked = secrets.map(({ secretName }) => few.run(() => client.checkSecret({ secretName })));
      secrets = (await Promise.all(checked)).flatMap(({ health: one }) => (one === undefined ? [] : [one]));
    }
    if (flags.json) printJson(secrets.map(healthShape));
    else show(secrets);
    return flags.fail && secrets.some(({ state }) => state === HealthState.FAILING) ? 1 : 0;
  },
});

function show(secrets: readonly SecretHealth[]): void {
  printTable(
    ["NAME", "REGISTRY", "STATE", "SINCE", "EXPIRES", "RIGHTS", "IMAGES", "CONTAINERS", "REASON"],
    secrets.map((secret) => [
      secret.secretName,
      secret.registry,
      stateOfHealth(secret.state),
      secret.since === undefined ? "-" : `${ago(dateOf(secret.since))} ago`,
      dateOf(secret.expiresAt)?.toISOString().slice(0, 10) ?? "-",
      secret.rights === CredentialRights.PUSH
        ? "push"
        : secret.rights === CredentialRights.PULL
          ? "pull"
          : "-",
      String(secret.imageIds.length),
      String(secret.containerIds.length),
      secret.reason || "-",
    ]),
  );
  for (const line of secrets.flatMap(adviceOf)) note(line);
}

/** What its owner should do or know. */
export function adviceOf(secret: SecretHealth): string[] {
  const { secretName: name, registry, next, state, rights } = secret;
  const advice: string[] = [];
  if (state !== HealthState.OK && next !== "") advice.push(`${name}: ${next}`);
  if (rights === CredentialRights.PUSH) {
    advice.push(
      `${name}: it may push to ${registry}, which no container needs: whoever gets hold of it can replace your images. Give an account that may only pull.`,
    );
  }
  return advice;
}

export const inspectSecret = command<{ json: boolean }, [string]>({
  brief:
    "Show a secret as JSON: versions, health, the images and living containers that use it; never its value",
  positional: words({ placeholder: "NAME", brief: "Name of the secret" }),
  async run(_, name) {
    const { secret } = await createClient(SecretService, connectTransport()).getSecret({ name });
    if (secret !== undefined) printJson(secretShape(secret));
    return 0;
  },
});

/** What is said of a secret that was just kept. */
export function sayHealth(secret: SecretHealth | undefined): void {
  if (secret === undefined) return;
  const { state, registry, reason } = secret;
  if (state === HealthState.OK && reason === "") note(`checked: ${registry} takes it`);
  else note(`note: ${stateOfHealth(state)}: ${reason}`);
  for (const line of adviceOf(secret)) note(`note: ${line}`);
}
