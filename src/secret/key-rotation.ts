import { sleep } from "../std/wait.ts";
import { SecretError } from "./error.ts";
import type { KeyEncryptionKey } from "./kek.ts";
import type { ControlProcessStore } from "./key-process-store.ts";
import { type WrappedRow, type WrappedRowStore, wrappedKinds } from "./key-rows-store.ts";
import { type KeyStore, unknownKey } from "./key-store.ts";
import { openUnder, type SealPlace, sealWith } from "./keyring.ts";
import type { HeldKey, LiveKeyring } from "./keyring-live.ts";
import { workspaceKeyAad } from "./workspace-store.ts";

export interface RotationDependencies {
  readonly ring: LiveKeyring;
  readonly keys: KeyStore;
  readonly rows: WrappedRowStore;
  readonly processes: Pick<ControlProcessStore, "live">;
  /** How long a process that lacks the new key is waited for; those that share its folder see it at once. */
  readonly patienceMs?: number;
}

/** How far a rotation is. */
export interface RotationProgress {
  readonly to: string;
  readonly rewrapped: number;
  /** Rows under another key still. */
  readonly left: number;
  readonly done: boolean;
}

const batchRows = 100;
const passesMax = 10;

/**
 * Makes another key primary, then wraps every row anew with it, while everything is in use: a reader has the old key as
 * well as the new one, whichever a row is under just then. A row that changed since it was read is left for the next pass.
 * May be ended at any time and begun again with the same key: what is done stays done.
 *
 * @param to id of a key or its name in `[keys]`; empty: a new key file
 * @throws SecretError `not_found`, `bad_value` (a new file would take a key service's place), `key_missing` (a live process could not go on), `conflict` (another rotation began),
 *   `undecryptable` (rows that do not open, once all others are done), `key_unreachable`, `key_refused`
 */
export async function* rotateKey(
  dependencies: RotationDependencies,
  to: string,
  signal: AbortSignal,
): AsyncGenerator<RotationProgress> {
  const { ring, keys, rows, processes, patienceMs = 15_000 } = dependencies;
  const target = await targetOf(ring, to);
  const { key } = target;
  await tryKey(key);
  await keys.announce();
  await waitForAll(processes, target, patienceMs, signal);
  if ((await keys.primaryId()) !== key.id) {
    await keys.makePrimary({ id: key.id, kind: key.kind, exportedAt: target.exportedAt });
  }
  const progress = { to: key.id, rewrapped: 0, done: false };
  yield { ...progress, left: await rows.countNotUnder(key.id) };
  const failures = new Map<string, unknown>();
  for (let pass = 0; pass < passesMax; pass += 1) {
    const before = progress.rewrapped;
    failures.clear();
    for (const kind of wrappedKinds) {
      let after: string | undefined;
      for (;;) {
        signal.throwIfAborted();
        await assertPrimary(keys, key.id);
        const batch = await rows.notUnder(kind, key.id, { after, limit: batchRows });
        for (const row of batch) {
          signal.throwIfAborted();
          try {
            const next = await rewrap(ring, row, key);
            if (await rows.replace(row, next)) progress.rewrapped += 1;
          } catch (error) {
            if (!(error instanceof SecretError) || error.code !== "undecryptable") throw error;
            failures.set(`${row.kind} ${row.id}`, error);
          }
        }
        after = batch.at(-1)?.id;
        if (batch.length > 0) yield { ...progress, left: await rows.countNotUnder(key.id) };
        if (batch.length < batchRows) break;
      }
    }
    const left = await rows.countNotUnder(key.id);
    if (left === 0) {
      yield { ...progress, left, done: true };
      return;
    }
    if (progress.rewrapped === before && left <= failures.size) break;
  }
  throw leftOver(key.id, await rows.countNotUnder(key.id), failures);
}

