import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open, rm } from "node:fs/promises";
import { RuntimeError } from "../error.ts";
import { type CodeSize, readCodeArchive } from "./archive.ts";
import { CodeFolder } from "./folder.ts";

/** A piece of the code of a container that runs here, from 0, and how many there are. @throws RuntimeError `code` */
export type FetchCodePiece = (
  containerId: string,
  sha256: string,
  position: number,
  signal: AbortSignal,
) => Promise<{ readonly data: Uint8Array; readonly pieces: number }>;

export interface CodeToFetch {
  readonly containerId: string;
  readonly sha256: string;
  /** Does not exist; nobody else makes it. */
  readonly archivePath: string;
  /** Empty. */
  readonly folder: string;
  readonly unpackedBytesMax: number;
}

/** Fetches an archive of code, verifies it, and unpacks it into an empty folder. @throws RuntimeError `code` */
export async function fetchCode(
  fetchPiece: FetchCodePiece,
  wanted: CodeToFetch,
  signal: AbortSignal,
): Promise<CodeSize> {
  const { containerId, sha256, archivePath, folder, unpackedBytesMax } = wanted;
  const hash = createHash("sha256");
  let archiveBytes = 0;
  const file = await open(archivePath, "wx", 0o600);
  try {
    for (let position = 0, pieces = 1; position < pieces; position += 1) {
      signal.throwIfAborted();
      const piece = await fetchPiece(containerId, sha256, position, signal);
      ({ pieces } = piece);
      archiveBytes += piece.data.length;
      // What is larger compressed than it may be unpacked is not what was let in.
      if (archiveBytes > unpackedBytesMax)
        throw new RuntimeError(
          "code",
          "the archive of code is larger than the operator of this worker allows",
          {
            next: "Ask for a larger endpoints.code_unpacked_max in the worker's own configuration.",
          },
        );
      hash.update(piece.data);
      await file.writeFile(piece.data);
    }
    if (hash.digest("hex") !== sha256)
      throw new RuntimeError(
        "code",
        "the code that was fetched is not what was deployed: its digest differs",
        {
          next: "Deploy it again; if that repeats, something changes it in the database or on the way.",
        },
      );
    return await readCodeArchive(createReadStream(archivePath), unpackedBytesMax, new CodeFolder(folder));
  } finally {
    await file.close();
    await rm(archivePath, { force: true });
  }
}
