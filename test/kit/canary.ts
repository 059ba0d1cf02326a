import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { tryRun } from "../../src/std/spawn.ts";

/** A credential that is nowhere on this machine but where somebody put it. */
export interface Canary {
  /** By which way it was put in: `--creds`, `webhook's signing key`. */
  readonly entry: string;
  /** A piece of it that identifies it, 12 to 24 bytes. */
  readonly piece: Buffer;
}

/** What was found: which canary, in which form, where. */
export interface Hit {
  readonly entry: string;
  readonly form: string;
  readonly place: string;
}

const pieceBytesMax = 24;

/** A new password, of letters and digits: what escapes is written with every character escaped, too. */
export function newPassword(): string {
  return `Cn${randomBytes(20).toString("hex")}`;
}

/** Canaries, and where they must not be. */
export class Canaries {
  readonly #all: Canary[] = [];
  #needles: readonly { readonly entry: string; readonly form: string; readonly bytes: Buffer }[] = [];

  get entries(): readonly string[] {
    return this.#all.map(({ entry }) => entry);
  }

  /** Remembers a value, by a piece of its middle; gives it back. */
  plant(entry: string, value: string): string;
  plant(entry: string, value: Buffer): Buffer;
  plant(entry: string, value: string | Buffer): string | Buffer {
    const bytes = Buffer.from(value as string);
    if (bytes.length < 12) throw new Error(`${entry} is too short to be told from chance`);
    const start = Math.max(0, Math.floor((bytes.length - pieceBytesMax) / 2));
    const piece = bytes.subarray(start, start + pieceBytesMax);
    this.#all.push({ entry, piece });
    this.#needles = this.#all.flatMap((canary) =>
      formsOf(canary.piece).map(([form, text]) => ({ entry: canary.entry, form, bytes: text })),
    );
    return value;
  }

  /** A new password by an entry. */
  password(entry: string): string {
    return this.plant(entry, newPassword());
  }

  /** A private key as PEM: its text, and the bytes that are in it. */
  privateKey(entry: string, pem: string): string {
    const body = pem.replace(/-----[^-]+-----|\s/g, "");
    this.plant(`${entry} (PEM)`, body);
    this.plant(`${entry} (bytes)`, Buffer.from(body, "base64"));
    return pem;
  }

  inText(place: string, text: string | Buffer): Hit[] {
    const bytes = Buffer.isBuffer(text) ? text : Buffer.from(text);
    return this.#needles
      .filter((needle) => bytes.includes(needle.bytes))
      .map(({ entry, form }) => ({ entry, form, place }));
  }

  /** Every file below the folders, whatever is in it. */
  async inFiles(folders: readonly string[]): Promise<Hit[]> {
    const scratch = await mkdtemp(join(tmpdir(), "canary-needles-"));
    try {
      const patterns = join(scratch, "needles");
      const lines = this.#needles.map(({ bytes }) => bytes).filter((bytes) => !bytes.includes("\n"));
      await writeFile(patterns, Buffer.concat(lines.flatMap((line) => [line, Buffer.from("\n")])));
      const found = await tryRun(["grep", "-rlaF", "--devices=skip", "-f", patterns, ...folders], {
        timeoutMs: 120_000,
        env: { LC_ALL: "C" },
      });
      // 2: a file went away meanwhile, or a socket cannot be read; that nothing else was wrong is seen by what is found.
      if (found.exitCode > 2) throw new Error(`grep ended with ${found.exitCode}: ${found.stderr}`);
      const hits: Hit[] = [];
      for (const path of found.stdout.split("\n").filter((line) => line !== ""))
        hits.push(...this.inText(path, Buffer.from(await Bun.file(path).arrayBuffer())));
      return hits;
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  }
}

/** The ways in which bytes show: as they are, base64 of three alignments and two alphabets, escaped, in hexadecimal. */
export function formsOf(piece: Buffer): readonly (readonly [form: string, bytes: Buffer])[] {
  const text = piece.toString("latin1");
  const each = (show: (code: string) => string) =>
    [...piece].map((byte) => show(byte.toString(16).padStart(2, "0"))).join("");
  const shown: [string, string][] = [
    ["hexadecimal", piece.toString("hex")],
    ["upper-case hexadecimal", piece.toString("hex").toUpperCase()],
    ["percent-encoded", each((hex) => `%${hex}`)],
    ["upper-case percent-encoded", each((hex) => `%${hex.toUpperCase()}`)],
    ["JSON-escaped", each((hex) => `\\u00${hex}`)],
    ["upper-case JSON-escaped", each((hex) => `\\u00${hex.toUpperCase()}`)],
    ["reversed", [...text].reverse().join("")],
  ];
  for (const offset of [0, 1, 2]) {
    // What depends on the bytes before and behind is left away.
    const base64 = Buffer.concat([Buffer.alloc(offset), piece])
      .toString("base64")
      .replace(/=+$/, "");
    const inner = base64.slice(Math.ceil((offset * 8) / 6), Math.floor(((offset + piece.length) * 8) / 6));
    shown.push([`base64 at ${offset}`, inner]);
    const urlSafe = inner.replaceAll("+", "-").replaceAll("/", "_");
    if (urlSafe !== inner) shown.push([`url-safe base64 at ${offset}`, urlSafe]);
  }
  const isText = /^[\x20-\x7e]*$/.test(text);
  const escaped = isText ? [encodeURIComponent(text), JSON.stringify(text).slice(1, -1)] : [];
  for (const [at, form] of ["URL-encoded", "JSON"].entries()) {
    const way = escaped[at];
    if (way !== undefined && way !== text) shown.push([form, way]);
  }
  return [["clear", piece], ...shown.map(([form, way]) => [form, Buffer.from(way, "latin1")] as const)];
}
