import { createHash, type Hash, randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, rm } from "node:fs/promises";
import { join } from "node:path";
import { codePieceBytes } from "../container/code-store.ts";
import { formatSize } from "../std/size.ts";
import { EndpointError } from "./error.ts";

const digest = /^[0-9a-f]{64}$/;

/** An archive of code on its way in: in a file without a name, so that nothing of it is left, however this ends. */
export class CodeUpload {
  readonly #file: FileHandle;
  readonly #sha256: string;
  readonly #bytesMax: number;
  readonly #hash: Hash = createHash("sha256");
  #bytes = 0;

  private constructor(file: FileHandle, sha256: string, bytesMax: number) {
    this.#file = file;
    this.#sha256 = sha256;
    this.#bytesMax = bytesMax;
  }

  /**
   * @param folder on a disk, not in memory; made when it is missing
   * @throws EndpointError `bad_spec` when that is no digest
   */
  static async begin(folder: string, sha256: string, bytesMax: number): Promise<CodeUpload> {
    assertDigest(sha256);
    await mkdir(folder, { recursive: true, mode: 0o700 });
    const path = join(folder, randomUUID());
    const file = await open(path, "wx+", 0o600);
    await rm(path);
    return new CodeUpload(file, sha256, bytesMax);
  }

  /** @throws EndpointError `code_too_large`, before what is too much is written */
  async add(data: Uint8Array): Promise<void> {
    if (data.length > codePieceBytes)
      throw new EndpointError("bad_spec", "a piece of an archive of code is longer than 1 MiB", {
        next: "Send it in pieces of at most 1 MiB.",
      });
    if (this.#bytes + data.length > this.#bytesMax) throw codeTooLarge(this.#bytesMax);
    this.#hash.update(data);
    // At a place of its own choosing: the file's own is another's while it is read.
    let written = 0;
    while (written < data.length) {
      const { bytesWritten } = await this.#file.write(
        data,
        written,
        data.length - written,
        this.#bytes + written,
      );
      written += bytesWritten;
    }
    this.#bytes += data.length;
  }

  /** All of it has come. Returns its size. @throws EndpointError `code_refused` when it is not what was said */
  finish(): number {
    const found = this.#hash.digest("hex");
    if (this.#bytes > 0 && found === this.#sha256) return this.#bytes;
    throw new EndpointError(
      "code_refused",
      this.#bytes === 0
        ? "the archive of code is empty"
        : `the archive of code has the SHA-256 ${found}, and ${this.#sha256} was said: it was damaged or cut short`,
      { next: "Upload it again." },
    );
  }

  /** The bytes of a stored archive's piece. */
  async piece(position: number): Promise<Uint8Array> {
    const start = position * codePieceBytes;
    const bytes = Buffer.alloc(Math.max(0, Math.min(codePieceBytes, this.#bytes - start)));
    let filled = 0;
    while (filled < bytes.length) {
      const { bytesRead } = await this.#file.read(bytes, filled, bytes.length - filled, start + filled);
      if (bytesRead === 0) throw new Error("the file of an upload became shorter");
      filled += bytesRead;
    }
    return bytes;
  }

  /** All of it, in pieces. */
  async *pieces(): AsyncGenerator<Uint8Array> {
    for (let position = 0; position * codePieceBytes < this.#bytes; position += 1)
      yield await this.piece(position);
  }

  /** Gives its disk back. */
  async close(): Promise<void> {
    await this.#file.close();
  }
}

/** @throws EndpointError `bad_spec` */
export function assertDigest(sha256: string): void {
  if (digest.test(sha256)) return;
  throw new EndpointError("bad_spec", "the digest of an archive of code is not one", {
    next: "Give the SHA-256 of the archive: 64 digits of 0–9, a–f.",
  });
}

export function codeTooLarge(bytesMax: number): EndpointError {
  return new EndpointError(
    "code_too_large",
    `the archive of code is larger than ${formatSize(bytesMax)}, which the operator allows`,
    {
      next: "Leave out what the handler does not need (.ocinodeignore), put large files into the image, or ask the operator for a larger endpoints.code_max.",
    },
  );
}
