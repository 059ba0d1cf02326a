import { calculateJwkThumbprint, exportJWK, exportPKCS8, generateKeyPair, importPKCS8, type JWK } from "jose";
import { logger } from "../std/log.ts";
import { SingleFlight } from "../std/single-flight.ts";
import { SecretError } from "./error.ts";
import type { IdentityKeyRow, IdentityKeyStore } from "./identity-key-store.ts";
import { type Keyring, openUnder, type SealPlace, sealUnder } from "./keyring.ts";

const log = logger("secret");
const dayMs = 24 * 3_600_000;
/** A key of this age gets a successor. */
const successorAfterMs = 90 * dayMs;
/** A successor is published this long before it signs: clouds keep the list of keys that they fetched for so long. */
const publishedBeforeMs = dayMs;
/** A key that signs no more is published for this long. */
const publishedAfterMs = dayMs;
/** How old what this process knows of the rows may be. */
const knownForMs = 60_000;

/** What is to be done with keys of these ages at a moment. The oldest come first. */
export function planKeys(keys: readonly Pick<IdentityKeyRow, "id" | "createdAt">[], nowMs: number) {
  const agesMs = keys.map(({ createdAt }) => nowMs - createdAt.getTime());
  const signsSince = (index: number) => (agesMs[index] ?? 0) - publishedBeforeMs;
  const signing = Math.max(
    agesMs.findLastIndex((ageMs) => ageMs >= publishedBeforeMs),
    0,
  );
  const gone = keys.filter((_, index) => index < signing && signsSince(index + 1) >= publishedAfterMs);
  return {
    /** Undefined: there is none. */
    signing: keys[signing]?.id,
    needsSuccessor: (agesMs.at(-1) ?? Number.POSITIVE_INFINITY) >= successorAfterMs,
    published: keys.filter((key) => !gone.includes(key)).map(({ id }) => id),
    gone: gone.map(({ id }) => id),
  };
}

/**
 * The keys (RSA, 2048 bits) that sign the workspaces' tokens. The first is made when one is needed; every 90 days a new
 * one joins it, signs from the next day on, and the old one leaves a day after that. The private halves are sealed under
 * the key-encryption key; of several processes one makes a key and all use it.
 */
export class IdentityKeys {
  readonly #store: IdentityKeyStore;
  readonly #ring: Keyring;
  readonly #now: () => number;
  readonly #flight = new SingleFlight<readonly IdentityKeyRow[]>();
  #known: { readonly rows: readonly IdentityKeyRow[]; readonly atMs: number } | undefined;
  #vetted: { readonly rows: readonly IdentityKeyRow[]; readonly own: readonly IdentityKeyRow[] } | undefined;
  /** Ids of keys that this cluster made. */
  readonly #own = new Set<string>();
  #opened: { readonly kid: string; readonly key: CryptoKey } | undefined;

  constructor(store: IdentityKeyStore, ring: Keyring, now: () => number = Date.now) {
    this.#store = store;
    this.#ring = ring;
    this.#now = now;
  }

  /** The key to sign with now. Throws SecretError `undecryptable`. */
  async signing(): Promise<{ readonly kid: string; readonly key: CryptoKey }> {
    const rows = await this.#rows();
    const { signing } = planKeys(rows, this.#now());
    const row = rows.find(({ id }) => id === signing);
    if (row === undefined) throw new SecretError("not_found", "there is no key that signs identity tokens");
    if (this.#opened?.kid !== row.id) this.#opened = { kid: row.id, key: await this.#open(row) };
    return this.#opened;
  }

  /** The public halves that verifiers may need now (RFC 7517). Throws SecretError `key_unreachable`, `key_refused`. */
  async published(): Promise<JWK[]> {
    const rows = await this.#rows();
    const { published } = planKeys(rows, this.#now());
    if (this.#vetted?.rows !== rows) this.#vetted = { rows, own: await this.#ownOf(rows) };
    return this.#vetted.own
      .filter(({ id }) => published.includes(id))
      .map(({ id, publicJwk: { kty, n, e } }) => ({ kty, n, e, kid: id, use: "sig", alg: "RS256" }) as JWK);
  }

  async #rows(): Promise<readonly IdentityKeyRow[]> {
    const known = this.#known;
    if (known !== undefined && Math.abs(this.#now() - known.atMs) < knownForMs) return known.rows;
    return await this.#flight.run("", async () => {
      const found = await this.#store.list();
      const rows = planKeys(found, this.#now()).needsSuccessor ? await this.#succeed() : found;
      this.#known = { rows, atMs: this.#now() };
      return rows;
    });
  }

  /**
   * The rows whose private half opens. A cloud believes whatever is signed with a key that is published: who only writes the table
   * must not get one of his own in.
   */
  async #ownOf(rows: readonly IdentityKeyRow[]): Promise<IdentityKeyRow[]> {
    const own: IdentityKeyRow[] = [];
    for (const row of rows) {
      if (await this.#isOwn(row)) own.push(row);
      else log.error("a signing key is not published: its row does not open", { key: row.id });
    }
    return own;
  }

  async #isOwn(row: IdentityKeyRow): Promise<boolean> {
    if ((await thumbprintOf(row.publicJwk)) !== row.id) return false;
    if (this.#own.has(row.id)) return true;
    try {
      await this.#open(row);
      this.#own.add(row.id);
      return true;
    } catch (error) {
      if (error instanceof SecretError && error.code === "undecryptable") return false;
      throw error;
    }
  }

  async #succeed(): Promise<readonly IdentityKeyRow[]> {
    return await this.#store.change(async (keys) => {
      const { needsSuccessor, gone } = planKeys(keys, this.#now());
      return needsSuccessor ? { add: await this.#make(), remove: gone } : { remove: gone };
    });
  }

  async #make(): Promise<IdentityKeyRow> {
    const pair = await generateKeyPair("RS256", { modulusLength: 2048, extractable: true });
    const publicJwk = await exportJWK(pair.publicKey);
    const id = await calculateJwkThumbprint(publicJwk);
    const pem = Buffer.from(await exportPKCS8(pair.privateKey), "utf8");
    const { sealed, keyId } = await sealUnder(this.#ring, placeOf(id), pem);
    pem.fill(0);
    return { id, publicJwk, wrappedPrivateKey: sealed, keyId, createdAt: new Date(this.#now()) };
  }

  async #open({ id, keyId, wrappedPrivateKey }: IdentityKeyRow): Promise<CryptoKey> {
    const pem = await openUnder(this.#ring, placeOf(id), { sealed: wrappedPrivateKey, keyId });
    const key = await importPKCS8(pem.toString("utf8"), "RS256");
    pem.fill(0);
    return key;
  }
}

async function thumbprintOf(publicJwk: JWK): Promise<string | undefined> {
  return await calculateJwkThumbprint(publicJwk).catch(() => undefined);
}

function placeOf(id: string): SealPlace {
  return { kind: "identity key", id, part: "private key" };
}
