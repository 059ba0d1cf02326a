import { dockerServerOf } from "./docker-config.ts";
import { passwordPair } from "./password-pair.ts";
import type { HandedOut } from "./wire.ts";

export interface PullSecretOptions {
  /** Of the Secret in Kubernetes. */
  readonly name: string;
  readonly namespace: string | undefined;
}

export interface PullSecretEntry extends HandedOut {
  readonly registry: string;
  /** Empty: it is good for all of the registry. */
  readonly repository: string;
  readonly validUntil: Date | undefined;
}

/** When the first of a Secret's credentials ends, for whoever renews it. */
const endAnnotation = "oci-node/valid-until";

/**
 * The manifest of a pull Secret (`kubernetes.io/dockerconfigjson`), as `kubectl create secret docker-registry` makes it,
 * for `kubectl apply -f -`.
 *
 * @throws CredentialError `bad_value` for a credential that Kubernetes cannot use
 */
export function pullSecret(entries: readonly PullSecretEntry[], options: PullSecretOptions): object {
  const auths = Object.fromEntries(
    entries.map((entry) => {
      const { username, password } = passwordPair(entry);
      const auth = Buffer.from(`${username}:${password}`).toString("base64");
      return [keyOf(entry), { username, password, auth }];
    }),
  );
  const end = endOf(entries);
  return {
    apiVersion: "v1",
    kind: "Secret",
    metadata: {
      name: options.name,
      ...(options.namespace === undefined ? {} : { namespace: options.namespace }),
      ...(end === undefined ? {} : { annotations: { [endAnnotation]: end.toISOString() } }),
    },
    type: "kubernetes.io/dockerconfigjson",
    data: { ".dockerconfigjson": Buffer.from(JSON.stringify({ auths })).toString("base64") },
  };
}

/** When the first of them ends; undefined: none has an end that is known. */
export function endOf(entries: readonly PullSecretEntry[]): Date | undefined {
  const ends = entries.flatMap(({ validUntil }) => validUntil ?? []);
  return ends.toSorted((one, other) => one.getTime() - other.getTime())[0];
}

function keyOf({ registry, repository }: PullSecretEntry): string {
  return repository === "" ? dockerServerOf(registry) : `${registry}/${repository}`;
}