/** What a row holds, under another key. The caller of {@link rotateKey} never sees it in the clear. */
async function rewrap(
  ring: LiveKeyring,
  row: WrappedRow,
  key: KeyEncryptionKey,
): Promise<Pick<WrappedRow, "keyId" | "wrapped">> {
  if (row.kind === "workspace") {
    const old = await ring.key(row.keyId, `the secrets of workspace ${row.id}`);
    const plain = await old.unwrap(row.wrapped, workspaceKeyAad(row.id, row.keyId));
    try {
      return { keyId: key.id, wrapped: await key.wrap(plain, workspaceKeyAad(row.id, key.id)) };
    } finally {
      plain.fill(0);
    }
  }
  const place: SealPlace = { kind: row.kind, id: row.id, part: "private key" };
  const plain = await openUnder(ring, place, { sealed: row.wrapped, keyId: row.keyId });
  try {
    const { sealed, keyId } = await sealWith(key, place, plain);
    return { keyId, wrapped: sealed };
  } finally {
    plain.fill(0);
  }
}

async function targetOf(ring: LiveKeyring, to: string): Promise<HeldKey> {
  if (to === "") {
    await refuseToLeaveService(ring);
    return await ring.make();
  }
  const found = await ring.find(to);
  if (found !== undefined) return found;
  if (/^[0-9a-f]{16}$/.test(to) || to.includes(":")) throw unknownKey(to);
  return await ring.make(to);
}

/** A file is a step down from a key service: whoever wants that says so. */
async function refuseToLeaveService(ring: LiveKeyring): Promise<void> {
  const { id, kind } = await ring.primary();
  if (kind === "file" || kind === "env") return;
  throw new SecretError(
    "bad_value",
    `the primary key ${id} is kept by a key service, which rotates it by itself`,
    {
      next: "To go on to another key, name it: oci-node key rotate --to ID|NAME.",
    },
  );
}

/**
 * Wraps something and opens it again: that a key is closed to us is found out before it is primary.
 *
 * @throws SecretError `key_refused`, `key_unreachable`
 */
export async function tryKey(key: KeyEncryptionKey): Promise<void> {
  const place = new TextEncoder().encode("oci-node key trial");
  const trial = crypto.getRandomValues(new Uint8Array(32));
  const back = await key.unwrap(await key.wrap(trial, place), place);
  if (!Buffer.from(back).equals(trial)) {
    throw new SecretError("key_refused", `the key ${key.id} does not give back what was wrapped with it`);
  }
}

/** Waits until every gateway and scheduler that lives can use a key. @throws SecretError `key_missing` */
async function waitForAll(
  processes: RotationDependencies["processes"],
  { key, place }: HeldKey,
  patienceMs: number,
  signal: AbortSignal,
): Promise<void> {
  const endMs = Date.now() + patienceMs;
  for (;;) {
    const lacking = (await processes.live()).filter(({ keyIds }) => !keyIds.includes(key.id));
    if (lacking.length === 0) return;
    if (Date.now() >= endMs) {
      const who = lacking.map(({ host, roles }) => `${host} (${roles.join(",")})`).join(", ");
      const there =
        key.kind === "file"
          ? `Copy ${place} there with \`oci-node key export\` and \`import\``
          : "Add it to [keys] there";
      throw new SecretError(
        "key_missing",
        `${who} cannot use the key ${key.id}, so it did not become primary`,
        {
          next: `${there}, then: oci-node key rotate --to ${key.id}. A process that is gone stops counting after two minutes.`,
        },
      );
    }
    await sleep(250, signal);
  }
}

async function assertPrimary(keys: KeyStore, id: string): Promise<void> {
  const primary = await keys.primaryId();
  if (primary === id) return;
  throw new SecretError("conflict", `another rotation began: the key ${primary} is primary now, not ${id}`, {
    next: "See `oci-node key ls`; `oci-node key rotate --to ID` goes on to the key that you want.",
  });
}

function leftOver(id: string, left: number, failures: ReadonlyMap<string, unknown>): SecretError {
  const [first] = failures;
  const [what, error] = first ?? ["", undefined];
  const rows = left === 1 ? "1 row is" : `${left} rows are`;
  const why = error instanceof SecretError ? `: ${what} does not open: ${error.message}` : "";
  return new SecretError(
    "undecryptable",
    `the key ${id} is primary, but ${rows} under another key still${why}`,
    {
      next:
        error instanceof SecretError && error.next !== undefined
          ? error.next
          : `Then: oci-node key rotate --to ${id}.`,
    },
  );
}
